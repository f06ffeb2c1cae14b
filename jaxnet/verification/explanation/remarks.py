"""What else a person should know of a check: notes, and who stands alone."""

import jax
import numpy as np

from jaxnet.jaxpr.lines import described
from jaxnet.jaxpr.reader import coarsest_of, dtypes_of
from jaxnet.precision import DOUBLE, eps
from jaxnet.verification.candidates.candidate import Candidate
from jaxnet.verification.context import Context
from jaxnet.verification.function.rounding_noise import solvers
from jaxnet.verification.function.widen import Widened
from jaxnet.verification.report.leaf_report import LeafReport
from jaxnet.verification.report.verdict import Verdict

WRONG = (Verdict.DISAGREE, Verdict.MALFORMED, Verdict.NONDETERMINISTIC)

SAME = 1e4
"""How many ulps of its largest entry two routes to one gradient may differ by."""


def notes(context: Context, candidates: list[Candidate]) -> tuple[str, ...]:
    """How the loss was called, and where it or a candidate is not float64."""
    found, objective = [], context.objective
    if objective.widened is None or objective.program is None:
        found.append("JAX cannot trace the loss: it was called point by point")
    else:
        found += _kept("the loss", objective.widened)
        given = min(eps(leaf.dtype) for leaf in objective.point.leaves)
        given = max(given, eps(jax.dtypes.canonicalize_dtype(np.float64)))
        if objective.program.precision() > given:
            where = objective.program.describe_coarsest()
            found.append(f"as it is run, the loss {where}{_off(context)}")
        if noise := objective.solver_noise:
            where = described(solvers(objective.program)[0])
            found.append(f"the loss iterates to about {noise:.0e} in {where}")
    for candidate in candidates:
        found += _kept(candidate.name, candidate.widened)
        dtype = max(candidate.dtypes, key=eps)
        if candidate.widened is None and eps(dtype) > DOUBLE:
            rounds = f"its rounding, {eps(dtype):.0e} of each term, is allowed"
            found.append(f"{candidate.name} holds {np.dtype(dtype)} numbers: {rounds}")
        if candidate.not_run:
            found.append(f"{candidate.name} raises as it is run: {candidate.not_run}")
    return tuple(found)


def _off(context: Context) -> str:
    """How far the caller's own loss is off, in words."""
    run, value = context.objective.given[0], context.start.value
    if run is None or not value:
        return ""
    return f"; it is {abs(run - value) / abs(value):.1e} of its value off float64"


def _kept(name: str, widened: Widened | None) -> list[str]:
    """What of a program could not be widened."""
    kept = [e for e in widened.kept() if dtypes_of(e)] if widened else []
    if not kept:
        return []
    dtype, equation = coarsest_of(kept)
    where = described(equation)
    return [f"{name} computes in {dtype} what cannot be widened: {where}"]


def odd_one_out(candidates: list[Candidate], leaves: list[LeafReport]) -> str | None:
    """Of three or more routes, differences included, the one that stands alone."""
    if len(candidates) < 2:
        return None
    wrong = {report.candidate for report in leaves if report.verdict in WRONG}
    if len(wrong) == 1:
        return next(iter(wrong))
    first, *others = candidates
    same = all(_are_same(first, other) for other in others)
    return "finite differences" if len(wrong) == len(candidates) and same else None


def _are_same(one: Candidate, other: Candidate) -> bool:
    """Whether two gradients differ by rounding only."""
    for number, (a, b) in enumerate(zip(one.gradient, other.gradient, strict=True)):
        if a is None or b is None:
            return False
        rounding = SAME * max(one.eps(number), other.eps(number))
        if np.max(np.abs(a - b), initial=0.0) > rounding * np.max(np.abs(a), initial=0):
            return False
    return True
