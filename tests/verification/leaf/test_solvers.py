"""Losses that iterate to a tolerance: right up to it, and wrong beyond."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.ode import odeint

from jaxnet import Verdict, check_gradients

RNG = np.random.default_rng(0)
W = RNG.normal(size=(6, 6)) * 0.15
B = RNG.normal(size=6)
M = RNG.normal(size=(12, 12))
A = M @ M.T / 12 + 0.3 * np.eye(12)
R = RNG.normal(size=12)

pytestmark = pytest.mark.slow


def fixed_point(f: Callable[[Any], Any], z: Any) -> Any:
    """Where f comes to rest, to 1e-5."""
    return jax.lax.while_loop(
        lambda s: jnp.max(jnp.abs(s[1] - s[0])) > 1e-5,
        lambda s: (s[1], f(s[1])),
        (z, f(z)),
    )[1]


def equilibrium(w: Any) -> Any:
    """A deep equilibrium model."""
    return fixed_point(lambda z: jnp.tanh(w @ z + B), jnp.zeros(6))


def implicit(w: Any, c: Any, forget: bool = False) -> Any:
    """Its gradient by the implicit function theorem; with its solve forgotten."""
    z = equilibrium(w)
    d = 1 - z**2
    u = c if forget else jnp.linalg.solve((jnp.eye(6) - d[:, None] * w).T, c)
    return jnp.outer(u * d, z)


def deep(w: Any) -> Any:
    """Σ z²."""
    return jnp.sum(equilibrium(w) ** 2)


def by_flag(w: Any) -> Any:
    """The same, where each round finds out whether it was the last."""

    def one(state: Any) -> Any:
        _, z = state
        after = jnp.tanh(w @ z + B)
        return jnp.max(jnp.abs(after - z)) > 1e-5, after

    start = jnp.array(True), jnp.zeros(6)
    return jnp.sum(jax.lax.while_loop(lambda s: s[0], one, start)[1] ** 2)


def by_equinox(w: Any) -> Any:
    """The same by equinox, whose loops hold Python's own True."""
    return jnp.sum(
        eqx.internal.while_loop(
            lambda s: jnp.max(jnp.abs(s[1] - s[0])) > 1e-5,
            lambda s: (s[1], jnp.tanh(w @ s[1] + B)),
            (jnp.zeros(6), jnp.tanh(jnp.asarray(B))),
            kind="lax",
        )[1]
        ** 2
    )


def by_rule(forget: bool) -> Callable[..., Any]:
    """The same within a custom rule."""
    f = jax.custom_vjp(equilibrium)
    f.defvjp(lambda w: (equilibrium(w), w), lambda w, c: (implicit(w, c, forget),))
    return lambda w: jnp.sum(f(w) ** 2)


def conjugate_gradients(p: Any) -> Any:
    """Of A + diag(p), at the default tolerance."""
    product = lambda v: A @ v + p * v  # noqa: E731
    return jnp.sum(jnp.sin(jax.scipy.sparse.linalg.cg(product, R)[0]))


def solved(p: Any) -> Any:
    """The same, exactly."""
    return jnp.sum(jnp.sin(jnp.linalg.solve(jnp.asarray(A) + jnp.diag(p), R)))


def root(a: Any) -> Any:
    """∛a by Newton's method to 1e-3, with custom_root."""

    def newton(f: Any, x: Any) -> Any:
        step = lambda x: x - f(x) / (3 * x**2)  # noqa: E731
        return jax.lax.while_loop(
            lambda s: jnp.max(jnp.abs(s[1] - s[0])) > 1e-3,
            lambda s: (s[1], step(s[1])),
            (x, step(x)),
        )[1]

    def tangent(g: Any, y: Any) -> Any:
        return y / g(jnp.ones_like(y))

    start = jnp.ones_like(a)
    found = jax.lax.custom_root(lambda x: x**3 - a, start, newton, tangent)
    return jnp.sum(found**2)


def oscillator(tolerance: float) -> Callable[[Any], Any]:
    """Van der Pol's, by adaptive steps."""

    def loss(p: Any) -> Any:
        def change(y: Any, t: Any, q: Any) -> Any:
            return jnp.stack([y[1], q[0] * (1 - y[0] ** 2) * y[1] - q[1] * y[0]])

        times, start = jnp.linspace(0.0, 3.0, 4), jnp.array([2.0, 0.0])
        end = odeint(change, start, times, p, rtol=tolerance, atol=tolerance)[-1]
        return jnp.sum(end**2)

    return loss


RIGHT: dict[str, tuple[Callable[..., Any], Any, Any]] = {
    "fixed point": (deep, W, lambda w: implicit(w, 2 * equilibrium(w))),
    "by a flag": (by_flag, W, lambda w: implicit(w, 2 * equilibrium(w))),
    "by equinox": (by_equinox, W, lambda w: implicit(w, 2 * equilibrium(w))),
    "within a rule": (by_rule(False), W, None),
    "custom_linear_solve": (conjugate_gradients, np.full(12, 0.1), None),
    "an exact gradient": (conjugate_gradients, np.full(12, 0.1), jax.grad(solved)),
    "custom_root": (root, np.array([2.0, 3.0]), None),
    "adaptive steps": (oscillator(1e-3), np.ones(2), None),
}

WRONG: dict[str, tuple[Callable[..., Any], Any, Any]] = {
    "twice": (deep, W, lambda w: 2 * implicit(w, 2 * equilibrium(w))),
    "twice, by a flag": (by_flag, W, lambda w: 2 * implicit(w, 2 * equilibrium(w))),
    "without the solve": (deep, W, lambda w: implicit(w, 2 * equilibrium(w), True)),
    "a rule without it": (by_rule(True), W, None),
    "twice, exactly": (
        conjugate_gradients,
        np.full(12, 0.1),
        lambda p: 2 * jax.grad(solved)(p),
    ),
    "root, half": (root, np.array([2.0, 3.0]), lambda a: jax.grad(root)(a) / 2),
}


@pytest.mark.parametrize("name", RIGHT)
def test_a_right_gradient_is_right_up_to_the_tolerance(name: str) -> None:
    """It agrees or is undecided, and the report says to what the loss iterates."""
    report = check_gradients(*RIGHT[name])
    assert report.verdict in (Verdict.AGREE, Verdict.UNRESOLVED), str(report)
    if RIGHT[name][0] is not conjugate_gradients:  # which may have come to its end
        assert any("the loss iterates to about" in note for note in report.notes)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_gradient_stays_wrong(name: str) -> None:
    """A factor, or a term that is forgotten."""
    assert check_gradients(*WRONG[name]).verdict is Verdict.DISAGREE


def test_a_loop_that_ends_where_it_should_is_no_solver() -> None:
    """How often it runs depends on the data, and not on the step."""

    def loss(p: Any) -> Any:
        grown = jax.lax.while_loop(
            lambda c: jnp.sum(c) < 10, lambda c: c * np.float32(1.5), p
        )
        return jnp.sum(grown**2)

    p = np.array([0.3, 0.4], np.float32)
    factor = 1.5 ** (2 * int(np.ceil(np.log(10 / 0.7) / np.log(1.5))))
    assert check_gradients(loss, p).verdict is Verdict.MALFORMED  # no reverse mode
    assert check_gradients(loss, p, lambda p: 2 * p * factor).passed
    wrong = check_gradients(loss, p, lambda p: 2.02 * p * factor)
    assert wrong.verdict is Verdict.DISAGREE


def to_zero(x: Any, theta: Any) -> Any:
    """x θᵏ, until a round changes it by less than 1e-6."""
    return jax.lax.while_loop(
        lambda s: jnp.max(jnp.abs(s[1] - s[0])) > 1e-6,
        lambda s: (s[1], theta * s[1]),
        (x, theta * x),
    )[1]


def test_a_solution_of_zero_is_not_reached() -> None:
    """The derivative of the solution, 0, is not that of the rounds: it cannot be told.

    That of the rounds agrees, and neither is passed if it is twice too large.
    """
    theta = np.array([0.05, 0.2], np.float32)
    start = jnp.array([1.0, -0.5])

    def loss(theta: Any) -> Any:
        return jnp.sum(to_zero(start, theta))

    rounds = int(np.ceil(np.log(1e-6 / 0.4) / np.log(0.2))) + 1

    def of_rounds(theta: Any) -> Any:
        return jax.grad(lambda theta: jnp.sum(start * theta**rounds))(theta)

    assert check_gradients(loss, theta, of_rounds).verdict is Verdict.AGREE
    zero = check_gradients(loss, theta, lambda theta: 0 * theta)
    assert zero.verdict is Verdict.UNRESOLVED
    assert "one more round of `while`" in zero.worst.cause
    assert not check_gradients(loss, theta, lambda t: 2 * of_rounds(t)).passed


def test_a_time_that_grows_until_it_is_large_enough_is_a_count() -> None:
    """Of steps, which no parameter moves, and not up to a tolerance."""

    def marched(p: Any) -> Any:
        def step(state: Any) -> Any:
            x, t = state
            return x + 0.1 * jnp.sin(p * x), t + jnp.float32(0.1)

        start = p, jnp.zeros((), p.dtype)
        return jax.lax.while_loop(lambda state: state[1] < 1, step, start)[0]

    def flagged(p: Any) -> Any:
        def step(state: Any) -> Any:
            x, t, _ = state
            return x + 0.1 * jnp.sin(p * x), t + jnp.float32(0.1), t < 0.9

        start = p, jnp.zeros((), p.dtype), jnp.asarray(True)
        return jax.lax.while_loop(lambda state: state[2], step, start)[0]

    for loss in (marched, flagged):
        p = np.float32(0.7)
        right = jax.jacfwd(loss)
        report = check_gradients(loss, p, {"right": right})
        assert report.passed, str(report)
        assert report.leaves[0].resolution < 1e-6
        wrong = np.float32(right(p) * 1.01)
        assert not check_gradients(loss, p, {"wrong": wrong}).passed


@pytest.mark.slow
@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
@pytest.mark.parametrize("seed", [1, 3, 7])
def test_implicit_derivatives_are_those_of_the_limit(
    seed: int, tolerance: float
) -> None:
    """Where cg stops, its value is within a tolerance, and its slope is of another.

    The slope of what it tends to is known in closed form.
    """
    random, n = np.random.default_rng(seed), 6 + 2 * seed
    half, b, w = (random.standard_normal(s) for s in ((n, n), n, n))
    matrix = half @ half.T / n + np.eye(n)

    def loss(b: Any) -> Any:
        solution = jax.scipy.sparse.linalg.cg(
            lambda x: jnp.asarray(matrix, x.dtype) @ x, b, tol=tolerance
        )[0]
        return jnp.sum(jnp.asarray(w, b.dtype) * solution)

    point, right = np.float32(b), np.linalg.solve(matrix, w)
    assert check_gradients(loss, point, right).passed
    wrong = right * np.where(np.arange(n) == np.argmax(np.abs(right)), 1.05, 1)
    assert check_gradients(loss, point, wrong).verdict is Verdict.DISAGREE
