"""Leaves of a deep model, probed together: a ladder for many of them, not for each.

Along a direction through all leaves of a group, the derivative is the sum of what each
leaf gives. A group where that does not agree is halved, until a wrong leaf is alone.
"""

from collections.abc import Sequence

import numpy as np

from jaxnet.differences.stairs import may_hide_stairs
from jaxnet.differences.step_ladder import TIMES, DirectionalDerivative, from_ladder
from jaxnet.precision import SINGLE
from jaxnet.verification.budget import BudgetSpent
from jaxnet.verification.candidates.candidate import Candidate
from jaxnet.verification.context import Context
from jaxnet.verification.directions import Direction, Together, along, norm
from jaxnet.verification.leaf.compare import bound_and_excess
from jaxnet.verification.leaf.noise import measure_noise_together
from jaxnet.verification.leaf.probe import PROBES, Probe
from jaxnet.verification.leaf.probes import LeafProbes
from jaxnet.verification.leaf.verdict import is_resolved, resolution
from jaxnet.verification.point import Leaf

FINE = 1e-6
"""Leaves that are resolved less finely are probed again without those that are finer,
whose larger derivatives have larger bounds."""

Candidates = Sequence[Candidate]
Leaves = list[Leaf]


def probed_together(context: Context, candidates: Candidates) -> dict[int, LeafProbes]:
    """The probes of the leaves of a deep model that agree together, by number."""
    objective = context.objective
    is_rough = objective.precision > SINGLE or objective.solver_noise
    if not (context.is_deep and candidates) or is_rough:
        return {}
    leaves = [
        leaf
        for leaf in context.point.leaves
        if leaf.size and objective.depends_on(leaf) and not leaf.has_tiny
        if all(candidate.gives(leaf) for candidate in candidates)
    ]
    leaves.sort(key=lambda leaf: norm(candidates[0].array(leaf), leaf))
    found, groups = dict[int, LeafProbes](), [leaves]
    while groups:
        group = groups.pop()
        if len(group) < 2:
            continue
        try:
            probes = _probes(context, candidates, group)
        except BudgetSpent:
            break  # the leaves that are left say so
        if probes is None:
            half = len(group) // 2
            groups += [group[:half], group[half:]]
            continue
        done = [p for p in probes if _is_fine(context, candidates, p)]
        if done:
            numbers = {p.leaf.number for p in done}
            groups.append([leaf for leaf in group if leaf.number not in numbers])
        else:
            done = [
                p for p in probes if all(is_resolved(context, p, c) for c in candidates)
            ]
        found |= {p.leaf.number: p for p in done}
    return found


def _is_fine(context: Context, candidates: Candidates, probes: LeafProbes) -> bool:
    """Whether what the differences leave open is little for every candidate."""
    return all(resolution(context, probes, c)[1] <= FINE for c in candidates)


def _probes(
    context: Context, candidates: Candidates, leaves: Leaves
) -> list[LeafProbes] | None:
    """Those of each leaf of a group; None where the group does not agree."""
    objective, before = context.objective, context.objective.evaluations
    lines = [[Direction(x, context.seed, i) for x in leaves] for i in range(PROBES)]
    noise = measure_noise_together(context, Together(tuple(lines[0])))
    shares = list[list[Probe]]()
    for line in lines:
        values = context.values_along(Together(tuple(line)), TIMES)
        derivative = from_ladder(values, noise.level)
        is_unsure = objective.may_round_unseen and may_hide_stairs(derivative)
        found = _shares(context, candidates, line, derivative)
        if found is None or is_unsure or noise.drowns(derivative.size):
            return None
        shares.append(found)
    spent = objective.evaluations - before
    return [
        LeafProbes(leaf, noise, False, tuple(probes), shared=spent)
        for leaf, *probes in zip(leaves, *shares, strict=True)
    ]


def _shares(
    context: Context,
    candidates: Candidates,
    line: Sequence[Direction],
    derivative: DirectionalDerivative,
) -> list[Probe] | None:
    """What is left of a derivative for each leaf if all others are as they are claimed.

    The rounding of the others is part of its bound. None where a claim is not right.
    """
    central = derivative.central
    if not (derivative.is_smooth and central.converged):
        return None
    claimed = np.array([[along(c.array(d.leaf), d) for d in line] for c in candidates])
    others_round = np.zeros(len(line))
    for candidate, values in zip(candidates, claimed, strict=True):
        rounding = _rounding(context, candidate, line, derivative, values)
        if rounding is None:
            return None
        others_round = np.maximum(others_round, np.sum(rounding) - rounding)
    rest = central.value - (np.sum(claimed[0]) - claimed[0])
    bounds = central.bound + others_round / context.safety
    return [
        Probe(
            d,
            derivative._replace(
                central=central._replace(value=v, bound=b),
                rungs=derivative.rungs and derivative.rungs.less(central.value - v),
            ),
        )
        for d, v, b in zip(line, rest.tolist(), bounds.tolist(), strict=True)
    ]


def _rounding(
    context: Context,
    candidate: Candidate,
    line: Sequence[Direction],
    derivative: DirectionalDerivative,
    values: np.ndarray,
) -> np.ndarray | None:
    """What the candidate's rounding may do in each leaf; None where it is not right."""
    total = float(np.sum(values))
    _, excess = bound_and_excess(derivative, total, context.safety)
    for terms_wanted in (False, True):
        found = [
            context.rounding.allowance(
                candidate,
                candidate.array(direction.leaf),
                direction,
                derivative.size / direction.leaf.floor,
                needed=np.inf if terms_wanted else 0.0,
                terms_wanted=terms_wanted,
            )
            for direction in line
        ]
        if excess <= sum(found):
            return np.array(found)
    return None
