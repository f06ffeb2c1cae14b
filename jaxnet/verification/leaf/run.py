"""What a caller's own run of a candidate gives, beside its algebra in float64.

Algebra can be right where the run is not: exp overflows, x + 1e-8 is x, digits cancel.
"""

import math
from dataclasses import replace

import jax
import numpy as np

from jaxnet.jaxpr.reader import coarsest_of
from jaxnet.precision import UNDERFLOW, eps
from jaxnet.verification.candidates.candidate import Candidate
from jaxnet.verification.candidates.rounding import LOST
from jaxnet.verification.context import Context
from jaxnet.verification.directions import norm, units
from jaxnet.verification.function.program import Program
from jaxnet.verification.leaf.probes import LeafProbes
from jaxnet.verification.leaf.verdict import is_zero_but_for_rounding
from jaxnet.verification.point import Leaf, Reals
from jaxnet.verification.report.leaf_report import LeafReport
from jaxnet.verification.report.verdict import Verdict

ILL_CONDITIONED = 4.0
"""A run may be off by this many times what rounding the parameters alone does: no
program in that dtype would give the gradient there."""

SAMPLES = 4
"""How often the parameters are rounded to see that."""

IS_OTHER = "it gives another gradient than when JAX traces it, where it is right"
"""What it does depends on whether its input is traced: no rounding does that."""

MOST_SPREADS = 10.0
"""How many times what rounding inside moves it the loss may be off float64…"""

ANOTHER = ": a hair tips a branch, an order or the signs of a decomposition in it"
"""…and what it is if it is off by more: another function, of another gradient."""

STANDS = (Verdict.AGREE, Verdict.UNINFORMATIVE)
"""Of what is wrong in float64, or has no derivative, the run says nothing more."""


def held_against_run(
    context: Context, report: LeafReport, candidate: Candidate, probes: LeafProbes
) -> LeafReport:
    """The report, with how far off the caller's own run is; it fails if that is lost.

    It is only said where the caller gave float64 and JAX, without x64, has float32.
    """
    run, leaf, objective = candidate.run, probes.leaf, context.objective
    loss = objective.given[0]
    if objective.program and loss is not None and not math.isfinite(loss):
        cause = f"the loss is {loss}, in float64 {context.start.value:.6g}"
        return _failed(report, leaf, objective.program, Verdict.UNRESOLVED, cause)
    if run is None:
        return report
    fault, ran = run.fault_of(leaf), run.gradient[leaf.number]
    if fault is not None:
        cause = f"it is {fault.cause}; in float64 it is right"
        found = replace(report, as_run=math.inf, worst_index=fault.worst_index)
        return _failed(found, leaf, run.program, fault.verdict, cause)
    if ran is None:
        return report
    meant, wide = candidate.array(leaf), np.asarray(ran, np.float64)
    size, error = norm(meant, leaf), norm(np.asarray(wide - meant), leaf)
    share = error / size if size else 0.0
    if report.verdict is Verdict.DISAGREE:
        dtype, _ = coarsest_of(run.program.equations)
        unseen = report.error <= eps(dtype) * abs(report.reference_value)
        words = f"less than {dtype} rounds, in which it is run"
        cause = "; ".join(filter(None, [report.cause, words * unseen]))
        return replace(report, as_run=share, cause=cause)
    is_lost = share > LOST and report.verdict is Verdict.AGREE
    if is_lost and objective.program and _is_another_function(context):
        found = replace(report, as_run=share)
        cause = f"the loss is {loss:.6g}, in float64 {context.start.value:.6g}{ANOTHER}"
        return _failed(found, leaf, objective.program, Verdict.UNRESOLVED, cause)
    if is_lost and is_zero_but_for_rounding(context, probes, candidate):
        return report
    report = replace(report, as_run=share)
    may_be = ILL_CONDITIONED * _by_rounding(context, candidate, leaf) if is_lost else 0
    if not is_lost or error <= may_be:
        return report
    worst = int(np.argmax(np.abs(wide - meant) * units(leaf.values, leaf.floor)))
    got, expected = (float(x.reshape(-1)[worst]) for x in (wide, meant))
    found = replace(
        report,
        worst_index=leaf.index(worst),
        candidate_value=got,
        reference_value=expected,
        error=abs(got - expected),
        bound=LOST * abs(expected),
        unit=1.0,
        ladder=None,
    )
    traced = candidate.run_as_traced(objective)[leaf.number]
    is_other = traced is not None and norm(traced - meant, leaf) <= LOST * size
    cause = IS_OTHER if is_other else "it is lost to rounding; in float64 it is right"
    return _failed(found, leaf, run.program, Verdict.DISAGREE, cause)


def _failed(
    report: LeafReport, leaf: Leaf, program: Program, verdict: Verdict, cause: str
) -> LeafReport:
    """Where the algebra stands, the run decides, if it is in the dtype that was given.

    Without x64, JAX computes in float32 what was given in float64.
    """
    if report.verdict not in STANDS:
        return report
    dtype, _ = coarsest_of(program.equations)
    cause = f"as it is run, in {dtype}, {cause}"
    if jax.dtypes.canonicalize_dtype(leaf.dtype) != leaf.dtype:
        words = (report.cause, f"without jax_enable_x64: {cause}")
        return replace(report, cause="; ".join(filter(None, words)))
    return replace(report, verdict=verdict, passed=False, cause=cause)


def _is_another_function(context: Context) -> bool:
    """Whether the loss as it is run is off float64 by more than rounding does to it."""
    own, value = context.objective.given[0], context.start.value
    if own is None:
        return False
    apart = abs(own - value) - UNDERFLOW
    return apart > MOST_SPREADS * context.objective.rounding_spread()


def _by_rounding(context: Context, candidate: Candidate, leaf: Leaf) -> float:
    """How far the gradient moves if the parameters are off by rounding, in float64."""
    assert candidate.run is not None
    precision, point = candidate.run.program.precision(), context.point
    random, meant = np.random.default_rng(context.seed), candidate.array(leaf)
    found = [0.0]
    for _ in range(SAMPLES):
        leaves = tuple(_rounded(x, precision, random) for x in point.leaves)
        there = candidate.at(replace(point, leaves=leaves), context.objective)
        if there is not None and there.gives(leaf):
            found.append(norm(np.asarray(there.array(leaf) - meant), leaf))
    return max(found)


def _rounded(leaf: Leaf, precision: float, random: np.random.Generator) -> Leaf:
    ulps = precision * random.uniform(-1, 1, leaf.values.shape)
    values: Reals = leaf.wide * (1 + ulps)
    return replace(leaf, values=values)
