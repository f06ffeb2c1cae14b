"""One candidate's gradient with respect to one leaf: its verdict, from all findings."""

from jaxnet.precision import SINGLE
from jaxnet.verification.candidates.candidate import Candidate
from jaxnet.verification.context import Context
from jaxnet.verification.directions import norm
from jaxnet.verification.leaf.compare import compare
from jaxnet.verification.leaf.finding import Finding
from jaxnet.verification.leaf.kink_findings import (
    joint_findings,
    other_kinks,
    unprobed_findings,
)
from jaxnet.verification.leaf.locate import directed_findings, located
from jaxnet.verification.leaf.probes import LeafProbes
from jaxnet.verification.point import Leaf
from jaxnet.verification.report.leaf_report import LeafReport
from jaxnet.verification.report.verdict import Verdict

COARSEST = 0.01
"""A bound wider than this share of the leaf's gradient says nothing: UNRESOLVED."""

COARSEST_ROUNDING = 0.3
"""The same of a bound that is wide by rounding, of the candidate or the function, to
less than float32: such numbers have two or three digits."""


def judge_leaf(
    context: Context, probes: LeafProbes, candidate: Candidate
) -> LeafReport:
    """The verdict of the worst finding, with its place and what it could resolve."""
    leaf = probes.leaf
    if not probes.probes:
        return _blank(leaf, candidate, Verdict.AGREE, "empty: nothing to check", 0.0)
    if not candidate.array(leaf).any() and probes.are_zero(context.safety):
        return _blank(leaf, candidate, Verdict.UNINFORMATIVE)
    findings = [compare(context, probes, candidate, p) for p in probes.probes]
    findings += joint_findings(context, probes, candidate)
    findings += unprobed_findings(context, probes, candidate)
    if all(found.verdict is not Verdict.DISAGREE for found in findings):
        findings += directed_findings(context, probes, candidate)
    worst = min(findings, key=lambda found: found.severity)
    if worst.verdict is Verdict.DISAGREE and not probes.by_coordinates:
        worst = located(context, probes, candidate, worst)
    return _report(context, probes, candidate, findings, worst)


def _blank(
    leaf: Leaf,
    candidate: Candidate,
    verdict: Verdict,
    cause: str = "",
    resolution: float = float("nan"),
) -> LeafReport:
    passed = verdict is Verdict.AGREE
    fields = leaf.path, candidate.name, leaf.shape, verdict, passed
    return LeafReport(*fields, resolution=resolution, cause=cause)


def _report(
    context: Context,
    probes: LeafProbes,
    candidate: Candidate,
    findings: list[Finding],
    worst: Finding,
) -> LeafReport:
    leaf, unit = probes.leaf, worst.unit
    verdict, cause = worst.verdict, worst.explained
    resolution, by_differences = _resolution(leaf, candidate, findings)
    is_coarse = context.objective.precision_of(leaf) > SINGLE
    widest = COARSEST_ROUNDING if is_coarse else COARSEST
    is_seen = by_differences <= widest and resolution <= COARSEST_ROUNDING
    if verdict is Verdict.AGREE and not is_seen:
        if is_zero_but_for_rounding(context, probes, candidate):
            cause = "zero but for rounding"
        else:
            verdict = Verdict.UNRESOLVED
            cause = f"only errors above {resolution:.1g} of the leaf would show"
    if verdict is Verdict.NONDIFFERENTIABLE:
        cause += other_kinks(probes, worst)
    by_design = context.objective.implicit(leaf)
    if verdict is Verdict.DISAGREE and by_design:
        verdict, cause = Verdict.UNRESOLVED, by_design
    return LeafReport(
        path=leaf.path,
        candidate=candidate.name,
        shape=leaf.shape,
        verdict=verdict,
        passed=worst.passed and verdict is not Verdict.UNRESOLVED,
        worst_index=worst.index,
        candidate_value=worst.candidate / unit,
        reference_value=worst.reference / unit,
        error=worst.error / unit,
        bound=worst.bound / unit,
        resolution=resolution,
        cause=cause,
    )


def _resolution(
    leaf: Leaf, candidate: Candidate, findings: list[Finding]
) -> tuple[float, float]:
    """The widest bound by the leaf's gradient: in all, and by the differences.

    Probes that moved each coordinate by its own size are in another unit than others.
    """
    widest, by_differences = 0.0, 0.0
    for floor in {found.probe.direction.leaf.floor for found in findings}:
        alike = [f for f in findings if f.probe.direction.leaf.floor == floor]
        unit_leaf = alike[0].probe.direction.leaf
        size = norm(candidate.array(leaf), unit_leaf)
        size = max(size, *(abs(found.reference) for found in alike))
        if not size:
            return float("inf"), float("inf")
        widest = max(widest, *(found.bound / size for found in alike))
        parts = (max(found.bound - found.rounding, 0.0) / size for found in alike)
        by_differences = max(by_differences, *parts)
    return widest, by_differences


def is_zero_but_for_rounding(
    context: Context, probes: LeafProbes, candidate: Candidate
) -> bool:
    """Whether the candidate and autodiff are both no more than rounding.

    Not of a function so coarse that its rounding could be the whole gradient.
    """
    leaf, autodiff = probes.leaf, context.autodiff.array(probes.leaf)
    if autodiff is None:
        return False
    rest = leaf, context.rounding.eps_of(candidate, leaf), probes.loss_by_unit
    both = candidate.array(leaf), autodiff
    return all(context.rounding.is_zero(gradient, *rest) for gradient in both)
