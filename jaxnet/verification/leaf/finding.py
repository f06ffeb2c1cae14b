"""What one probe shows of one gradient."""

from dataclasses import dataclass

from jaxnet.verification.directions import Coordinate, step_size
from jaxnet.verification.leaf.probe import Probe
from jaxnet.verification.report.numbers import beyond
from jaxnet.verification.report.verdict import Verdict


@dataclass(frozen=True)
class Finding:
    """A verdict by one probe. Numbers are derivatives along its direction.

    error, bound: |candidate - reference|, and the largest that would have agreed.
    rounding: how much of the bound is the candidate's own rounding.
    reason: why, in words; with `sides` for "{}".
    sides: left and right derivative at a kink.
    """

    probe: Probe
    verdict: Verdict
    passed: bool
    candidate: float
    reference: float
    bound: float
    rounding: float = 0.0
    reason: str = ""
    sides: tuple[float, ...] = ()

    @property
    def error(self) -> float:
        """How far the candidate is off."""
        return abs(self.candidate - self.reference)

    @property
    def index(self) -> tuple[int, ...] | None:
        """The caller's index of the one coordinate that was probed."""
        direction = self.probe.direction
        return direction.index if isinstance(direction, Coordinate) else None

    @property
    def unit(self) -> float:
        """The size of the step of that coordinate; numbers divided by it are by it."""
        return step_size(self.probe.direction)

    @property
    def explained(self) -> str:
        """The reason, with derivatives with respect to the coordinate.

        What is 0 within the bound of the differences is said to be 0.
        """
        least = self.bound - self.rounding
        seen = (side if abs(side) > least else 0.0 for side in self.sides)
        return self.reason.format(*(side / self.unit for side in seen))

    @property
    def severity(self) -> tuple[bool, int, bool, float]:
        """Sorts the worst first: what failed, then by verdict; kinks with a place."""
        is_kink = self.passed and self.verdict is Verdict.NONDIFFERENTIABLE
        placeless = is_kink and self.index is None
        excess = beyond(self.error, self.bound)
        return self.passed, self.verdict.rank, placeless, -excess
