"""The book's backward pass, link by link: each mistake is found where it is made."""

import json
import sys
from pathlib import Path

import pytest

from experiments import backprop_by_hand as experiment

pytestmark = pytest.mark.slow

FOUND = {
    "mean-forgotten": ("dy", "×12; did you forget to divide by"),
    "sign": ("dy", "sign flipped, ×-1"),
    "log-epsilon": ("dy", "the loss adds 1e-07"),
    "y-minus-t": ("dy", "the mistake lies between a2 and the loss"),
    "transposed": ("dW2", "transposed?"),
    "weights-not-transposed": (
        "da1",
        "dy is multiplied by what should be transposed",
    ),
    "slope-missing": ("dz1", "it is da1: the derivative between them is missing"),
    "slope-of-z1": ("dz1", "the derivative between them is taken at z1, not at a1"),
    "bias-not-summed": ("db1", "sum over axis 0, along which it was broadcast"),
    "bias-mean": ("db2", "×1/12; did you divide twice by"),
    "bias-other-axis": ("db2", "expected (10,): a sum over another axis?"),
    "dw1-of-da1": ("dW1", "it is made of da1 where dz1 should be"),
}
"""The link where each mistake enters, and what is said of it."""


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run it by its command line: the exit code, the text, and the folder."""

    def run(*flags: str) -> tuple[int, str, Path]:
        words = ["backprop_by_hand", "--quick", "--out", str(tmp_path), *flags]
        monkeypatch.setattr(sys, "argv", words)
        with pytest.raises(SystemExit) as exit:
            experiment.main()
        text = capsys.readouterr().out
        lines = [x for x in text.splitlines() if not x.startswith("written")]
        assert max(map(len, lines)) <= 100
        return int(str(exit.value.code)), text, tmp_path

    return run


@pytest.mark.parametrize("output", ["softmax", "sigmoid"])
def test_each_link_is_right(run, output):
    """Green one by one, after either output."""
    code, text, folder = run("--output", output)
    assert code == 0
    assert text.count(" right  ") == len(experiment.LINKS)
    assert "each link is right" in text
    assert (folder / "backprop_by_hand.png").stat().st_size > 5000


def test_each_mistake_is_found(run):
    """Its link is the first wrong one, and the sentence says what it is."""
    assert set(FOUND) == set(experiment.SAID) == set(experiment.MISTAKES)
    code, text, folder = run("--break", "all")
    assert code == 1
    written = json.loads((folder / "backprop_by_hand.json").read_text())
    assert list(written) == list(experiment.MISTAKES)
    for mistake, (where, words) in FOUND.items():
        links = written[mistake]
        wrong = [name for name in links if links[name]["verdict"] != "AGREE"]
        assert wrong[0] == where, mistake
        assert words in links[where]["cause"], mistake
    assert text.count("the mistake enters at") == len(FOUND)
