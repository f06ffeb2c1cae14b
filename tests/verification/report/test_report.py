"""The report: its verdict, its table, and its way to JSON and back."""

import dataclasses
import functools
import html
import json
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet.verification import (
    GradientMismatch,
    GradientReport,
    LeafReport,
    Verdict,
    check_gradients,
)

X = np.random.default_rng(0).standard_normal((3, 4))


def loss(params: Any) -> Any:
    """Σ sin x + Σ relu y."""
    smooth = jnp.sum(jnp.sin(params["a leaf whose name is rather long"]["x"]))
    return smooth + jnp.sum(jax.nn.relu(params["y"]))


PARAMS = {
    "a leaf whose name is rather long": {"x": X},
    "y": np.array([0.5, 0.0, -1.0]),
    "n": np.arange(3),
}


def wrong(params: Any) -> Any:
    """One entry of x is off."""
    g = jax.grad(loss, allow_int=True)(params)
    name = "a leaf whose name is rather long"
    return {**g, name: {"x": g[name]["x"].at[1, 2].multiply(1.01)}}


def right(params: Any) -> Any:
    """JAX's own."""
    return jax.grad(loss, allow_int=True)(params)


CHECKS: dict[str, tuple[Any, Any, Any]] = {
    "right": (loss, PARAMS, {"right": right}),
    "wrong": (loss, PARAMS, {"right": right, "wrong": wrong}),
    "malformed": (loss, PARAMS, {"y": np.zeros(3)}),
    "bare": (lambda x: jnp.sum(x**2), X, {"candidate": 3 * X}),
}
EACH = pytest.mark.parametrize("name", CHECKS)


@functools.cache
def made(name: str) -> GradientReport:
    """One of four reports, made once."""
    return check_gradients(*CHECKS[name])


def leaf(verdict: Verdict, passed: bool = False, **fields: Any) -> LeafReport:
    """A record that was never measured."""
    return LeafReport("['w']", "hand", (2,), verdict, passed, **fields)


@EACH
def test_json_is_the_report(name: str) -> None:
    """Every field of every record; NaN is null, and infinity a string."""
    report = made(name)
    written = json.loads(report.to_json())
    assert set(written) == {field.name for field in dataclasses.fields(report)}
    for row, record in zip(written["leaves"], report.leaves, strict=True):
        for field in dataclasses.fields(record):
            value, got = getattr(record, field.name), row[field.name]
            if isinstance(value, Verdict):
                assert got == value.value
            elif isinstance(value, float):
                same = got is None if math.isnan(value) else float(got) == value
                assert same
            else:
                assert got == (list(value) if isinstance(value, tuple) else value)


@EACH
def test_json_holds_plain_values(name: str) -> None:
    """Anything that reads JSON finds verdict and path of each leaf."""
    leaves = json.loads(made(name).to_json())["leaves"]
    assert {x["verdict"] for x in leaves} <= {v.value for v in Verdict}
    assert all(isinstance(x["path"], str) for x in leaves)


def test_raise_if_failed() -> None:
    """Nothing for a report that passed; else an AssertionError with the table."""
    made("right").raise_if_failed()
    with pytest.raises(GradientMismatch) as caught:
        made("wrong").raise_if_failed()
    assert str(caught.value) == str(made("wrong"))
    assert isinstance(caught.value, AssertionError)


@EACH
def test_the_table_fits_100_columns(name: str) -> None:
    """No line is longer, none ends with spaces, and no colour is in it."""
    for line in str(made(name)).splitlines():
        assert len(line) <= 100
        assert line == line.rstrip()
        assert "\x1b" not in line


def test_a_table_of_long_names_fits_too() -> None:
    """Long paths keep their ends, which tell them apart; long causes are wrapped."""
    long = dataclasses.replace(
        leaf(Verdict.DISAGREE, cause="a word and another " * 20),
        path="".join(f"['level{i}']" for i in range(30)) + "['weight']",
        candidate="a candidate with a very long name",
        shape=(1024, 1024, 64, 64, 3),
    )
    report = GradientReport(
        leaves=(long,), held=("['x']",) * 50, notes=("seen " * 50,), blind_spots=("s",)
    )
    text = str(report)
    assert max(map(len, text.splitlines())) <= 100
    assert "['weight']" in text


@EACH
def test_the_table_opens_with_a_sentence_and_the_worst_leaf(name: str) -> None:
    """PASSED or FAILED, and of what failed the first row is named in the sentence."""
    report = made(name)
    head, _, rest = str(report).partition("\n\n")
    assert head.startswith("PASSED: " if report.passed else "FAILED: ")
    first = rest.splitlines()[1]
    assert report.worst.path[-20:] in first or first.startswith("params")
    if not report.passed:
        assert " ".join(report.worst.place.split()) in " ".join(head.split())


def test_the_sentence_says_how_fine_the_check_was() -> None:
    """And that a kink was set aside."""
    text = str(made("right"))
    assert text.startswith("PASSED: kinks aside, right is right on 2 leaves; errors")
    assert "held fixed: ['n']" in text
    assert f"{made('right').evaluations} evaluations" in text


def test_the_table_says_both_values_and_the_cause() -> None:
    """Of a wrong coordinate."""
    worst = made("wrong").worst
    text = str(made("wrong"))
    assert worst.worst_index == (1, 2)
    assert f"{worst.candidate_value:.9g}" in text
    assert f"differences say {worst.reference_value:.9g}" in text
    assert "×1.01" in worst.cause
    assert worst.candidate_value == pytest.approx(1.01 * np.cos(X[1, 2]), rel=1e-6)
    assert worst.reference_value == pytest.approx(np.cos(X[1, 2]), rel=1e-6)
    assert worst.error == pytest.approx(0.01 * abs(np.cos(X[1, 2])), rel=1e-6)


@pytest.mark.parametrize("relative", [1e-2, 1e-7, 1e-11])
def test_values_that_differ_are_written_so_that_they_do(relative: float) -> None:
    """However small the error is, the two numbers of a sentence are not the same."""
    values = {"candidate_value": 1 + relative, "reference_value": 1.0}
    text = str(GradientReport((leaf(Verdict.DISAGREE, **values),)))
    found = re.search(r"is (\S+), not (\S+),", text)
    assert found is not None
    assert found[1] != found[2] == "1"
    assert float(found[1]) == pytest.approx(1 + relative, abs=relative / 2)


@pytest.mark.slow
@EACH
def test_html_for_a_notebook(name: str) -> None:
    """The same rows and what is said below, with markup in names made harmless."""
    report = dataclasses.replace(made(name), notes=("a < b",), held=("['key']",))
    page = report._repr_html_()
    details = [leaf.detail for leaf in report.leaves if leaf.detail]
    assert page.count("<tr>") == 1 + len(report.leaves) + len(details)
    said = ["note: a < b", "held fixed: ['key']", *details]
    assert all(words in html.unescape(page) for words in said)
    assert f"{report.evaluations} evaluations" in page
    assert "a < b" not in page
    named = dataclasses.replace(report.leaves[0], candidate="<b>")
    assert "<b>" not in GradientReport(leaves=(named,))._repr_html_()


def test_verdicts_are_ordered_from_the_worst() -> None:
    """The report's verdict is the worst leaf's; a kink never hides a mistake."""
    order = "MALFORMED DISAGREE NONDETERMINISTIC NONDIFFERENTIABLE UNRESOLVED"
    assert [v.value for v in Verdict] == [*order.split(), "UNINFORMATIVE", "AGREE"]
    assert Verdict.worst([]) is Verdict.AGREE
    verdicts = list(Verdict)
    for i, worse in enumerate(verdicts):
        for better in verdicts[i:]:
            report = GradientReport(leaves=(leaf(better), leaf(worse)))
            assert report.verdict is worse


def test_a_report_passes_if_all_leaves_do() -> None:
    """One that failed is enough; the first to look at failed, whatever its verdict."""
    kink = leaf(Verdict.NONDIFFERENTIABLE, passed=True)
    unsure = leaf(Verdict.UNRESOLVED)
    assert GradientReport(leaves=(kink, leaf(Verdict.AGREE, True))).passed
    report = GradientReport(leaves=(kink, unsure))
    assert not report.passed
    assert report.worst is unsure
    assert report.verdict is Verdict.NONDIFFERENTIABLE


def test_of_two_wrong_leaves_the_one_further_out_comes_first() -> None:
    """By error over bound."""
    near = leaf(Verdict.DISAGREE, error=2.0, bound=1.0)
    far = leaf(Verdict.DISAGREE, error=0.2, bound=1e-9)
    assert GradientReport(leaves=(near, far)).worst is far


def test_places() -> None:
    """keystr and index; a bare array is `params`, a scalar has no index."""
    at = dataclasses.replace
    assert at(leaf(Verdict.AGREE), worst_index=(2, 3)).place == "['w'][2, 3]"
    assert at(leaf(Verdict.AGREE), worst_index=()).place == "['w']"
    assert at(leaf(Verdict.AGREE), path="", worst_index=(7,)).place == "params[7]"
    assert at(leaf(Verdict.AGREE), path="").place == "params"


@pytest.mark.parametrize("evaluations", [0, 3])
def test_records_are_immutable(evaluations: int) -> None:
    """Neither a leaf's nor a report's fields can be set."""
    with pytest.raises(dataclasses.FrozenInstanceError):
        leaf(Verdict.AGREE).evaluations = evaluations  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        made("right").evaluations = evaluations  # type: ignore[misc]
