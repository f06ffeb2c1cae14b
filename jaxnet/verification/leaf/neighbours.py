"""Points without a derivative that no line through them shows.

A median of three equal numbers is flat along each of them, and rises if all do; a sort
has one slope above a tie, one below, and others between. The generalized derivative
(Clarke 1975) holds the slopes of all points nearby, and so do gradients that JAX
derives there: a value outside the slopes of its own line is held against those.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from jaxnet.differences.step_ladder import Estimate
from jaxnet.verification.candidates.candidate import Candidate
from jaxnet.verification.context import Context
from jaxnet.verification.directions import (
    ONE,
    Coordinate,
    Direction,
    GivenDirection,
    nearby,
    units,
)
from jaxnet.verification.leaf.compare import compare
from jaxnet.verification.leaf.finding import Finding
from jaxnet.verification.leaf.probe import Probe, probe
from jaxnet.verification.leaf.probes import LeafProbes
from jaxnet.verification.report.verdict import Verdict

NEIGHBOURS = 64
"""How many points nearby are looked at, at most: where three kinks meet, one in eight
shows the slope that is looked for."""

NEAR, FAR = 2.0**-18, 2.0**-14
"""How far they lie, in units of each coordinate: where a slope differs from those here
by as much at a sixteenth of the distance, it does however near."""

ACROSS = 5
"""The number of the random line through all coordinates that are probed one by one, at
unequal speeds: a matrix of equal entries has a determinant of 0 wherever it goes."""

AS_MUCH = 1 / 2
"""What share of it counts as that: a slope that bends keeps a sixteenth."""


def beside_neighbours(
    context: Context,
    probes: LeafProbes,
    candidate: Candidate,
    findings: list[Finding],
) -> list[Finding]:
    """Findings, of which a value may stand that is a slope of points nearby.

    Only where there is no derivative: a coordinate has a kink, or slopes along all that
    are probed one by one do not add up to that along a line through them all. Nor may
    the sum of the values then be wrong, here and nearby.
    """
    alone = {
        found.probe.direction.flat: found.probe
        for found in findings
        if isinstance(found.probe.direction, Coordinate)
    }
    if not alone or not any(map(_is_outside, findings)):
        return findings
    if _is_smooth(context, probes, alone):
        return findings
    together = _probe_all(context, probes, dict.fromkeys(alone, 1.0))
    if not together.derivative.central.converged:
        return findings
    whole = compare(context, probes, candidate, together)
    if _held_against_neighbours(context, probes, whole).verdict is Verdict.DISAGREE:
        return findings
    return [_held_against_neighbours(context, probes, found) for found in findings]


def _is_outside(found: Finding) -> bool:
    """Whether a value lies outside the slopes of its line.

    Along several kinks together that proves nothing, and is no DISAGREE.
    """
    is_joint = isinstance(found.probe.direction, GivenDirection)
    is_kink = found.verdict is Verdict.NONDIFFERENTIABLE
    is_outside = is_joint and is_kink and not found.passed and bool(found.sides)
    return found.verdict is Verdict.DISAGREE or is_outside


def _is_smooth(context: Context, probes: LeafProbes, alone: dict[int, Probe]) -> bool:
    """Whether slopes along coordinates add up to that along a line through them all."""
    random = Direction(probes.leaf, context.seed, ACROSS).multipliers().reshape(-1)
    speeds = {flat: abs(float(random[flat])) / ONE for flat in alone}
    across = _probe_all(context, probes, speeds)
    if not all(one.derivative.is_smooth for one in (across, *alone.values())):
        return False
    whole = across.derivative.central
    apart, bound = whole.value, whole.bound
    for flat, speed in speeds.items():
        slope = alone[flat].derivative.central
        apart -= speed * slope.value
        bound += speed * slope.bound
    return abs(apart) <= context.safety * bound


def _probe_all(context: Context, probes: LeafProbes, speeds: dict[int, float]) -> Probe:
    """Along a line on which these coordinates move, each so many units."""
    leaf, signs = probes.leaf, np.zeros(probes.leaf.size)
    signs[list(speeds)] = list(speeds.values())
    direction = GivenDirection(leaf, signs.reshape(leaf.values.shape))
    return probe(context, probes.noise, direction)


def _held_against_neighbours(
    context: Context, probes: LeafProbes, found: Finding
) -> Finding:
    """The finding, or a kink if points nearby have slopes beyond those here.

    It passes if its value lies between them: those that were seen, so that none is
    called wrong which lies beyond.
    """
    if not _is_outside(found) or not _is_straight(found):
        return found
    if isinstance(found.probe.direction, Direction):  # through others' kinks
        return found
    low, high = found.sides
    passed = False
    for slope in _others(context, probes, found):
        low, high = min(low, slope), max(high, slope)
        passed = low - found.bound <= found.candidate <= high + found.bound
        if passed:
            break
    if (low, high) == found.sides:
        return found
    reason = "a kink in several coordinates, slopes {:.6g} to {:.6g} nearby"
    kink = replace(found, verdict=Verdict.NONDIFFERENTIABLE, passed=passed)
    return replace(kink, reason=reason, sides=(low, high))


def _is_straight(found: Finding) -> bool:
    """Whether the line itself has no kink as near as the neighbours.

    A kink beside the point is none of it: there is a derivative, and others beyond.
    """
    central, one_sided, *_, rungs = found.probe.derivative
    if rungs is None:
        return False
    within = (rungs.steps >= NEAR) & (rungs.steps <= FAR)
    beyond = _beyond(found, found.candidate)
    bent = np.abs(rungs.quotients - central.value)[within]
    split = np.abs(rungs.one_sided - one_sided.value)[within]
    return bool(within.any() and max(*bent, *split) < AS_MUCH * beyond)


def _others(context: Context, probes: LeafProbes, found: Finding) -> Iterator[float]:
    """Slopes of points nearby that lie beyond those here, however near."""
    for number in range(NEIGHBOURS):
        seed = *context.seed, number
        near = _slope(context, probes, found, seed, NEAR)
        beyond = _beyond(found, near.value)
        if beyond > context.safety * near.bound:
            far = _slope(context, probes, found, seed, FAR)
            if beyond > AS_MUCH * _beyond(found, far.value):
                yield near.value


def _slope(
    context: Context,
    probes: LeafProbes,
    found: Finding,
    seed: tuple[int, ...],
    size: float,
) -> Estimate:
    """Along the same line, half as fast: a unit there may be twice as large as here."""
    there = context.at(nearby(context.point, seed, size))
    leaf, here = there.point.leaves[probes.leaf.number], found.probe.direction
    larger = units(here.leaf.values, here.leaf.floor) / units(leaf.values, leaf.floor)
    direction = GivenDirection(leaf, here.multipliers() / ONE * larger / 2)
    slope = probe(there, probes.noise, direction).derivative.central
    return slope._replace(value=2 * slope.value, bound=2 * slope.bound)


def _beyond(found: Finding, slope: float) -> float:
    """How far a slope lies beyond those of the two sides here."""
    low, high = found.sides
    return max(low - slope, slope - high)
