"""One candidate's gradient with respect to one leaf: its verdict, from all findings."""

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from jaxnet.precision import DOUBLE, SINGLE
from jaxnet.verification.candidates.candidate import Candidate
from jaxnet.verification.context import Context
from jaxnet.verification.directions import (
    Coordinate,
    small_unit,
    step_size,
)
from jaxnet.verification.leaf.compare import compare
from jaxnet.verification.leaf.finding import Finding
from jaxnet.verification.leaf.kink_findings import (
    joint_findings,
    other_kinks,
    unprobed_findings,
)
from jaxnet.verification.leaf.locate import (
    autodiff_beside,
    directed_findings,
    located,
    same_as_autodiff,
)
from jaxnet.verification.leaf.neighbours import beside_neighbours
from jaxnet.verification.leaf.noise import beside_rounding
from jaxnet.verification.leaf.probes import LeafProbes, probe_leaf
from jaxnet.verification.point import Leaf, two_norm
from jaxnet.verification.report.ladder import Ladder
from jaxnet.verification.report.leaf_report import LeafReport
from jaxnet.verification.report.verdict import Verdict

COARSEST = 0.01
"""A bound wider than this share of the leaf's gradient says nothing: UNRESOLVED."""

ACROSS = 2.4
"""An error of random signs lies across two random directions, so that each sees less
than this part of it, one time in twenty."""

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
    findings = beside_neighbours(context, probes, candidate, findings)
    worst = min(findings, key=lambda found: found.severity)
    if worst.verdict is Verdict.DISAGREE and not probes.by_coordinates:
        worst = located(context, probes, candidate, worst)
    report = _report(context, probes, candidate, findings, worst)
    if report.verdict is Verdict.DISAGREE and context.limit is not None:
        of_limit = _judged_of(context.limit, leaf, candidate)
        context.objective.evaluations += of_limit.evaluations
        if of_limit.passed:
            return of_limit
    may_be = not report.passed and worst.probe.derivative.may_be_stairs
    if not may_be and not any(p.derivative.calms_down for p in probes.probes):
        return report
    noise = beside_rounding(context, probes.noise)
    if noise is None:
        return report
    return judge_leaf(context, probe_leaf(context, leaf, noise), candidate)


def _judged_of(limit: Context, leaf: Leaf, candidate: Candidate) -> LeafReport:
    """Of what the solvers of the loss tend to."""
    before = limit.objective.evaluations
    report = judge_leaf(limit, probe_leaf(limit, leaf), candidate)
    return replace(report, evaluations=limit.objective.evaluations - before)


def not_looked_at(leaf: Leaf, candidate: Candidate, why: str) -> LeafReport:
    """Of a leaf whose probes were not all made."""
    cause = f"not looked at: {why}"
    return _blank(leaf, candidate, Verdict.UNRESOLVED, cause)


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
    leaf = probes.leaf
    verdict, cause = worst.verdict, worst.explained
    own = findings[: len(probes.probes)]
    resolved = _resolution(context, probes, candidate, own)
    is_rounding = False
    if verdict is Verdict.AGREE and not _is_seen(context, leaf, resolved):
        is_rounding = is_zero_but_for_rounding(context, probes, candidate)
        if is_rounding:
            cause = "zero but for rounding"
        else:
            verdict = Verdict.UNRESOLVED
            worst = max(own, key=lambda found: found.bound / found.unit)
            least = f"{resolved.at_all:.1g} of the array's norm"
            cause = f"only errors above {least} would show"
    if verdict is Verdict.NONDIFFERENTIABLE:
        cause += other_kinks(probes, worst)
    if verdict is Verdict.DISAGREE:
        objective = context.objective
        if why := objective.implicit(leaf) or objective.unconverged:
            verdict, cause = Verdict.UNRESOLVED, why
    unit = worst.unit
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
        resolution=resolved.at_all,
        is_rounding=is_rounding,
        cause=cause,
        norm=resolved.norm,
        unit=1.0 if worst.index is not None else small_unit(leaf),
        ladder=_ladder(worst),
    )


def _ladder(finding: Finding) -> Ladder | None:
    """What the derivative of a finding was taken from; None if that was no ladder."""
    derivative = finding.probe.derivative
    if derivative.rungs is None:
        return None
    (steps, *slopes), (low, high) = derivative.rungs, derivative.interval
    value = derivative.central.value
    return Ladder.of(steps, slopes, value, high - low, finding.unit)


class Resolution(NamedTuple):
    """The smallest error in the leaf's gradient that shows, by its 2-norm.

    at_all: beside its own rounding. by_differences: if it had none. norm: that 2-norm.
    """

    at_all: float
    by_differences: float
    norm: float


def resolution(
    context: Context, probes: LeafProbes, candidate: Candidate
) -> Resolution:
    """That of a leaf that agrees."""
    findings = [compare(context, probes, candidate, one) for one in probes.probes]
    return _resolution(context, probes, candidate, findings)


def is_resolved(context: Context, probes: LeafProbes, candidate: Candidate) -> bool:
    """Whether a leaf that agrees would have a verdict."""
    found = resolution(context, probes, candidate)
    is_seen = _is_seen(context, probes.leaf, found)
    return is_seen or is_zero_but_for_rounding(context, probes, candidate)


def _is_seen(context: Context, leaf: Leaf, found: Resolution) -> bool:
    is_coarse = context.objective.precision_of(leaf) > SINGLE
    widest = COARSEST_ROUNDING if is_coarse else COARSEST
    return found.by_differences <= widest and found.at_all <= COARSEST_ROUNDING


def _resolution(
    context: Context, probes: LeafProbes, candidate: Candidate, findings: list[Finding]
) -> Resolution:
    """As a share of the gradient's 2-norm.

    Over coordinates that are probed one by one, an error hides best in proportion to
    their bounds. Over those of random probes, it may lie across them, and in
    coordinates of small units.

    findings: of the leaf's own probes.
    """
    leaf, gradient = probes.leaf, candidate.array(probes.leaf)
    alone, across = np.zeros(2), np.zeros(2)
    for found in findings:
        direction = found.probe.direction
        by_differences = max(found.bound - found.rounding, 0.0)
        rounding = found.rounding
        if context.rounding.eps_of(candidate, leaf) > DOUBLE:
            rest = direction, probes.loss_by_unit
            at_most = context.rounding.in_all(candidate, gradient, *rest)
            rounding = max(rounding, at_most)
        parts = np.array([by_differences + rounding, by_differences])
        if isinstance(direction, Coordinate):
            alone = np.hypot(alone, parts / step_size(direction))
        else:
            across = np.maximum(across, parts / small_unit(direction.leaf))
    hidden = np.hypot(alone, ACROSS * across)
    autodiff = autodiff_beside(context, candidate, probes) if across.any() else None
    if autodiff is not None and not context.point.are_many:  # as `directed_findings`
        alike = two_norm(same_as_autodiff(context, candidate, probes, autodiff))
        beside = np.hypot(np.hypot(alone, across[1]), [alike, 0.0])
        hidden = np.minimum(hidden, beside)
    seen = (abs(f.reference) / (f.unit if f.index else leaf.largest) for f in findings)
    size = max(two_norm(gradient), *seen)
    if not size:
        return Resolution(float("inf"), float("inf"), size)
    return Resolution(float(hidden[0] / size), float(hidden[1] / size), float(size))


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
