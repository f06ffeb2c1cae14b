"""`import jaxnet` gives the names that are promised, documented, and little else."""

import inspect
import subprocess
import sys

import pytest

import jaxnet

PROMISED = [
    "Mnist",
    "load_mnist",
    "one_hot",
    "from_one_hot",
    "Network",
    "Dense",
    "Params",
    "init_params",
    "sigmoid",
    "softmax",
    "logits",
    "predict",
    "loss",
    "accuracy",
    "sum_squared_error",
    "cross_entropy_error",
    "numerical_gradient",
    "gradient_descent",
    "gradients",
    "train",
    "State",
    "History",
    "save_checkpoint",
    "load_checkpoint",
]


@pytest.mark.parametrize("name", PROMISED)
def test_promised_names_are_there(name):
    """Each name is public, and can be reached."""
    assert name in jaxnet.__all__
    assert hasattr(jaxnet, name)


def test_all_is_complete_and_without_repeats():
    """__all__ names what exists, once each."""
    assert len(set(jaxnet.__all__)) == len(jaxnet.__all__)
    assert all(hasattr(jaxnet, name) for name in jaxnet.__all__)


def test_the_routes_are_there():
    """jaxnet.gradients has the three routes, with one signature to begin with."""
    for name in ("backprop", "autodiff", "numerical"):
        signature = inspect.signature(getattr(jaxnet.gradients, name))
        assert list(signature.parameters)[:4] == [
            "params",
            "images",
            "labels",
            "network",
        ]


@pytest.mark.parametrize("name", jaxnet.__all__)
def test_public_names_are_documented(name):
    """The first line of each docstring says something and ends as a sentence does."""
    if name == "Params":  # an alias
        return
    first = inspect.getdoc(getattr(jaxnet, name)).splitlines()[0]
    assert 10 < len(first) <= 88
    assert first.endswith(".")


def test_the_import_is_light():
    """Neither figures nor flags are loaded, and float64 is left off."""
    script = (
        "import sys, jax, jaxnet\n"
        "print(sorted({'matplotlib', 'tyro', 'beartype'} & set(sys.modules)))\n"
        "print(jax.config.jax_enable_x64)"
    )
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", script], capture_output=True, text=True
    )
    assert result.stdout.split() == ["[]", "False"], result.stderr
