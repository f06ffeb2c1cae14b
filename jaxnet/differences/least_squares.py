"""The derivative of a function that rounds coarsely, fitted to many values on a line.

Eight bits of mantissa leave no two steps that agree, so no ladder. But their rounding
averages out: the odd part (phi(t) - phi(-t)) / 2 is fitted by a t + b t³, the even part
by c + d |t| + e t², which is a kink where d is not 0. The residuals tell the noise.
"""

import numpy as np
from jaxtyping import Float

from jaxnet.differences.step_ladder import (
    NO_ESTIMATE,
    SMALLEST,
    DirectionalDerivative,
    Estimate,
)

WIDEST = 0.25
"""How far from 0, relative to the size of the coordinates…"""

PAIRS = 128
"""…and at how many t on each side: rounding averages out by their root, to 1/11."""

GOLDEN = (5**0.5 - 1) / 2
"""Multiples of it, modulo 1, fill the side evenly and in no rhythm with the steps of
the staircase that rounding makes."""

SIDE = WIDEST * ((0.5 + GOLDEN * np.arange(PAIRS)) % 1)
FIT_TIMES = np.concatenate([SIDE, -SIDE])

LEAST_USABLE = PAIRS // 4
"""So many finite pairs are needed, a factor 2 of the error that all would have."""

DEVIATIONS = 4.0
"""A bound in standard deviations: neighbours on one stair are not independent."""

FEW_STAIRS = 16
"""So few values along the whole line say that it crosses hardly any stair."""

Values = Float[np.ndarray, " values"]
Few = Float[np.ndarray, " few"]


def from_fit(values: Values, stair: float) -> DirectionalDerivative:
    """From phi at `FIT_TIMES`, of a function whose values lie on stairs so high."""
    forward, backward = values[:PAIRS], values[PAIRS:]
    usable = np.isfinite(forward) & np.isfinite(backward)
    finite = values[np.isfinite(values)]
    size = float(np.max(np.abs(finite), initial=0.0))
    t, forward, backward = SIDE[usable], forward[usable], backward[usable]
    if len(t) < LEAST_USABLE:
        return DirectionalDerivative(NO_ESTIMATE, NO_ESTIMATE, 0.0, size)
    odd, even = (forward - backward) / 2, (forward + backward) / 2
    cubic, error = _coefficient(odd, [t, t**3])
    quintic, _ = _coefficient(odd, [t, t**3, t**5])
    truncation = max(abs(quintic - cubic) - error / 2, 0.0)
    kink, doubt = _coefficient(even, [t, np.ones_like(t), t**2])
    floor = (SMALLEST + stair) / WIDEST
    return DirectionalDerivative(
        central=Estimate(cubic, error + truncation + floor, True),
        one_sided=Estimate(2 * kink, 2 * doubt + floor, True),
        jump=0.0,
        size=size,
    )


def ulp_that_hides(values: Values, precision: float) -> float:
    """An ulp of values that are few and rounded to ε = `precision`; else 0.0."""
    finite, few = _few(values)
    ulps = 2 * np.frexp(finite)[0] / precision
    if not len(few) or (ulps % 1).any():
        return 0.0
    return precision * float(np.max(np.abs(finite)))


def highest_stair(values: Values, elsewhere: float) -> float:
    """The highest of the stairs of few values, and of one elsewhere; else 0.0."""
    _, few = _few(values)
    return float(np.max(np.diff(few), initial=elsewhere)) if len(few) else 0.0


def _few(values: Values) -> tuple[Float[np.ndarray, " finite"], Few]:
    """The finite ones, and which there are of them if these are few: none, if not."""
    finite = values[np.isfinite(values)]
    found = np.unique(finite)
    return finite, found if len(found) <= FEW_STAIRS else found[:0]


def _coefficient(values: Values, basis: list[Values]) -> tuple[float, float]:
    """The factor of the first function of a basis, by least squares, and its error."""
    matrix = np.stack(basis, axis=1)
    scale = float(np.max(np.abs(values))) or 1.0
    inverse = np.linalg.pinv(matrix)
    factors = inverse @ (values / scale)
    residual = values / scale - matrix @ factors
    variance = float(residual @ residual) / (len(values) - len(basis))
    error = DEVIATIONS * variance**0.5 * float(np.linalg.norm(inverse[0]))
    return float(scale * factors[0]), float(scale * error)
