"""What kinks say of a candidate beyond each of them alone."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from jaxnet.verification.candidates.candidate import Candidate
from jaxnet.verification.context import Context
from jaxnet.verification.directions import Coordinate
from jaxnet.verification.leaf.compare import compare
from jaxnet.verification.leaf.finding import Finding
from jaxnet.verification.leaf.locate import autodiff_beside
from jaxnet.verification.leaf.probe import Probe
from jaxnet.verification.leaf.probes import LeafProbes, along_signs
from jaxnet.verification.report.numbers import listed
from jaxnet.verification.report.verdict import Verdict

SAME = 1e-6
"""At a kink that was not probed, a candidate is as autodiff is within this share: a
choice of another slope would be seen, and rounding is not."""


def joint_findings(
    context: Context, probes: LeafProbes, candidate: Candidate
) -> Iterator[Finding]:
    """Kinked coordinates together: what each allows, their sum may not."""
    signed = along_signs(context, probes, candidate.array(probes.leaf))
    smooth = (one for one in signed if not one.derivative.has_kink)
    for probe in (*probes.joint, *smooth):
        found = compare(context, probes, candidate, probe)
        if found.verdict is Verdict.DISAGREE and probe.derivative.has_kink:
            reason = f"along several kinks: {found.reason}"
            verdict = Verdict.NONDIFFERENTIABLE
            yield replace(found, verdict=verdict, reason=reason)
        elif found.verdict is Verdict.DISAGREE:
            reason = "each value is allowed at its kink, their sum is not"
            yield replace(found, reason=reason)
        else:
            yield found


def unprobed_findings(
    context: Context, probes: LeafProbes, candidate: Candidate
) -> Iterator[Finding]:
    """A failed finding where kinks were not told apart, or are too many to be probed.

    At those too many, a candidate may stand that is as autodiff is, and was not derived
    by it: nothing is learnt by comparing that with itself.
    """
    if probes.kinks.are_mixed:
        crossing = next(p for p in probes.probes if not p.derivative.is_smooth)
        found = compare(context, probes, candidate, crossing)
        reason = "the probes cross kinks that could not be told apart"
        yield _failed(found, Verdict.NONDIFFERENTIABLE, reason)
        return
    where = np.array(probes.kinks.unprobed, int)
    if not len(where):
        return
    autodiff = autodiff_beside(context, candidate, probes)
    if autodiff is not None:
        given = candidate.array(probes.leaf).reshape(-1)[where]
        if np.allclose(given, autodiff.reshape(-1)[where], rtol=SAME):
            return
    reason = f"{len(where)} zeros or ties are too many to be probed"
    found = compare(context, probes, candidate, probes.probes[0])
    yield _failed(found, Verdict.UNRESOLVED, reason)


def other_kinks(probes: LeafProbes, worst: Finding) -> str:
    """Where else the leaf is not differentiable, in words."""
    places = list(
        dict.fromkeys(
            str(list(index))
            for index in map(_index, probes.probes)
            if index is not None and index != worst.index
        )
    )
    text = f"; also at {listed(places)}" if places else ""
    if probes.kinks.unprobed:
        text += f"; {len(probes.kinks.unprobed)} more zeros or ties not probed"
    return text


def _index(probe: Probe) -> tuple[int, ...] | None:
    """The caller's index of a single coordinate that has a kink or jump."""
    direction = probe.direction
    if probe.derivative.is_smooth or not isinstance(direction, Coordinate):
        return None
    return direction.index


def _failed(found: Finding, verdict: Verdict, reason: str) -> Finding:
    return replace(found, verdict=verdict, passed=False, reason=reason, sides=())
