"""The public cases on functions other than the network's loss, under their ids."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gradient_cases.case import (
    AGREE,
    MALFORMED,
    NONDETERMINISTIC,
    NONDIFFERENTIABLE,
    UNRESOLVED,
    Case,
    altered,
    altered_leaf,
    keys,
    like,
    normal,
    wrong,
)
from experiments.gradient_cases.mlp import public_mlp_cases


def sum_of_sines(params: Any) -> jax.Array:
    """Σ sin x."""
    return jnp.sum(jnp.sin(params["x"]))


def cosines(params: Any) -> dict[str, jax.Array]:
    """The gradient of Σ sin x."""
    return {"x": jnp.cos(params["x"])}


def public_cases() -> list[Case]:
    """All 27, the network's first."""
    return [
        *public_mlp_cases(),
        *_places(),
        *_scales(),
        *_degenerate(),
        *_kinks(),
        *_steps(),
    ]


def _places() -> list[Case]:
    long = {"x": normal(20, 100_000)}
    return [
        _transposed(),
        _rolled(),
        wrong(
            "additive_const",
            sum_of_sines,
            {"x": normal(21, 50)},
            lambda p: {"x": jnp.cos(p["x"]) + 1e-4},
            keys("x"),
            "offset",
        ),
        wrong(
            "one_coord_of_1e5",
            sum_of_sines,
            long,
            {"x": _negated(np.cos(long["x"]), 12345)},
            ("['x'][12345]",),
        ),
    ]


def _negated(values: np.ndarray, index: int) -> np.ndarray:
    changed = values.copy()
    changed[index] *= -1
    return changed


def _transposed() -> Case:
    def loss(params: Any) -> jax.Array:
        return jnp.sum(jnp.sin(params["A"] @ params["B"]))

    return wrong(
        "transposed",
        loss,
        {"A": normal(22, 4, 4), "B": normal(23, 4, 4)},
        altered(loss, lambda d: {"A": d["A"].T, "B": d["B"].T}),
        keys("A", "B"),
        "transposed",
    )


def _rolled() -> Case:
    c = 1 + 0.05 * normal(24, 2000)

    def loss(params: Any) -> jax.Array:
        return jnp.sum(like(c, params["x"]) * jnp.sin(params["x"]))

    return wrong(
        "rolled_5pct_n2000",
        loss,
        {"x": np.zeros(2000)},
        {"x": np.roll(c, 1)},
        keys("x"),
        "rolled",
    )


def _scales() -> list[Case]:
    x = {"x": normal(25, 8)}
    return [
        _leaf_masked_by_scale(),
        wrong(
            "tiny_grads_x2",
            lambda p: 1e-7 * jnp.sum(p["x"] ** 3),
            x,
            lambda p: {"x": 6e-7 * p["x"] ** 2},
            keys("x"),
            "×2",
        ),
        Case(
            "big_x_right",
            lambda p: jnp.sum(jnp.log(p["x"])),
            {"x": 1e8 * (1 + 0.1 * normal(28, 6))},
            lambda p: {"x": 1 / p["x"]},
            AGREE,
        ),
        Case(
            "offset_1e8",
            lambda p: 1e8 + sum_of_sines(p),
            x,
            cosines,
            AGREE + UNRESOLVED,
        ),
        Case(
            "f32_inside_f64",
            lambda p: jnp.sum(jnp.sin(p["x"].astype(jnp.float32))),
            x,
            cosines,
            AGREE,
        ),
    ]


def _leaf_masked_by_scale() -> Case:
    def loss(params: Any) -> jax.Array:
        return 1e6 * jnp.sum(jnp.sin(params["a"])) + jnp.sum(jnp.cos(params["b"]))

    return wrong(
        "leaf_masked_by_scale",
        loss,
        {"a": normal(26, 5), "b": normal(27, 4)},
        altered_leaf(loss, "b", jnp.zeros_like),
        keys("b"),
        "zero",
    )


def _degenerate() -> list[Case]:
    x = {"x": normal(29, 8)}
    poisoned = np.cos(x["x"])
    poisoned[4] = np.nan
    return [
        Case(
            "degenerate_point",
            lambda p: jnp.sum(p["x"] ** 2),
            {"x": np.zeros(5)},
            lambda p: {"x": 7 * p["x"]},
            ("UNINFORMATIVE", "DISAGREE"),
            right=False,
        ),
        Case(
            "nan_one_coord",
            sum_of_sines,
            x,
            {"x": poisoned},
            MALFORMED,
            ("['x'][4]",),
            right=False,
        ),
        _nondeterministic(),
    ]


def _nondeterministic() -> Case:
    rng = np.random.default_rng()

    def loss(params: Any) -> jax.Array:
        return jnp.sum(params["x"] ** 2) + 1e-6 * float(rng.standard_normal())

    return Case(
        "nondet_f",
        loss,
        {"x": normal(30, 6)},
        lambda p: {"x": 2 * p["x"]},
        NONDETERMINISTIC,
        smooth=False,
    )


def _kinks() -> list[Case]:
    return [
        _at_zero("relu_at_0", jax.nn.relu),
        _at_zero("abs_at_0", jnp.abs),
        _relu_minus_relu(),
        _relu_kink_wrong_elsewhere(),
    ]


def _at_zero(name: str, activation: Any) -> Case:
    def loss(params: Any) -> jax.Array:
        return jnp.sum(activation(params["x"]))

    x = np.array([0.7, -1.2, 0.0, 0.4, -0.3])
    return Case(
        name,
        loss,
        {"x": x},
        jax.grad(loss),
        NONDIFFERENTIABLE,
        ("['x'][2]",),
        smooth=False,
    )


def _relu_minus_relu() -> Case:
    def loss(params: Any) -> jax.Array:
        return jnp.sum(jax.nn.relu(params["x"]) - jax.nn.relu(-params["x"]))

    x = np.array([0.7, -1.2, 0.0, 0.4, -0.3])
    return wrong("relu_minus_relu", loss, {"x": x}, jax.grad(loss), ("['x'][2]",))


def _relu_kink_wrong_elsewhere() -> Case:
    j = np.arange(1.0, 7.0)

    def loss(params: Any) -> jax.Array:
        return jnp.sum(like(j, params["x"]) * jax.nn.relu(params["x"]))

    return wrong(
        "relu_kink_wrong_elsewhere",
        loss,
        {"x": np.array([0.5, 0.0, 0.8, -0.6, 1.1, -0.2])},
        altered_leaf(loss, "x", lambda d: d.at[2].multiply(-1)),
        ("['x'][2]",),
        smooth=False,
    )


def _steps() -> list[Case]:
    c = normal(31, 6)

    def rounded(params: Any) -> jax.Array:
        return jnp.sum(like(c, params["x"]) * jnp.round(params["x"]))

    def stopped(params: Any) -> jax.Array:
        return jnp.sum(params["x"] * jax.lax.stop_gradient(params["x"]))

    x = {"x": np.array([0.3, -1.2, 2.1, 0.9, -0.7, 1.3])}
    return [
        wrong("round_ste", rounded, x, {"x": c}, keys("x")),
        wrong(
            "stop_gradient", stopped, x, jax.grad(stopped), keys("x"), "stop_gradient"
        ),
    ]
