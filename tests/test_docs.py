"""The pages tell the truth: cells and commands run, links and figures are there."""

import importlib.util
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from urllib.parse import unquote

import jax
import pytest

from tests.scripts import flags_of

ROOT = Path(__file__).parent.parent
_SPEC = importlib.util.spec_from_file_location("cells", ROOT / "docs" / "cells.py")
assert _SPEC is not None
assert _SPEC.loader is not None
pages = importlib.util.module_from_spec(_SPEC)
sys.modules["cells"] = pages
_SPEC.loader.exec_module(pages)

READMES = ["README.md", "README.ja.md"]
PAGES = [*READMES, *(f"docs/{path.name}" for path in sorted(ROOT.glob("docs/*.md")))]
ALL = [*PAGES, *(p.name for p in sorted(ROOT.glob("*.md")) if p.name not in READMES)]
TESTED_ELSEWHERE = (
    "verify_gradients",
    "backprop_by_hand",
    "devices",
    "checker_benchmark",
    "benchmark",
    "stress_verifier",
    "verifier_at_scale",
    "compare_gradients",
    "library_audit",
    "verdicts",
)
"""Scripts whose quick mode takes its time; their own tests run it, as it is here."""

ACROSS_MACHINES = 0.002
"""How far an accuracy after thousands of float32 steps may differ by the processor."""

slow = pytest.mark.slow


def text_of(page: str) -> str:
    """A page as text."""
    return (ROOT / page).read_text(encoding="utf-8")


def commands(*names: str) -> list[str]:
    """The lines of these pages that run a script, less what is said of them."""
    text = "\n".join(map(text_of, names))
    lines = re.findall(r"^ {4,8}(python experiments/.*)$", text, re.MULTILINE)
    return list(dict.fromkeys(line.split("#")[0].strip() for line in lines))


TRANSLATED = {"README.ja.md": "README.md", "docs/book.ja.md": "docs/book.md"}
"""Pages in Japanese whose cells are those of another."""

WITH_CELLS = [p for p in PAGES if p not in TRANSLATED and pages.cells(text_of(p))]


@slow
@pytest.mark.parametrize("page", WITH_CELLS)
def test_the_cells_print_what_the_page_says(page: str) -> None:
    """As a reader runs them, from top to bottom, in JAX's own modes."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        assert pages.mistakes(text_of(page)) == []


def uncommented(page: str) -> list[tuple[str, str, str | None]]:
    """Its cells without the comments."""
    cells = pages.cells(text_of(page))
    return [(re.sub(r" *#.*", "", c.code), c.says, c.shown) for c in cells]


@pytest.mark.parametrize("page", TRANSLATED)
def test_the_cells_of_a_translation_are_those_that_are_run(page: str) -> None:
    """But for their comments; what they print is the same."""
    assert uncommented(page) == uncommented(TRANSLATED[page]) != []


def test_a_cell_that_prints_something_else_is_caught() -> None:
    """Another word or number, words that are missing, an error; rounding is none."""
    shown = "```python\nprint('off by', 0.5, 'bound', 2e-09)\n```\n\n```text\n{}\n```\n"
    assert pages.mistakes(shown.format("off by 0.5 bound 3.1e-10")) == []
    for wrong in ("on by 0.5 bound 2e-09", "off by 0.6 bound 2e-09"):
        assert len(pages.mistakes(shown.format(wrong))) == 1
    says = '```python says="{}"\nprint("all zero")\n```\n'
    assert pages.mistakes(says.format("all")) == []
    assert len(pages.mistakes(says.format("transposed"))) == 1
    with pytest.raises(ZeroDivisionError):
        pages.mistakes("```python\n1 / 0\n```\n")


def test_what_a_page_shows_can_be_written_anew() -> None:
    """Where it is shown; the site has all of it."""
    page = "a\n\n```python\nprint(1)\n```\n\n```text\n2\n```\n\nb\n\n" + (
        '```python says="3"\nprint(3)\n```\n'
    )
    source, site = pages.with_outputs(page, only_shown=True), pages.with_outputs(page)
    assert source == page.replace("\n2\n", "\n1\n")
    assert site.endswith("print(3)\n```\n\n```text\n3\n```\n")


@pytest.mark.parametrize("page", PAGES)
def test_every_python_fence_is_a_cell(page: str) -> None:
    """None is written so that it would not be run."""
    text = text_of(page)
    assert text.count("```python") == len(pages.cells(text))
    assert text.count("```py") == text.count("```python")


def broken_links(page: str, text: str) -> list[str]:
    """Links within the repository to a file or a heading that is not there."""
    broken, prose = [], re.sub(r"```.*?```|`[^`\n]*`", "", text, flags=re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", prose):
        path, _, anchor = unquote(target).partition("#")
        if "://" in path:
            continue
        place = (ROOT / page).parent / path if path else ROOT / page
        if not place.exists() or (
            anchor and anchor not in anchors(place.read_text("utf-8"))
        ):
            broken.append(target)
    return broken


def anchors(text: str) -> set[str]:
    """What the headings of a page are called in links."""
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    plain = [re.sub(r"[^\w\- ]", "", h.strip().lower()) for h in headings]
    return {p.replace(" ", "-") for p in plain} | set(
        re.findall(r'<a id="(.+?)"', text)
    )


@pytest.mark.parametrize("page", ALL)
def test_every_link_leads_somewhere(page: str) -> None:
    """To a file of this repository, and a heading of it."""
    assert broken_links(page, text_of(page)) == []


def test_a_broken_link_is_caught() -> None:
    """A file or heading that is not there."""
    text = "[a](docs/fix.md#a-sign) [b](docs/fix.md#no-such) [c](no.md) [d](#no)"
    assert broken_links("README.md", text) == ["docs/fix.md#no-such", "no.md", "#no"]


def test_every_page_is_in_the_site_and_in_the_list() -> None:
    """A page that nobody can find is none."""
    nav, index = text_of("mkdocs.yml"), text_of("docs/index.md")
    for page in PAGES:
        assert f": {page}\n" in nav
        assert page in (*READMES, "docs/index.md") or f"({page[5:]})" in index


@pytest.mark.parametrize("readme", READMES)
def test_a_readme_is_short(readme: str) -> None:
    """A hundred lines; the Japanese one has a glossary more."""
    lines = text_of(readme).splitlines()
    assert len(lines) <= (100 if readme == "README.md" else 110)
    assert max(len(line) for line in lines) <= 132


@pytest.mark.parametrize("page", PAGES)
def test_every_script_named_is_there(page: str) -> None:
    """A script that a page names exists, or is the reader's; so does every extra."""
    cells = re.compile(r"```.*?```", re.DOTALL)
    for name in set(re.findall(r"`(\w+\.py)`", cells.sub("", text_of(page)))):
        places = [ROOT / "experiments" / name, ROOT / "jaxnet" / name, ROOT / name]
        is_readers = name in ("two_layer_net.py", "model.py")
        assert is_readers or any(place.exists() for place in places), name
    extras = tomllib.loads(text_of("pyproject.toml"))["project"]
    for name in re.findall(r"\.\[(\w+)\]", text_of(page)):
        assert name in extras["optional-dependencies"]


def test_both_readmes_give_the_same_commands() -> None:
    """The Japanese page is no older than the English one."""
    assert commands("README.md") == commands("README.ja.md")


def test_make_knows_every_target() -> None:
    """That a page names."""
    targets = set(re.findall(r"^([\w\- ]+):", text_of("Makefile"), re.MULTILINE))
    known = {name for line in targets for name in line.split()}
    for page in (*PAGES, "CONTRIBUTING.md"):
        named = re.findall(r"(?:^    |`)make ([\w-]+)", text_of(page), re.MULTILINE)
        assert set(named) <= known, page


@pytest.mark.parametrize("command", sorted(commands(*PAGES, "CONTRIBUTING.md")))
def test_every_command_is_understood(command: str) -> None:
    """The script is there and takes these flags."""
    _, script, *flags = shlex.split(command)
    assert script == f"experiments/{Path(script).stem}.py"
    assert flags_of(Path(script).stem, *flags) is not None


def test_a_command_that_is_not_understood_is_caught() -> None:
    """A flag that the script does not have, and a value that it does not take."""
    for wrong in (["--bogus", "1"], ["--break", "no-such"]):
        with pytest.raises(SystemExit):
            flags_of("verify_gradients", *wrong)


@slow
def test_the_commands_run_one_after_the_other(tmp_path: Path) -> None:
    """As a reader types them, in quick mode, each in the folder of those before."""
    ran = 0
    for command in commands(*PAGES):
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
        ran += 1
    assert ran >= 3


@slow
def test_make_train_does_what_the_pages_say(tmp_path: Path) -> None:
    """The whole run, in this environment: the table as printed, files, accuracy."""
    where = [f"OUT={tmp_path / 'out'}", f"VENV={sys.prefix}"]
    assert (Path(sys.prefix) / "installed").exists(), "run the tests by make test"
    done = subprocess.run(
        ["make", "train", *where], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    rows = re.findall(r"^ +\d+  0\..*$", done.stdout, re.MULTILINE)
    assert len(rows) == 10
    for page in ("docs/book.md", "docs/book.ja.md"):
        shown = re.findall(r"^    ( +\d+  0\..*)$", text_of(page), re.MULTILINE)
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


@slow
def test_the_module_says_how_to_start() -> None:
    """`python -m jaxnet` names the verifier and every public name."""
    done = subprocess.run(
        [sys.executable, "-m", "jaxnet"], capture_output=True, text=True, check=True
    )
    assert "check_gradients" in done.stdout
    assert "tuple[jaxnet.network.Dense, ...]" in done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80


@pytest.mark.slow
def test_the_module_can_be_piped_into_head() -> None:
    """A reader that closes early is no error."""
    reader, writer = os.pipe()
    os.close(reader)
    words = [sys.executable, "-m", "jaxnet"]
    refused = subprocess.run([*words, "foo"], stderr=subprocess.PIPE, text=True)
    assert refused.stderr == "error: `python -m jaxnet` takes no arguments, got foo\n"
    with os.fdopen(writer, "w") as closed:
        done = subprocess.run(words, stdout=closed, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (0, "")
