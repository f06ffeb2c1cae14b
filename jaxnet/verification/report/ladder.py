"""The ladder of one derivative, as it was climbed: what its picture is drawn from."""

import math
from collections.abc import Iterable
from dataclasses import dataclass

Numbers = tuple[float, ...]


@dataclass(frozen=True)
class Ladder:
    """Difference quotients of one derivative at each step, the widest first.

    steps: h, in units of the coordinate; along a random direction, as shares of the
        size of each coordinate.
    quotients: (f(x + h) - f(x - h)) / 2h.
    extrapolated: the same with one Richardson step; NaN at the widest step.
    one_sided: right minus left slope, which stays at a kink and vanishes elsewhere.
    value: what was taken for the derivative; NaN where nothing was.
    kink: how far apart the two slopes of a kink are, between which a candidate may lie.
    """

    steps: Numbers
    quotients: Numbers
    extrapolated: Numbers
    one_sided: Numbers
    value: float
    kink: float = 0.0

    @property
    def chosen(self) -> int | None:
        """The place of the step whose extrapolated quotient was taken."""
        apart = [abs(one - self.value) for one in self.extrapolated]
        seen = [i for i, one in enumerate(apart) if math.isfinite(one)]
        return min(seen, key=lambda i: apart[i], default=None)

    @classmethod
    def of(
        cls,
        steps: Iterable[float],
        slopes: Iterable[Iterable[float]],
        value: float,
        kink: float,
        unit: float,
    ) -> "Ladder":
        """With derivatives along a step of `unit` made ones by the coordinate.

        slopes: quotients, extrapolated and one-sided ones.
        """
        plain, better, sides = (
            tuple(_one_nan(float(x) / unit) for x in s) for s in slopes
        )
        steps = tuple(float(h) * unit for h in steps)
        return cls(steps, plain, better, sides, value / unit, kink / unit)


def _one_nan(number: float) -> float:
    """NaN as the one object that equals itself in a tuple: reports are compared."""
    return math.nan if math.isnan(number) else number
