"""Factorisations, linear systems, eigenvalues and a fixed point."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gradient_cases.case import (
    AGREE,
    Case,
    altered_leaf,
    keys,
    like,
    normal,
    wrong,
)

Params = dict[str, Any]
SIZE = 4


def linear_algebra_cases() -> list[Case]:
    """All cases with a matrix that must be factored or a system to be solved."""
    return [_likelihood(), _eigenvalues(), *_log_determinant(), *_solve(), *_fixed()]


def _likelihood() -> Case:
    """The Gaussian negative log likelihood with covariance M Mᵀ + I, by Cholesky."""
    data = normal(130, SIZE)

    def loss(params: Params) -> jax.Array:
        m = params["M"]
        factor = jnp.linalg.cholesky(m @ m.T + jnp.eye(SIZE, dtype=m.dtype))
        centred = like(data, m) - params["mean"]
        white = jax.scipy.linalg.solve_triangular(factor, centred, lower=True)
        return 0.5 * jnp.sum(white**2) + jnp.sum(jnp.log(jnp.diag(factor)))

    params = {"M": normal(131, SIZE, SIZE), "mean": normal(132, SIZE)}
    return Case("cholesky_likelihood_right", loss, params, jax.grad(loss), AGREE)


def _eigenvalues() -> Case:
    weights = np.array([1.0, -2.0, 0.5, 3.0])

    def loss(params: Params) -> jax.Array:
        m = params["M"]
        return jnp.sum(like(weights, m) * jnp.linalg.eigvalsh((m + m.T) / 2))

    matrix = np.diag([1.0, 2.0, 3.5, 5.0]) + 0.3 * normal(133, SIZE, SIZE)
    return Case("eigenvalues_right", loss, {"M": matrix}, jax.grad(loss), AGREE)


def _log_determinant() -> list[Case]:
    def loss(params: Params) -> jax.Array:
        return jnp.linalg.slogdet(params["M"])[1]

    params = {"M": 2 * np.eye(SIZE) + 0.5 * normal(134, SIZE, SIZE)}
    return [
        Case("logdet_right", loss, params, jax.grad(loss), AGREE),
        wrong(
            "logdet_inverse_not_transposed",
            loss,
            params,
            lambda p: {"M": jnp.linalg.inv(p["M"])},
            keys("M"),
            "transposed",
        ),
    ]


def _solve() -> list[Case]:
    weights = normal(135, SIZE)

    def loss(params: Params) -> jax.Array:
        solution = jnp.linalg.solve(params["M"], params["b"])
        return jnp.sum(like(weights, solution) * solution**2)

    def not_transposed(params: Params) -> dict[str, jax.Array]:
        solution = jnp.linalg.solve(params["M"], params["b"])
        d_solution = 2 * like(weights, solution) * solution
        d_b = jnp.linalg.solve(params["M"], d_solution)
        return {"M": -jnp.outer(d_b, solution), "b": d_b}

    params = {
        "M": 2 * np.eye(SIZE) + 0.5 * normal(136, SIZE, SIZE),
        "b": normal(137, SIZE),
    }
    return [
        Case("solve_right", loss, params, jax.grad(loss), AGREE),
        wrong("solve_not_transposed", loss, params, not_transposed, keys("M", "b")),
        wrong(
            "solve_b_swapped_entries",
            loss,
            params,
            altered_leaf(loss, "b", lambda d: d[jnp.asarray([0, 2, 1, 3])]),
            ("['b'][1]", "['b'][2]"),
        ),
    ]


def _fixed_point(implicit: bool) -> Callable[[jax.Array, jax.Array], jax.Array]:
    """The solver of z = tanh(W z + b) by a while loop, with its derivative by hand.

    The implicit function theorem gives dz = (I - J)⁻¹ ∂tanh, J = tanh' W;
    without it, the derivative of the last iteration alone.
    """

    @jax.custom_vjp
    def solve(weight: jax.Array, bias: jax.Array) -> jax.Array:
        def unfinished(state: tuple[jax.Array, jax.Array]) -> jax.Array:
            return jnp.max(jnp.abs(state[0] - state[1])) > 1e-15

        def step(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            return jnp.tanh(weight @ state[0] + bias), state[0]

        start = (jnp.zeros_like(bias), jnp.ones_like(bias))
        return jax.lax.while_loop(unfinished, step, start)[0]

    def forward(weight: jax.Array, bias: jax.Array) -> tuple[jax.Array, Any]:
        z = solve(weight, bias)
        return z, (weight, z)

    def backward(saved: Any, d_z: jax.Array) -> tuple[jax.Array, jax.Array]:
        weight, z = saved
        slope = 1 - z**2
        system = jnp.eye(SIZE, dtype=z.dtype) - slope[:, None] * weight
        d_bias = slope * (jnp.linalg.solve(system.T, d_z) if implicit else d_z)
        return jnp.outer(d_bias, z), d_bias

    solve.defvjp(forward, backward)
    return solve


def _fixed() -> list[Case]:
    weights = normal(138, SIZE)

    def loss(implicit: bool) -> Callable[[Params], jax.Array]:
        solve = _fixed_point(implicit)

        def of_params(params: Params) -> jax.Array:
            weight, bias = jnp.asarray(params["W"]), jnp.asarray(params["b"])
            return jnp.sum(like(weights, bias) * solve(weight, bias))

        return of_params

    params = {"W": 0.3 * normal(139, SIZE, SIZE), "b": normal(140, SIZE)}
    right, last_step = loss(True), loss(False)
    return [
        Case("fixed_point_right", right, params, jax.grad(right), AGREE),
        wrong(
            "fixed_point_last_step_only",
            last_step,
            params,
            jax.grad(last_step),
            keys("W", "b"),
            "the rule of `solve`",
        ),
    ]
