"""The noise of a function is measured: float32's, a solver's, and none at a kink."""

from collections.abc import Callable

import numpy as np
import pytest

from jaxnet.differences.noise import (
    COARSE_SPACING,
    ROUGH_TIMES,
    coarse_spacing,
    noise_level,
    noise_times,
    roughness,
)

DOUBLE = float(np.finfo(np.float64).eps)
SINGLE = float(np.finfo(np.float32).eps)
HALF = float(np.finfo(np.float16).eps)

Phi = Callable[[np.ndarray], np.ndarray]


def measured(phi: Phi, precision: float = DOUBLE) -> float | None:
    """The noise of a function of the time, if it can be measured."""
    start = float(phi(np.zeros(1))[0])
    return noise_level(start, phi(noise_times(precision)), precision)


def level(phi: Phi, precision: float = DOUBLE) -> float:
    """The noise of a function of the time, which can be measured."""
    noise = measured(phi, precision)
    assert noise is not None
    return noise


@pytest.mark.parametrize(
    "phi",
    [np.sin, np.exp, lambda t: 1e8 + np.sin(t), lambda t: 1e-150 * np.exp(t)],
    ids=["sine", "exponential", "offset", "tiny"],
)
def test_a_smooth_function_has_the_noise_of_its_rounding(phi: Phi) -> None:
    """At most one ulp of its value."""
    size = abs(float(phi(np.full(1, 1e-3))[0]))
    assert level(phi) <= 2 * DOUBLE * size


def test_a_constant_has_none() -> None:
    """And gives no NaN."""
    assert level(lambda t: np.full_like(t, 0.3)) == 0


@pytest.mark.parametrize("noise", [1e-13, 1e-9, 1e-4])
def test_added_noise_is_measured(noise: float) -> None:
    """Within a factor 4, in 95 of 100 draws."""
    random = np.random.default_rng(5)
    found = np.array(
        [
            level(lambda t: np.sin(0.3 + t) + noise * random.standard_normal(t.size))
            for _ in range(100)
        ]
    )
    assert np.mean((found > noise / 4) & (found < 4 * noise)) >= 0.95


@pytest.mark.parametrize("frequency", [1e12, 1e17])
def test_roughness_is_noise(frequency: float) -> None:
    """The same at every call, as an iterative solver leaves it."""
    found = level(lambda t: np.sin(t) + 1e-7 * np.sin(frequency * (0.1 + t)))
    assert 1e-8 < found < 1e-6


def test_float32_inside_is_measured_over_its_treads() -> None:
    """Steps finer than a tread see a flat function; the coarse ones see its noise."""
    found = level(lambda t: np.sin(np.float32(0.7 + t)).astype(np.float64), SINGLE)
    assert SINGLE / 32 < found < 4 * SINGLE


def test_float32_that_nobody_told_of_is_seen_all_the_same() -> None:
    """Flat at the fine spacing says nothing: the coarse one is taken."""
    x = np.random.default_rng(6).standard_normal((5, 1))

    def phi(t: np.ndarray) -> np.ndarray:
        return np.sin(np.float32(x * (1 + t))).sum(axis=0, dtype=np.float64)

    assert SINGLE / 64 < level(phi) < 4 * SINGLE


def test_a_flat_function_of_less_precision_keeps_its_rounding() -> None:
    """float32 values that happen not to change still round: an eighth of an ulp."""
    assert level(lambda t: np.full_like(t, 3.0), SINGLE) == 3 * SINGLE / 8


@pytest.mark.parametrize("place", [0.0, 1e-12, -1e-12, 3e-8, -3e-8])
def test_a_kink_is_no_noise(place: float) -> None:
    """It disturbs one side of 0 at most; the quieter side counts."""
    assert level(lambda t: np.abs(t - place) + np.sin(t)) <= 1e-14


def test_a_jump_is_no_noise() -> None:
    """Each side of 0 is looked at by itself."""
    assert level(lambda t: np.sin(t) + np.where(t > 0, 0.5, 0.0)) <= 1e-14


def test_a_jump_on_either_side_is_no_noise() -> None:
    """The point itself, which lies on neither side, is in no table."""
    assert level(lambda t: np.sin(t) + np.sign(t)) <= 1e-14


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_noise_of_any_magnitude(size: float) -> None:
    """No square of a value over- or underflows."""
    random = np.random.default_rng(5)
    noise = 1e-9 * random.standard_normal(noise_times(DOUBLE).size)
    found = noise_level(size, size * (1 + noise), DOUBLE)
    assert found is not None
    assert size * 1e-10 < found < size * 1e-8


def test_a_steep_smooth_function_is_not_noise() -> None:
    """Its differences still fall at the highest order: below the last is no noise."""
    assert level(lambda t: np.sin(3e7 * t)) < 1e-6


def test_values_that_are_not_finite_give_no_nan() -> None:
    """Where too few values are finite, no noise is told, or none."""
    with np.errstate(invalid="ignore"):
        for phi in (np.sqrt, lambda t: np.where(t == 0, 1.0, np.nan)):
            noise = measured(phi)
            assert noise is None or np.isfinite(noise)
    assert measured(lambda t: np.where(t == 0, 1.0, np.nan)) in (None, 0.0)


@pytest.mark.parametrize("precision", [DOUBLE, SINGLE, HALF, 2.0**-7])
def test_the_spacing_is_wider_than_a_tread(precision: float) -> None:
    """And far below the size of a coordinate."""
    assert max(COARSE_SPACING, 4 * precision) >= coarse_spacing(precision)
    assert coarse_spacing(precision) >= min(4 * precision, 2.0**-5)
    assert np.abs(noise_times(precision)).max() <= 0.25


def test_steps_that_change_with_the_point_are_roughness() -> None:
    """An error of 1e-3 that starts anew wherever the number of steps changes."""
    sawtooth = 1e-3 * ((37 * ROUGH_TIMES) % 0.5)
    assert 1e-5 < roughness(np.exp(ROUGH_TIMES) + sawtooth) < 1e-3
    for smooth in (np.exp, np.sin, lambda t: 1 / (1 + t), lambda t: 0 * t + 3):
        assert roughness(smooth(ROUGH_TIMES)) < 1e-11
    assert roughness(np.where(ROUGH_TIMES < 0, np.nan, ROUGH_TIMES)) == 0
