"""One candidate's derivative along one direction, held against the ladder's."""

import math
from typing import NamedTuple

from jaxnet.verification.ladder import Slope
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
    reason: str = ""

    @property
    def excess(self) -> float:
        """The error in units of the bound: above 1, it is beyond it."""
        return self.error / self.bound if self.bound > 0 else math.inf * self.error


def judge(slope: Slope, candidate: float, rounding: float, safety: float) -> Finding:
    """The finding for `candidate`, whose own rounding may be `rounding`."""
    reference = slope.central.value
    bound = safety * slope.central.bound + rounding

    def found(verdict: Verdict, passed: bool, reason: str = "") -> Finding:
        error = abs(candidate - reference)
        return Finding(verdict, passed, candidate, reference, error, bound, reason)

    if slope.jump:
        reason = f"the function jumps by {slope.jump:.3g} at this point"
        return found(Verdict.NONDIFFERENTIABLE, False, reason)
    if not slope.central.settled:
        return found(Verdict.UNRESOLVED, False, "the difference quotients do not settle")
    if slope.has_kink:
        bound += safety * slope.gap.bound / 2
        half = abs(slope.gap.value) / 2
        low, high = reference - half, reference + half
        outside = max(low - candidate, candidate - high)
        reason = f"slopes {low:.6g} and {high:.6g} on the two sides"
        if outside <= bound:
            return found(Verdict.NONDIFFERENTIABLE, True, f"a kink: {reason}")
        reference = low if candidate < low else high
        return found(Verdict.DISAGREE, False, f"outside a kink's {reason}")
    if abs(candidate - reference) <= bound:
        return found(Verdict.AGREE, True)
    return found(Verdict.DISAGREE, False)
