"""One derivative along a line from a ladder of steps, with a bound of its own error.

phi(t) = f(x + t v) is known at t = 0 and t = ±h for steps h that shrink by 4. Central
differences with one Richardson step give estimates; the bound of each is the sum of
truncation (the larger difference from its neighbours) and rounding (noise / h). The
estimate with the smallest bound is taken among those that are consistent with all
finer ones. No gradient is ever read.

Source: Shi, Xie, Xuan, Nocedal, *Adaptive finite-difference interval estimation for
noisy derivative-free optimization*, SISC 2022; Richardson 1911.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jaxnet.precision import DOUBLE

RATIO = 4.0
"""From one step to the next: exact in binary, and one digit of truncation a step."""

LEVELS = 15
STEPS = 0.25 * RATIO ** -np.arange(float(LEVELS))
"""h, relative to the size of the coordinates: 1/4 … 9e-10."""

TIMES = np.concatenate([[0.0, 0.0], STEPS, -STEPS])
"""Where phi is evaluated: twice at 0, to see whether it repeats."""

SMALLEST = float(np.finfo(np.float64).tiny)
"""No bound is below it: numbers beyond lose digits one by one."""

FINER = 2.0**-16
"""How much finer a second ladder is, whose steps are still exact: h down to 2^-46."""

CONVERGED = 16.0
"""How much larger than rounding the truncation may be at the chosen step: two levels
of the ladder. Beyond, the ladder ended before its differences came to rest…"""

RESOLVED = 1e-3
"""…unless truncation is no more than this share of the derivative."""

KINK_BOUNDS = 8.0
"""How many bounds apart one-sided derivatives must be to be called a kink: a bound is
an estimate, and a kink is a claim."""

EVEN_ROUNDINGS = 8.0
"""How far above rounding the even part must be before it counts as a spike."""

JUMP_STEPS = 4
"""Over how many of the finest steps, a factor of 64, a jump must stay as it is…"""

JUMP_SPREAD = 1 / 8
"""…within this share of it…"""

JUMP_ROUNDINGS = 16.0
"""…and how far above rounding it must be."""

Steps = Float[np.ndarray, " steps"]
Usable = Bool[np.ndarray, " steps"]


class Estimate(NamedTuple):
    """A limit as h → 0, the bound of its error, and whether the ladder converged."""

    value: float
    bound: float
    converged: bool


NO_ESTIMATE = Estimate(float("nan"), float("inf"), False)


class DirectionalDerivative(NamedTuple):
    """The derivative of phi at 0.

    one_sided: right minus left derivative; a kink where it is not 0 within its bound.
    jump: how much phi changes across 0 within the smallest steps; 0.0 for none.
    size: the largest |phi| seen, next to which rounding is measured.
    """

    central: Estimate
    one_sided: Estimate
    jump: float
    size: float

    @property
    def has_kink(self) -> bool:
        """Whether the one-sided derivatives differ beyond doubt."""
        beyond = abs(self.one_sided.value) > KINK_BOUNDS * self.one_sided.bound
        return self.one_sided.converged and beyond and not self.jump

    @property
    def is_smooth(self) -> bool:
        """Whether there is neither a kink nor a jump."""
        return not self.has_kink and not self.jump

    @property
    def interval(self) -> tuple[float, float]:
        """Left and right derivative in increasing order; equal where phi is smooth."""
        half = abs(self.one_sided.value) / 2 if self.has_kink else 0.0
        return self.central.value - half, self.central.value + half


def from_ladder(
    values: Float[np.ndarray, " times"], noise: float, scale: float = 1.0
) -> DirectionalDerivative:
    """The derivative from phi at `scale * TIMES`; `noise` is its standard deviation."""
    start, forward, backward = values[0], values[2 : 2 + LEVELS], values[2 + LEVELS :]
    with np.errstate(all="ignore"):
        finite = np.isfinite(forward) & np.isfinite(backward)
        usable = finite & ~_hides_a_spike(start, forward, backward, noise)
        largest = np.maximum(np.maximum(np.abs(forward), np.abs(backward)), abs(start))
        rounding = 2 * noise + DOUBLE * largest / 2 + SMALLEST
        steps = scale * STEPS
        central = (forward - backward) / (2 * steps)
        one_sided = (forward - start + (backward - start)) / steps
        limit = _limit(central, rounding / steps, usable, order=2)
        if scale < 1 and not _falls_into_place(central, rounding / steps):
            limit = limit._replace(converged=False)
        return DirectionalDerivative(
            central=limit,
            one_sided=_limit(one_sided, 4 * rounding / steps, usable, order=1),
            jump=_jump(start, forward, backward, rounding, finite),
            size=float(np.max(largest[finite], initial=abs(start))),
        )


def _limit(quotient: Steps, rounding: Steps, usable: Usable, order: int) -> Estimate:
    """The limit of quotient(h), whose error starts with h to the power `order`."""
    weight = RATIO**order
    value = (weight * quotient[1:] - quotient[:-1]) / (weight - 1)
    error = (weight * rounding[1:] + rounding[:-1]) / (weight - 1)
    usable = usable[1:] & usable[:-1] & np.isfinite(value)
    change = np.where(usable[1:] & usable[:-1], np.abs(np.diff(value)), np.inf)
    before = np.concatenate([change[:1], change])  # at an end, the other neighbour
    after = np.concatenate([change, change[-1:]])
    truncation = np.maximum(before, after)
    bound = np.where(usable & np.isfinite(truncation), truncation + error, np.inf)
    bound[~_consistent(value, bound)] = np.inf
    best = int(np.argmin(bound))
    if not np.isfinite(bound[best]):
        return NO_ESTIMATE
    converged = truncation[best] <= max(
        CONVERGED * error[best], RESOLVED * abs(value[best])
    )
    return Estimate(float(value[best]), float(bound[best]), bool(converged))


def _falls_into_place(quotient: Steps, rounding: Steps) -> bool:
    """Whether quotients come to rest, three times running, faster than h shrinks.

    On steps this fine a function that rounds inside may be flat, and rest at 0.
    """
    change = np.abs(np.diff(quotient))
    falls = (change[1:] < change[:-1] / RATIO) & (change[1:] > rounding[2:])
    return bool(np.any(falls[1:] & falls[:-1]))


def _consistent(value: Steps, bound: Steps) -> Usable:
    """Whether each interval overlaps those of all finer steps."""
    apart = np.abs(value[:, None] - value[None, :]) > bound[:, None] + bound[None, :]
    finer = np.triu(apart & np.isfinite(bound)[None, :], k=1)
    return np.asarray(~np.any(finer, axis=1))


def _hides_a_spike(
    start: float, forward: Steps, backward: Steps, noise: float
) -> Usable:
    """Steps that miss what happens beside 0.

    The even part (phi(h) + phi(-h)) / 2 - phi(0) shrinks by 4 at a kink and by 16 where
    phi is smooth. Where it stays, and is not small, phi leaves its value at 0 within
    less than the step.
    """
    even = np.abs((forward + backward) / 2 - start)
    odd = np.abs(forward - backward) / 2
    largest = np.maximum(np.abs(forward), np.abs(backward))
    floor = EVEN_ROUNDINGS * (noise + DOUBLE * largest)
    finer = np.append(even[1:], 0.0)
    return np.asarray((finer > even / 2) & (finer > odd) & (finer > floor))


def _jump(
    start: float, forward: Steps, backward: Steps, rounding: Steps, finite: Usable
) -> float:
    """A change beside 0 that stays while h shrinks by 64; 0.0 for none.

    Beside, not across: a kink a hair away from 0 also gives a constant difference of
    the two sides.
    """
    last = slice(-JUMP_STEPS, None)
    if not finite[last].all():
        return 0.0
    sides = np.stack([forward[last] - start, start - backward[last]])
    middle = np.median(sides, axis=1)
    spread = np.max(np.abs(sides - middle[:, None]), axis=1)
    floor = JUMP_ROUNDINGS * np.max(rounding[last])
    jumps = (spread < JUMP_SPREAD * np.abs(middle)) & (np.abs(middle) > floor)
    across = float(np.median(forward[last] - backward[last]))
    return float(np.max(np.abs([*middle[jumps], across]))) if jumps.any() else 0.0
