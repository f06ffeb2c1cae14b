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
    found = [text for probes in probed for text in _of_leaf(context, probes, right)]
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


def _of_leaf(context: Context, probes: LeafProbes, right: Candidate) -> Iterator[str]:
    g, path = right.gradient[probes.leaf.number], probes.leaf.name
    if g is None or not g.size or not probes.probes:
        return
    if not g.any():
        yield f"any factor on {path}: its gradient is 0 here"
        return
    for name, wrong in mistakes(context, probes, right):
        findings = hypothetical(context, probes, right, np.asarray(wrong))
        if all(found.verdict is not Verdict.DISAGREE for found in findings):
            yield f"{name} in {path}"
    zeros = int(g.size - np.count_nonzero(g))
    if zeros:
        yield f"a factor on {zeros} of the {g.size} entries of {path}: they are 0 here"


def _batch_of_one(program: Program | None) -> Iterator[str]:
    constants = program.closed.consts if program else []
    batches = {np.shape(c)[0] for c in constants if np.ndim(c) >= 2}
    if batches == {1}:
        yield "forgetting 1/N: the data are a batch of 1"
