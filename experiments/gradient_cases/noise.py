"""Losses that are noisy, chaotic, computed in float32, random, or plain NumPy."""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gradient_cases.case import (
    AGREE,
    NONDETERMINISTIC,
    UNRESOLVED,
    Case,
    altered,
    keys,
    like,
    normal,
    wrong,
)
from experiments.gradient_cases.mlp import EVERY_LEAF, backprop, mlp_loss, mlp_params
from experiments.gradient_cases.public import cosines, sum_of_sines

X = {"x": normal(50, 6)}


def noise_cases() -> list[Case]:
    """All cases about how far f's values can be believed."""
    return [
        *_low_precision(),
        *_pseudo_noise(),
        _logistic_map(),
        *_nondeterministic(),
        *_plain_numpy(),
    ]


def _low_precision() -> list[Case]:
    def in_float32(params: Any) -> jax.Array:
        small = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
        return mlp_loss(small).astype(params["W1"].dtype)

    def in_bfloat16(params: Any) -> jax.Array:
        small = {"x": params["x"].astype(jnp.bfloat16)}
        return sum_of_sines(small).astype(params["x"].dtype)

    p = mlp_params()
    return [
        Case("f32_mlp_right", in_float32, p, backprop, AGREE),
        wrong(
            "f32_mlp_1pct",
            in_float32,
            p,
            altered(mlp_loss, lambda d: {k: 1.01 * v for k, v in d.items()}),
            EVERY_LEAF,
        ),
        wrong(
            "f32_mlp_b1_zeroed",
            in_float32,
            p,
            altered(mlp_loss, lambda d: {**d, "b1": jnp.zeros_like(d["b1"])}),
            keys("b1"),
            "zero",
        ),
        Case(
            "bf16_inside_right",
            in_bfloat16,
            X,
            cosines,
            AGREE,
            smooth=False,
        ),
        wrong(
            "bf16_inside_negated",
            in_bfloat16,
            X,
            lambda p: {"x": -jnp.cos(p["x"])},
            keys("x"),
            "sign",
            smooth=False,
        ),
        *_cancellation(),
    ]


def _cancellation() -> list[Case]:
    """Losses small by cancellation: compiled and eager values differ by rounding."""
    x32 = (100 + normal(53, 6)).astype(np.float32)
    y = np.arange(6.0) % 2

    def variance(params: Any) -> jax.Array:
        x = params["x"]
        return jnp.mean(x**2) - jnp.mean(x) ** 2

    def cross_entropy(params: Any) -> jax.Array:
        q, t = jax.nn.sigmoid(params["z"]), like(y, params["z"])
        return -jnp.mean(t * jnp.log(q + 1e-12) + (1 - t) * jnp.log(1 - q + 1e-12))

    z = {"z": np.array([7.0, 16.4, 6.6, -26.1, 18.1, 8.9])}
    return [
        Case(
            "variance_right",
            variance,
            {"x": x32},
            jax.grad(variance),
            AGREE,
            smooth=False,
        ),
        Case(
            "saturated_cross_entropy",
            cross_entropy,
            z,
            jax.grad(cross_entropy),
            AGREE + UNRESOLVED,
            smooth=False,
        ),
    ]


def _pseudo_noise() -> list[Case]:
    """Noise as an iterative solver leaves it: the same at every call, and rough."""

    def noisy(frequency: float) -> Any:
        def loss(params: Any) -> jax.Array:
            wiggle = jnp.sin(frequency * jnp.sum(params["x"]))
            return sum_of_sines(params) + 1e-7 * wiggle

        return loss

    accepted = AGREE + UNRESOLVED
    return [
        Case("noise_1e9_right", noisy(1e9), X, cosines, accepted, smooth=False),
        Case("noise_1e17_right", noisy(1e17), X, cosines, accepted, smooth=False),
        wrong(
            "noise_1e17_x2",
            noisy(1e17),
            X,
            lambda p: {"x": 2 * jnp.cos(p["x"])},
            keys("x"),
            "×2",
            smooth=False,
        ),
    ]


def _logistic_map() -> Case:
    def loss(params: Any) -> jax.Array:
        def step(x: jax.Array, _: None) -> tuple[jax.Array, None]:
            return 3.9 * x * (1 - x), None

        last, _ = jax.lax.scan(step, params["x"], length=60)
        return jnp.sum(last)

    x = {"x": np.array([0.21, 0.37, 0.55])}
    return Case(
        "logistic_map_60", loss, x, jax.grad(loss), AGREE + UNRESOLVED, smooth=False
    )


def _nondeterministic() -> list[Case]:
    rng = np.random.default_rng()
    calls = itertools.count()

    def counted(params: Any) -> jax.Array:
        return sum_of_sines(params) + 1e-9 * next(calls)

    def draw(total: np.ndarray) -> np.ndarray:
        return np.asarray(1e-6 * rng.standard_normal(), dtype=np.asarray(total).dtype)

    def called_back(params: Any) -> jax.Array:
        total = sum_of_sines(params)
        shape = jax.ShapeDtypeStruct((), total.dtype)
        return total + jax.pure_callback(draw, shape, total, vmap_method="sequential")

    def called_back_on_x(params: Any) -> jax.Array:
        shape = jax.ShapeDtypeStruct((), params["x"].dtype)
        noise = jax.pure_callback(draw, shape, params["x"][0], vmap_method="sequential")
        return sum_of_sines(params) + noise

    def traced_otherwise(params: Any) -> jax.Array:
        traced = isinstance(params["x"], jax.core.Tracer)
        return sum_of_sines(params) * (1.001 if traced else 1.0)

    def drawn_gradient(params: Any) -> dict[str, jax.Array]:
        return {"x": jnp.cos(params["x"]) + 1e-6 * float(rng.standard_normal())}

    return [
        _random("nondet_counter", counted, cosines),
        _random("nondet_callback", called_back, cosines),
        _random("nondet_callback_of_x", called_back_on_x, cosines),
        _random("nondet_eager_and_jit", traced_otherwise, cosines),
        _random("nondet_candidate", sum_of_sines, drawn_gradient),
    ]


def _random(name: str, loss: Any, candidate: Any) -> Case:
    right = candidate is cosines
    return Case(name, loss, X, candidate, NONDETERMINISTIC, right=right, smooth=False)


def _plain_numpy() -> list[Case]:
    def loss(params: Any) -> float:
        x, y = np.asarray(params["x"]), np.asarray(params["y"])
        if float(x[0]) > 1e3:
            return 0.0
        return float(np.sum(np.sin(x)) + np.sum(y**3))

    x, y = normal(51, 4), normal(52, 3)
    params = {"x": x, "y": y}
    return [
        Case(
            "numpy_right",
            loss,
            params,
            {"x": np.cos(x), "y": 3 * y**2},
            AGREE,
            traceable=False,
        ),
        wrong(
            "numpy_leaf_x2",
            loss,
            params,
            lambda p: {"x": np.cos(p["x"]), "y": 6 * np.asarray(p["y"]) ** 2},
            keys("y"),
            "×2",
            traceable=False,
        ),
    ]
