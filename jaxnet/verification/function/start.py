"""The objective at the point itself, by the same program as all other values."""

from dataclasses import dataclass

import numpy as np

from jaxnet.differences.step_ladder import TIMES
from jaxnet.verification.directions import GivenDirection
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.function.program import calls_out
from jaxnet.verification.point import Point


@dataclass(frozen=True)
class Start:
    """The value at a point; how far values there lie apart, in one run and in two."""

    value: float
    spread: float = 0.0
    change: float = 0.0

    @classmethod
    def of(cls, objective: Objective, point: Point) -> "Start":
        """Evaluated many times in one run; twice, if anything outside is called."""
        leaf = point.leaves[0]
        still = GivenDirection(leaf, np.zeros(leaf.values.shape))
        times = np.zeros_like(TIMES)
        values = again = objective.values_along(still, times, point)
        if objective.program is not None and calls_out(objective.program):
            again = objective.values_along(still, times, point)
        if not np.isfinite([values, again]).all():
            return cls(float(values[0]))
        change = float(np.max(np.abs(values - again)))
        return cls(float(values[0]), float(np.ptp(values)), change)
