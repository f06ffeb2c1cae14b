"""verify_gradients runs, passes right routes, and exits 1 with a mistake planted."""

import importlib
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from jaxnet import Mnist, load_mnist
from jaxnet.verification import Verdict

pytestmark = pytest.mark.slow

experiment: Any = importlib.import_module("experiments.verify_gradients")


class Outcome:
    """What one run printed and wrote, and its exit code."""

    def __init__(self, code: Any, text: str, out: Path) -> None:
        self.code, self.text, self.out = code, text, out

    def reports(self) -> list[dict[str, Any]]:
        """The reports of the untrained and the trained point, from the JSON file."""
        written = json.loads((self.out / "verify_gradients.json").read_text())
        return list(written.values())


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the quick mode with more flags."""

    def run(*flags: str) -> Outcome:
        words = ["verify_gradients", "--quick", "--out", str(tmp_path / "o"), *flags]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as exit:
            experiment.main()
        text = capsys.readouterr().out
        lines = [x for x in text.splitlines() if not x.startswith("written")]
        assert max(map(len, lines), default=0) <= 100
        return Outcome(exit.value.code, text, tmp_path / "o")

    return run


def test_all_three_routes_pass(run):
    """Untrained and trained, by tables, JSON and a figure."""
    outcome = run()
    assert outcome.code == 0
    assert outcome.text.count("PASSED: autodiff, backprop, numerical are right") == 2
    for report in outcome.reports():
        assert {x["verdict"] for x in report["leaves"]} == {Verdict.AGREE.value}
        assert {x["candidate"] for x in report["leaves"]} == {
            "backprop",
            "autodiff",
            "numerical",
        }
        assert max(x["resolution"] for x in report["leaves"]) <= 1e-2
    figure = (outcome.out / "verify_gradients.png").read_bytes()
    assert figure.startswith(b"\x89PNG")
    assert len(figure) > 5000


def test_a_planted_mistake_fails(run):
    """Exit code 1, at both points, and the mistake stands alone."""
    outcome = run("--break", "zero-b1")
    assert outcome.code == 1
    assert outcome.text.count("FAILED: zero-b1 is 0, not ") == 2
    assert "all zero" in outcome.text
    assert {x["odd_one_out"] for x in outcome.reports()} == {"zero-b1"}


SAID = {
    "mean-forgotten": "×20; did you forget to divide by the batch size (20)?",
    "slope-missing": "slope-missing is ",
    "transposed": "shape (10, 50), expected (50, 10): transposed?",
    "bias-not-summed": "shape (20, 50), expected (50,): sum over axis 0",
}


def test_mistakes_of_a_backward_pass_are_named():
    """Each stands alone, in the leaves that it is in, with its words."""
    data = Mnist(*(array[:1000] for array in load_mnist()))
    problem = experiment.draw_problem(data, seed=0, batch_size=20)
    leaves = {"mean-forgotten": 4, "slope-missing": 2}
    for mistake, words in SAID.items():
        report = experiment.check(problem, mistake)
        assert words in " ".join(str(report).split())
        assert report.odd_one_out == mistake
        wrong = [x for x in report.leaves if x.verdict in experiment.WRONG]
        assert {x.candidate for x in wrong} == {mistake}
        assert len(wrong) == leaves.get(mistake, 1)


def test_a_wrong_flag_is_one_line(run):
    """A place without a checkpoint, a batch of none."""
    for flags, words in (
        (["--checkpoint", "nowhere"], "error: nowhere: no checkpoint here"),
        (["--seeds", "-1"], "error: `seeds`: expected a whole number"),
    ):
        code = run(*flags).code
        assert code.startswith(words)
        assert "\n" not in code


def test_the_book_s_own_pair_fails(run):
    """log(y + 1e-7) with y - t: the constant is named, and autodiff is right.

    A leaf that does not show it states a resolution above what the constant changes.
    """
    outcome = run("--break", "book-log-eps")
    assert outcome.code == 1
    assert "the loss adds 1e-07" in outcome.text
    for report in outcome.reports():
        assert report["odd_one_out"] == "y - t"
        wrong = [x for x in report["leaves"] if x["candidate"] == "y - t"]
        seen = [x for x in wrong if x["verdict"] == Verdict.DISAGREE.value]
        assert len(seen) >= 3
        assert all(x in seen or x["resolution"] > 1e-6 for x in wrong)
        assert all(x["passed"] for x in report["leaves"] if x not in wrong)


def test_mistakes_are_counted(run, monkeypatch):
    """One that is caught, and one that changes nothing: missed, a failure."""
    flipped = experiment.MISTAKES["w1-sign"]
    mistakes = {"zero-b1": lambda gradient, problem: gradient, "w1-sign": flipped}
    monkeypatch.setattr(experiment, "MISTAKES", mistakes)
    outcome = run("--seeds", "1")
    assert outcome.code == 1
    assert outcome.text.splitlines() == [
        "zero-b1        caught 0 of 1",
        "w1-sign        caught 1 of 1",
        "none           accused 0 of 1",
    ]


def test_the_flag_knows_every_mistake():
    """--break takes those of the list and the book's own pair."""
    names = experiment.Break.__args__
    assert set(names) == {*experiment.MISTAKES, "book-log-eps"}
