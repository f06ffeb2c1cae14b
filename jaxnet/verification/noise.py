"""The noise of a computed function, measured and not assumed.

Values a tiny step apart differ by the function's smooth change, which repeated
differences remove, and by its noise, which they amplify by a known factor.
Source: Moré and Wild, *Estimating Computational Noise*, SISC 33 (2011), section 3.
"""

import math

import numpy as np

POINTS = 8
FINE_SPACING = 2.0**-34
COARSE_SPACING = 2.0**-22


def noise_times(precision: float) -> np.ndarray:
    """Where phi is evaluated: each side of 0 alone, so that a kink at 0 is no noise.

    precision: ε of the coarsest floating type the function computes in. A function that
    rounds to it is a staircase, seen as noise only by steps wider than a tread.
    """
    j = np.arange(1.0, POINTS + 1)
    spacings = coarse_spacing(precision) * j, FINE_SPACING * j
    return np.concatenate([side * s for s in spacings for side in (1.0, -1.0)])


def coarse_spacing(precision: float) -> float:
    """A step a few treads wide, and not so wide that smooth change looks like noise."""
    return float(min(max(COARSE_SPACING, 4 * precision), 2.0**-5))


def noise_level(start: float, values: np.ndarray, precision: float) -> float | None:
    """The standard deviation of phi's noise from its values at `noise_times`.

    The fine spacing is believed if phi is smooth and sloped there; a flat or jagged
    one says nothing of a staircase, and the coarse spacing is taken. The quieter side
    of 0 counts: a kink beside 0 disturbs one side only. A function that rounds to less
    than float64 has the noise of its own rounding at least, however flat it looks.
    None where no table is finite.
    """
    if precision > np.finfo(np.float64).eps:
        noise = _noise(start, values, False)
        return None if noise is None else max(noise, precision * abs(start) / 8)
    return _noise(start, values, True)


def _noise(start: float, values: np.ndarray, in_double: bool) -> float | None:
    tables = [np.concatenate([[start], side]) for side in values.reshape(4, POINTS)]
    groups = [g for g in (tables[:2], tables[2:]) if np.isfinite(g).all()]
    if not groups:
        return None
    fine = tables[2:] if np.isfinite(tables[2:]).all() and in_double else []
    for group in ([t for t in fine if _is_smooth(t)], *groups):
        levels = [level for level in map(_more_wild, group) if math.isfinite(level)]
        if levels:
            return min(levels)
    return 0.0


def _is_smooth(table: np.ndarray) -> bool:
    first = np.diff(table)
    if not np.isfinite(first).all() or np.min(first) * np.max(first) <= 0:
        return False
    return bool(np.ptp(first) <= np.max(np.abs(first)) / 4)


def _more_wild(table: np.ndarray) -> float:
    """The first difference level at which three estimates agree and signs change."""
    if not np.isfinite(table).all():
        return math.nan
    estimates, changes = [], []
    for order in range(1, POINTS - 1):
        table = np.diff(table)
        gamma = math.factorial(order) ** 2 / math.factorial(2 * order)
        estimates.append(math.sqrt(gamma * float(np.mean(table**2))))
        changes.append(np.min(table) < 0 < np.max(table) or not table.any())
    for level in range(len(estimates) - 2):
        three = estimates[level : level + 3]
        if changes[level] and max(three) <= 4 * min(three):
            return estimates[level]
    return math.nan
