"""The READMEs tell the truth: their code runs, their commands are there and start."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
READMES = ["README.md", "README.ja.md"]


def text_of(readme: str) -> str:
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
    assert "×4; 4 is axis 0 of the 4×3 data: a mean not taken?" in first
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


def test_the_book_pair_is_caught(tmp_path: Path) -> None:
    """The planted mistake of the README fails, with the cause it promises."""
    script = ROOT / "experiments/verify_gradients.py"
    flags = ["--quick", "--break", "book-log-eps", "--out", str(tmp_path)]
    done = subprocess.run(
        [sys.executable, str(script), *flags], capture_output=True, text=True
    )
    assert done.returncode == 1, done.stderr
    assert "the loss adds 1e-07" in " ".join(done.stdout.split())


def test_the_module_says_how_to_start() -> None:
    """`python -m jaxnet` names the verifier and every public name."""
    done = subprocess.run(
        [sys.executable, "-m", "jaxnet"], capture_output=True, text=True, check=True
    )
    assert "check_gradients" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 100
