"""One derivative along a line from a ladder of steps, with a bound of its own error.

phi(t) = f(x + t v) is known at t = 0 and t = ±h for steps h that shrink by about 4.
Central differences with one Richardson step give estimates; the bound of each is the
sum of truncation (the larger difference from its neighbours) and rounding (noise / h).
The estimate with the smallest bound is taken among those that are consistent with all
finer ones. No gradient is ever read.

Source: Shi, Xie, Xuan, Nocedal, *Adaptive finite-difference interval estimation for
noisy derivative-free optimization*, SISC 2022; Richardson 1911.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from jaxnet.precision import DOUBLE

RATIO = 4.0
"""From one step to the next, about: one digit of truncation a step."""

LEVELS = 15
SIXTEENTHS = np.resize([16.0, 13.0, 15.0, 14.0], LEVELS)
"""Steps on one lattice would miss a ripple whose period is the finest of them."""

STEPS = 0.25 * RATIO ** -np.arange(float(LEVELS)) * SIXTEENTHS / 16
"""h, relative to the size of the coordinates: 1/4 … 9e-10, exact in binary."""

TIMES = np.concatenate([[0.0, 0.0], STEPS, -STEPS])
"""Where phi is evaluated: twice at 0, to see whether it repeats."""

SMALLEST = float(np.finfo(np.float64).tiny)
"""No bound is below it: numbers beyond lose digits one by one."""

FINER = 2.0**-12
"""How much finer a second ladder is, whose steps are still exact: h down to 2^-42."""

CONVERGED = 16.0
"""How much larger than rounding the truncation may be at the chosen step: two levels
of the ladder. Beyond, the ladder ended before its differences came to rest…"""

RESOLVED = 1e-3
"""…unless truncation is no more than this share of the derivative."""

FINE_STRUCTURE = 16.0
"""…and unless finer steps move by this many times their rounding: there the function
has a structure of its own, a ripple or a stair, that the chosen step passes over."""

WIDEST = slice(0, 2)
"""Steps at which phi may go elsewhere: a quarter of a coordinate, and a 20th."""

GROWS = 16.0
"""By how much more slopes must part at a finer step than at any wider one…"""

OTHER = 0.01
"""…and by which share of the slope, where they should come to rest."""

RIPPLE = 1e-6
"""The share of phi by which a structure may change it that is taken for a ripple or for
noise, if the ladder rests at another value at steps that pass over it…"""

RIPPLE_BOUNDS = 64.0
"""…so many bounds away: of a value that is contradicted, the bound may not hold…"""

RIPPLE_STEPS = 3
"""…and no more of the finest steps follow it: on more, it is no ripple but seen."""

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
"""…how far above rounding it must be…"""

JUMP_SLOPES = 2.0
"""…and how far above what the other side changes over the finest step: a kink nearer
than that step changes a side no more, and is no jump."""

CUSP_STEPS = 6
"""Over how many of the finest steps that are seen beside rounding, a factor of 4096,
one-sided derivatives must grow to be a cusp's…"""

CUSP_GROWTH = 1.5
"""…by how much in all: those of |x|^0.95 do…"""

CUSP_MOST = 3.0
"""…and at most so much a step: what grows like 1/h is a jump or a spike."""

Steps = Float[np.ndarray, " steps"]
Usable = Bool[np.ndarray, " steps"]


class Estimate(NamedTuple):
    """A limit as h → 0, the bound of its error, and whether the ladder converged.

    rests: a value where it came to rest, and went on at finer steps; NaN for none.
    """

    value: float
    bound: float
    converged: bool
    rests: float = float("nan")


NO_ESTIMATE = Estimate(float("nan"), float("inf"), False)


class Rungs(NamedTuple):
    """What was seen at each step of the ladder, the widest first.

    steps: h. quotients: central differences. extrapolated: with one Richardson step
    from the wider step, NaN at the widest. one_sided: right minus left derivative.
    """

    steps: Steps
    quotients: Steps
    extrapolated: Steps
    one_sided: Steps

    def less(self, slope: float) -> "Rungs":
        """Those of phi less a function of a known slope."""
        quotients, extrapolated = self.quotients - slope, self.extrapolated - slope
        return self._replace(quotients=quotients, extrapolated=extrapolated)


class DirectionalDerivative(NamedTuple):
    """The derivative of phi at 0.

    one_sided: right minus left derivative; a kink where it is not 0 within its bound.
    jump: how much phi changes across 0 within the smallest steps; 0.0 for none.
    is_cusp: whether one-sided derivatives grow without end, as those of √|t| do.
    on_stairs: whether phi jumps all along the line. The derivative is that between the
        jumps, `central.rests`, or, if they come of rounding, `central.value`.
    size: the largest |phi| seen, next to which rounding is measured.
    rungs: all that it was taken from; None if that was no ladder.
    """

    central: Estimate
    one_sided: Estimate
    jump: float
    size: float
    is_cusp: bool = False
    on_stairs: bool = False
    rungs: Rungs | None = None

    @property
    def has_kink(self) -> bool:
        """Whether the one-sided derivatives differ beyond doubt."""
        beyond = abs(self.one_sided.value) > KINK_BOUNDS * self.one_sided.bound
        return self.one_sided.converged and beyond and not self.jump

    @property
    def is_smooth(self) -> bool:
        """Whether there is no kink, no jump and no cusp."""
        return not self.has_kink and not self.jump and not self.is_cusp

    @property
    def may_be_stairs(self) -> bool:
        """Whether phi does not move at the finest step, or may not be smooth.

        Or it goes elsewhere at the widest steps. Rounding inside of it may be why,
        where its values show no noise.
        """
        if self.rungs is None:
            return False
        if self.is_flat or not (self.is_smooth and self.one_sided.converged):
            return True
        value, wide = self.central.value, self.rungs.quotients[WIDEST]
        return bool((np.abs(wide - value) > abs(value)).any())

    @property
    def calms_down(self) -> bool:
        """Whether slopes part, and more than before, at steps wider than they rest at.

        Those of a smooth function part where rounding shows: at finer steps. Stairs
        that something smooth multiplies have a slope of their own at steps finer than
        they are, where nothing of their roughness is seen.
        """
        if self.rungs is None or not np.isfinite(self.central.value):
            return False
        slopes, value = self.rungs.extrapolated[1:], self.central.value
        with np.errstate(all="ignore"):
            chosen = int(np.nanargmin(np.abs(slopes - value)))
            parts = np.abs(np.diff(slopes[: chosen + 1]))
            before = np.minimum.accumulate(parts)[:-1]
            least = np.maximum(GROWS * before, OTHER * abs(value))
            return bool(np.any(parts[1:] > least))

    @property
    def is_flat(self) -> bool:
        """Whether phi does not move at the finest step of its ladder."""
        if self.rungs is None:
            return False
        return not (self.rungs.quotients[-1] or self.rungs.one_sided[-1])

    @property
    def interval(self) -> tuple[float, float]:
        """Left and right derivative in increasing order; equal where phi is smooth."""
        half = abs(self.one_sided.value) / 2 if self.has_kink else 0.0
        return self.central.value - half, self.central.value + half


def unmoved(size: float) -> DirectionalDerivative:
    """That of a function that is known not to change, of this size."""
    zero = Estimate(0.0, 0.0, True)
    return DirectionalDerivative(zero, zero, 0.0, size)


def from_ladder(
    values: Float[np.ndarray, " times"],
    noise: float,
    scale: float = 1.0,
    *,
    may_round: bool = True,
) -> DirectionalDerivative:
    """The derivative from phi at `scale * TIMES`; `noise` is its standard deviation.

    may_round: whether phi may round inside to less than float64, unknown to `noise`.
    """
    start, forward, backward = values[0], values[2 : 2 + LEVELS], values[2 + LEVELS :]
    with np.errstate(all="ignore"):
        finite = np.isfinite(forward) & np.isfinite(backward)
        usable = finite & ~_hides_a_spike(start, forward, backward, noise)
        largest = np.maximum(np.maximum(np.abs(forward), np.abs(backward)), abs(start))
        rounding = 2 * noise + DOUBLE * largest / 2 + SMALLEST
        steps = scale * STEPS
        central = (forward - backward) / (2 * steps)
        one_sided = (forward - start + (backward - start)) / steps
        size = float(np.max(largest[finite], initial=abs(start)))
        error = rounding / steps
        levels = _Levels.of(central, error, usable, order=2)
        limit = levels.limit()
        if np.isfinite(rests := levels.rests_elsewhere(limit, one_sided, size)):
            limit = limit._replace(converged=False, rests=rests)
        if may_round and scale < 1 and not _falls_into_place(central, error):
            limit = limit._replace(converged=False)
        return DirectionalDerivative(
            central=limit,
            one_sided=_Levels.of(one_sided, 4 * error, usable, order=1).limit(),
            jump=_jump(start, forward, backward, rounding, finite),
            size=size,
            is_cusp=_is_cusp(one_sided[finite], 4 * error[finite]),
            rungs=Rungs(steps, central, np.append(np.nan, levels.value), one_sided),
        )


class _Levels(NamedTuple):
    """One extrapolated value a level of the ladder, and the parts of its bound."""

    value: Steps
    truncation: Steps
    rounding: Steps

    @classmethod
    def of(
        cls, quotient: Steps, rounding: Steps, usable: Usable, order: int
    ) -> "_Levels":
        """Of quotient(h), whose error starts with h to the power `order`."""
        weight = (STEPS[:-1] / STEPS[1:]) ** order
        value = (weight * quotient[1:] - quotient[:-1]) / (weight - 1)
        error = (weight * rounding[1:] + rounding[:-1]) / (weight - 1)
        usable = usable[1:] & usable[:-1] & np.isfinite(value)
        change = np.where(usable[1:] & usable[:-1], np.abs(np.diff(value)), np.inf)
        before = np.concatenate([change[:1], change])  # at an end, the other neighbour
        after = np.concatenate([change, change[-1:]])
        truncation = np.where(usable, np.maximum(before, after), np.inf)
        return cls(value, truncation, error)

    @property
    def bound(self) -> Steps:
        """How far each value may be off, if the function has no finer structure."""
        bound = self.truncation + self.rounding
        return np.where(np.isfinite(bound), bound, np.inf)

    def limit(self) -> Estimate:
        """The value with the smallest bound that no finer one contradicts."""
        value, bound = self.value, self.bound
        bound[~_consistent(value, bound)] = np.inf
        best = int(np.argmin(bound))
        if not np.isfinite(bound[best]):
            return NO_ESTIMATE
        rest = max(CONVERGED * self.rounding[best], RESOLVED * abs(value[best]))
        at_rest = bool(self.truncation[best] <= rest)
        both = (self.rounding[1:] + self.rounding[:-1])[best:]
        change = np.abs(np.diff(value))[best:]
        still = change <= bound[best] + FINE_STRUCTURE * both
        goes_on = not still[np.isfinite(change)].all()
        found = float(value[best]), float(bound[best])
        rests = found[0] if at_rest and goes_on else float("nan")
        return Estimate(*found, at_rest and not goes_on, rests)

    def rests_elsewhere(self, limit: Estimate, even: Steps, size: float) -> float:
        """Another value where the ladder came to rest, and phi is smooth; NaN for none.

        What it passed over there is a ripple, or noise: it changes phi by next to
        nothing, and its slope as much as it likes.

        even: right minus left derivative at each step; it shrinks where phi is smooth.
        """
        apart = np.abs(self.value - limit.value)
        is_other = apart > RIPPLE_BOUNDS * self.bound + limit.bound
        rests = self.truncation <= RESOLVED * np.abs(self.value)
        is_smooth = np.abs(even[1:]) < np.abs(even[:-1]) / 2
        seen = np.flatnonzero(self.value == limit.value)
        if not len(seen) or seen[0] < len(self.value) - RIPPLE_STEPS:
            return float("nan")
        is_small = apart * STEPS[1:][seen[0]] <= RIPPLE * size
        others = self.value[is_other & rests & is_smooth & is_small]
        return float(others[-1]) if len(others) else float("nan")


def _falls_into_place(quotient: Steps, rounding: Steps) -> bool:
    """Whether quotients come to rest, three times running, faster than h shrinks.

    On steps this fine a function that rounds inside may be flat, and rest at 0.
    """
    change = np.abs(np.diff(quotient))
    falls = (change[1:] < change[:-1] / RATIO) & (change[1:] > rounding[2:])
    return bool(np.any(falls[1:] & falls[:-1]))


def _is_cusp(quotient: Steps, rounding: Steps) -> bool:
    """Whether right minus left derivative grows, step by step, as h shrinks."""
    size = np.abs(quotient[np.abs(quotient) > KINK_BOUNDS * rounding])[-CUSP_STEPS:]
    if len(size) < CUSP_STEPS:
        return False
    growth = size[1:] / size[:-1]
    grows = np.all((growth > 1) & (growth < CUSP_MOST))
    return bool(grows and size[-1] > CUSP_GROWTH * size[0])


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
    the two sides, and a constant change of one of them, but a small one.
    """
    last = slice(-JUMP_STEPS, None)
    if not finite[last].all():
        return 0.0
    sides = np.stack([forward[last] - start, start - backward[last]])
    middle = np.median(sides, axis=1)
    spread = np.max(np.abs(sides - middle[:, None]), axis=1)
    floor = JUMP_ROUNDINGS * np.max(rounding[last])
    stays = spread < JUMP_SPREAD * np.abs(middle)
    slope = np.where(stays[::-1], 0.0, np.abs(sides[::-1, -1]))
    jumps = stays & (np.abs(middle) > np.maximum(floor, JUMP_SLOPES * slope))
    across = float(np.median(forward[last] - backward[last]))
    return float(np.max(np.abs([*middle[jumps], across]))) if jumps.any() else 0.0
