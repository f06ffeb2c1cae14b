"""The benchmark in its quick mode: tables and files, no times."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest

from experiments import benchmark
from experiments.measurements import book_loop, gradients, processes
from experiments.measurements.section import WIDTH, Section, as_text

pytestmark = pytest.mark.slow

PEERS = Path(benchmark.__file__).parent / "peers"


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the script by its command line; what it printed and wrote."""

    def run(*flags: str) -> tuple[str, dict]:
        command = ["benchmark", "--quick", "--out", str(tmp_path), *flags]
        monkeypatch.setattr(sys, "argv", command)
        benchmark.main()
        text = capsys.readouterr().out
        lines = [x for x in text.splitlines() if not x.startswith("written")]
        assert max(map(len, lines)) <= WIDTH
        return text, json.loads((tmp_path / "benchmark.json").read_text())

    return run


@pytest.fixture
def without_torch(monkeypatch):
    """As if PyTorch were not installed."""
    find = importlib.util.find_spec

    def absent(name, *rest):
        return None if name == "torch" else find(name, *rest)

    monkeypatch.setattr(importlib.util, "find_spec", absent)


def test_sections_in_this_process(run, tmp_path):
    """The JSON has machine and tables, Markdown the same, and only what was asked."""
    path = tmp_path / "B.md"
    names = ("numeric_gradient", "any_function", "numeric_training", "accelerator")
    flags = [f"--{name.replace('_', '-')}" for name in names]
    text, result = run(*flags, "--markdown", str(path))
    assert set(result["sections"]) == set(names)
    assert result["quick"]
    for field in ("processor", "cores", "jax", "devices", "load_at_start"):
        assert field in result["machine"]
    for section in result["sections"].values():
        assert section["title"] in text
        assert f"## {section['title']}" in path.read_text()
    assert result["machine"]["processor"] in path.read_text()
    assert result["machine"]["jax"] in path.read_text()
    rows = result["sections"]["numeric_gradient"]["rows"]
    assert rows[0]["times as fast"] == 1
    errors = {row["gradient"]: row["largest error"] for row in rows}
    assert errors.pop("gradients.numerical, float32") < 1e-3
    assert all(0 < error < 1e-7 for error in errors.values())
    training = result["sections"]["numeric_training"]["rows"]
    assert training[0]["seconds a step"] == 87.43
    if result["machine"]["devices"] == ["cpu"]:
        assert "Not measured" in text


def test_main_job(run, without_torch):
    """Ours and an installed peer have their rows; one that is missing is named."""
    text, result = run("--main-job", "--peers", "numpy", "torch")
    rows = result["sections"]["main_job"]["rows"]
    assert [row["program"] for row in rows] == ["jaxnet", "numpy"]
    assert rows[1]["fastest peer = 1"] == 1
    for row in rows:
        assert 0 < row["min s"] <= row["median s"] <= row["max s"]
        assert 0 <= float(row["test accuracy"]) <= 1
    assert "left out: torch" in text
    assert "jaxnet is" in text


def test_without_any_peer(monkeypatch, without_torch):
    """No ratio then, but a table."""
    monkeypatch.setattr(processes.Racer, "run", lambda self, counted: fake(self))
    section = processes.main_job(("torch",), rounds=2)
    assert section.rows[0]["fastest peer = 1"] is None
    assert "–" in section.text()
    assert section.notes == ["Not installed, and left out: torch."]


def fake(racer: processes.Racer) -> None:
    """A round that took a second."""
    racer.wall.append(1.0)
    racer.user.append(1.0)


def test_kept_compilations_are_rows_but_no_peers(monkeypatch):
    """The programs in JAX run twice; we are compared as both start from nothing."""
    monkeypatch.setattr(processes.Racer, "run", lambda self, counted: fake(self))
    section = processes.main_job(("numpy",), rounds=1)
    names = [row["program"] for row in section.rows]
    assert names == ["jaxnet", "numpy", "jaxnet" + processes.KEPT]
    racers = [processes.Racer(name, []) for name in names]
    for racer, seconds in zip(racers, (4.0, 2.0, 1.0), strict=True):
        racer.wall, racer.user = [seconds], [seconds]
    report = processes.report(racers, [], num_steps=3)
    assert report.notes == ["jaxnet is 0.50 times as fast as the fastest peer, numpy."]
    assert report.rows[2]["fastest peer = 1"] == 0.5


def test_compilations_are_kept_where_jax_is_told(tmp_path):
    """A process with these settings leaves its programs, one without them does not."""
    folder = tmp_path / "kept"
    code = "import jax; jax.jit(lambda x: x + x)(1.0); "
    code += "print('test accuracy after 0 steps: 0.5')"
    for kept in (False, True):
        settings = processes.keeping_compilations(str(folder)) if kept else {}
        racer = processes.Racer("jax", ["-c", code], settings)
        racer.run(counted=True)
        assert racer.accuracy == 0.5
        assert (folder.exists() and any(folder.iterdir())) == kept


def test_a_program_that_fails_is_an_error():
    """With what it printed; so is one that never names its accuracy."""
    for code in ("raise SystemExit('no such luck')", "print('no such luck')"):
        racer = processes.Racer("broken", ["-c", code])
        with pytest.raises(RuntimeError, match="no such luck"):
            racer.run(counted=True)
        assert racer.wall == []


@pytest.mark.parametrize("peer", ["torch", "flax", "equinox"])
def test_peer(peer, tmp_path):
    """A peer's script does the same job: the table, metrics and parameters."""
    pytest.importorskip(peer)
    command = [sys.executable, PEERS / f"{peer}_mnist.py", tmp_path, "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    head, first, last, end = done.stdout.splitlines()
    assert head == " step   train    test"
    assert [line.split()[0] for line in (first, last)] == ["0", "3"]
    assert end == f"test accuracy after 3 steps: {last.split()[2]}"
    metrics = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert json.loads(metrics[1])["test"] == pytest.approx(float(last.split()[2]), 1e-3)
    assert 2 < json.loads(metrics[1])["loss"] < 3
    assert any(tmp_path.glob("params.*"))


def test_the_books_loop_is_a_gradient():
    """It is that of a known function, and leaves its argument as it was."""
    x = np.array([[1.0, -2.0], [0.5, 3.0]])
    kept = x.copy()
    slopes = book_loop.numerical_gradient(lambda x: float((x**3).sum()), x)
    assert np.allclose(slopes, 3 * x**2, atol=1e-6)
    assert np.array_equal(x, kept)


def test_the_books_loss_is_ours():
    """The loop is taken of the same loss as the other rows."""
    batch = gradients.batch_of_digits(quick=True)
    flat = [leaf for layer in batch.params for leaf in layer]
    with jax.enable_x64(True):
        ours = float(jax.jit(gradients.loss_of(batch))(batch.params))
    assert book_loop.loss(flat, *batch[1:]) == pytest.approx(ours, 1e-12)


def test_markdown_goes_beside_the_experiments(monkeypatch, run, tmp_path):
    """--markdown without a file writes BENCHMARKS.md."""
    monkeypatch.setattr(benchmark, "BENCHMARKS", tmp_path / "BENCHMARKS.md")
    run("--accelerator", "--markdown")
    assert "# Benchmarks" in (tmp_path / "BENCHMARKS.md").read_text()


def test_cells():
    """Numbers have three digits, and what was not measured a dash."""
    values = (0.0, 0.012345, 1.0, 123.45, 12345.6, 1e-9, None, "x")
    texts = ["0.00", "0.0123", "1.00", "123", "12,346", "1.0e-09", "–", "x"]
    assert [as_text(value) for value in values] == texts


def test_long_notes_are_wrapped():
    """No line of a table's text is longer than the width."""
    section = Section("Title", [{"a": 1.0}], ["word " * 60])
    assert max(map(len, section.text().splitlines())) <= WIDTH
