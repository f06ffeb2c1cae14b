"""What rounding alone may do to a gradient is no mistake, and hides none."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet.verification import Verdict, check_gradients
from jaxnet.verification.candidates import rounding
from jaxnet.verification.candidates.candidate import Candidate, claims
from jaxnet.verification.context import Context
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.function.rounding_noise import rounded_runs
from jaxnet.verification.leaf.compare import compare, hypothetical
from jaxnet.verification.leaf.probes import probe_leaf
from jaxnet.verification.point import Point

SEEDS = 0, 1, 6
"""Of points whose distances cancel badly enough to be seen."""


def of_distances(x: jax.Array) -> jax.Array:
    """All distances, by x² + y² - 2xy: on the diagonal what is left of it is noise."""
    squares = jnp.sum(x**2, -1)
    apart = squares[:, None] + squares[None, :] - 2 * x @ x.T
    return jnp.sum(jnp.sqrt(apart + 1e-12))


def points(seed: int) -> np.ndarray:
    """In float64: in float32, what cancels here is NaN."""
    return np.float64(10 * jax.random.normal(jax.random.key(seed), (5, 3)))


@pytest.mark.parametrize("seed", SEEDS)
def test_rounding_that_no_run_in_float32_shows_is_measured(seed: int) -> None:
    """The gradient has weights of 1e6 on noise of 1e-14; in float32, of 1e2 on 1e-5."""
    report = check_gradients(of_distances, points(seed))
    assert report.leaves[0].verdict is Verdict.AGREE, report


def test_it_is_what_tells_them_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without that measure, a right gradient is wrong by 1e-11."""
    monkeypatch.setattr(rounding, "UNSEEN", 0.0)
    reports = [check_gradients(of_distances, points(seed)) for seed in SEEDS]
    assert Verdict.DISAGREE in [report.leaves[0].verdict for report in reports]


def test_a_hypothesis_costs_no_such_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a deep model they are compiled for longer than all else takes."""
    counted = list[int]()

    def counting(closed: Any, values: list[Any], runs: int) -> Any:
        counted.append(runs)
        return rounded_runs(closed, values, runs)

    monkeypatch.setattr(rounding, "rounded_runs", counting)
    objective = Objective(of_distances, Point.of(points(0)))
    context = Context.of(objective, 4.0, (0,), None)
    probes = probe_leaf(context, context.point.leaves[0])
    (candidate,) = claims(None, objective, context.autodiff)
    off = candidate.array(probes.leaf) * (1 + 3e-7)
    assert not all(f.passed for f in hypothetical(context, probes, candidate, off))
    assert not counted
    wrong = Candidate.of(
        "wrong", lambda x: jax.grad(of_distances)(x) * 1.0000003, objective
    )
    assert not all(compare(context, probes, wrong, p).passed for p in probes.probes)
    assert counted


def test_it_hides_no_mistake_that_is_larger() -> None:
    """One coordinate off by 1e-7 of itself is wrong, and named."""

    def wrong(x: jax.Array) -> jax.Array:
        return jax.grad(of_distances)(x).at[2, 1].multiply(1 + 1e-7)

    leaf = check_gradients(of_distances, points(0), wrong).leaves[0]
    assert (leaf.verdict, leaf.worst_index) == (Verdict.DISAGREE, (2, 1))


WEIGHTS = np.arange(1.0, 9.0)


def of_betainc(x: jax.Array) -> jax.Array:
    """Whose slope in float32 is off by 7e-7 alike everywhere: a rounded normaliser."""
    weights = jnp.asarray(WEIGHTS, x.dtype)
    a, b = (jnp.asarray(z, x.dtype) for z in (2.5, 3.5))
    return jnp.sum(jax.scipy.special.betainc(a, b, x) * weights)


@pytest.mark.slow
@pytest.mark.parametrize("run", [lambda f: f, jax.jit])
def test_numbers_that_jax_grad_gives_in_float32_are_right(run: Any) -> None:
    """As far off as they are: what is off alike nearby is not seen as rounding."""
    for seed in range(4):
        x = np.random.default_rng(seed).uniform(0.05, 0.95, 8).astype(np.float32)
        given = np.array(run(jax.grad(of_betainc))(jnp.asarray(x)))
        assert check_gradients(of_betainc, x, given).passed
        given[2] *= 1 + 3e-6
        leaf = check_gradients(of_betainc, x, given).leaves[0]
        assert (leaf.verdict, leaf.worst_index) == (Verdict.DISAGREE, (2,))


@pytest.mark.slow
def test_a_run_that_is_lost_is_no_excuse() -> None:
    """(x + 1e8) - 1e8 has another slope in float32, as far as numbers tell."""

    def cancels(x: jax.Array) -> jax.Array:
        big = jnp.asarray(1e8, x.dtype)
        return jnp.sum(((x + big) - big) ** 2)

    x = np.array([0.5, 1.5, 2.5], np.float32)
    given = np.asarray(jax.grad(cancels)(jnp.asarray(x)))
    assert check_gradients(cancels, x, given).verdict is Verdict.DISAGREE
