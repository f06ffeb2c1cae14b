"""The unit of a coordinate: one exact formula, also just beside powers of two."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxnet import Verdict, check_gradients
from jaxnet.verification.directions import units


def awkward(dtype: str) -> np.ndarray:
    """Powers of two, their neighbours, and powers of 1.1."""
    powers = np.exp2(np.arange(-10, 21)).astype(dtype)
    beside = [np.nextafter(powers, dtype_of(dtype, way)) for way in (-np.inf, np.inf)]
    return np.concatenate([powers, *beside, (1.1 ** np.arange(-60, 61)).astype(dtype)])


def dtype_of(dtype: str, value: float) -> np.floating:
    """A number of the dtype: nextafter steps in the coarser of its two arguments'."""
    return np.dtype(dtype).type(value)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_unit_is_the_power_of_two_at_or_below(dtype: str) -> None:
    """NumPy and a compiled program give the same power p, with p <= x < 2p."""
    x = np.abs(awkward(dtype)).astype(np.float64)
    x = np.append(x, [np.finfo(float).tiny, np.finfo(float).max, 3e-300])
    unit = units(x, 0.0)
    with jax.enable_x64(True):
        compiled = np.asarray(jax.jit(lambda v: units(v, 0.0, jnp))(x))
    assert np.array_equal(unit, compiled)
    assert np.all((unit <= x) & (x / 2 < unit))
    assert np.all(np.frexp(unit)[0] == 0.5)


def test_entries_just_below_a_power_of_two() -> None:
    """A right gradient agrees there, and a halved entry is caught and named."""

    def loss(x: jax.Array) -> jax.Array:
        return jnp.sum(x**2)

    x = np.array([(0.1 + 0.7) * 10, 3, 5])
    assert check_gradients(loss, x).verdict is Verdict.AGREE
    wrong = check_gradients(loss, x, 2 * x * [0.5, 1, 1])
    assert wrong.verdict is Verdict.DISAGREE
    assert wrong.worst.worst_index == (0,)


def test_a_coordinate_too_small_to_be_resolved() -> None:
    """It is named, and its square is nobody's overflow."""
    x = np.array([0.1, 1e-200])
    report = check_gradients(
        lambda x: np.sum(x * np.log(x)), x, lambda x: np.log(x) + 1
    )
    assert report.verdict is Verdict.UNRESOLVED
    assert report.worst.worst_index == (1,)


@pytest.mark.slow
@pytest.mark.parametrize("size", [5, 90])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@settings(max_examples=5, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**32 - 1))
def test_awkward_parameters(dtype: str, size: int, seed: int) -> None:
    """Right ones agree; one coordinate off by 1e-3 is caught and named."""
    random = np.random.default_rng(seed)
    scale = 2.0 ** random.integers(-8, 18)
    values = awkward(dtype)
    alike = values[(values > scale / 4) & (values < 4 * scale)]
    x = random.choice(alike, size) * random.choice(np.array([-1, 1], dtype), size)

    def loss(q: jax.Array) -> jax.Array:
        return jnp.sum((q / scale) ** 3)

    right = 3 * (x / scale) ** 2 / scale
    assert check_gradients(loss, x, right).verdict is Verdict.AGREE
    place = int(random.integers(size))
    wrong = right.copy()
    wrong[place] *= 1 + 1e-3
    report = check_gradients(loss, x, wrong)
    assert report.verdict is Verdict.DISAGREE
    assert report.worst.worst_index == (place,)
