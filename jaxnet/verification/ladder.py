"""One derivative along a line from a ladder of steps, with a bound of its own error.

phi(t) = f(x + t v) is known at t = 0 and t = ±h for steps h that shrink by 4. Central
differences with one Richardson step give estimates; the bound of each is the sum of
truncation (the larger difference from its neighbours) and rounding (noise / h). The
estimate with the smallest bound is taken among those that are consistent with all
finer ones. The candidate is never read.

Source: Shi, Xie, Xuan, Nocedal, *Adaptive finite-difference interval estimation for
noisy derivative-free optimization*, SISC 2022; Richardson 1911.
"""

from typing import NamedTuple

import numpy as np

RATIO = 4.0
LEVELS = 15
STEPS = 0.25 * RATIO ** -np.arange(float(LEVELS))
"""h, relative to the size of the coordinates: 1/4 … 9e-10."""

TIMES = np.concatenate([[0.0, 0.0], STEPS, -STEPS])
"""Where phi is evaluated: twice at 0, to see whether it repeats."""

EPS = float(np.finfo(np.float64).eps)
SMALLEST = float(np.finfo(np.float64).tiny)

SHRINK = 2.0**-16
"""How much finer a second ladder is, whose steps are still exact: h down to 2^-46."""

SETTLED = 16.0
"""How much larger than rounding the truncation may be at the chosen step."""

RESOLVED = 1e-3
"""…or how large, relative to the derivative."""


class Estimate(NamedTuple):
    """A limit as h → 0, the bound of its error, and whether the ladder settled."""

    value: float
    bound: float
    settled: bool


class Slope(NamedTuple):
    """The derivative of phi at 0.

    gap: right slope minus left slope; a kink where it is not 0 within its bound.
    jump: how much phi changes across 0 within the smallest steps; 0.0 for none.
    size: the largest |phi| seen, next to which rounding is measured.
    """

    central: Estimate
    gap: Estimate
    jump: float
    size: float

    @property
    def has_kink(self) -> bool:
        """Whether the one-sided slopes differ beyond doubt."""
        beyond = abs(self.gap.value) > 8 * self.gap.bound
        return self.gap.settled and beyond and not self.jump

    @property
    def interval(self) -> tuple[float, float]:
        """Left and right slope in increasing order, widened by their bounds."""
        half = abs(self.gap.value) / 2 if self.has_kink else 0.0
        bound = self.central.bound + (self.gap.bound if self.has_kink else 0.0)
        return self.central.value - half - bound, self.central.value + half + bound


def slope(values: np.ndarray, noise: float, shrink: float = 1.0) -> Slope:
    """The slope from phi at `shrink * TIMES`; `noise` is phi's standard deviation."""
    start, forth, back = values[0], values[2 : 2 + LEVELS], values[2 + LEVELS :]
    with np.errstate(all="ignore"):
        finite = np.isfinite(forth) & np.isfinite(back)
        usable = finite & ~_hides_a_spike(start, forth, back, noise)
        largest = np.maximum(np.maximum(np.abs(forth), np.abs(back)), abs(start))
        rounding = 2 * noise + EPS * largest / 2 + SMALLEST
        steps = shrink * STEPS
        central = (forth - back) / (2 * steps)
        gap = (forth - start + (back - start)) / steps
        limit = _limit(central, rounding / steps, usable, order=2)
        if shrink < 1 and not _converges(central, rounding / steps):
            limit = limit._replace(settled=False)
        return Slope(
            central=limit,
            gap=_limit(gap, 4 * rounding / steps, usable, order=1),
            jump=_jump(start, forth, back, rounding, finite),
            size=float(np.max(largest[finite], initial=abs(start))),
        )


def _limit(
    quotient: np.ndarray, rounding: np.ndarray, finite: np.ndarray, order: int
) -> Estimate:
    """The limit of quotient(h), whose error starts with h to the power `order`."""
    weight = RATIO**order
    value = (weight * quotient[1:] - quotient[:-1]) / (weight - 1)
    error = (weight * rounding[1:] + rounding[:-1]) / (weight - 1)
    usable = finite[1:] & finite[:-1] & np.isfinite(value)
    step = np.where(usable[1:] & usable[:-1], np.abs(np.diff(value)), np.inf)
    truncation = np.maximum(_shifted(step, before=True), _shifted(step, before=False))
    bound = np.where(usable & np.isfinite(truncation), truncation + error, np.inf)
    bound[~_consistent(value, bound)] = np.inf
    best = int(np.argmin(bound))
    if not np.isfinite(bound[best]):
        return Estimate(float("nan"), float("inf"), False)
    settled = truncation[best] <= max(
        SETTLED * error[best], RESOLVED * abs(value[best])
    )
    return Estimate(float(value[best]), float(bound[best]), bool(settled))


def _converges(quotient: np.ndarray, rounding: np.ndarray) -> bool:
    """Whether quotients fall into place, three times running, faster than h does.

    On steps this fine a function that rounds inside may be flat, and settled on 0.
    """
    change = np.abs(np.diff(quotient))
    falls = (change[1:] < change[:-1] / RATIO) & (change[1:] > rounding[2:])
    return bool(np.any(falls[1:] & falls[:-1]))


def _shifted(step: np.ndarray, before: bool) -> np.ndarray:
    """The difference to one neighbour; at an end of the ladder the other one's."""
    ends = [step[:1], step] if before else [step, step[-1:]]
    return np.concatenate(ends)


def _consistent(value: np.ndarray, bound: np.ndarray) -> np.ndarray:
    """Whether each interval overlaps those of all finer steps."""
    apart = np.abs(value[:, None] - value[None, :]) > bound[:, None] + bound[None, :]
    return ~np.any(np.triu(apart & np.isfinite(bound)[None, :], k=1), axis=1)


def _hides_a_spike(
    start: float, forth: np.ndarray, back: np.ndarray, noise: float
) -> np.ndarray:
    """Steps that miss what happens beside 0.

    The even part (phi(h) + phi(-h)) / 2 - phi(0) shrinks by 4 at a kink and by 16 where
    phi is smooth. Where it stays, and is not small, phi leaves its value at 0 within
    less than the step.
    """
    even = np.abs((forth + back) / 2 - start)
    odd = np.abs(forth - back) / 2
    floor = 8 * (noise + EPS * np.maximum(np.abs(forth), np.abs(back)))
    finer = np.append(even[1:], 0.0)
    return (finer > even / 2) & (finer > odd) & (finer > floor)


def _jump(
    start: float,
    forth: np.ndarray,
    back: np.ndarray,
    rounding: np.ndarray,
    finite: np.ndarray,
) -> float:
    """A change beside 0 that stays while h shrinks by 64; 0.0 for none.

    Beside, not across: a kink a hair away from 0 also gives a constant forth - back.
    """
    last = slice(-4, None)
    if not finite[last].all():
        return 0.0
    sides = np.stack([forth[last] - start, start - back[last]])
    middle = np.median(sides, axis=1)
    floor = 16 * np.max(rounding[last])
    stays = np.max(np.abs(sides - middle[:, None]), axis=1) < np.abs(middle) / 8
    jumps = stays & (np.abs(middle) > floor)
    across = float(np.median(forth[last] - back[last]))
    return float(np.max(np.abs([*middle[jumps], across]))) if jumps.any() else 0.0
