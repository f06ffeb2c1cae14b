"""What else a person should know of a check: notes, and who stands alone."""

import numpy as np

from jaxnet.precision import DOUBLE
from jaxnet.verification.candidates.candidate import Candidate
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.report.leaf_report import LeafReport
from jaxnet.verification.report.verdict import Verdict

WRONG = (Verdict.DISAGREE, Verdict.MALFORMED, Verdict.NONDETERMINISTIC)

SAME = 1e4
"""How many ulps of its largest entry two routes to one gradient may differ by."""


def notes(objective: Objective, candidates: list[Candidate]) -> tuple[str, ...]:
    """How the loss was called, and where it or a candidate leaves float64."""
    found = []
    if not objective.traceable:
        why = "JAX cannot trace the loss"
        if objective.as_given:
            why = "the loss draws other random numbers in float64"
        found.append(f"{why}: it was called point by point")
    if objective.own_dtype:
        found.append("the loss takes the parameters in their own dtype only")
    elif objective.program and objective.program.precision > DOUBLE:
        found.append(objective.program.describe_coarsest())
    for candidate in candidates:
        program = candidate.program
        if program and program.precision > objective.precision:
            found.append(f"{candidate.name} {program.describe_coarsest()}")
    return tuple(found)


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
