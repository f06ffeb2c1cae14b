"""The noise of a computed function, measured and not assumed.

Values a tiny step apart differ by the function's smooth change, which repeated
differences remove, and by its noise, which they amplify by a known factor.
Source: Moré and Wild, *Estimating Computational Noise*, SISC 33 (2011), section 3.
"""

import math

import numpy as np
from jaxtyping import Float

from jaxnet.precision import DOUBLE

POINTS = 8
"""Of one table, as Moré and Wild advise: 7 to 9."""

FINE_SPACING = 2.0**-34
"""Steps of 2^18 ulps: noise shows, and smooth change is nearly linear."""

COARSE_SPACING = 2.0**-22
"""For functions whose values are flat on the fine spacing."""

WIDEST_SPACING = 2.0**-5
"""Beyond it, smooth change looks like noise."""

STAIRS = 4
"""How many stairs of a function that rounds coarsely one step spans."""

DECAY = 1 / 64
"""A table is smooth, and moves, if its last differences say at most this share of what
its first ones do: those of noise say the same at every order, a stair's say more."""

ALIKE = 4.0
"""Three estimates within this factor of each other are noise, as in the source."""

OWN_ROUNDING = 1 / 8
"""In ulps of the value: the least noise of a function that rounds coarsely, however
flat it looks where it is measured."""

ROUGH_TIMES = 2.0**-4 * np.cos(np.pi * (np.arange(32) + 0.5) / 32)
"""Nodes of Chebyshev over 1/16 of the coordinates to each side…"""

ROUGH_DEGREE = 8
"""…where a polynomial of this degree follows a smooth phi to (1/16)^9, some 1e-11."""

Table = Float[np.ndarray, " points"]


def noise_times(precision: float) -> Float[np.ndarray, " times"]:
    """Where phi is evaluated: each side of 0 alone, so that a kink at 0 is no noise.

    precision: ε of the coarsest floating type the function computes in. A function that
    rounds to it is a staircase, seen as noise only by steps wider than a stair.
    """
    j = np.arange(1.0, POINTS + 1)
    spacings = coarse_spacing(precision) * j, FINE_SPACING * j
    return np.concatenate([side * s for s in spacings for side in (1.0, -1.0)])


def coarse_spacing(precision: float) -> float:
    """A step a few stairs wide, and not so wide that smooth change looks like noise."""
    return float(min(max(COARSE_SPACING, STAIRS * precision), WIDEST_SPACING))


def noise_level(
    start: float, values: Float[np.ndarray, " times"], precision: float
) -> float | None:
    """The standard deviation of phi's noise from its values at `noise_times`.

    The fine spacing is believed if phi is smooth and sloped there; a flat or jagged
    one says nothing of a staircase, and the coarse spacing is taken. The quieter side
    of 0 counts: a kink beside 0 disturbs one side only. A function that rounds to less
    than float64 has the noise of its own rounding at least, however flat it looks.
    The point itself is in no table: it may lie on a jump. Values are divided by their
    largest, so that no square overflows. None where no table is finite.
    """
    largest = float(np.max(np.abs(values[np.isfinite(values)]), initial=0.0)) or 1.0
    in_double = precision <= DOUBLE
    noise = _noise(values / largest, in_double)
    if noise is None or in_double:
        return None if noise is None else largest * noise
    return max(largest * noise, OWN_ROUNDING * precision * abs(start))


def is_flat(values: Float[np.ndarray, " times"]) -> bool:
    """Whether phi does not move on the fine spacing, on neither side.

    What moves it on the coarse one is then its stairs, or its shape and no noise.
    """
    fine = values.reshape(4, POINTS)[2:]
    return bool(np.all(fine == fine[0, 0]))


def roughness(values: Float[np.ndarray, " times"]) -> float:
    """The standard deviation of phi at `ROUGH_TIMES` from a polynomial of degree 8.

    Iterations to a tolerance, and adaptive steps, are smooth up to where their number
    changes: that is no noise between neighbours, and seen on a wide line only. 0 where
    phi is not finite on all of it.
    """
    if not np.isfinite(values).all():
        return 0.0
    fitted = np.polynomial.Chebyshev.fit(ROUGH_TIMES, values, ROUGH_DEGREE)
    rest = len(values) - ROUGH_DEGREE - 1
    return float(np.sqrt(np.sum((values - fitted(ROUGH_TIMES)) ** 2) / rest))


def _noise(values: Float[np.ndarray, " times"], in_double: bool) -> float | None:
    tables = list(values.reshape(4, POINTS))
    groups = [g for g in (tables[:2], tables[2:]) if np.isfinite(g).all()]
    if not groups:
        return None
    fine = tables[2:] if np.isfinite(tables[2:]).all() and in_double else []
    smooth = [t for t in fine if _is_smooth(t)]
    for group in (smooth, *groups):
        levels = [_more_wild(table, group is smooth) for table in group]
        if any(map(math.isfinite, levels)):
            return min(level for level in levels if math.isfinite(level))
    return 0.0


def _more_wild(table: Table, is_smooth: bool) -> float:
    """The first difference level at which three estimates agree and signs change.

    Where a smooth table has none, its noise is below the smallest estimate.
    """
    estimates, changes = _estimates(table)
    for level in range(len(estimates) - 2):
        three = estimates[level : level + 3]
        if changes[level] and max(three) <= ALIKE * min(three):
            return estimates[level]
    return min(estimates) if is_smooth else math.nan


def _estimates(table: Table) -> tuple[list[float], list[bool]]:
    """Of the noise, by the differences of each order; whether these change sign."""
    estimates, changes = [], []
    for order in range(1, POINTS - 1):
        table = np.diff(table)
        gamma = math.factorial(order) ** 2 / math.factorial(2 * order)
        estimates.append(math.sqrt(gamma * float(np.mean(table**2))))
        changes.append(bool(np.min(table) < 0 < np.max(table) or not table.any()))
    return estimates, changes


def _is_smooth(table: Table) -> bool:
    estimates, _ = _estimates(table)
    return 0 < estimates[-1] <= DECAY * estimates[0]
