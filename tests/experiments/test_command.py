"""A wrong flag is one line, whoever finds it: the parser, or the script."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import pytest
import tyro

from experiments.command import command
from tests.scripts import EXPERIMENTS, SCRIPTS, flags_of


@dataclass(frozen=True)
class FlagsOut:
    """Flags of a script that writes."""

    out: Path = Path("out")
    break_: Annotated[
        Literal["zero-b1", "w1-tiny", "w1-sign", "all", "none", "transposed"],
        tyro.conf.arg(name="break"),
    ] = "none"


@dataclass(frozen=True)
class Flags:
    """Flags of a script."""

    count: int = 1
    colour: Literal["red", "green"] = "red"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--count", "x"], "error: Error parsing --count: invalid literal for int()"),
        (
            ["--colour", "blue"],
            "error: --colour: there is no 'blue': choose from green, red",
        ),
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


def test_a_file_in_the_place_of_a_folder_is_said_before_the_work(monkeypatch, tmp_path):
    """Nothing was run for nothing."""
    file = tmp_path / "README.md"
    file.write_text("mine")
    monkeypatch.setattr(sys, "argv", ["script", "--out", str(file)])
    with pytest.raises(SystemExit, match="is a file; name another folder"):
        command(FlagsOut, None, lambda flags: pytest.fail("it was run"))
    assert file.read_text() == "mine"


@pytest.mark.parametrize("name", ["out", "no/folder/yet"])
def test_a_folder_that_can_be_made_is_not_made_yet(monkeypatch, tmp_path, name):
    """The flags may be wrong in another way; what is there stays."""
    kept = tmp_path / "out" / "kept.txt"
    kept.parent.mkdir()
    kept.write_text("mine")
    monkeypatch.setattr(sys, "argv", ["script", "--out", str(tmp_path / name)])
    assert command(FlagsOut, None, lambda flags: 3) == 3
    assert sorted(tmp_path.rglob("*")) == [kept.parent, kept]


def test_a_folder_that_cannot_be_made_is_said_before_the_work(monkeypatch, tmp_path):
    """Below a file there is none, and nothing is left of the trial."""
    (tmp_path / "file").write_text("mine")
    out = str(tmp_path / "file" / "out")
    monkeypatch.setattr(sys, "argv", ["script", "--out", out])
    with pytest.raises(SystemExit, match=r"--out: .* cannot be made \(Not a directory"):
        command(FlagsOut, None, lambda flags: pytest.fail("it was run"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_of_many_choices_the_one_that_comes_near(monkeypatch):
    """Not all of them, in an order of no meaning."""
    monkeypatch.setattr(sys, "argv", ["script", "--break", "zero_b1"])
    with pytest.raises(SystemExit) as exit:
        command(FlagsOut, None, print)
    said = "error: --break: there is no 'zero_b1': did you mean zero-b1?; see --help"
    assert str(exit.value.code) == said


@pytest.mark.slow
@pytest.mark.parametrize("words", ["--help", ""])
def test_a_reader_who_has_seen_enough_is_no_error(words):
    """`script | head -1`."""
    command = f"{sys.executable} experiments/loss_functions.py {words} | head -1"
    done = subprocess.run(
        command, shell=True, cwd=EXPERIMENTS.parent, capture_output=True, text=True
    )
    assert len(done.stdout.splitlines()) == 1
    assert done.stderr == ""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_help_has_no_line_wider_than_the_terminal(monkeypatch, capsys, script):
    """Of prose; a command that is shown stays as it is."""
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as end:
        flags_of(script.stem, "--help")
    assert not end.value.code
    lines = capsys.readouterr().out.splitlines()
    assert max(len(x) for x in lines if not x.startswith("    ")) <= 80


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
