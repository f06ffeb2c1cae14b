"""Ties of three: no line through the point shows the slopes that are nearby."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import Verdict, check_gradients
from jaxnet.verification.leaf.neighbours import NEIGHBOURS

Loss = Callable[[Any], Any]

WEIGHTS = np.array([1, 5, 2, 3], np.float32)


def median(x: Any) -> Any:
    """Flat along each of three equal numbers, and rising if all do."""
    return jnp.median(x)


def median_and_more(x: Any) -> Any:
    """The same beside what is smooth."""
    return jnp.median(x) ** 2 + jnp.sum(x**2)


def ordered(x: Any) -> Any:
    """The one in the middle has a weight that neither neighbour has."""
    return jnp.sort(x) @ WEIGHTS


def largest(x: Any) -> Any:
    """Two of three equal ones."""
    return jax.lax.top_k(x, 2)[0] @ WEIGHTS[:2]


def corner(x: Any) -> Any:
    """Kinks of kinks: flat along both axes at 0."""
    return jnp.minimum(jnp.maximum(x[0], 0), jnp.maximum(x[1], 0)) + jnp.sum(x**3)


TIES = [
    (median, [1, 1, 1, 2, 0]),
    (median_and_more, [1, 1, 1]),
    (ordered, [1, 1, 1, 2]),
    (largest, [1, 1, 1, 0]),
    (corner, [0, 0]),
]
ids = pytest.mark.parametrize(
    ("loss", "values"), TIES, ids=lambda x: getattr(x, "__name__", "")
)


@pytest.mark.slow
@ids
@pytest.mark.parametrize("seed", range(4))
def test_what_jax_derives_is_a_slope_nearby(
    loss: Loss, values: list[float], seed: int
) -> None:
    """It stands, and the report says that there is no derivative."""
    x = jnp.array(values, jnp.float32)
    report = check_gradients(loss, x, key=jax.random.key(seed))
    assert report.passed
    assert report.verdict is Verdict.NONDIFFERENTIABLE
    assert "slopes" in report.worst.cause


@pytest.mark.slow
@ids
@pytest.mark.parametrize("seed", range(4))
def test_another_gradient_is_none(loss: Loss, values: list[float], seed: int) -> None:
    """Beyond the slopes nearby, or with another sum, or elsewhere than at the tie."""
    x = jnp.array(values, jnp.float32)
    right = jax.grad(loss)(x)
    wrong = {
        "negative": -right,
        "above": right.at[0].add(7),
        "below": right.at[-1].add(-3),
        "thrice": 3 * right,
    }
    report = check_gradients(loss, x, wrong, key=jax.random.key(seed))
    assert {leaf.candidate for leaf in report.leaves if leaf.passed} == set()


@pytest.mark.slow
def test_equal_eigenvalues_and_singular_values() -> None:
    """A matrix has slopes in directions that no coordinate is: no right one is wrong.

    Those of eigenvectors that no point nearby has exactly: they are not passed either.
    """
    weights = np.array([1.118, 0.59, 1.354], np.float32)
    losses: list[tuple[Loss, Any]] = [
        (lambda a: jnp.linalg.eigvalsh(a) @ weights, jnp.eye(3)),
        (lambda a: jnp.linalg.svd(a, compute_uv=False) @ weights, jnp.eye(3)),
        (lambda a: jnp.linalg.svd(a, compute_uv=False) @ weights, jnp.zeros((3, 3))),
        (lambda a: jnp.linalg.norm(a, ord=-2), jnp.zeros((3, 3))),
    ]
    for loss, matrix in losses:
        right = jax.grad(loss)(matrix)
        candidates = {"right": right, "more": right + 5 * jnp.eye(3)}
        report = check_gradients(loss, matrix, candidates)
        found = {leaf.candidate: leaf for leaf in report.leaves}
        assert found["right"].verdict is Verdict.NONDIFFERENTIABLE
        assert not found["more"].passed


def test_a_value_between_the_slopes_whose_sum_is_wrong_is_none() -> None:
    """Half of it: the median rises by 1 if all do, and this says ½."""
    x = jnp.array([1, 1, 1, 2, 0], jnp.float32)
    report = check_gradients(median, x, {"half": jax.grad(median)(x) / 2})
    assert report.verdict is Verdict.DISAGREE


@pytest.mark.slow
def test_kinks_that_face_opposite_ways() -> None:
    """Along both together no slope is that of the points between them, at -1 and 1."""

    def clipped(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.asarray([1.0, 2.0], x.dtype) * jnp.clip(x, -1, 1))

    x = np.array([-1, 1], np.float32)
    for one in ([1, 2], [0, 0], [0, 2], [1, 0], [0.5, 1]):
        assert check_gradients(clipped, x, np.array(one, float)).passed
    for none in ([1.1, 2], [1, 2.2], [-0.1, 0], [0, -0.2]):
        report = check_gradients(clipped, x, np.array(none))
        assert report.verdict is Verdict.DISAGREE


def test_a_coordinate_beside_a_tie_is_judged_by_its_own_slope() -> None:
    """It has one, and others nearby are not others but for curvature."""

    def loss(x: Any) -> Any:
        return jnp.median(x[:3]) + jnp.sum(jnp.exp(x[3:]))

    x = jnp.array([1, 1, 1, 2, 3], jnp.float32)
    for off in (1e-4, -1e-4):
        wrong = jax.grad(loss)(x).at[3].multiply(1 + off).at[4].multiply(1 - off / np.e)
        report = check_gradients(loss, x, {"off": wrong})
        assert report.verdict is Verdict.DISAGREE


def test_a_wrong_gradient_of_a_smooth_loss_costs_one_ladder_more() -> None:
    """Its slopes add up, and no point nearby is looked at."""
    x = jnp.linspace(0.5, 1.5, 4, dtype=jnp.float32)

    def loss(x: Any) -> Any:
        return jnp.sum(jnp.sin(x))

    right = check_gradients(loss, x, {"a": jax.grad(loss)(x)})
    wrong = check_gradients(loss, x, {"a": 2 * jax.grad(loss)(x)})
    assert wrong.verdict is Verdict.DISAGREE
    assert wrong.evaluations - right.evaluations <= 32


@pytest.mark.slow
def test_a_tie_in_a_large_leaf() -> None:
    """A median of many zeros: each alone changes nothing, and one has it all."""
    x = jnp.concatenate([jnp.zeros(60), jnp.linspace(2, 9, 41)])
    right = jax.grad(median)(x)
    assert check_gradients(median, x).verdict is Verdict.NONDIFFERENTIABLE
    report = check_gradients(median, x, {"twice": 2 * right, "none": 0 * right})
    assert {leaf.candidate for leaf in report.leaves if leaf.passed} == set()


@pytest.mark.parametrize("distance", [1e-6, 1e-8, 1e-10, 1e-11])
@pytest.mark.parametrize("wrong", [[0, 1, 1], [0, 1, 0.5], [0, 1, 0]])
def test_a_kink_beside_the_point_is_none_of_it(
    distance: float, wrong: list[float]
) -> None:
    """There is a derivative, 1, though another leaf's entry has a kink of its own."""

    def loss(x: Any) -> Any:
        return jnp.sum(jax.nn.relu(x + np.array([-1 + distance, 0, 0])))

    x = np.array([1.0, 2.0, 0.0])
    right = {"right": np.array([1, 1, 0.5])}
    assert check_gradients(loss, x, right).passed
    report = check_gradients(loss, x, {"wrong": np.array(wrong, float)})
    assert report.verdict is Verdict.DISAGREE


def test_a_kink_elsewhere_in_a_large_leaf_excuses_nothing() -> None:
    """Zeros of a lasso change a random line's slope: the smooth entries are wrong."""
    random = np.random.default_rng(3)
    x, y = random.normal(size=(32, 12)), random.normal(size=(32, 8))
    weight = random.normal(size=(12, 8))
    weight[np.abs(weight) < 0.05] = 0

    def lasso(w: Any) -> Any:
        return jnp.mean((x @ w - y) ** 2) + 0.01 * jnp.sum(jnp.abs(w))

    smooth = 2 * x.T @ (x @ weight - y) / y.size
    candidates = {
        "right": smooth + 0.01 * np.sign(weight),
        "half as much again": smooth + 0.015 * np.sign(weight),
    }
    for key in range(4):
        report = check_gradients(lasso, weight, candidates, key=key)
        found = {leaf.candidate: leaf for leaf in report.leaves}
        assert found["right"].passed
        assert found["half as much again"].verdict is Verdict.DISAGREE


def test_of_several_ties_what_jax_picks_stands() -> None:
    """A line along it has other slopes on both sides, where the loss is not convex."""

    def pooled(x: Any) -> Any:
        init = -jnp.inf
        return jax.lax.reduce_window(x, init, jax.lax.max, (2,), (2,), "VALID")

    losses: list[tuple[Loss, list[float]]] = [
        (lambda x: pooled(x) @ jnp.array([1.0, -1.0]), [1, 1, 2, 2]),
        (lambda x: jnp.sum(jnp.array([-2.0, 2.0, 0.0]) * jnp.sort(x)), [1, 1, 1]),
        (lambda x: jnp.sum(pooled(x) ** 2), [1, 1, -2, -2]),
    ]
    for loss, values in losses:
        assert check_gradients(loss, jnp.array(values, jnp.float32)).passed


def test_a_point_nearby_costs_one_ladder() -> None:
    """Of 31 evaluations and the point; what is 0 but for rounding is said to be 0."""
    x = np.array([0.0, 1.0, 2.0], np.float32)
    wrong = {"wrong": np.array([5.0, 3.0, 3.0])}
    report = check_gradients(lambda x: 3 * jnp.sum(jax.nn.relu(x)), x, wrong)
    assert report.verdict is Verdict.DISAGREE
    assert "outside a kink, slopes 0 and 3 on the two sides" in report.worst.cause
    assert report.evaluations < 38 * (NEIGHBOURS + 3)
