"""What a point cannot show: mistakes that the computed bounds would let pass."""

from collections.abc import Iterator

import numpy as np

from jaxnet.verification.candidates import Candidate
from jaxnet.verification.leaf_check import LeafCheck
from jaxnet.verification.program import Program
from jaxnet.verification.verdict import Verdict


def survivors(
    checks: list[LeafCheck], candidate: Candidate, program: Program | None
) -> tuple[str, ...]:
    """Canonical mistakes in a right gradient that no look would have caught."""
    found = [text for check in checks for text in _of_leaf(check, candidate)]
    return (*_batch_of_one(program), *found)


def mistakes(
    check: LeafCheck, candidate: Candidate
) -> Iterator[tuple[str, np.ndarray | np.floating]]:
    """The right gradient of a leaf with each canonical mistake."""
    given = candidate.gradient[check.number]
    assert given is not None
    g = given.astype(np.float64, copy=False)
    yield "a factor 2 (or N)", 2 * g
    yield "a flipped sign", -g
    yield "zero in its place", 0 * g
    yield "a factor 1.001", 1.001 * g
    if check.looker.parameters.are_many:
        return
    if g.ndim >= 2 and g.shape[-1] == g.shape[-2] > 1:
        yield "a transposition", np.swapaxes(g, -1, -2)
    largest = np.unravel_index(int(np.argmax(np.abs(g))), g.shape)
    one = g.copy()
    one[largest] *= 1.001
    yield "its largest entry off by 0.1 %", one
    for other in candidate.gradient[: check.number]:
        if other is not None and other.shape == g.shape:
            yield "a swap with another leaf of its shape", other


def _of_leaf(check: LeafCheck, candidate: Candidate) -> Iterator[str]:
    g = candidate.gradient[check.number]
    if g is None or not g.size or not check.looks:
        return
    path = check.leaf.path or "params"
    if not g.any():
        yield f"any factor on {path}: its gradient is 0 here"
        return
    for name, wrong in mistakes(check, candidate):
        findings = check.findings(candidate, np.asarray(wrong))
        if all(f.verdict is not Verdict.DISAGREE for f in findings):
            yield f"{name} in {path}"
    zeros = int(g.size - np.count_nonzero(g))
    if zeros:
        yield f"a factor on {zeros} of the {g.size} entries of {path}: they are 0 here"


def _batch_of_one(program: Program | None) -> Iterator[str]:
    constants = program.closed.consts if program else []
    batches = {np.shape(c)[0] for c in constants if np.ndim(c) >= 2}
    if batches == {1}:
        yield "forgetting 1/N: the data are a batch of 1"
