"""The objective at the point itself, by the same program as all other values."""

from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np
from jaxtyping import Float

from jaxnet.differences.step_ladder import TIMES
from jaxnet.verification.directions import GivenDirection
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.function.program import calls_out
from jaxnet.verification.point import Point


@dataclass(frozen=True)
class Start:
    """The value at a point, where it is asked for."""

    objective: Objective
    point: Point

    @property
    def value(self) -> float:
        """The first of those of one run."""
        return float(self._runs[0, 0])

    @property
    def spread(self) -> float:
        """How far the values of one run lie apart; 0.0 where one is not finite."""
        return float(np.ptp(self._runs[0])) if self._are_finite else 0.0

    @property
    def change(self) -> float:
        """How far they lie from those of another run; 0.0 where one is not finite."""
        apart = np.abs(self._runs[0] - self._runs[-1]) if self._are_finite else 0.0
        return float(np.max(apart))

    @cached_property
    def _runs(self) -> Float[np.ndarray, "runs times"]:
        """One run of many times; two, if anything outside is called."""
        leaf, program = self.point.leaves[0], self.objective.program
        still = GivenDirection(leaf, np.zeros(leaf.values.shape))
        run = partial(
            self.objective.values_along, still, np.zeros_like(TIMES), self.point
        )
        calls = 2 if program is not None and calls_out(program) else 1
        return np.stack([run() for _ in range(calls)])

    @property
    def _are_finite(self) -> bool:
        return bool(np.isfinite(self._runs).all())
