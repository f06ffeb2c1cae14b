"""One candidate's derivative along one direction, held against the ladder's."""

import math
from typing import NamedTuple

from jaxnet.verification.ladder import RESOLVED, Slope
from jaxnet.verification.verdict import Verdict


class Finding(NamedTuple):
    """What one direction shows.

    bound: the largest error that would have agreed, in the unit of the derivative.
    """

    verdict: Verdict
    passed: bool
    candidate: float
    reference: float
    error: float
    bound: float
    rounding: float = 0.0
    """How much of the bound is the candidate's own rounding."""
    reason: str = ""
    sides: tuple[float, ...] = ()
    """Left and right slope at a kink, or the height of a jump."""

    def explained(self, unit: float) -> str:
        """The reason, with its slopes by the coordinate instead of by its unit."""
        return self.reason.format(*(side / unit for side in self.sides))

    @property
    def excess(self) -> float:
        """The error in units of the bound: above 1, it is beyond it."""
        return self.error / self.bound if self.bound > 0 else math.inf * self.error


def judge(
    slope: Slope, candidate: float, rounding: float, safety: float, scale: float = 0.0
) -> Finding:
    """The finding for `candidate`, whose own rounding may be `rounding`.

    scale: the size of the leaf's other derivatives. A slope that does not settle, but
        only within a small share of it, says enough to agree, if not to disagree.
    """
    reference = slope.central.value
    bound = safety * slope.central.bound + rounding

    def found(
        verdict: Verdict, passed: bool, reason: str = "", *sides: float
    ) -> Finding:
        error = abs(candidate - reference)
        return Finding(
            verdict, passed, candidate, reference, error, bound, rounding, reason, sides
        )

    if slope.jump:
        reason = f"a jump: the function changes by {slope.jump:.3g} at this point"
        return found(Verdict.NONDIFFERENTIABLE, False, reason)
    if not slope.central.settled:
        if abs(candidate - reference) <= bound <= RESOLVED * scale + rounding:
            return found(Verdict.AGREE, True)
        return found(
            Verdict.UNRESOLVED, False, "the difference quotients do not settle"
        )
    if slope.has_kink:
        bound += safety * slope.gap.bound / 2
        half = abs(slope.gap.value) / 2
        low, high = reference - half, reference + half
        outside = max(low - candidate, candidate - high)
        reason = "a kink, slopes {:.6g} and {:.6g} on the two sides"
        if outside <= bound:
            return found(Verdict.NONDIFFERENTIABLE, True, reason, low, high)
        reference = low if candidate < low else high
        return found(Verdict.DISAGREE, False, f"outside {reason}", low, high)
    if abs(candidate - reference) <= bound:
        return found(Verdict.AGREE, True)
    return found(Verdict.DISAGREE, False)
