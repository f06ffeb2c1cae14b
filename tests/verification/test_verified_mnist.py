"""The book's network on real digits: how finely, at what cost, and what is caught."""

import functools
from typing import Any

import jax
import numpy as np
import pytest

from experiments.verify_gradients import MISTAKES, Problem, draw_problem, planted
from jaxnet.mnist import Mnist, load_mnist
from jaxnet.network import Params
from jaxnet.verification import (
    GradientReport,
    LeafReport,
    Verdict,
    check_gradients,
)
from tests.experiments.test_verify_gradients import SAID

pytestmark = pytest.mark.slow

LEAVES = {"[0].weight", "[0].bias", "[1].weight", "[1].bias"}
WRONG = {
    "zero-b1": ({"[0].bias"}, "all zero"),
    "w2-percent": ({"[1].weight"}, "×1.01 on every entry"),
    "all-percent": (LEAVES, "×1.01 on every entry"),
    "pixel-row": ({"[0].weight"}, "row {row} alone: it is zero"),
    "hidden-column": ({"[0].weight"}, "column 7 alone: it is zero"),
    "w1-sign": ({"[0].weight"}, "sign flipped, ×-1"),
    "w1-tiny": ({"[0].weight"}, "×1.00001 on every entry"),
}
"""The leaves that each mistake is in, and what it is called."""


@functools.cache
def mnist() -> Mnist:
    """Read once."""
    return load_mnist()


def entry_flipped(given: Problem) -> Params:
    """Backprop with the sign of one of the 39,200 entries of W1 changed."""
    gradient: Params = jax.tree.map(np.array, given.gradient)
    gradient[0].weight[400, 20] *= -1
    return gradient


def failed(report: GradientReport, candidate: str) -> dict[str, LeafReport]:
    """The leaves that a candidate has wrong; all its others passed."""
    leaves = [leaf for leaf in report.leaves if leaf.candidate == candidate]
    wrong = {leaf.path: leaf for leaf in leaves if leaf.verdict is Verdict.DISAGREE}
    assert all(leaf.passed for leaf in leaves if leaf.path not in wrong)
    return wrong


def test_when_all_is_well() -> None:
    """Every leaf agrees and is resolved to 1e-7; large ones cost 100 evaluations.

    The Python body of the loss is called a few times, whatever is evaluated.
    """
    given, calls = draw_problem(mnist(), 0), []

    def counted(params: Any) -> Any:
        calls.append(isinstance(params[0].weight, jax.core.Tracer))
        return given.loss(params)

    report = check_gradients(counted, given.params, {"right": given.by_hand})
    assert report.verdict is Verdict.AGREE, str(report)
    assert {leaf.path for leaf in report.leaves} == LEAVES
    assert all(leaf.resolution <= 1e-7 for leaf in report.leaves)
    large = [leaf for leaf in report.leaves if np.prod(leaf.shape) > 64]
    assert {leaf.path for leaf in large} == {"[0].weight", "[1].weight"}
    assert all(leaf.evaluations <= 100 for leaf in large)
    assert len(calls) <= 8
    assert report.evaluations > 1000


def test_every_mistake_is_caught() -> None:
    """In the leaves where it was planted and nowhere else, and called by its name.

    `experiments/verify_gradients.py --seeds 20` does so at twenty points.
    """
    given = draw_problem(mnist(), 0)
    candidates = {name: planted(given, name) for name in WRONG}
    gone = (candidates["pixel-row"][0].weight == 0) & (given.gradient[0].weight != 0)
    (row,) = np.flatnonzero(gone.any(axis=1))
    everything: dict[str, Any] = {**candidates, "entry": entry_flipped(given)}
    report = check_gradients(given.loss, given.params, everything, key=0)
    for name, (paths, cause) in WRONG.items():
        leaves = failed(report, name)
        assert set(leaves) == paths
        for leaf in leaves.values():
            assert leaf.cause.startswith(cause.format(row=row))
    (leaf,) = failed(report, "entry").values()
    assert leaf.place == "[0].weight[400, 20]"
    assert leaf.cause.startswith("this coordinate alone: ×-1")
    assert leaf.evaluations <= 3000


def test_one_entry_of_39_200_is_found_without_autodiff() -> None:
    """By halving, in 3000 evaluations: autodiff of this loss is zero everywhere."""
    given = draw_problem(mnist(), 0)

    def loss(params: Any) -> Any:
        return given.loss(jax.lax.stop_gradient(params))

    report = check_gradients(loss, given.params, {"entry": entry_flipped(given)})
    (leaf,) = failed(report, "entry").values()
    assert leaf.place == "[0].weight[400, 20]"
    assert leaf.evaluations <= 3000
    slope = float(given.gradient[0].weight[400, 20])
    assert leaf.reference_value == pytest.approx(slope, rel=1e-4)


def test_the_list_of_mistakes_is_the_one_tested() -> None:
    """Here, or where those of a backward pass are, besides the book's own pair."""
    assert set(MISTAKES) == set(WRONG) | set(SAID)


def test_a_row_that_is_zero_anyway_is_no_mistake() -> None:
    """A pixel that is black in every image: the report says what it cannot show."""
    given = draw_problem(mnist(), 0, batch_size=10)
    (black, *_) = np.flatnonzero((given.images == 0).all(axis=0))
    gradient = jax.tree.map(np.array, given.gradient)
    gradient[0].weight[black] = 0
    report = check_gradients(given.loss, given.params, {"mine": gradient})
    assert report.passed
    assert any("have gradient 0" in text for text in report.blind_spots)
