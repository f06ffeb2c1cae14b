"""One gradient held against one probe."""

import math
from collections.abc import Iterator

from jaxnet.differences.step_ladder import RESOLVED, DirectionalDerivative
from jaxnet.verification.candidates.candidate import Candidate
from jaxnet.verification.context import Context
from jaxnet.verification.directions import along
from jaxnet.verification.leaf.finding import Finding
from jaxnet.verification.leaf.probe import Probe
from jaxnet.verification.leaf.probes import LeafProbes
from jaxnet.verification.point import Reals
from jaxnet.verification.report.verdict import Verdict


def compare(
    context: Context,
    probes: LeafProbes,
    candidate: Candidate,
    probe: Probe,
    hypothesis: Reals | None = None,
) -> Finding:
    """What one probe says of the candidate, or of another gradient computed like it.

    It agrees within `safety` bounds of the difference and the candidate's own rounding.
    """
    gradient = candidate.array(probes.leaf) if hypothesis is None else hypothesis
    value = along(gradient, probe.direction)
    bound, excess = bound_and_excess(probe.derivative, value, context.safety)
    rounding = context.rounding.allowance(
        candidate,
        gradient,
        probe.direction,
        probes.loss_by_unit,
        needed=excess,
        terms_wanted=hypothesis is None and not context.point.are_many,
    )
    return _judged(probe, value, bound, excess, rounding, _scale(probes, probe))


def hypothetical(
    context: Context, probes: LeafProbes, candidate: Candidate, gradient: Reals
) -> Iterator[Finding]:
    """What the probes say of another gradient, computed as the candidate's was."""
    return (compare(context, probes, candidate, p, gradient) for p in probes.probes)


def bound_and_excess(
    derivative: DirectionalDerivative, value: float, safety: float
) -> tuple[float, float]:
    """How far a right value may be off, and how far this one is beyond that.

    At a kink it may lie anywhere between the two sides. Nothing is beyond where there
    is a jump, a cusp or no convergence of the ladder: that says nothing of any value.
    """
    central, one_sided = derivative.central, derivative.one_sided
    bound = safety * central.bound
    if derivative.jump or derivative.is_cusp or not central.converged:
        return bound, 0.0
    if derivative.has_kink:
        bound += safety * one_sided.bound / 2
    low, high = derivative.interval
    return bound, max(low - value, value - high) - bound


def _judged(
    probe: Probe,
    value: float,
    bound: float,
    excess: float,
    rounding: float,
    scale: float,
) -> Finding:
    """The finding, where so much rounding is allowed.

    scale: the size of the leaf's other derivatives. A ladder that does not converge,
        but only within a small share of it, says enough to agree, if not to disagree.
    """
    derivative = probe.derivative
    reference, sides = derivative.central.value, derivative.interval
    bound += rounding
    passed, reason = excess <= rounding, ""
    verdict = Verdict.AGREE if passed else Verdict.DISAGREE
    if derivative.jump:
        verdict, passed = Verdict.NONDIFFERENTIABLE, False
        reason = "a jump: the function changes by "
        reason += f"{derivative.jump:.3g} at this point"
    elif derivative.is_cusp:
        verdict, passed = Verdict.NONDIFFERENTIABLE, False
        reason = "a cusp: one-sided derivatives grow without end as the step shrinks"
    elif derivative.on_stairs:
        passed, either = False, (reference, derivative.central.rests)
        verdict = Verdict.DISAGREE
        reason = "values lie on stairs, of another slope"
        if any(abs(value - one) <= bound for one in either):
            verdict = Verdict.UNRESOLVED
            reason = "values lie on stairs: the loss jumps, or is rounded inside"
    elif not derivative.central.converged:
        is_other = math.isfinite(derivative.central.rests)
        is_close = abs(value - reference) <= bound and not is_other
        passed = is_close and bound <= RESOLVED * scale + rounding
        verdict = Verdict.AGREE if passed else Verdict.UNRESOLVED
        if is_other:
            reason = "two scales show two slopes: the function ripples, or is noisy"
        elif not passed:
            reason = "the difference quotients do not converge"
    elif derivative.has_kink:
        reason = "a kink, slopes {:.6g} and {:.6g} on the two sides"
        if passed:
            verdict = Verdict.NONDIFFERENTIABLE
        else:
            reason = f"outside {reason}"
            reference = sides[0] if value < sides[0] else sides[1]
    numbers = value, reference, bound, rounding
    return Finding(probe, verdict, passed, *numbers, reason, sides)


def _scale(probes: LeafProbes, probe: Probe) -> float:
    """The leaf's largest derivative that is known, in the unit of one that is not."""
    if probe.derivative.central.converged:
        return 0.0
    known = [
        abs(one.derivative.central.value) / one.direction.leaf.floor
        for one in probes.probes
        if one.derivative.central.converged
    ]
    return probe.direction.leaf.floor * max(known, default=0.0)
