"""What every step of a check may read, and none may change."""

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float

from jaxnet.differences.least_squares import FIT_TIMES
from jaxnet.differences.stairs import (
    COARSE_STAIRS,
    STAIR_TIMES,
    lowest_stair,
    stair_width,
)
from jaxnet.float64 import in_float64
from jaxnet.verification.budget import UNLIMITED, Budget
from jaxnet.verification.candidates.autodiff import Autodiff
from jaxnet.verification.candidates.rounding import Rounding
from jaxnet.verification.directions import AnyDirection, Direction, Together, nearby
from jaxnet.verification.function.objective import STAIR_RUNS, Objective
from jaxnet.verification.function.start import Start
from jaxnet.verification.point import Leaf, Point

SMALL = 64
"""A leaf of at most so many entries is probed by every coordinate…"""

MANY_LADDERS = 512
"""…unless a ladder for each, and two for a larger leaf, are more than so many."""

A_HAIR = 2.0**-28
"""In units of each coordinate: among the finest steps of a ladder."""


@dataclass(frozen=True)
class Context:
    """The objective at one point, and how it is probed.

    start: the value there.
    autodiff, rounding: of the objective at its own point, whatever `point` is.
    safety: how many bounds an agreeing gradient may be off.
    seed: of the random directions.
    budget: how much the check may take.
    every_coordinate: whether every coordinate is probed; None: of small leaves, if
        they are not too many.
    """

    objective: Objective
    point: Point
    start: Start
    autodiff: Autodiff
    rounding: Rounding
    safety: float
    seed: tuple[int, ...]
    every_coordinate: bool | None
    budget: Budget = UNLIMITED

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
        start, rounding = Start(objective, point), Rounding(objective, autodiff)
        rest = safety, seed, every_coordinate
        return cls(objective, point, start, autodiff, rounding, *rest)

    @cached_property
    def limit(self) -> "Context | None":
        """The same of a loss whose solvers run further; None if it solves nothing."""
        further = self.objective.limit
        if further is None:
            return None
        return replace(self, objective=further, start=Start(further, self.point))

    def values_along(
        self, direction: AnyDirection | Together, times: Float[np.ndarray, " times"]
    ) -> Float[np.ndarray, " times"]:
        """The loss at x + t v for all times t, with v in the direction's leaves.

        Raises:
            BudgetSpent: that would be more than a check may take.
        """
        self.budget.check(self.objective.evaluations + len(times))
        return self.objective.values_along(direction, times, self.point)

    def at(self, point: Point) -> "Context":
        """The same at another point, small leaves by every coordinate."""
        start = Start(self.objective, point)
        return replace(self, point=point, start=start, every_coordinate=None)

    def by_coordinates(self, leaf: Leaf) -> bool:
        """Whether every coordinate of a leaf is probed."""
        if self.every_coordinate is None:
            return leaf.size <= SMALL and not self.is_deep
        return self.every_coordinate

    @cached_property
    def rounding_inside(self) -> float:
        """How far rounding inside the loss moves its value, here and a hair away.

        Raises:
            BudgetSpent: that would be more than a check may take.
        """
        self.budget.check(self.objective.evaluations + 2 * STAIR_RUNS)
        beside = nearby(self.point, self.seed, A_HAIR)
        with in_float64():
            return max(map(self.objective.rounding_at, (self.point, beside)))

    @cached_property
    def stair(self) -> float:
        """The lowest coarse stair of the values as all leaves move; 0.0 for none."""
        moving = [x for x in self.point.leaves if self.objective.depends_on(x)]
        line = Together(tuple(Direction(leaf, self.seed) for leaf in moving))
        beside = self.values_along(line, STAIR_TIMES)
        if stair_width(beside, self.objective.precision) < COARSE_STAIRS:
            return 0.0
        return lowest_stair(self.values_along(line, FIT_TIMES))

    @cached_property
    def is_deep(self) -> bool:
        """Whether one leaf after the other would take too many ladders."""
        sizes = [leaf.size for leaf in self.point.leaves]
        if self.every_coordinate is None:
            return sum(n if n <= SMALL else 2 for n in sizes) > MANY_LADDERS
        return not self.every_coordinate and 2 * len(sizes) > MANY_LADDERS
