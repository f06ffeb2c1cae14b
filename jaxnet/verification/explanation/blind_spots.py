"""What a point cannot show: mistakes that the computed bounds would let pass."""

from collections.abc import Iterable, Iterator

import numpy as np

from jaxnet.verification.candidates.candidate import Candidate
from jaxnet.verification.context import Context
from jaxnet.verification.function.program import Program
from jaxnet.verification.leaf.compare import hypothetical
from jaxnet.verification.leaf.probes import LeafProbes
from jaxnet.verification.point import Reals
from jaxnet.verification.report.verdict import Verdict


def blind_spots(
    context: Context, probed: Iterable[LeafProbes], right: Candidate
) -> tuple[str, ...]:
    """Canonical mistakes in a right gradient that no probe would have caught."""
    passing, zero, partly = dict[str, list[str]](), list[str](), list[str]()
    kinked = list[str]()
    for probes in probed:
        gradient, name = right.gradient[probes.leaf.number], probes.leaf.name
        if gradient is None or not gradient.size or not probes.probes:
            continue
        if not all(one.derivative.is_smooth for one in probes.probes):
            kinked.append(name)
        count = int(np.count_nonzero(gradient))
        if not count:
            zero.append(name)
            continue
        for mistake in _not_caught(context, probes, right):
            passing.setdefault(mistake, []).append(name)
        if left := gradient.size - count:
            partly.append(f"{left:,} of the {gradient.size:,} entries of {name}")
    found = [f"{mistake} in {', '.join(names)}" for mistake, names in passing.items()]
    if zero:
        found.append(
            f"any factor on {', '.join(zero)}, of which the gradient is 0 here"
        )
    if partly:
        found.append(f"{', '.join(partly)} have gradient 0")
    if len(kinked) > 1:
        found.append(f"the sum of what is claimed at the kinks of {', '.join(kinked)}")
    return (*_batch_of_one(context.objective.program), *found)


def mistakes(
    context: Context, probes: LeafProbes, right: Candidate
) -> Iterator[tuple[str, Reals]]:
    """The right gradient of a leaf with each canonical mistake."""
    g = right.array(probes.leaf).astype(np.float64, copy=False)
    yield "a factor 2 (or N)", 2 * g
    yield "a flipped sign", -g
    yield "zero in its place", 0 * g
    yield "a factor 1.001", 1.001 * g
    if context.point.are_many:
        return
    if g.ndim >= 2 and g.shape[-1] == g.shape[-2] > 1:
        yield "a transposition", np.swapaxes(g, -1, -2)
    largest = np.unravel_index(int(np.argmax(np.abs(g))), g.shape)
    one = g.copy()
    one[largest] *= 1.001
    yield "its largest entry off by 0.1 %", one
    for leaf in context.point.leaves[: probes.leaf.number]:
        other = right.gradient[leaf.number]
        if other is not None and other.shape == g.shape:
            yield "a swap with another leaf of its shape", other


def _not_caught(
    context: Context, probes: LeafProbes, right: Candidate
) -> Iterator[str]:
    for name, wrong in mistakes(context, probes, right):
        findings = hypothetical(context, probes, right, np.asarray(wrong))
        if all(found.verdict is not Verdict.DISAGREE for found in findings):
            yield name


def _batch_of_one(program: Program | None) -> Iterator[str]:
    constants = program.closed.consts if program else []
    batches = {np.shape(c)[0] for c in constants if np.ndim(c) >= 2}
    if batches == {1}:
        yield "forgetting 1/N: the data are a batch of 1"
