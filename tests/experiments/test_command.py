"""A wrong flag is one line, whoever finds it: the parser, or the script."""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from experiments.command import command

FOLDER = Path(__file__).parent.parent.parent / "experiments"
SCRIPTS = [
    p for p in sorted(FOLDER.glob("*.py")) if '__name__ == "__main__"' in p.read_text()
]


@dataclass(frozen=True)
class Flags:
    """Flags of a script."""

    count: int = 1
    colour: Literal["red", "green"] = "red"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--count", "x"], "error: Error parsing --count: invalid literal for int()"),
        (["--colour", "blue"], "error: invalid choice 'blue' for argument '--colour'"),
        (["--bogus", "1"], "error: Unrecognized options: --bogus, 1; see --help"),
        (["--count", "-1"], "error: count is below 0"),
    ],
)
def test_wrong_flags_are_one_line(monkeypatch, capsys, words, said):
    """No frame, no traceback; the exit code is the message's, 1."""

    def run(flags: Flags) -> int:
        if flags.count < 0:
            raise ValueError("count is below 0")
        return flags.count

    monkeypatch.setattr(sys, "argv", ["script", *words])
    with pytest.raises(SystemExit) as exit:
        command(Flags, None, run)
    assert str(exit.value.code).startswith(said)
    assert "\n" not in str(exit.value.code)
    assert capsys.readouterr().err == ""


def test_right_flags_run_and_help_is_whole(monkeypatch, capsys):
    """What `run` gives comes back; --help is the parser's, and no error."""
    monkeypatch.setattr(sys, "argv", ["script", "--count", "3"])
    assert command(Flags, None, lambda flags: flags.count) == 3
    monkeypatch.setattr(sys, "argv", ["script", "--help"])
    with pytest.raises(SystemExit) as exit:
        command(Flags, "What?", print)
    assert not exit.value.code
    assert "--colour" in capsys.readouterr().out


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_every_script_is_such_a_command(script):
    """None has a parser of its own, with an answer of its own to a wrong flag."""
    text = script.read_text()
    assert ("command(" in text) != ("parsed(" in text)
    assert "tyro.cli" not in text
    assert "argparse" not in text
