"""Where in a large leaf a gradient that fails a probe is wrong."""

import numpy as np

from jaxnet.verification.candidates.candidate import Candidate
from jaxnet.verification.context import Context
from jaxnet.verification.directions import Coordinate, GivenDirection, units
from jaxnet.verification.leaf.compare import compare
from jaxnet.verification.leaf.finding import Finding
from jaxnet.verification.leaf.probe import Probe, probe, suspicious_coordinates
from jaxnet.verification.leaf.probes import LeafProbes
from jaxnet.verification.point import Reals
from jaxnet.verification.report.verdict import Verdict

ROUNDINGS = 16.0
"""How many ulps a candidate may differ from autodiff and be called the same…"""

DIFFERENCES = 1e-10
"""…beside this share, which no difference quotient would resolve…"""

TERMS = 4.0
"""…and this many times what rounding does to the terms of each entry."""


def autodiff_beside(
    context: Context, candidate: Candidate, probes: LeafProbes
) -> Reals | None:
    """jax.grad with respect to the leaf, to compare with; None if the candidate is it.

    Nothing is learnt by comparing it with itself.
    """
    if candidate.is_derived(context.autodiff):
        return None
    return context.autodiff.array(probes.leaf)


def same_as_autodiff(
    context: Context, candidate: Candidate, probes: LeafProbes, autodiff: Reals
) -> Reals:
    """How far the candidate may be off autodiff and be called the same, by entry."""
    eps = context.rounding.eps_of(candidate, probes.leaf)
    terms = context.rounding.of_terms(probes.leaf, eps, probes.loss_by_unit)
    constants = context.rounding.fixed(candidate, probes.leaf)
    return np.asarray(_floor(eps, autodiff) + TERMS * terms + constants)


def directed_findings(
    context: Context, probes: LeafProbes, candidate: Candidate
) -> list[Finding]:
    """One more probe of a large leaf, along all that autodiff has otherwise."""
    if probes.by_coordinates:
        return []
    autodiff = autodiff_beside(context, candidate, probes)
    if autodiff is None:
        return []
    difference = candidate.array(probes.leaf) - autodiff
    eps = context.rounding.eps_of(candidate, probes.leaf)
    if not (np.abs(difference) > _floor(eps, autodiff)).any():
        return []  # the terms, which cost twelve gradients, could only allow more
    allowed = same_as_autodiff(context, candidate, probes, autodiff)
    signs = np.where(np.abs(difference) > allowed, np.sign(difference), 0)
    signs.reshape(-1)[list(probes.kinks.left_out)] = 0
    if not signs.any():
        return []
    direction = GivenDirection(probes.leaf, signs)
    directed = probe(context, probes.noise, direction)
    return [compare(context, probes, candidate, directed)]


def located(
    context: Context, probes: LeafProbes, candidate: Candidate, worst: Finding
) -> Finding:
    """The finding of one wrong coordinate, if there is one to be found.

    It is sought where autodiff differs most, then by halving.
    """
    if isinstance(worst.probe.direction, Coordinate):
        return worst

    def at(flat: int) -> Finding:
        direction = Coordinate(probes.leaf, flat)
        coordinate = probe(context, probes.noise, direction)
        return compare(context, probes, candidate, coordinate)

    def is_wrong(one: Probe) -> bool:
        found = compare(context, probes, candidate, one)
        return found.verdict is Verdict.DISAGREE

    likely = _largest_difference(context, probes, candidate)
    if likely is not None:
        found = at(likely)
        if found.verdict is Verdict.DISAGREE:
            return found
    leaf, noise = probes.leaf, probes.noise
    places = suspicious_coordinates(context, noise, leaf, is_wrong, limit=1)
    return at(places[0]) if places else worst


def _largest_difference(
    context: Context, probes: LeafProbes, candidate: Candidate
) -> int | None:
    autodiff = autodiff_beside(context, candidate, probes)
    if autodiff is None:
        return None
    leaf = probes.leaf
    difference = np.abs(candidate.array(leaf) - autodiff)
    difference = difference * units(leaf.values, leaf.floor)
    return int(np.argmax(difference)) if difference.any() else None


def _floor(eps: float, autodiff: Reals) -> Reals:
    return np.asarray((ROUNDINGS * eps + DIFFERENCES) * np.abs(autodiff))
