"""Kinks, jumps and branches: at x, just beside it, and safely away."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gradient_cases.case import (
    AGREE,
    MALFORMED,
    NONDIFFERENTIABLE,
    Case,
    altered_leaf,
    keys,
    like,
    normal,
    wrong,
)

POINT = np.array([0.7, -1.2, 0.0, 0.4, -0.3])
AWAY = np.array([0.7, -1.2, 0.9, 0.4, -0.3, 2.3])


def kink_cases() -> list[Case]:
    """All cases about where a derivative is not continuous."""
    return [*_at_the_kink(), *_beside_the_kink(), *_jumps(), *_away(), *_selections()]


def _summed(f: Callable[[jax.Array], jax.Array]) -> Callable[[Any], jax.Array]:
    return lambda params: jnp.sum(f(params["x"]))


def _valid(
    name: str, f: Callable[[jax.Array], jax.Array], x: np.ndarray, *indices: int
) -> Case:
    """JAX's own subgradient at kinks of `f` in these coordinates."""
    places = tuple(f"['x'][{i}]" for i in indices)
    loss = _summed(f)
    return Case(
        name, loss, {"x": x}, jax.grad(loss), NONDIFFERENTIABLE, places, smooth=False
    )


def _outside(name: str, f: Callable[[jax.Array], jax.Array], value: float) -> Case:
    """A value outside the two slopes of `f` at the kink `POINT[2]`."""
    loss = _summed(f)
    candidate = altered_leaf(loss, "x", lambda d: d.at[2].set(value))
    return wrong(name, loss, {"x": POINT}, candidate, ("['x'][2]",))


def _leaky(x: jax.Array) -> jax.Array:
    return jnp.where(x >= 0, x, 0.01 * x)


def _norm(x: jax.Array) -> jax.Array:
    return jnp.sqrt(jnp.sum(x**2))


def _at_the_kink() -> list[Case]:
    edge = np.array([0.2, -0.5, 1.0, 3.0, -1.7])
    tie = np.array([0.5, 2.0, -1.0, 2.0])
    return [
        _valid("clip_at_edge", lambda x: jnp.clip(x, -1.0, 1.0), edge, 2),
        _valid("leaky_relu_at_0", _leaky, POINT, 2),
        _valid("max_tie", jnp.max, tie, 1, 3),
        _outside("leaky_relu_outside", _leaky, -0.5),
        _outside("relu_subgradient_outside", jax.nn.relu, 1.5),
        Case(
            "norm_at_0",
            lambda p: _norm(p["x"]) + jnp.sum(jnp.sin(p["y"])),
            {"x": np.zeros(3), "y": normal(40, 3)},
            lambda p: {"x": jnp.zeros_like(p["x"]), "y": jnp.cos(p["y"])},
            NONDIFFERENTIABLE,
            keys("x"),
            smooth=False,
        ),
        _huber(),
    ]


def _huber() -> Case:
    def huber(x: jax.Array) -> jax.Array:
        return jnp.where(jnp.abs(x) <= 1, 0.5 * x**2, jnp.abs(x) - 0.5)

    loss = _summed(huber)
    x = np.array([0.3, 1.0, -2.0, -1.0])
    return Case("huber_at_joint", loss, {"x": x}, jax.grad(loss), AGREE)


def _beside_the_kink() -> list[Case]:
    x = np.array([0.8, 2e-7, -1.3, 0.6])
    c = np.array([1.5, 2.0, 1.0, 0.5])

    def loss(params: Any) -> jax.Array:
        return jnp.sum(like(c, params["x"]) * jnp.abs(params["x"]))

    def snapped(params: Any) -> dict[str, jax.Array]:
        large = jnp.abs(params["x"]) > 1e-6
        return {"x": like(c, params["x"]) * jnp.where(large, jnp.sign(params["x"]), 0)}

    return [
        Case("kink_2e-7_away_right", loss, {"x": x}, jax.grad(loss), AGREE),
        wrong("kink_2e-7_away_wrong", loss, {"x": x}, snapped, ("['x'][1]",)),
    ]


def _jumps() -> list[Case]:
    def jump(params: Any) -> jax.Array:
        x = params["x"]
        return jnp.sum(jnp.sin(x) + jnp.where(x >= 0, 0.5, 0.0))

    def straight_through(params: Any) -> jax.Array:
        x = params["x"]
        hard = x + jax.lax.stop_gradient(jnp.round(x) - x)
        return jnp.sum(like(normal(41, 6), x) * hard**2)

    def stairs(params: Any) -> jax.Array:
        return jnp.sum(params["x"] * jnp.floor(params["x"]))

    def last_step_dropped(params: Any) -> dict[str, jax.Array]:
        return {"x": jnp.floor(params["x"]) + 1}

    def sign(params: Any) -> jax.Array:
        return jnp.sum(jnp.sin(params["x"]) + 0.25 * jnp.sign(params["x"]))

    x = {"x": AWAY}
    return [
        Case(
            "jump_both_sides",
            sign,
            {"x": POINT},
            lambda p: {"x": jnp.cos(p["x"])},
            NONDIFFERENTIABLE,
            ("['x'][2]",),
            right=False,
            smooth=False,
        ),
        Case(
            "jump_at_x",
            jump,
            {"x": POINT},
            lambda p: {"x": jnp.cos(p["x"])},
            NONDIFFERENTIABLE,
            ("['x'][2]",),
            right=False,
            smooth=False,
        ),
        wrong(
            "ste_inside_loss",
            straight_through,
            x,
            jax.grad(straight_through),
            # round(0.4) = round(-0.3) = 0: there even the straight-through slope is 0
            tuple(f"['x'][{i}]" for i in (0, 1, 2, 5)),
            "stop_gradient",
        ),
        Case("floor_between_steps", stairs, x, jax.grad(stairs), AGREE),
        wrong("floor_off_by_one", stairs, x, last_step_dropped, keys("x")),
    ]


def _away() -> list[Case]:
    def branches(params: Any) -> jax.Array:
        x = params["x"]
        first = jax.lax.cond(x[0] > 0, jnp.sin, jnp.cos, x[0])
        positive = jnp.where(x > 0, x, 1.0)
        return first + jnp.sum(jnp.where(x > 0, jnp.sqrt(positive), x**2))

    def unsafe(params: Any) -> jax.Array:
        x = params["x"]
        return jnp.sum(jnp.where(x > 0, jnp.sqrt(x), x**2))

    def both_branches(params: Any) -> dict[str, jax.Array]:
        d = jax.grad(branches)(params)["x"]
        return {"x": d.at[0].add(-jnp.sin(params["x"][0]))}

    x = {"x": AWAY}
    return [
        Case("branches_right", branches, x, jax.grad(branches), AGREE),
        wrong("branches_both_counted", branches, x, both_branches, ("['x'][0]",)),
        Case(
            "where_sqrt_nan",
            unsafe,
            x,
            jax.grad(unsafe),
            MALFORMED,
            ("['x'][1]", "['x'][4]"),
            right=False,
        ),
    ]


def _selections() -> list[Case]:
    c = normal(42, 6)

    def ordered(params: Any) -> jax.Array:
        x = params["x"]
        largest, _ = jax.lax.top_k(x, 2)
        ranked = jnp.sum(like(c, x) * jnp.sin(jnp.sort(x)))
        return ranked + jnp.sum(largest**2) + jnp.median(x) + 3 * x[jnp.argmax(x)]

    def ranked_only(params: Any) -> jax.Array:
        return jnp.sum(like(c, params["x"]) * jnp.sin(jnp.sort(params["x"])))

    def not_unsorted(params: Any) -> dict[str, jax.Array]:
        ranked = jnp.sort(params["x"])
        return {"x": like(c, ranked) * jnp.cos(ranked)}

    x = {"x": AWAY}
    return [
        Case("sort_topk_median_argmax_right", ordered, x, jax.grad(ordered), AGREE),
        wrong("sort_not_undone", ranked_only, x, not_unsorted, keys("x")),
        *_max_pool(),
    ]


def _max_pool() -> list[Case]:
    def windows(image: jax.Array) -> jax.Array:
        return jnp.max(image.reshape(3, 2, 3, 2), axis=(1, 3))

    def loss(params: Any) -> jax.Array:
        return jnp.sum(jnp.sin(windows(params["image"])))

    def to_every_pixel(params: Any) -> dict[str, jax.Array]:
        d_windows = jnp.cos(windows(params["image"]))
        return {"image": jnp.repeat(jnp.repeat(d_windows, 2, axis=0), 2, axis=1)}

    image = {"image": normal(43, 6, 6)}
    return [
        Case("max_pool_right", loss, image, jax.grad(loss), AGREE),
        wrong("max_pool_to_every_pixel", loss, image, to_every_pixel, keys("image")),
    ]
