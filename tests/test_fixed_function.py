"""Which functions may be traced once and for all: never one that can change."""

import functools
import math
import random
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpy.random as draws
import pytest
from jax.nn import relu

from jaxnet import numerical_gradient
from jaxnet.differences import numerical_gradient as finite_difference
from jaxnet.fixed_function import fixed

MANY = finite_difference.FEW + 1
SCALE = 2.0
ARRAY = np.ones(MANY)
LIST = [1.0]
OBJECT = SimpleNamespace(scale=1.0)
sin = math.sin


def squares(x: Any) -> Any:
    """Reads nothing but its argument."""
    return (x**2).sum()


def scaled(x: Any) -> Any:
    """Reads a global number and a module."""
    return SCALE * jnp.sum(x**2)


def by_default(x: Any, scale: float = 2.0, *, shift: float = 1.0) -> Any:
    """Reads its defaults."""
    return scale * (x**2).sum() + shift


def nested(x: Any) -> Any:
    """Reads a global number in an inner function."""
    return sum((lambda i: SCALE * x[i])(i) for i in range(len(x)))


def counting(x: Any) -> Any:
    """Assigns a global name."""
    global SCALE
    SCALE = SCALE * 1.0
    return x.sum()


def importing(x: Any) -> Any:
    """Reads whatever a module holds now."""
    from tests import test_fixed_function

    return test_fixed_function.OBJECT.scale * x.sum()


def with_attribute(x: Any) -> Any:
    """Reads an attribute of itself."""
    return x.sum() * with_attribute.scale  # type: ignore[attr-defined]


with_attribute.scale = 2.0  # type: ignore[attr-defined]


def closing_over(value: Any) -> Callable[[Any], Any]:
    """A function that reads the value."""
    return lambda x: (value * x**2).sum()


def of_module(function: Any) -> Callable[[Any], Any]:
    """A function that calls another one."""
    return lambda x: function(x).sum()


LASTING = {
    "argument alone": squares,
    "global number": scaled,
    "defaults": by_default,
    "inner function": nested,
    "closed-over number": closing_over(3.0),
    "closed-over NumPy scalar": closing_over(np.float32(3)),
    "function of JAX": of_module(jnp.tanh),
    "function of math": lambda x: sin(1.0) * x.sum(),
    "jax.jit": jax.jit(lambda x: (ARRAY * x).sum()),
    "calls what jax.jit wrapped": of_module(jax.jit(squares)),
}

CHANGING = {
    "global array": lambda x: (ARRAY * x).sum(),
    "global list": lambda x: LIST[0] * x.sum(),
    "attribute of an object": lambda x: OBJECT.scale * x.sum(),
    "closed-over array": closing_over(np.ones(MANY)),
    "closed-over JAX array": closing_over(jnp.ones(MANY)),
    "default array": lambda x, w=ARRAY: (w * x).sum(),
    "function of the user": lambda x: squares(x),
    "library function around the user's": of_module(
        jax.vmap(lambda x: OBJECT.scale * x)
    ),
    "NumPy's ufunc of any function": of_module(np.frompyfunc(abs, 1, 1)),
    "assigns a global": counting,
    "imports": importing,
    "its own attribute": with_attribute,
    "method": SimpleNamespace(f=squares).f.__call__,
    "partial": functools.partial(squares),
    "class": SimpleNamespace,
    "random of NumPy": lambda x: np.random.normal() * x.sum(),  # noqa: NPY002
    "random module": lambda x: draws.normal() * x.sum(),  # noqa: NPY002
    "random of Python": lambda x: random.random() * x.sum(),
    "other builtin": lambda x: x.sum() * len(vars(OBJECT)),
    "custom derivative": of_module(relu),
    "absent name": lambda x: no_such_name * x,  # type: ignore[name-defined]
}


@pytest.mark.parametrize("name", LASTING)
def test_lasting(name: str) -> None:
    """It equals itself as seen again, and differs from every other."""
    found = fixed(LASTING[name])
    assert found is not None
    assert found == fixed(LASTING[name])
    assert hash(found) == hash(fixed(LASTING[name]))
    others = [fixed(LASTING[other]) for other in LASTING if other != name]
    assert found not in others
    assert found != LASTING[name]


@pytest.mark.parametrize("name", CHANGING)
def test_changing(name: str) -> None:
    """What may compute something else tomorrow is not taken for fixed."""
    assert fixed(CHANGING[name]) is None


def test_equal_functions_are_one() -> None:
    """A function made anew in every call, of the same values, is the same."""
    assert fixed(closing_over(3.0)) == fixed(closing_over(3.0))
    assert fixed(closing_over(math.nan)) == fixed(closing_over(math.nan))
    for one, other in (
        (3.0, 4.0),
        (1, 1.0),
        (0.0, -0.0),
        (1, True),
        (3.0, np.float32(3)),
    ):
        assert fixed(closing_over(one)) != fixed(closing_over(other))


def test_what_a_fixed_function_reads_may_be_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A name assigned anew makes it another function, with another gradient."""
    x = np.linspace(-1, 1, MANY)
    scale = 1.0

    def closing(x: Any) -> Any:
        return scale * (x**2).sum()

    def slopes(function: Callable[[Any], Any]) -> np.ndarray:
        return np.asarray(numerical_gradient(function, x)).round(6)

    for scale in (1.0, 2.0, 1.0, -3.0):
        assert (slopes(closing) == (2 * scale * x).round(6)).all()
    for number in (5.0, 7.0):
        monkeypatch.setitem(globals(), "SCALE", number)
        assert (slopes(scaled) == (2 * number * x).round(6)).all()
    monkeypatch.setattr(by_default, "__defaults__", (0.5,))
    assert (slopes(by_default) == x.round(6)).all()
    monkeypatch.setitem(globals(), "jnp", SimpleNamespace(sum=lambda y: 2 * y.sum()))
    assert (slopes(scaled) == (28 * x).round(6)).all()


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """One entry for each time that differences are traced or a function is."""
    seen: list[str] = []
    slopes_of, traced = finite_difference.slopes_of, finite_difference.Traced
    monkeypatch.setattr(
        finite_difference,
        "slopes_of",
        lambda *args: [slopes_of(*args), seen.append("differences")][0],
    )
    monkeypatch.setattr(
        finite_difference,
        "Traced",
        lambda *args: [traced(*args), seen.append("function")][0],
    )
    finite_difference._slopes_of_fixed.cache_clear()
    yield seen
    finite_difference._slopes_of_fixed.cache_clear()


def test_a_fixed_function_is_traced_once(traces: list[str]) -> None:
    """For each structure of the point; any other in every call."""
    for start in (0.0, 1.0):
        numerical_gradient(squares, np.full(MANY, start))
    assert traces == ["differences"]
    numerical_gradient(squares, np.ones((MANY, 1)))
    numerical_gradient(lambda p: (p["a"] ** 2).sum(), {"a": np.ones(MANY)})
    assert traces == 3 * ["differences"]
    traces.clear()
    weights = np.ones(MANY)
    weighted = closing_over(weights)
    for factor in (1.0, 3.0):
        weights *= factor
        slopes = numerical_gradient(weighted, np.ones(MANY))
        assert np.allclose(slopes, 2 * weights, rtol=1e-8)
    assert traces.count("function") == 2


def test_settings_of_jax_are_not_forgotten() -> None:
    """A fixed function is traced anew under another setting that it may obey."""
    x = np.full(MANY, 0.5)
    assert numerical_gradient(squares, x).shape == x.shape
    mixed = jax.jit(lambda x: (x * jnp.ones(MANY, np.float32)).sum())
    with jax.numpy_dtype_promotion("standard"):
        assert np.allclose(numerical_gradient(mixed, x), 1)
    with (
        jax.numpy_dtype_promotion("strict"),
        pytest.raises(Exception, match="romotion"),
    ):
        numerical_gradient(mixed, x)
