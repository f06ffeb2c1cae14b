"""A candidate's name and place in the list change nothing in what is said of it."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import GradientReport, LeafReport, Verdict, check_gradients

RANDOM = np.random.default_rng(0)
WEIGHTS = RANDOM.normal(size=5000)
POINT = RANDOM.normal(size=5000)
NAMES = ("mine", "autodiff", "backprop")


def offset_loss(q: jax.Array) -> jax.Array:
    """A large constant hides small errors from the differences."""
    return 1e6 + jnp.sum(WEIGHTS * jnp.sin(q))


def matrix_loss(q: jax.Array) -> jax.Array:
    """Of 50 × 100 entries."""
    return jnp.sum(WEIGHTS.reshape(50, 100) * jnp.sin(q))


OFF = WEIGHTS * np.cos(POINT) * (1 + 1e-8)
COLUMN_ZEROED = (WEIGHTS * np.cos(POINT)).reshape(50, 100)
COLUMN_ZEROED[:, 3] = 0
CASES = {
    "off by 1e-8": (offset_loss, POINT, OFF),
    "a column zeroed": (matrix_loss, POINT.reshape(50, 100), COLUMN_ZEROED),
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_the_name_changes_nothing(case: str) -> None:
    """Verdict, place, cause and cost are those of any other name."""
    loss, point, gradient = CASES[case]
    reports = [check_gradients(loss, point, {name: gradient}) for name in NAMES]
    first, *others = [
        said(report)[name] for report, name in zip(reports, NAMES, strict=True)
    ]
    assert first.verdict is not Verdict.UNRESOLVED
    assert all(other == first for other in others)


@pytest.mark.slow
def test_the_order_changes_nothing() -> None:
    """Each of three candidates gets what it gets in any other order."""
    right = WEIGHTS * np.cos(POINT)
    candidates = {"autodiff": OFF, "right": right, "negated": -right}
    forward = said(check_gradients(offset_loss, POINT, candidates))
    backward = said(
        check_gradients(offset_loss, POINT, dict(reversed(candidates.items())))
    )
    assert forward == backward


def said(report: GradientReport) -> dict[str, LeafReport]:
    """The record of each candidate, without its name."""
    return {
        leaf.candidate: replace(leaf, candidate="", evaluations=report.evaluations)
        for leaf in report.leaves
    }
