"""The READMEs tell the truth: their code runs, their commands are there and start."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
READMES = ["README.md", "README.ja.md"]
TESTED_ELSEWHERE = (
    "verify_gradients",
    "backprop_by_hand",
    "devices",
    "checker_benchmark",
    "benchmark",
)
"""Scripts whose quick mode takes its time; their own tests run it, as it is here."""

ACROSS_MACHINES = 0.002
"""How far an accuracy after thousands of float32 steps may differ by the processor."""


def text_of(readme: str) -> str:
    """A README as text."""
    return (ROOT / readme).read_text(encoding="utf-8")


def commands(readme: str) -> list[str]:
    """The lines that run a script, less what is said of them."""
    lines = re.findall(r"^    (python experiments/.*)$", text_of(readme), re.MULTILINE)
    return [line.split("#")[0].strip() for line in lines]


@pytest.mark.parametrize("readme", READMES)
def test_the_first_example_prints_what_the_readme_says(readme: str) -> None:
    """The example is run as it stands, and begins as it is said to."""
    code = re.findall(r"```python\n(.*?)```", text_of(readme), re.DOTALL)[0]
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    first = " ".join(done.stdout.split("\n\n")[0].split())
    assert first.startswith("FAILED: candidate is 1.126")
    assert "×4; did you forget to divide by the batch size (4)?" in first
    assert first[7:60] in " ".join(text_of(readme).split())


@pytest.mark.parametrize("readme", READMES)
def test_every_script_named_is_there(readme: str) -> None:
    """A script that a README names exists."""
    named = set(re.findall(r"`?(\w+\.py)`", text_of(readme)))
    assert named
    for name in named:
        places = [ROOT / "experiments" / name, ROOT / "jaxnet" / name]
        assert any(place.exists() for place in places), name


def test_both_readmes_give_the_same_commands() -> None:
    """The Japanese page is no older than the English one."""
    assert [c.split()[:2] for c in commands("README.md")] == [
        c.split()[:2] for c in commands("README.ja.md")
    ]


@pytest.mark.parametrize(
    "command", sorted({c for readme in READMES for c in commands(readme)})
)
def test_every_command_is_understood(command: str) -> None:
    """The script knows the flags: with --help added it exits at once, without error."""
    words = shlex.split(command)[1:]
    done = subprocess.run(
        [sys.executable, *words, "--help"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_the_commands_run_one_after_the_other(tmp_path: Path) -> None:
    """As a reader types them, in quick mode, each in the folder of those before."""
    for command in commands("README.md"):
        words = shlex.split(command)
        script, flags = ROOT / words[1], words[2:]
        if script.stem in TESTED_ELSEWHERE:
            continue
        quick = [] if "--quick" in flags else ["--quick"]
        done = subprocess.run(
            [sys.executable, str(script), *flags, *quick],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, command + done.stderr
        assert "written: out/" in done.stdout
        assert ("resumed from out/" in done.stdout) == ("--resume" in flags)


def test_make_train_does_what_the_readme_says(tmp_path: Path) -> None:
    """The whole run, in this environment: the table as printed, files, accuracy."""
    where = [f"OUT={tmp_path / 'out'}", f"VENV={sys.prefix}"]
    assert (Path(sys.prefix) / "installed").exists(), "run the tests by make test"
    done = subprocess.run(
        ["make", "train", *where], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^ +\d+  0\..*$", done.stdout, re.MULTILINE)
    assert len(rows) == 10
    for readme in READMES:
        shown = re.findall(r"^    ( +\d+  0\..*)$", text_of(readme), re.MULTILINE)
        assert len(shown) == 5
        for line in shown:
            step, *numbers = line.split()
            (own,) = (row.split()[1:] for row in rows if row.split()[0] == step)
            assert own[2:] == numbers[2:]
            for ours, said in zip(own[:2], numbers[:2], strict=True):
                assert abs(float(ours) - float(said)) < ACROSS_MACHINES
    (accuracy,) = re.findall(r"after 5000 steps: (0\.\d+)", done.stdout)
    assert float(accuracy) >= 0.92
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"accuracy.png", "metrics.jsonl", "step-00005000.safetensors"} <= names


@pytest.mark.parametrize("readme", READMES)
def test_every_figure_is_there(readme: str) -> None:
    """A figure that a README shows is a PNG file of this repository."""
    named = re.findall(r"!\[.+?\]\((.+?)\)", text_of(readme), re.DOTALL)
    assert len(named) >= 2
    for name in named:
        assert (ROOT / name).read_bytes().startswith(b"\x89PNG")


def test_the_module_says_how_to_start() -> None:
    """`python -m jaxnet` names the verifier and every public name."""
    done = subprocess.run(
        [sys.executable, "-m", "jaxnet"], capture_output=True, text=True, check=True
    )
    assert "check_gradients" in done.stdout
    assert "tuple[jaxnet.network.Dense, ...]" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


def test_the_module_can_be_piped_into_head() -> None:
    """A reader that closes early is no error."""
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "jaxnet"]
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run(words, stdout=closed, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")
