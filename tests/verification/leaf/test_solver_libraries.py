"""Solvers of diffrax, optimistix, lineax and jaxopt: right, and wrong by a factor 2.

They come with `pip install -e '.[test,solvers]'`; without them nothing is asked.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import Verdict, check_gradients

diffrax = pytest.importorskip("diffrax")
jaxopt = pytest.importorskip("jaxopt")
lineax = pytest.importorskip("lineax")
optimistix = pytest.importorskip("optimistix")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]

RNG = np.random.default_rng(0)
M = RNG.normal(size=(6, 6))
A = (M @ M.T / 6 + np.eye(6)).astype(np.float32)
B = RNG.normal(size=6).astype(np.float32)
TENTHS = np.full(6, 0.1, np.float32)


@pytest.fixture(autouse=True)
def lax_promotion() -> Any:
    """As their users have it."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def oscillator(adjoint: Callable[[], Any], p: Any) -> Any:
    """Van der Pol's, by adaptive steps."""

    def change(_: Any, y: Any, q: Any) -> Any:
        return jnp.stack([y[1], q[0] * (1 - y[0] ** 2) * y[1] - q[1] * y[0]])

    end = diffrax.diffeqsolve(
        diffrax.ODETerm(change),
        diffrax.Tsit5(),
        0.0,
        3.0,
        0.1,
        jnp.array([2.0, 0.0]),
        args=p,
        stepsize_controller=diffrax.PIDController(rtol=1e-3, atol=1e-3),
        adjoint=adjoint(),
    ).ys[-1]
    return jnp.sum(end**2)


def at_rest(p: Any) -> Any:
    """A fixed point to 1e-4."""
    solver = optimistix.FixedPointIteration(1e-4, 1e-4)
    function = lambda y, q: jnp.tanh(0.3 * A @ y + q)  # noqa: E731
    solved = optimistix.fixed_point(function, solver, jnp.zeros(6), p)
    return jnp.sum(solved.value**2)


def conjugate_gradients(p: Any) -> Any:
    """Of A + diag(p)."""
    operator = lineax.MatrixLinearOperator(
        A + jnp.diag(p), lineax.positive_semidefinite_tag
    )
    solved = lineax.linear_solve(operator, B, lineax.CG(1e-4, 1e-4))
    return jnp.sum(jnp.sin(solved.value))


def ridge(p: Any) -> Any:
    """Gradient descent to 1e-3."""
    inside = lambda w, q: (  # noqa: E731
        jnp.mean((A @ w - B) ** 2) + jnp.sum(q**2) * jnp.sum(w**2)
    )
    descent = jaxopt.GradientDescent(inside, maxiter=500, tol=1e-3)
    return jnp.sum(descent.run(jnp.zeros(6), q=p).params ** 2)


ONES = np.ones(2, np.float32)
LOSSES: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "diffrax": (
        functools.partial(oscillator, lambda: diffrax.RecursiveCheckpointAdjoint()),
        ONES,
    ),
    "diffrax, backsolve": (
        functools.partial(oscillator, lambda: diffrax.BacksolveAdjoint()),
        ONES,
    ),
    "optimistix": (at_rest, TENTHS),
    "lineax": (conjugate_gradients, TENTHS),
    "jaxopt": (ridge, TENTHS),
}


@pytest.mark.parametrize("name", LOSSES)
def test_a_right_gradient_is_not_accused_and_a_wrong_one_is(name: str) -> None:
    """By arrays, as a user has them from jax.grad, and twice that."""
    loss, p = LOSSES[name]
    gradient = jax.grad(loss)(jnp.asarray(p))
    report = check_gradients(loss, p, {"right": gradient, "twice": 2 * gradient})
    verdicts = {leaf.candidate: leaf.verdict for leaf in report.leaves}
    assert verdicts["right"] in (Verdict.AGREE, Verdict.UNRESOLVED), str(report)
    assert verdicts["twice"] is Verdict.DISAGREE, str(report)
