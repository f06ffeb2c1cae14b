"""`import jaxnet` gives the names that are promised, documented, and little else."""

import ast
import importlib
import inspect
import subprocess
import sys
from importlib.metadata import version

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


def loaded(script: str) -> set[str]:
    """The installed packages that a script imports, without what these need."""
    more = "; import sys; print({name.split('.')[0] for name in sys.modules})"
    words = [sys.executable, "-W", "error", "-c", script + more]
    result = subprocess.run(words, capture_output=True, text=True)
    assert result.stdout, result.stderr
    return ast.literal_eval(result.stdout) - sys.stdlib_module_names


@pytest.mark.slow
def test_the_import_is_light():
    """The verifier needs JAX, NumPy, jaxtyping; a name is imported when asked for."""
    bare = loaded("import jax, numpy, jaxtyping, opt_einsum, wadler_lindig")
    assert "jax" not in loaded("import jaxnet; dir(jaxnet); jaxnet.__all__")
    testing = loaded("import jaxnet.testing, jaxnet; jaxnet.check_gradients")
    assert testing - bare == {"jaxnet"}
    assert "optax" in loaded("import jaxnet; jaxnet.train")
    assert "matplotlib" not in loaded("import jaxnet; jaxnet.train")


def test_an_unknown_name_is_an_error():
    """As of any module."""
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        jaxnet.nothing  # noqa: B018


def test_the_version_is_that_of_the_distribution():
    """It stands in one place."""
    assert jaxnet.__version__ == version("jaxnet-gradients")


def test_figures_without_matplotlib_say_what_to_install(monkeypatch):
    """One line, with the extra."""
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    monkeypatch.delitem(sys.modules, "jaxnet.plots", raising=False)
    with pytest.raises(ImportError, match=r"pip install 'jaxnet-gradients\[exper"):
        importlib.import_module("jaxnet.plots")
