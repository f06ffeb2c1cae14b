"""Functions that are rounded where nobody sees it: printed, or in another library.

Between two stairs such a function is flat, or goes as smoothly as the part of it that
is not rounded; all else of its slope stands in jumps. Fine steps do not see these, and
no value tells whether a jump is rounding or meant.
"""

import numpy as np
from jaxtyping import Bool, Float

from jaxnet.differences.least_squares import (
    FIT_TIMES,
    WIDEST,
    from_fit,
    highest_stair,
)
from jaxnet.differences.step_ladder import NO_ESTIMATE, DirectionalDerivative

PLACES = 8
"""So many places on the line are looked at…"""

RATIO = 4.0
"""…each with neighbours, so many times as far as the one before…"""

BESIDE = RATIO ** np.arange(-15.5, -1)
"""…from a hair, which few stairs are narrower than, to an eighth."""

MOVED = 2.0
"""Where a straight line would move by so many ulps to the nearest neighbours, and none
of them moves, phi is flat: all of its slope stands in jumps."""

ULPS = 16.0
"""Else, what a value is off from what its neighbour nearer by makes expect, but for so
many ulps, is how phi bends…"""

JUMPED = 1.5 * RATIO**3
"""…and grows by RATIO³ at most from one neighbour to the next; at a jump by more…"""

STEEP = 1 / 16
"""…and is this share of the slope at least: a kink of many is less…"""

NEAR = 2.0**-5
"""…among neighbours so near: a jump that is meant is farther, as a rule…"""

EVERYWHERE = 6
"""…at so many of the places, where phi lies on stairs. A jump is at one."""

COARSE_STAIRS = 2.0**-18
"""Those of float32 are narrower; beside a ladder's wide steps they are noise."""

HALF = 2.0**-10
"""ε of float16; that of bfloat16 is coarser."""

SLOPES = 0.01
"""By how much of itself a slope must change from wide steps to fine ones…"""

WIDE = slice(1, 3)
"""…of these of the ladder, to be worth a look at the places."""

_PLACES = FIT_TIMES[:: len(FIT_TIMES) // PLACES]
STAIR_TIMES = np.concatenate([_PLACES, *(_PLACES + step for step in BESIDE)])

Values = Float[np.ndarray, " values"]


def may_hide_stairs(found: DirectionalDerivative) -> bool:
    """Whether a ladder shows another slope at wide steps, or none at the finest."""
    if found.rungs is None:
        return False
    wide, fine = found.rungs.extrapolated[WIDE], found.central.value
    with np.errstate(all="ignore"):  # it may be infinite at wide steps
        apart = np.abs(wide - fine) > SLOPES * np.maximum(np.abs(wide), abs(fine))
    return found.is_flat or bool(apart.any())


def stair_width(values: Values, precision: float) -> float:
    """How wide the stairs are that phi lies on, all along the line; 0.0 for none.

    values: of phi at `STAIR_TIMES`. precision: the ε to which it surely rounds.
    """
    here, *beside = values.reshape(-1, PLACES)
    if not (np.isfinite(values).all() and np.ptp(here)):
        return 0.0
    if _is_half_precision(values):
        return float(BESIDE[-1])
    ulp = precision * float(np.max(np.abs(values)))
    slope = float(np.ptp(here)) / (2 * WIDEST)
    moves = np.array(beside) - here
    seen = slope * BESIDE > MOVED * ulp
    if seen.any() and not moves[seen][0].any():
        return float(BESIDE[np.append(moves[:-1].all(axis=1), True).argmax()])
    jumps = _jumps(moves, slope, ulp)
    has_jump = jumps.any(axis=0)
    if np.count_nonzero(has_jump) < EVERYWHERE:
        return 0.0
    return float(np.median(BESIDE[jumps.argmax(axis=0)][has_jump]))


def _jumps(
    moves: Float[np.ndarray, "neighbours places"], slope: float, ulp: float
) -> Bool[np.ndarray, "neighbours places"]:
    """Where phi moves by more than it would if it bent, and by much of its slope."""
    bends = np.maximum(np.abs(moves[1:] - RATIO * moves[:-1]), ULPS * ulp)
    before = np.maximum.accumulate(bends[:-1])
    widths = BESIDE[2:, None]
    least = np.maximum(JUMPED * before, STEEP * slope * widths)
    found = np.zeros(moves.shape, bool)
    found[2:] = (bends[1:] > least) & (widths <= NEAR)
    return found


def _is_half_precision(values: Values) -> bool:
    """Whether float16, and so bfloat16, has all of these values exactly."""
    return not (2 / HALF * np.frexp(values)[0] % 1).any()


def slope_between(values: Values, width: float) -> float:
    """How phi goes from one jump to the next, as it does at most of the places.

    values: of phi at `STAIR_TIMES`. width: of its stairs, of which few are narrower
        than the neighbours half way down to the nearest are far.
    """
    here, *beside = values.reshape(-1, PLACES)
    step = int(np.searchsorted(BESIDE, width)) // 2
    return float(np.median(beside[step] - here) / BESIDE[step])


def lowest_stair(values: Values) -> float:
    """The least by which values differ that do; 0.0 where none does."""
    found = np.unique(values[np.isfinite(values)])
    return float(np.min(np.diff(found))) if len(found) > 1 else 0.0


def from_stairs(values: Values, height: float, between: float) -> DirectionalDerivative:
    """From phi at `FIT_TIMES`, of a function on stairs of this height at least.

    between: its slope from one jump to the next.
    """
    fitted = from_fit(values, highest_stair(values, height))
    central = fitted.central._replace(converged=False, rests=between)
    return fitted._replace(central=central, one_sided=NO_ESTIMATE, on_stairs=True)
