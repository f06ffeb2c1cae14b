"""Where values lie on stairs: seen, but not where a function bends, or has a jump."""

from collections.abc import Callable

import numpy as np
import pytest

from jaxnet.differences.least_squares import FIT_TIMES
from jaxnet.differences.stairs import (
    COARSE_STAIRS,
    STAIR_TIMES,
    from_stairs,
    lowest_stair,
    may_hide_stairs,
    slope_between,
    stair_width,
)
from jaxnet.differences.step_ladder import TIMES, from_ladder

Phi = Callable[[np.ndarray], np.ndarray]
DOUBLE, SINGLE = 2.0**-52, 2.0**-23


def rounded(x: np.ndarray, dtype: type) -> np.ndarray:
    """The nearest number of fewer bits, in float64."""
    return np.asarray(x).astype(dtype).astype(np.float64)


def width(phi: Phi, precision: float = DOUBLE) -> float:
    """That of the stairs of a function of the time."""
    return stair_width(phi(STAIR_TIMES), precision)


@pytest.mark.parametrize("smooth", [0.0, 0.3, -1.0])
@pytest.mark.parametrize(
    "phi",
    [
        lambda t: np.round(np.sin(1 + t), 3),
        lambda t: rounded(np.sin(1 + t), np.float16),
        lambda t: np.sin(rounded(1 + t, np.float16)),
    ],
)
def test_coarse_stairs_are_seen_beside_what_is_smooth(phi: Phi, smooth: float) -> None:
    """A part in half precision, and one that is not rounded."""
    assert width(lambda t: phi(t) + smooth * (1 + t) ** 2) >= COARSE_STAIRS


def test_fine_stairs_are_known_as_such() -> None:
    """Those of float32, unless they are known already."""
    single = lambda t: rounded(np.sin(1 + t), np.float32)  # noqa: E731
    assert 0 < width(single) < COARSE_STAIRS
    assert width(single, SINGLE) == 0


@pytest.mark.parametrize(
    "phi",
    [
        lambda t: np.sin(1 + t),
        lambda t: np.sin(1e3 * t),
        lambda t: np.sin(1e6 * t),
        lambda t: np.exp(50 * t),
        lambda t: 1e9 + 1e-7 * t,
        lambda t: np.maximum(t, 0.1),
        lambda t: np.sum(np.maximum(t - np.linspace(-1, 1, 500)[:, None], 0), 0),
        lambda t: np.sin(t) + (t > 0.1),
        lambda t: np.mod(7 * t, 1) * t,
        np.ones_like,
        lambda t: np.where(t < 0, np.nan, 1.0),
    ],
)
def test_what_bends_or_jumps_once_lies_on_none(phi: Phi) -> None:
    """Waves, kinks, many kinks, a jump, a saw, and nothing at all."""
    assert width(phi) == 0


def test_a_ladder_that_is_one_slope_needs_no_look() -> None:
    """It is looked for stairs where wide steps and fine ones differ, or none moves."""

    def hides(phi: Phi) -> bool:
        return may_hide_stairs(from_ladder(phi(TIMES), 1e-16))

    assert not hides(lambda t: np.sin(1 + t))
    assert hides(lambda t: rounded(np.sin(1 + t), np.float16))
    assert hides(lambda t: rounded(np.sin(1 + t), np.float16) + 0.1 * t)


def test_the_slope_between_jumps_is_that_of_most_places() -> None:
    """Beside a jump too; a smooth part beside the stairs is all of it."""
    for slope in (0.0, 0.3):
        values = np.round(np.sin(1 + STAIR_TIMES), 2) + slope * STAIR_TIMES
        width = stair_width(values, np.finfo(np.float64).eps)
        assert slope_between(values, width) == pytest.approx(slope, abs=1e-9)


def test_the_slope_on_stairs_is_known_but_for_one_of_them() -> None:
    """It is never called converged: the function may be as it is between them."""
    values = np.round(np.sin(1 + FIT_TIMES), 2)
    assert lowest_stair(values) == pytest.approx(0.01)
    found = from_stairs(values, 0.01, 0.0)
    assert found.on_stairs
    assert not found.central.converged
    assert found.central.rests == 0
    assert abs(found.central.value - np.cos(1)) < found.central.bound < 0.1
    flat = from_stairs(np.zeros_like(values), 0.01, 0.0)
    assert 0.01 < flat.central.bound < 0.1
