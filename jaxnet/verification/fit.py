"""The slope of a function that rounds coarsely, fitted to many values along a line.

Eight bits of mantissa leave no two steps that agree, so no ladder. But their rounding
averages out: the odd part (phi(t) - phi(-t)) / 2 is fitted by a t + b t³, the even part
by c + d |t| + e t², which is a kink where d is not 0. The residuals tell the noise.
"""

import numpy as np

from jaxnet.verification.ladder import SMALLEST, Estimate, Slope

WIDEST = 0.25
"""How far from 0, relative to the size of the coordinates…"""

PAIRS = 128
"""…and at how many t on each side."""

GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, modulo 1, fill the side evenly and in no step with the treads."""

SIDE = WIDEST * ((0.5 + GOLDEN * np.arange(PAIRS)) % 1)
FIT_TIMES = np.concatenate([SIDE, -SIDE])

DEVIATIONS = 4.0
"""A bound in standard deviations: neighbours on one tread are not independent."""


FEW = 16
"""So few values along the whole line say that it crosses hardly any tread."""


def fitted_slope(values: np.ndarray, precision: float) -> Slope:
    """The slope from phi at `FIT_TIMES`, of a function that rounds to `precision`."""
    forth, back = values[:PAIRS], values[PAIRS:]
    usable = np.isfinite(forth) & np.isfinite(back)
    size = float(np.max(np.abs(values[np.isfinite(values)]), initial=0.0))
    t, forth, back = SIDE[usable], forth[usable], back[usable]
    if len(t) < PAIRS // 4:
        nothing = Estimate(float("nan"), float("inf"), False)
        return Slope(nothing, nothing, 0.0, size)
    odd, even = (forth - back) / 2, (forth + back) / 2
    cubic, error = _coefficient(odd, [t, t**3])
    quintic, _ = _coefficient(odd, [t, t**3, t**5])
    truncation = max(abs(quintic - cubic) - error / 2, 0.0)
    kink, doubt = _coefficient(even, [t, np.ones_like(t), t**2])
    floor = SMALLEST / WIDEST + _tread(values[np.isfinite(values)], precision) / WIDEST
    return Slope(
        central=Estimate(cubic, error + truncation + floor, True),
        gap=Estimate(2 * kink, 2 * doubt + floor, True),
        jump=0.0,
        size=size,
    )


def _tread(values: np.ndarray, precision: float) -> float:
    """An ulp of values that are few and rounded themselves: it may hide a slope."""
    ulps = 2 * np.frexp(values)[0] / precision
    if (ulps % 1).any() or len(np.unique(values)) > FEW:
        return 0.0
    return precision * float(np.max(np.abs(values)))


def _coefficient(values: np.ndarray, basis: list[np.ndarray]) -> tuple[float, float]:
    """The factor of the first function of a basis, by least squares, and its error."""
    matrix = np.stack(basis, axis=1)
    scale = float(np.max(np.abs(values))) or 1.0
    inverse = np.linalg.pinv(matrix)
    factors = inverse @ (values / scale)
    residual = values / scale - matrix @ factors
    variance = float(residual @ residual) / (len(values) - len(basis))
    error = DEVIATIONS * variance**0.5 * float(np.linalg.norm(inverse[0]))
    return float(scale * factors[0]), float(scale * error)
