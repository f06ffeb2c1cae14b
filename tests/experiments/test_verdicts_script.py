"""The script that compares verdicts sees each that is another, and none that is not."""

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnet
from experiments import verdicts

pytestmark = pytest.mark.slow

CASES = ("cases/mlp_b1_sign", "cases/loss_is_nan", "rules/rule_divide_wrong")
CASE, ROW = CASES[0], "candidate ['b1']"
MEASURED = ("resolution", "error", "bound")

FOLDER = {
    "given/gradients.py": """
import os
import numpy as np
import jax.numpy as jnp

def ends(params):
    os._exit(3)

def case(id, f, g=None, **kw):
    return dict(id=id, f=f, x=np.ones(2), g=g, kw=kw)

sines = lambda x: jnp.sum(jnp.sin(x))
CASES = [
    case("ends", ends),
    case("default", sines, safety=8.0),
    case("named", sines, {"mine": jnp.cos, "autodiff": lambda x: 2 * jnp.cos(x)}),
]
""",
    "given/rules.py": """
import jax.numpy as jnp
import numpy as np

RULES = [dict(id="sine", mode="jvp", f=jnp.sin, args=(np.ones(2),), kw={})]
""",
    "tests/test_some.py": """
import jax.numpy as jnp
import pytest
from jaxnet import check_gradients, check_vjp

@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_sine(factor):
    assert check_vjp(jnp.sin, jnp.ones(2)).passed
    cosines = lambda x: factor * jnp.cos(x)
    report = check_gradients(lambda x: jnp.sum(jnp.sin(x)), jnp.ones(2), cosines)
    assert report.passed
    with pytest.raises(TypeError):
        check_vjp(jnp.argmax, jnp.ones(2))
""",
}

Dump = dict[str, Any]
Run = Callable[..., tuple[int, str]]


def run(*flags: str | Path) -> int:
    """The exit status of the script, run by its command line."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["verdicts", *map(str, flags)])
        with pytest.raises(SystemExit) as end:
            verdicts.main()
    assert isinstance(end.value.code, int)
    return end.value.code


def answers(path: Path) -> Dump:
    """What a run wrote."""
    return json.loads(path.read_text())["cases"]


@pytest.fixture(scope="module")
def dump(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The answers to CASES."""
    path = tmp_path_factory.mktemp("verdicts") / "new" / "before.json"
    assert run("--part", *CASES, "--out", path) == 0
    return path


def changed(path: Path, change: Callable[[Dump], Any]) -> Path:
    """A copy of a file of answers with a change in it."""
    found = json.loads(path.read_text())
    change(found["cases"])
    copy = path.with_name("changed.json")
    copy.write_text(json.dumps(found))
    return copy


def test_a_dump_keeps_all_that_was_answered(dump: Path) -> None:
    """Verdict, place, cause and numbers; a demand; an exception."""
    found = answers(dump)
    assert list(found) == list(CASES)
    assert found[CASE]["verdict"] == "DISAGREE"
    assert found[CASE]["evaluations"] > 0
    row = found[CASE]["rows"][ROW]
    assert (row["verdict"], row["passed"]) == ("DISAGREE", False)
    assert "sign" in row["cause"]
    assert len(row["place"]) == 1
    assert all(row[name] > 0 for name in MEASURED)
    assert found[CASES[1]]["raised"].startswith("ValueError: `loss(params)`")
    assert found[CASES[2]]["rows"]["vjp linear in cotangent"]["passed"]


def test_the_same_is_the_same(dump: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Asked again, in two processes: nothing differs, and none is forgotten."""
    flags = ["--part", *CASES, "--processes", "2"]
    assert run(*flags, "--against", dump) == 0
    text = capsys.readouterr().out
    assert "3 cases compared: 0 differences of what is decided" in text
    assert "no change of resolution" in text
    assert "no change of evaluations" in text


def set_in_row(what: str, value: Any) -> Callable[[Dump], Any]:
    """A change of one entry of one leaf."""
    return lambda found: found[CASE]["rows"][ROW].update({what: value})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (set_in_row("verdict", "AGREE"), f"verdict  {CASE}, {ROW}: AGREE -> DISAGREE"),
        (set_in_row("passed", True), f"passed   {CASE}, {ROW}: True -> False"),
        (set_in_row("place", [9]), f"place    {CASE}, {ROW}: [9] -> ["),
        (set_in_row("cause", "×2"), f"cause    {CASE}, {ROW}: ×2 -> "),
        (lambda x: x[CASE].update(passed=True), f"passed   {CASE}, report: True -> "),
        (lambda x: x[CASE]["rows"].pop(ROW), f"{CASE}, {ROW}: absent -> DISAGREE"),
        (lambda x: x[CASE].update(raised="E: e"), f"{CASE}, report: E: e -> a report"),
        (lambda x: x.update({"cases/more": x[CASE]}), "missing  cases/more"),
    ],
)
def test_what_is_decided_otherwise_is_an_error(
    change: Callable[[Dump], Any],
    said: str,
    dump: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """One line each, and exit status 1; less what differs between earlier runs."""
    before = changed(dump, change)
    assert run("--given", dump, "--against", before) == 1
    assert said in capsys.readouterr().out
    if not said.startswith("missing"):
        assert run("--given", dump, "--against", before, dump) == 0
        assert "differences left out" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda x: x[CASE].update(notes=["a"]),
            f"notes    {CASE}, report: ['a'] -> []",
        ),
        (lambda x: x[CASE].update(evaluations=1), "1 changes of evaluations"),
        (set_in_row("resolution", 1.0), "1 changes of resolution"),
        (set_in_row("resolution", "nan"), "1 changes of resolution"),
        (lambda x: x.update({"other/a": x[CASE]}), "1 cases of sources that were not"),
        (lambda x: x.pop(CASE), f"1 new cases: {CASE}"),
    ],
)
def test_the_rest_is_only_said(
    change: Callable[[Dump], Any],
    said: str,
    dump: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Notes, numbers, and cases that one of the two runs did not ask."""
    assert run("--given", dump, "--against", changed(dump, change)) == 0
    assert said in capsys.readouterr().out


def test_a_resolution_may_change_a_little() -> None:
    """By a factor 2; NaN stays NaN."""
    assert verdicts.change("1e-9", "1.9e-9") < verdicts.FINER
    assert verdicts.change("1e-9", "2.1e-9") > verdicts.FINER
    assert verdicts.change("nan", "nan") < verdicts.FINER


@pytest.mark.parametrize(
    "numbers_of_demands", [{}, {"worst_index": (1,), "error": 0.0, "bound": np.nan}]
)
def test_a_demand_is_the_same_in_a_list_of_its_own(
    numbers_of_demands: dict[str, Any],
) -> None:
    """As a leaf, and as an entry of `demands` with fewer numbers.

    Blind spots may be called survivors.
    """
    said = {"verdict": jaxnet.Verdict.AGREE, "passed": True, "cause": ""}
    said["candidate"] = "vjp"
    numbers = {"worst_index": (1,), **dict.fromkeys(MEASURED, np.nan)}
    leaf = SimpleNamespace(path="[0]", **said, **numbers)
    as_leaf = SimpleNamespace(path="linear", **said, **numbers)
    demand = SimpleNamespace(name="linear", **said, **numbers_of_demands)
    whole = {"verdict": jaxnet.Verdict.AGREE, "passed": True, "evaluations": 3}
    whole |= {"notes": (), "held": (), "odd_one_out": None}
    reports = (
        SimpleNamespace(leaves=[leaf, as_leaf], survivors=("a",), **whole),
        SimpleNamespace(leaves=[leaf], demands=[demand], blind_spots=("a",), **whole),
    )
    before, after = map(verdicts.as_answer, reports)
    assert before["rows"].keys() == {"vjp [0]", "vjp linear"}
    assert before["blind_spots"] == ["a"]
    assert not list(verdicts.differences(before, after))
    assert not list(verdicts.differences(after, before))


def question(candidates: Any) -> verdicts.Question:
    """A small one."""

    def loss(x: Any) -> Any:
        return jnp.sum(jnp.sin(x))

    return verdicts.Question("gradients", loss, np.ones(2), candidates)


@pytest.mark.parametrize(
    "candidates",
    [None, jnp.cos, {"autodiff": jnp.cos}, {"a": jnp.cos, "b": lambda x: x}],
)
def test_a_verdict_by_name_is_found(
    candidates: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A check that says more of what is called autodiff does so by the name alone."""
    found = verdicts.answer(question(candidates), again=True)["renamed"]
    assert found == {"counts": candidates is not None, "lines": []}
    check = jaxnet.check_gradients

    def partial_to_autodiff(*args: Any, **options: Any) -> Any:
        report = check(*args, **options)
        leaves = tuple(
            replace(x, cause="autodiff's") if x.candidate == "autodiff" else x
            for x in report.leaves
        )
        return replace(report, leaves=leaves)

    monkeypatch.setattr(jaxnet, "check_gradients", partial_to_autodiff)
    found = verdicts.answer(question(candidates), again=True)["renamed"]
    assert {what for what, *_ in found["lines"]} == {"cause"}


def test_two_answers_to_one_question_are_no_matter_of_names() -> None:
    """A candidate that counts its calls."""
    calls = [0.0]

    def counted(x: Any) -> jax.Array:
        calls[0] += 1
        return jnp.cos(x) * calls[0]

    found = verdicts.answer(question({"counted": counted}), again=True)
    assert found["verdict"] == "NONDETERMINISTIC"
    assert found["renamed"]["lines"] == []


def test_folders_and_a_process_that_ends(tmp_path: Path) -> None:
    """Cases and tests that others wrote; the end of a process is one answer."""
    for name, text in FOLDER.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    out = tmp_path / "out.json"
    folders = ["--cases", tmp_path / "given", "--tests", tmp_path / "tests"]
    assert run(*folders, "--part", "given/", "tests/", "--out", out) == 0
    found = answers(out)
    asked = [f"test_some.py::test_sine[{x}]#{n}" for x in (1.0, 2.0) for n in (1, 2, 3)]
    assert list(found) == [
        "given/gradients/ends",
        "given/gradients/default",
        "given/gradients/named",
        "given/rules/sine",
        *(f"tests/{name}" for name in asked if name != asked[5]),
    ]
    assert found["given/gradients/ends"] == {"raised": "the process ended by exit(3)"}
    assert found["given/gradients/default"]["passed"]
    assert found["given/gradients/named"]["odd_one_out"] == "autodiff"
    assert "jvp linear in tangent" in found["given/rules/sine"]["rows"]
    assert found[f"tests/{asked[1]}"]["passed"]
    assert found[f"tests/{asked[2]}"]["raised"].startswith("TypeError")
    assert not found[f"tests/{asked[4]}"]["passed"]
