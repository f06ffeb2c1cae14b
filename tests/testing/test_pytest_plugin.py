"""The plugin, on the suite of a library that knows nothing of it."""

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

SAMPLE = Path(__file__).parent.parent / "sample_package"
PLANTED = ("swish_scaled", "layer_norm_without_mean", "cross_entropy_cut")


def run(folder: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """pytest in a folder, as its authors call it."""
    words = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *flags]
    environment = {k: v for k, v in os.environ.items() if "PYTEST" not in k}
    options = {"capture_output": True, "text": True, "env": environment}
    return subprocess.run(words, cwd=folder, **options)


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """The library with its suite, in a folder of its own."""
    return Path(shutil.copytree(SAMPLE, tmp_path / "library"))


def test_the_suite_passes_as_it_is(sample: Path) -> None:
    """JAX's checks with the tolerances of the suite see none of the mistakes."""
    done = run(sample)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "12 passed" in done.stdout


def test_the_planted_mistakes_are_caught_in_the_unedited_suite(sample: Path) -> None:
    """They fail and no other, on two processes; no frame of ours is shown."""
    page = sample / "made" / "report.html"
    flags = ("--gradients=jaxnet", "--audit-rules", f"--gradient-report={page}")
    done = run(sample, *flags, "-n", "2")
    assert done.returncode == 1, done.stdout + done.stderr
    failed = re.findall(r"^FAILED test_ops.py::(\S+)", done.stdout, re.MULTILINE)
    wanted = {f"test_gradients[{name}]" for name in PLANTED} | {"TestSwish::test_bound"}
    assert set(failed) == wanted
    assert "8 passed" in done.stdout
    assert "11 checks, 4 failed" in done.stdout
    assert "tolerances or steps were given in 10: they are not needed" in done.stdout
    assert not re.findall(r"^\S*jaxnet/\S+\.py:\d+", done.stdout, re.MULTILINE)
    for name in PLANTED:
        rerun = f"rerun: pytest 'test_ops.py::test_gradients[{name}]'"
        assert f"{rerun} --gradients=jaxnet" in done.stdout
    _, table = re.split("rule +calls", done.stdout)
    rows = re.findall(r"^(\w+) +\d+ +float32 .* ([A-Z]+) ", table, re.MULTILINE)
    wrong = {name for name, verdict in rows if verdict == "DISAGREE"}
    assert wrong == {"swish", "layer_norm", "cross_entropy"}
    assert ("softplus", "AGREE") in rows
    assert "test_ops.py:20" in "".join(table.split())
    text = page.read_text()
    assert text.count('<article class="jaxnet failed">') == 5
    assert text.count("<style>") == 1
    assert text.count("<svg") > 5
    first = text.index('<article class="jaxnet passed">')
    assert all(text.index(name) < first for name in PLANTED)
    assert "with the true derivative in its place" in text


def test_a_wrong_rule_alone_fails_the_run(sample: Path) -> None:
    """Called under jit, in a test that passes; at values that only the program has."""
    (sample / "test_ops.py").unlink()
    body = """
import jax
import jax.numpy as jnp
from sample.ops import X, PLANTED, RIGHT


def test_of_values():
    swish = {}[0]
    assert jax.jit(lambda x: swish(x * x))(X).shape == X.shape
"""
    test = sample / "test_values.py"
    for wrong in (True, False):
        name = 'PLANTED["swish_scaled"]' if wrong else 'RIGHT["swish"]'
        test.write_text(body.replace("{}", name))
        done = run(sample, "--audit-rules")
        assert "1 passed" in done.stdout, done.stdout + done.stderr
        assert done.returncode == int(wrong)
        assert ("×1.01" in done.stdout) == wrong
        last = done.stdout.splitlines()[-1]
        assert ("1 passed, 1 error in" in last) == wrong
        assert bool(re.search(r"\nFAILED the rule of `swish\w*`", done.stdout)) == wrong


def test_what_is_intended_is_counted_apart_and_looked_for(sample: Path) -> None:
    """What is meant to be as it is, is not called right; a misspelt name shows."""
    (sample / "test_ops.py").unlink()
    (sample / "test_values.py").write_text("""
import pytest
from jax.test_util import check_grads
from sample.ops import X, PLANTED, RIGHT

def test_of_values():
    PLANTED["swish_scaled"][0](X), RIGHT["softplus"][0](X)

def test_of_a_mode():
    check_grads(RIGHT["softplus"][0], (X,), 1, modes=["fwd", "bwd"])
""")
    (sample / "pytest.ini").write_text("[pytest]\nintended_rules =\n swish\n sofplus\n")
    done = run(sample, "--audit-rules", "--gradients=jaxnet")
    assert "1 failed, 1 passed" in done.stdout, done.stdout + done.stderr
    said = "PASSED: 1 rule is right where the program calls it; 1 not judged."
    assert said in done.stdout
    assert "no rule that was called is `sofplus`" in done.stdout
    assert "no rule that was called is `swish`" not in done.stdout
    assert not re.findall(r"^\S*jaxnet/\S+\.py:\d+", done.stdout, re.MULTILINE)


def test_a_seed_of_its_own_and_the_line_that_reruns(tmp_path: Path) -> None:
    """The same draw alone and among others, another one for another test."""
    (tmp_path / "test_seeds.py").write_text("""
import jax
import pytest

@pytest.mark.parametrize("case", ["a b", "c"])
def test_draw(gradient_key, gradient_seed, case):
    print("drawn", case, float(jax.random.normal(gradient_key)), gradient_seed)
    assert not case.startswith("a")
""")
    together = run(tmp_path, "-s").stdout
    alone = run(tmp_path, "-s", "test_seeds.py::test_draw[a b]").stdout
    drawn = re.findall(r"drawn .*", together)
    assert drawn[0] == re.findall(r"drawn .*", alone)[0]
    assert drawn[0].split()[-2:] != drawn[1].split()[-2:]
    assert "rerun: pytest 'test_seeds.py::test_draw[a b]'\n" in together
    assert together.count("rerun:") == 1


def test_the_suite_starts_as_it_does_without(tmp_path: Path) -> None:
    """What a conftest.py sets for JAX holds; a module that is blocked, too."""
    (tmp_path / "conftest.py").write_text("""
import os
import sys

os.environ["JAX_ENABLE_X64"] = "1"
sys.modules["torch"] = None
from jax.test_util import check_grads
""")
    (tmp_path / "test_x64.py").write_text("""
import conftest
import jax.numpy as jnp

def test_x64():
    assert jnp.ones(3).dtype == "float64"
    assert conftest.check_grads.__module__ == "jaxnet.testing.drop_in"
""")
    (tmp_path / "pytest.ini").write_text("[pytest]\npythonpath = .\n")
    flags = ("--gradients=jaxnet", "--audit-rules")
    done = run(tmp_path, *flags, "-k", "x64")
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_a_check_in_a_fixture_is_of_its_test(tmp_path: Path) -> None:
    """Whether it is set up or torn down with it."""
    (tmp_path / "test_fixture.py").write_text("""
import jax
import jax.numpy as jnp
import pytest
from jax.test_util import check_grads

@pytest.fixture
def before():
    check_grads(jnp.sin, (1.0,), 1, ["rev"])

@pytest.fixture
def after():
    yield
    check_grads(lambda x: 2 * x - jax.lax.stop_gradient(x), (1.0,), 1, ["rev"])

def test_before(before):
    pass

def test_after(after):
    pass
""")
    done = run(tmp_path, "--gradients=jaxnet", "--gradient-report=page.html")
    assert "2 checks, 1 failed" in done.stdout, done.stdout
    page = (tmp_path / "page.html").read_text()
    failed, passed = page.index("::test_after"), page.index("::test_before")
    assert failed < page.index('<article class="jaxnet failed">') < passed


def test_the_examples_of_the_page_run(tmp_path: Path) -> None:
    """As they stand in docs/in_your_suite.md: a rule's test, and one a mutant of it."""
    page = SAMPLE.parent.parent / "docs" / "in_your_suite.md"
    blocks = re.findall(r"```python\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 3
    (tmp_path / "test_page.py").write_text("\n".join(blocks))
    done = run(tmp_path, "-n", "2")
    assert done.returncode == 0, done.stdout
    assert "9 passed" in done.stdout  # one, and eight mutants


def test_nothing_is_loaded_before_it_is_asked_for(tmp_path: Path) -> None:
    """A suite without JAX pays nothing; an unknown checker is a usage error."""
    script = "import sys, pytest; before = {*sys.modules}; import jaxnet.pytest_plugin"
    script += "; print(sorted(x.split('.')[0] for x in {*sys.modules} - before))"
    words = [sys.executable, "-c", script]
    done = subprocess.run(words, capture_output=True, text=True)
    loaded = set(ast.literal_eval(done.stdout)) - sys.stdlib_module_names
    assert loaded == {"jaxnet"}
    unknown = run(tmp_path, "--gradients=other")
    assert unknown.returncode == 4
    assert "invalid choice: 'other'" in unknown.stderr


def test_a_folder_is_no_page(tmp_path: Path) -> None:
    """It is said before a test is run, not after all of them."""
    done = run(tmp_path, f"--gradient-report={tmp_path}")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    said = f"ERROR: --gradient-report: {tmp_path} is a folder; name a file"
    assert said in done.stdout + done.stderr
