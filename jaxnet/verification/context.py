"""What every step of a check may read, and none may change."""

from dataclasses import dataclass, replace

from jaxnet.verification.candidates.autodiff import Autodiff
from jaxnet.verification.candidates.rounding import Rounding
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.function.start import Start
from jaxnet.verification.point import Leaf, Point

SMALL = 64
"""A leaf of at most so many entries is probed by every coordinate."""


@dataclass(frozen=True)
class Context:
    """The objective at one point, and how it is probed.

    start: the value there.
    autodiff, rounding: of the objective at its own point, whatever `point` is.
    safety: how many bounds an agreeing gradient may be off.
    seed: of the random directions.
    every_coordinate: whether every coordinate is probed; None: of small leaves.
    """

    objective: Objective
    point: Point
    start: Start
    autodiff: Autodiff
    rounding: Rounding
    safety: float
    seed: tuple[int, ...]
    every_coordinate: bool | None

    @classmethod
    def of(
        cls,
        objective: Objective,
        safety: float,
        seed: tuple[int, ...],
        every_coordinate: bool | None,
    ) -> "Context":
        """At the objective's own point."""
        point, autodiff = objective.point, Autodiff(objective)
        start, rounding = Start.of(objective, point), Rounding(objective, autodiff)
        rest = safety, seed, every_coordinate
        return cls(objective, point, start, autodiff, rounding, *rest)

    def at(self, point: Point) -> "Context":
        """The same at another point, small leaves by every coordinate."""
        start = Start.of(self.objective, point)
        return replace(self, point=point, start=start, every_coordinate=None)

    def by_coordinates(self, leaf: Leaf) -> bool:
        """Whether every coordinate of a leaf is probed."""
        if self.every_coordinate is None:
            return leaf.size <= SMALL
        return self.every_coordinate
