"""The benchmark of checkers counts fairly, and finds what is known of them."""

import dataclasses
import json
import sys

import numpy as np
import pytest

from experiments import checker_benchmark
from experiments.checkers import (
    CHECKERS,
    Answer,
    Checker,
    Setting,
    ask,
    best_settings,
    groups,
    installed,
    named,
)
from experiments.checkers.questions import mnist_questions, stress_questions
from experiments.checkers.tables import Rates, rates

pytestmark = pytest.mark.slow

HANDFUL = ["mlp_right", "mlp_b1_sign", "tiny_grads_x2", "relu_at_0", "nan_one_coord"]
WIDEST = 100


def default(checker: Checker) -> Setting:
    """A checker's documented settings."""
    return Setting(checker.name, "default", checker.default or {})


def saying(passed: bool | None, **grid) -> Checker:
    """A checker that says the same to every question."""
    return Checker("planted", "jax", None, lambda *_: Answer(passed), **grid)


def raising(error: Exception) -> Checker:
    """A checker that raises whatever it is asked."""

    def answer(*_):
        raise error

    return Checker("planted", "jax", None, answer)


@pytest.mark.parametrize(
    ("name", "if_passed", "if_failed"),
    [
        ("mlp_b1_sign", "missed", "caught"),
        ("mlp_right", "cleared", "accused"),
        ("relu_at_0", "cleared", "accused"),
        ("nondet_f", "missed", "caught"),
        ("nan_one_coord", "missed", "caught"),
        ("jump_at_x", "missed", "caught"),
    ],
)
def test_a_silent_pass_is_missed_and_a_false_alarm_accused(name, if_passed, if_failed):
    """Whatever the checker: a planted one that always passes, or never."""
    question = named(name)
    for passed, score in ((True, if_passed), (False, if_failed)):
        checker = saying(passed)
        assert ask(checker, question, default(checker)).score == score
    checker = raising(AssertionError("not close"))
    assert ask(checker, question, default(checker)).score == if_failed


def test_errors_are_kept_apart():
    """A crash is no verdict, but a malformed gradient is caught by being refused."""
    checker = raising(TypeError("it broke"))
    for name, score in (("mlp_right", "crashed"), ("mlp_b1_sign", "crashed")):
        assert ask(checker, named(name), default(checker)).score == score
    assert ask(checker, named("wrong_shape"), default(checker)).score == "caught"
    silent = saying(None)
    assert ask(silent, named("mlp_right"), default(silent)).score == "not asked"


def test_the_best_setting_is_the_one_with_the_fewest_mistakes():
    """Of a checker that passes what its setting says, and the default wins a tie."""
    checker = Checker(
        "planted",
        "jax",
        None,
        lambda question, _, settings: Answer(bool(settings.get("tolerance", 0) > 1)),
        grid=tuple({"tolerance": t} for t in (3, 2)),
    )
    right, wrong = [named("mlp_right")], [named("mlp_b1_sign")]
    assert best_settings([checker], right)["planted"].values == {"tolerance": 3}
    assert best_settings([checker], wrong)["planted"].values == {}
    assert best_settings([checker], right + wrong)["planted"].values == {}


@pytest.mark.parametrize("name", CHECKERS)
def test_every_checker_tells_a_flipped_sign_from_the_gradient(name):
    """Each adapter hands over the candidate and the loss as they are."""
    checker = CHECKERS[name]
    if not installed(checker):
        pytest.skip(f"{checker.package} is not installed")
    values = checker.default
    setting = Setting(name, "", {"threshold": 3e-3} if values is None else values)
    for case, score in (("mlp_right", "cleared"), ("mlp_b1_sign", "caught")):
        outcome = ask(checker, named(case), setting)
        assert outcome.score == score, outcome
        assert outcome.evaluations >= 2


def test_what_is_known_of_the_rivals():
    """check_grads: a flipped sign of 1000 sines, forward, float32; W2 off by 1 %."""
    sines, mistake = named("rule_sin_1000_wrong"), named("mnist_0_W2_1pct")
    for name, question in (("jax-f32-fwd", sines), ("jax-f32-rev", mistake)):
        assert ask(CHECKERS[name], question, default(CHECKERS[name])).score == "missed"
    known = CHECKERS["jax-f32-rev"]
    assert ask(known, sines, default(known)).score == "caught"


def test_questions_are_many_and_named_once():
    """Over 60, each with a name of its own, by which it is found again."""
    questions = [q for group in groups(1, 2).values() for q in group]
    names = [q.name for q in questions]
    assert len(set(names)) == len(names) >= 60
    assert len(groups(quick=True)["public"]) == 27
    for question in (mnist_questions(1)[3], stress_questions(3)[1]):
        again = named(question.name)
        assert (again.kind, again.group) == (question.kind, question.group)
    with pytest.raises(ValueError, match="no case 'mlp_rihgt'"):
        named("mlp_rihgt")


def test_a_large_mnist_check_is_asked_once_only():
    """Differencing every weight is asked of the first batch, and of no other."""
    slow = CHECKERS["book-f32"]
    outcome = ask(slow, named("mnist_1_right"), default(slow))
    assert outcome.score == "not asked"
    assert "79,520 evaluations" in outcome.note


def test_it_prints_and_writes_tables_cells_and_a_figure(tmp_path, capsys):
    """Quick mode on a handful of cases, with the checkers that come with JAX."""
    public = [q for q in groups(quick=True)["public"] if q.name in HANDFUL]
    flags = checker_benchmark.Flags(tmp_path / "new", quick=True, checker="jax-x64-rev")
    checker_benchmark.run(flags, {"public": public})
    text = capsys.readouterr().out
    lines = [x for x in text.splitlines() if not x.startswith("written")]
    assert max(map(len, lines)) <= WIDEST
    assert (tmp_path / "new" / "checker_benchmark.png").stat().st_size > 5000
    table = (tmp_path / "new" / "checker_benchmark.md").read_text()
    assert table in text
    result = json.loads((tmp_path / "new" / "checker_benchmark.json").read_text())
    scores = {c["question"]: c["score"] for c in result["cells"][::2]}
    assert scores == {
        "mlp_right": "cleared",
        "mlp_b1_sign": "caught",
        "tiny_grads_x2": "missed",
        "relu_at_0": "accused",
        "nan_one_coord": "caught",
    }
    assert "| jax-x64-rev | default |    1/3 |     1/2 |       0/2 |" in table


def test_who_cannot_tell_does_not_accuse():
    """A right gradient is either accused or undecided; a wrong one is caught."""
    questions = {"public": [named("mlp_right"), named("mlp_b1_sign")]}
    for undecided in (False, True):
        answer = Answer(passed=False, undecided=undecided)
        checker = dataclasses.replace(saying(False), answer=lambda *_, a=answer: a)
        setting = default(checker)
        outcomes = [ask(checker, q, setting) for q in questions["public"]]
        (found,) = rates(questions, [setting], outcomes).values()
        assert found == Rates(0, accused=not undecided, undecided=undecided)


def test_a_cell_can_be_asked_again(monkeypatch, capsys):
    """By its names, with settings of its own."""
    command = "x --case mlp_b2_mean --checker jax-x64-rev --settings"
    for settings, score in (("{}", "caught"), ('{"rtol": 1e3, "atol": 1e3}', "missed")):
        monkeypatch.setattr(sys, "argv", [*command.split(), settings])
        checker_benchmark.main()
        assert f"jax-x64-rev: {score}" in capsys.readouterr().out


def test_a_checker_that_is_not_installed_is_left_out_and_named(monkeypatch, tmp_path):
    """Its package is named below the tables; asking for it alone is an error."""
    absent = dataclasses.replace(saying(True), name="absent", package="no_such_package")
    monkeypatch.setattr(checker_benchmark, "CHECKERS", {"absent": absent})
    monkeypatch.setitem(checker_benchmark.CHECKERS, "planted", saying(True))
    checker_benchmark.run(
        checker_benchmark.Flags(tmp_path), {"public": [named("mlp_right")]}
    )
    text = (tmp_path / "checker_benchmark.md").read_text()
    assert "left out, not installed: no_such_package" in text
    with pytest.raises(ValueError, match="expected one of planted; got 'absent'"):
        checker_benchmark.chosen(checker_benchmark.Flags(checker="absent"))


def test_the_settings_of_the_grids_can_be_written_down():
    """A cell's settings, as the JSON has them, give the cell again."""
    for checker in CHECKERS.values():
        for settings in checker.grid:
            assert json.loads(json.dumps(settings)) == settings
            assert all(np.isfinite(value) for value in settings.values())
