"""Tiny and huge values, edges of the domain, and points that prove nothing."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gradient_cases.case import (
    AGREE,
    UNINFORMATIVE,
    UNRESOLVED,
    Case,
    altered_leaf,
    keys,
    like,
    normal,
    wrong,
)
from experiments.gradient_cases.public import sum_of_sines

Params = dict[str, Any]


def scale_cases() -> list[Case]:
    """All cases about magnitudes."""
    return [*_tiny(), *_mixed(), *_steep(), *_domain_edges(), *_degenerate()]


def _tiny() -> list[Case]:
    def times(factor: float) -> Any:
        return lambda params: factor * sum_of_sines(params)

    def of_tiny_x(params: Params) -> jax.Array:
        unit = params["x"] * 1e150
        return jnp.sum(unit**3 + unit)

    x = {"x": normal(60, 5)}
    return [
        Case("output_1e-150_right", times(1e-150), x, jax.grad(times(1e-150)), AGREE),
        wrong(
            "output_1e-150_x2",
            times(1e-150),
            x,
            lambda p: {"x": 2e-150 * jnp.cos(p["x"])},
            keys("x"),
            "×2",
        ),
        Case(
            "gradient_1e-306_right",
            times(1e-306),
            x,
            jax.grad(times(1e-306)),
            AGREE + UNRESOLVED,
        ),
        Case(
            "x_1e-150_right",
            of_tiny_x,
            {"x": 1e-150 * normal(61, 4)},
            jax.grad(of_tiny_x),
            AGREE,
        ),
    ]


def _mixed() -> list[Case]:
    def loss(params: Params) -> jax.Array:
        large, small = params["large"] * 1e-6, params["small"] * 1e6
        return jnp.sum(jnp.sin(large)) + jnp.sum(jnp.sin(small) * jnp.cos(small))

    def logarithms(params: Params) -> jax.Array:
        return jnp.sum(jnp.log(params["x"]))

    params = {"large": 1e6 * normal(62, 4), "small": 1e-6 * normal(63, 4)}
    spread = {"x": np.array([1e-6, 3e-4, 1.0, 2e3, 1e6])}
    return [
        Case("leaves_1e6_1e-6_right", loss, params, jax.grad(loss), AGREE),
        wrong(
            "leaves_1e6_1e-6_one_coord",
            loss,
            params,
            altered_leaf(loss, "large", lambda d: d.at[2].multiply(1.001)),
            ("['large'][2]",),
        ),
        Case("leaf_1e-6_to_1e6_right", logarithms, spread, jax.grad(logarithms), AGREE),
        wrong(
            "leaf_1e-6_to_1e6_small_wrong",
            logarithms,
            spread,
            altered_leaf(logarithms, "x", lambda d: d.at[4].multiply(2)),
            ("['x'][4]",),
        ),
    ]


def _steep() -> list[Case]:
    """Functions that change within far less than the size of their argument."""

    def shifted(params: Params) -> jax.Array:
        return jnp.sum(jnp.sin(params["x"] - 1e8))

    def steps(params: Params) -> jax.Array:
        return jnp.sum(jnp.tanh(1e6 * params["x"]))

    def fast(params: Params) -> jax.Array:
        return jnp.sum(jnp.sin(1e8 * params["x"]))

    far, near = {"x": 1e8 + normal(66, 6)}, {"x": np.array([0.7, -1.2, 0.0, 0.4])}
    return [
        Case("shifted_1e8_right", shifted, far, jax.grad(shifted), AGREE, smooth=False),
        wrong(
            "shifted_1e8_one_coord",
            shifted,
            far,
            altered_leaf(shifted, "x", lambda d: d.at[2].multiply(1.1)),
            ("['x'][2]",),
            smooth=False,
        ),
        Case("tanh_1e6_x_right", steps, near, jax.grad(steps), AGREE, smooth=False),
        wrong(
            "tanh_1e6_x_clipped",
            steps,
            near,
            altered_leaf(steps, "x", lambda d: jnp.clip(d, -1, 1)),
            ("['x'][2]",),
            smooth=False,
        ),
        Case(
            "sin_1e8_x_right",
            fast,
            {"x": normal(67, 4)},
            jax.grad(fast),
            AGREE + UNRESOLVED,
            smooth=False,
        ),
    ]


def _domain_edges() -> list[Case]:
    def roots(params: Params) -> jax.Array:
        return jnp.sum(jnp.sqrt(params["x"]))

    def entropy(params: Params) -> jax.Array:
        return -jnp.sum(params["x"] * jnp.log(params["x"]))

    def power(params: Params) -> jax.Array:
        return jnp.sum(params["x"] ** 1.5)

    accepted = AGREE + UNRESOLVED
    near = {"x": np.array([1e-12, 0.3, 2.0])}
    edge = {"x": np.array([0.0, 0.3, 2.0])}
    return [
        Case("sqrt_near_0", roots, near, jax.grad(roots), accepted),
        Case("x_log_x_near_0", entropy, near, jax.grad(entropy), accepted),
        Case("power_1.5_at_0", power, edge, jax.grad(power), accepted, smooth=False),
        wrong(
            "sqrt_near_0_wrong_elsewhere",
            roots,
            near,
            altered_leaf(roots, "x", lambda d: d.at[1].multiply(2)),
            ("['x'][1]",),
        ),
    ]


def _degenerate() -> list[Case]:
    def squares(params: Params) -> jax.Array:
        return jnp.sum(params["x"] ** 2)

    def quartic(params: Params) -> jax.Array:
        return jnp.sum(params["x"] ** 4)

    def cosines(params: Params) -> jax.Array:
        return jnp.sum(jnp.cos(params["x"]))

    return [
        Case(
            "quartic_at_0_x7",
            quartic,
            {"x": np.zeros(4)},
            lambda p: {"x": 28 * p["x"] ** 3},
            ("UNINFORMATIVE", "DISAGREE"),
            right=False,
        ),
        Case(
            "cosine_at_0_sign",
            cosines,
            {"x": np.zeros(4)},
            lambda p: {"x": jnp.sin(p["x"])},
            ("UNINFORMATIVE", "DISAGREE"),
            right=False,
        ),
        Case(
            "zeros_given_as_array",
            squares,
            {"x": np.zeros(4)},
            {"x": np.zeros(4)},
            UNINFORMATIVE,
        ),
        *_zero_network(),
        *_symmetric_units(),
    ]


def _network(params: Params) -> jax.Array:
    inputs = like(normal(64, 5, 3), params["W1"])
    h = jnp.tanh(inputs @ params["W1"])
    return jnp.sum((h @ params["W2"] + params["b2"][None, :] - 1) ** 2)


def _without_slope(params: Params) -> dict[str, jax.Array]:
    """The gradient with tanh' dropped on the way to W1."""
    inputs = like(normal(64, 5, 3), params["W1"])
    h = jnp.tanh(inputs @ params["W1"])
    dy = 2 * (h @ params["W2"] + params["b2"][None, :] - 1)
    d_w1 = inputs.T @ (dy @ jnp.asarray(params["W2"]).T)
    return {"W1": d_w1, "W2": h.T @ dy, "b2": jnp.sum(dy, axis=0)}


def _zero_network() -> list[Case]:
    zeros = {"W1": np.zeros((3, 4)), "W2": np.zeros((4, 2)), "b2": np.zeros(2)}
    return [
        Case(
            "zero_network_right",
            _network,
            zeros,
            jax.grad(_network),
            AGREE + UNINFORMATIVE,
        ),
        Case(
            "zero_network_no_slope",
            _network,
            zeros,
            _without_slope,
            ("UNINFORMATIVE", "DISAGREE"),
            right=False,
        ),
    ]


def _symmetric_units() -> list[Case]:
    """Hidden units in equal pairs: a gradient with many equal numbers."""
    column = normal(65, 3, 1)
    params = {
        "W1": np.tile(column, (1, 4)),
        "W2": np.full((4, 2), 0.5),
        "b2": np.zeros(2),
    }
    return [
        Case("symmetric_units_right", _network, params, jax.grad(_network), AGREE),
        wrong(
            "symmetric_units_one_negated",
            _network,
            params,
            altered_leaf(_network, "W1", lambda d: d.at[:, 2].multiply(-1)),
            tuple(f"['W1'][{i}, 2]" for i in range(3)),
        ),
    ]
