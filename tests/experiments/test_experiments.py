"""Each experiment runs in its quick mode, and prints and writes what it says."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from experiments import calibration, devices, stress_verifier, threshold_sensitivity
from experiments.measurements import checks
from experiments.threshold_sensitivity import changed, thresholds
from jaxnet import Verdict, check_gradients
from jaxnet.verification.leaf import verdict
from tests.tolerances import close

pytestmark = pytest.mark.slow

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
PNG = b"\x89PNG\r\n\x1a\n"
NAMES = [
    "loss_functions",
    "gradient_descent",
    "simple_net",
    "compare_gradients",
    "finite_difference_step",
    "devices",
    "verifier_at_scale",
]


class Outcome:
    """What one experiment printed and wrote."""

    def __init__(self, text: str, folder: Path) -> None:
        self.text, self.folder = text, folder

    def json(self, name: str):
        """What it wrote as JSON under a name."""
        return json.loads((self.folder / name).read_text())

    def figures(self) -> set[str]:
        """The names of the figures, each of which is a PNG file of some size."""
        paths = list(self.folder.glob("*.png"))
        assert all(path.read_bytes().startswith(PNG) for path in paths)
        assert all(path.stat().st_size > 5000 for path in paths)
        return {path.name for path in paths}


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run the main of an experiment by its command line; it keeps to 100 columns."""

    def run(name: str) -> Outcome:
        flags = ["--quick", "--out", str(tmp_path / "new" / "folder")]
        monkeypatch.setattr(sys, "argv", [name, *flags])
        importlib.import_module(f"experiments.{name}").main()
        text = capsys.readouterr().out
        lines = [x for x in text.splitlines() if not x.startswith("written")]
        assert max(map(len, lines)) <= 100
        return Outcome(text, tmp_path / "new" / "folder")

    return run


def test_loss_functions(run):
    """The printed numbers stand beside ours, and agree within rounding."""
    outcome = run("loss_functions")
    printed = ("0.0975", "0.5975", "0.510825457099338", "2.3025840929945454")
    for number in (*printed, "16.118095650958317", "8.059047775479161"):
        assert number in outcome.text
    for row in outcome.json("loss_functions.json"):
        assert close(row["float64"], row["printed"], "float64")
        assert close(row["float32"], row["printed"], "float32")


def test_gradient_descent(run):
    """The gradient at (3, 4), the end of the descent, and two figures."""
    outcome = run("gradient_descent")
    assert "(6, 8) (6.0000000000, 8.0000000000)" in outcome.text
    assert len(re.findall(r"\(-5\.0489e-09, 6\.7319e-09\)", outcome.text)) == 2
    assert outcome.figures() == {"descent.png", "gradient_field.png"}
    path = np.array(outcome.json("gradient_descent.json")["path"])
    assert path.shape == (1001, 2)
    assert path[0].tolist() == [-3, 4]


def test_simple_net(run):
    """The notebook's loss, and three gradients that agree."""
    outcome = run("simple_net")
    assert "notebook:                 1.802525526" in outcome.text
    assert "the book's + 1e-7:  1.802525526" in outcome.text
    assert "from the logits:         1.802526132" in outcome.text
    routes = {
        k: np.array(v) for k, v in outcome.json("simple_net.json")["d_weight"].items()
    }
    assert close(routes["backprop"], routes["autodiff"], "float64")
    assert close(routes["numerical"], routes["autodiff"], "float64", "difference")


def test_compare_gradients(run):
    """All leaves of both output layers agree on MNIST, pair by pair."""
    outcome = run("compare_gradients")
    assert outcome.figures() == {
        "gradients_softmax_cross_entropy.png",
        "gradients_sigmoid_cross_entropy.png",
    }
    kinds = {
        "backprop": ("float64", "rounding"),
        "numerical": ("float64", "difference"),
        "backprop32": ("float32", "rounding"),
    }
    results = outcome.json("compare_gradients.json")
    assert set(results) == {"softmax_cross_entropy", "sigmoid_cross_entropy"}
    for rows in results.values():
        assert {row["leaf"] for row in rows} == {"W1", "b1", "W2", "b2"}
        assert {row["pair"][0] for row in rows} == set(kinds)
        for row in rows:
            assert close(row["largest"], 0.0, *kinds[row["pair"][0]])
            if not row["pair"][0].startswith("numerical"):
                assert close(row["relative"], 0.0, *kinds[row["pair"][0]])
    assert "W1    784×50      numerical - autodiff" in outcome.text


def test_finite_difference_step(run):
    """The book's step drowns the slope in float32, and is fine in float64."""
    outcome = run("finite_difference_step")
    assert outcome.figures() == {"error_against_step.png"}
    result = outcome.json("finite_difference_step.json")
    book = int(np.argmin(np.abs(np.array(result["steps"]) - 1e-4)))
    assert result["float32"][book] > 1
    assert close(1 + result["float64"][book], 1.0, "float64", "difference")
    best = result["steps"][int(np.argmin(result["float32"]))]
    assert best > 1e-3
    assert "the book's step" in outcome.text


def test_devices(run):
    """Any number of devices, and two processes, lead where one does, as far as stated.

    Another key, as is seen, does not. Of so small a net one device takes all
    differences.
    """
    result = run("devices").json("devices.json")
    places = {"1 device", "8 devices", "2 processes", "another key"}
    assert {row["place"] for row in result["ulps"]} == places
    for row in result["ulps"]:
        most = devices.MOST_ULPS[row["route"]]
        for batches in devices.BATCHES:
            assert (row[batches] <= most) == (row["place"] != "another key")
            one_chunk = row["route"] == "numerical" and row["place"] != "another key"
            assert (row[batches] == 0) == (row["place"] == "1 device" or one_chunk)
    assert [row["route"] for row in result["on_paper"]] == list(devices.ROUTES)


def test_devices_on_paper():
    """More devices are faster, until messages take longer than what they save."""
    cheap, dear = (devices.on_paper("a route", s) for s in (1e-6, 1e-3))
    assert cheap["pays_up_to"] < dear["pays_up_to"]
    assert 1 < dear["speedups"][8] < 8


def test_verifier_at_scale(run):
    """Every leaf of a larger net agrees, whatever its size, in 100 evaluations."""
    result = run("verifier_at_scale").json("verifier_at_scale.json")
    assert len(result["check"]["leaves"]) == 20
    for leaf in result["check"]["leaves"].values():
        assert leaf["verdict"] == "AGREE"
        assert leaf["evaluations"] <= 100
        assert leaf["resolution"] < 3e-8
    assert 0 < result["gradient"]["peak_bytes"] < result["check"]["peak_bytes"]


def test_threshold_sensitivity(monkeypatch, capsys):
    """A threshold is changed where it is used, and put back; doubled, it can matter."""
    monkeypatch.setattr(sys, "argv", ["threshold_sensitivity", "--quick"])
    threshold_sensitivity.main()
    assert "KINK_BOUNDS = 8, differences.step_ladder" in capsys.readouterr().out
    (found,) = (x for x in thresholds() if x.name == "COARSEST" and x.value < 0.1)
    with changed(found, 1e-12):
        assert found.value * 1e-12 == verdict.COARSEST
        assert (
            check_gradients(lambda x: jnp.sum(x**2), 1.5).verdict is Verdict.UNRESOLVED
        )
    assert found.value == verdict.COARSEST
    assert check_gradients(lambda x: jnp.sum(x**2), 1.5).passed


def test_stress_verifier(capsys, tmp_path):
    """Wrong gradients are caught and named; what is below rounding counts as missed."""
    stress_verifier.show(stress_verifier.Options(count=2, out=tmp_path))
    assert re.search(r"place named +2\n", capsys.readouterr().out)
    found = json.loads((tmp_path / "stress.json").read_text())
    assert (found["right AGREE"], found["wrong caught"], found["exceptions"]) == (
        2,
        2,
        [],
    )
    hidden = stress_verifier.run(stress_verifier.Options(count=2, relative=1e-15))
    assert hidden["wrong missed"] == len(hidden["exceptions"]) == 2


def test_calibration(monkeypatch, capsys):
    """An error of the stated resolution is caught; one of a hundredth mostly is not."""
    flags = calibration.Flags(functions=2)
    found = list(calibration.caught(flags, "float64", "small"))
    assert len(found) == 2 * len(calibration.PATTERNS) * len(calibration.TIMES)
    assert all(is_seen for *_, is_seen in found)
    monkeypatch.setattr(calibration, "TIMES", (0.01,))
    hidden = list(calibration.caught(flags, "float64", "small"))
    assert not all(is_seen for *_, is_seen in hidden)
    monkeypatch.setattr(sys, "argv", ["calibration", "--quick"])
    calibration.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + 4 * 2 * len(calibration.PATTERNS)


@pytest.mark.parametrize("name", NAMES)
def test_it_opens_with_its_question(name):
    """The docstring asks a question, gives the command, and nothing runs at import."""
    module = importlib.import_module(f"experiments.{name}")
    question, _, command, *_ = module.__doc__.splitlines()
    assert question.endswith("?")
    assert command.strip() == f"python experiments/{name}.py"
    assert "Takes" in module.__doc__
    assert max(len(line) for line in module.__doc__.splitlines()) <= 88


def test_the_command_runs_from_any_folder(tmp_path):
    """As a plain script, without a display, it writes to the folder it is given."""
    command = [
        sys.executable,
        EXPERIMENTS / "gradient_descent.py",
        "--quick",
        "--out",
        "o",
    ]
    environment = {"PATH": "", "HOME": str(tmp_path), "MPLCONFIGDIR": str(tmp_path)}
    result = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert result.stderr == ""
    assert (tmp_path / "o" / "descent.png").is_file()


def test_check_cost():
    """Our checks compile nothing the second time; each row counts what it compiled."""
    assert len(checks.operations()) == 52
    rows = {row["check"]: row for row in checks.cost_of_checks(quick=True).rows}
    for name in ("check_vjp of sin", "check_gradients of an MLP"):
        assert rows[name]["compiled"] > 0 == rows[name]["again"]
        assert rows[name]["evaluations"] > 100
    assert rows["check_grads of sin"]["compiled"] > 0


def test_cost_of_models():
    """All leaves of a right model pass; a wrong entry or rule of others is named."""
    right, wrong, large, *of_rules = checks.cost_of_models(quick=True).rows
    assert right["leaves"] == wrong["leaves"] == 49
    assert right["called wrong"] is None
    assert right["worst resolution"] < 1e-4
    assert wrong["called wrong"] == "`['blocks'][2]['q'][1, 2]`"
    assert large["called wrong"] == "`params[3333]`"
    assert [row["called wrong"] for row in of_rules] == [None, "`gelu`", "`gelu`"]
