"""Functions that round coarsely: a slope fitted to many values, and a bound that holds.

bfloat16 is played by NumPy: eight bits of mantissa, rounded to even.
"""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet.differences.least_squares import FIT_TIMES, PAIRS, from_fit, ulp_that_hides
from jaxnet.differences.step_ladder import TIMES, DirectionalDerivative, from_ladder

SAFETY = 4
"""How many bounds an agreeing gradient may be off, by default."""

Phi = Callable[[np.ndarray], np.ndarray]
Dtype = type


def rounded(x: np.ndarray, dtype: Dtype) -> np.ndarray:
    """The nearest number of fewer bits, in float64."""
    return np.asarray(x).astype(dtype).astype(np.float64)


def of(phi: Phi) -> DirectionalDerivative:
    """The fitted slope of a function of the time."""
    with np.errstate(all="ignore"):
        values, eps = phi(FIT_TIMES), float(jnp.finfo(jnp.bfloat16).eps)
        return from_fit(values, ulp_that_hides(values, eps))


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_a_rounded_sine_has_its_slope(dtype: Dtype) -> None:
    """At 200 points, mostly within the bound, which is a tenth of the slope at most."""
    shares, excess = [], []
    for start in np.random.default_rng(0).uniform(0.5, 1.2, 200):

        def phi(t: np.ndarray, start: float = start) -> np.ndarray:
            return rounded(np.sin(rounded(start + 0.5 * t, dtype)), dtype)

        found, true = of(phi), 0.5 * np.cos(start)
        excess.append(abs(found.central.value - true) / found.central.bound)
        assert not found.has_kink
        shares.append(found.central.bound / true)
    assert np.median(shares) < 0.1
    assert max(excess) <= SAFETY
    assert np.mean(np.array(excess) > 1) <= 0.05


def test_the_ladder_would_not_have_it() -> None:
    """The planted mistake: differences of the same function do not converge."""

    def phi(t: np.ndarray) -> np.ndarray:
        return rounded(np.sin(rounded(0.7 + 0.5 * t, jnp.bfloat16)), jnp.bfloat16)

    ladder = from_ladder(phi(TIMES), float(jnp.finfo(jnp.bfloat16).eps) / 8).central
    assert not ladder.converged or ladder.bound > of(phi).central.bound


@pytest.mark.parametrize(("left", "right"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 0.5)])
def test_a_kink_has_two_slopes(left: float, right: float) -> None:
    """Rounded to bfloat16, and seen all the same."""
    found = of(lambda t: rounded(np.where(t < 0, left, right) * t, jnp.bfloat16))
    assert found.has_kink
    low, high = found.interval
    bound = found.central.bound + found.one_sided.bound
    low, high = low - bound, high + bound
    assert low <= min(left, right)
    assert high >= max(left, right)


def test_a_smooth_even_part_is_no_kink() -> None:
    """1 + t² has the slope 0 on both sides."""
    found = of(lambda t: rounded(1 + t**2, jnp.bfloat16))
    assert not found.has_kink
    assert abs(found.central.value) <= found.central.bound


def test_a_slope_within_one_stair_is_not_zero() -> None:
    """A large sum in bfloat16 hides what one entry changes; of float64 0 is 0."""
    hidden = of(lambda t: rounded(100 + 0.1 * t, jnp.bfloat16)).central
    assert abs(hidden.value - 0.1) <= hidden.bound
    assert of(lambda t: 0 * t + 0.3).central.bound < 1e-300


def test_too_few_finite_values_give_no_slope() -> None:
    """An infinite bound, and nothing that converged; a few missing ones do no harm."""
    found = of(lambda t: np.where(np.abs(t) < 0.01, t, np.nan))
    assert found.central.bound == np.inf
    assert not found.central.converged
    some = of(lambda t: np.where(t < 0.2, 3 * t, np.inf))
    assert some.central.converged
    assert some.central.value == pytest.approx(3)
    assert len(FIT_TIMES) == 2 * PAIRS


def test_the_smallest_and_largest_values() -> None:
    """No square over- or underflows."""
    for size in (0.0, 1e-200, 1e200):
        found = of(lambda t, size=size: size * np.sin(t))
        assert abs(found.central.value - size) <= SAFETY * found.central.bound
        assert found.central.bound <= 0.1 * size + 1e-300
