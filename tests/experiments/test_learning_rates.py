"""The learning rates: one program's 16 runs are those of 16 runs by themselves."""

import json
import sys

import numpy as np
import pytest

from experiments import learning_rates
from jaxnet import load_mnist

pytestmark = pytest.mark.slow


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the script by its command line; what it printed and wrote."""

    def run(*flags: str) -> tuple[str, dict]:
        command = ["learning_rates", "--quick", "--out", str(tmp_path), *flags]
        monkeypatch.setattr(sys, "argv", command)
        learning_rates.main()
        text = capsys.readouterr().out
        return text, json.loads((tmp_path / "learning_rates.json").read_text())

    return run


def test_table_figure_and_comparison(run, tmp_path):
    """A row a rate, a PNG, and losses equal to those of single runs up to rounding."""
    text, result = run("--compare")
    count = len(learning_rates.RATES)
    assert result["learning_rates"] == list(learning_rates.RATES)
    for name in ("train_accuracy", "test_accuracy"):
        shares = np.array(result[name])
        assert shares.shape == (count, learning_rates.NUM_SEEDS)
        assert ((shares >= 0) & (shares <= 1)).all()
    assert result["largest_difference"] < 1e-3
    assert result["seconds_apart"] > 0
    assert (tmp_path / "learning_rates.png").read_bytes().startswith(b"\x89PNG")
    assert "16 runs of 50 steps in one program" in text
    assert "one after the other" in text
    assert text.count("the book's") == 1
    lines = [x for x in text.splitlines() if not x.startswith("written")]
    assert max(map(len, lines)) <= 100


def test_runs_differ_as_they_should():
    """Two seeds differ, a seed starts alike at every rate, a single run is its own."""
    data = learning_rates.quick_data(load_mnist())
    runs = learning_rates.all_runs(data)
    weight = np.asarray(runs.params[0].weight)
    assert np.array_equal(weight[0], weight[2])
    assert not np.array_equal(weight[0], weight[1])
    rates = np.asarray(runs.optimizer_state.hyperparams["learning_rate"])
    assert np.array_equal(rates[::2], np.array(learning_rates.RATES, np.float32))
    assert np.array_equal(rates[::2], rates[1::2])
    one = learning_rates.single_run(runs, 3)
    assert np.array_equal(one.params[0].weight, weight[3])
    assert one.key.shape == ()
