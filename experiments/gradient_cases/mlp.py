"""The book's two-layer network on a small batch, with textbook backprop and its bugs.

Batch 6, pixels 4, hidden 5, classes 3: no two axes alike, so a factor tells its axis.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gradient_cases.case import (
    AGREE,
    Case,
    altered,
    altered_leaf,
    keys,
    like,
    normal,
    wrong,
)

BATCH, PIXELS, HIDDEN, CLASSES = 6, 4, 5, 3
EVERY_LEAF = keys("W1", "b1", "W2", "b2")
WEIGHT_DECAY = 1e-4

IMAGES = normal(10, BATCH, PIXELS)
TARGETS = np.eye(CLASSES)[np.array([0, 2, 1, 1, 0, 2])]

Gradient = dict[str, jax.Array]


def mlp_params(output_scale: float = 1.0) -> dict[str, np.ndarray]:
    """Parameters of order 1; `output_scale` multiplies W2."""
    return {
        "W1": normal(11, PIXELS, HIDDEN),
        "b1": normal(12, HIDDEN),
        "W2": normal(13, HIDDEN, CLASSES) * output_scale,
        "b2": normal(14, CLASSES),
    }


def hidden(params: Any) -> jax.Array:
    """The sigmoid layer, (batch, hidden)."""
    images = like(IMAGES, params["W1"])
    return jax.nn.sigmoid(images @ params["W1"] + params["b1"][None, :])


def logits(params: Any) -> jax.Array:
    """The output layer before softmax, (batch, classes)."""
    return hidden(params) @ params["W2"] + params["b2"][None, :]


def mlp_loss(params: Any) -> jax.Array:
    """-mean_n Σ_k t log_softmax(logits)."""
    targets = like(TARGETS, params["W1"])
    return -jnp.sum(targets * jax.nn.log_softmax(logits(params))) / BATCH


def sum_loss(params: Any) -> jax.Array:
    """The same, summed over the batch."""
    return mlp_loss(params) * BATCH


def decayed_loss(params: Any) -> jax.Array:
    """The same + ½ λ ‖W‖²."""
    squares = jnp.sum(params["W1"] ** 2) + jnp.sum(params["W2"] ** 2)
    return mlp_loss(params) + 0.5 * WEIGHT_DECAY * squares


def book_loss(params: Any) -> jax.Array:
    """-mean_n log(p_t + 1e-7), as the book writes it."""
    targets = like(TARGETS, params["W1"])
    chosen = jnp.sum(targets * jax.nn.softmax(logits(params)), axis=1)
    return -jnp.mean(jnp.log(chosen + 1e-7))


def sigmoid_slope(activation: jax.Array) -> jax.Array:
    """σ' from σ's value."""
    return activation * (1 - activation)


def backprop(
    params: Any,
    slope: Callable[[jax.Array], jax.Array] = sigmoid_slope,
    divisor: float = BATCH,
) -> Gradient:
    """The textbook gradient of `mlp_loss`; other arguments plant a bug."""
    images, targets = like(IMAGES, params["W1"]), like(TARGETS, params["W1"])
    h = hidden(params)
    dy = (jax.nn.softmax(logits(params)) - targets) / divisor
    da1 = (dy @ jnp.asarray(params["W2"]).T) * slope(h)
    return {
        "W1": images.T @ da1,
        "b1": jnp.sum(da1, axis=0),
        "W2": h.T @ dy,
        "b2": jnp.sum(dy, axis=0),
    }


def decayed_backprop(params: Any, factor: float, *names: str) -> Gradient:
    """Textbook gradient + factor · λ · params on the leaves named."""
    d = backprop(params)
    extra = {k: d[k] + factor * WEIGHT_DECAY * params[k] for k in names}
    return {**d, **extra}


def stale_backprop(params: Any) -> Gradient:
    """Textbook gradient with W2's taken from the activations one step earlier."""
    d = backprop(params)
    targets = like(TARGETS, params["W1"])
    dy = (jax.nn.softmax(logits(params)) - targets) / BATCH
    earlier = {k: params[k] + 0.01 * d[k] for k in params}
    return {**d, "W2": hidden(earlier).T @ dy}


def public_mlp_cases() -> list[Case]:
    """The public cases on this network."""
    p = mlp_params()
    return [
        Case("mlp_right", mlp_loss, p, backprop, AGREE),
        wrong(
            "mlp_times_batch",
            mlp_loss,
            p,
            lambda q: backprop(q, divisor=1.0),
            EVERY_LEAF,
            f"×{BATCH}",
        ),
        wrong(
            "mlp_b2_mean",
            mlp_loss,
            p,
            lambda q: {**(d := backprop(q)), "b2": d["b2"] / BATCH},
            keys("b2"),
            f"×1/{BATCH}",
        ),
        wrong(
            "mlp_b1_sign",
            mlp_loss,
            p,
            lambda q: {**(d := backprop(q)), "b1": -d["b1"]},
            keys("b1"),
            "sign",
        ),
        wrong(
            "mlp_no_act_deriv",
            mlp_loss,
            p,
            lambda q: backprop(q, slope=jnp.ones_like),
            keys("W1", "b1"),
        ),
        wrong(
            "mlp_one_coord_zero",
            mlp_loss,
            p,
            lambda q: {**(d := backprop(q)), "W1": d["W1"].at[2, 3].set(0)},
            ("['W1'][2, 3]",),
        ),
        wrong(
            "l2_factor2_tiny",
            decayed_loss,
            p,
            lambda q: decayed_backprop(q, 2.0, "W1", "W2"),
            keys("W1", "W2"),
        ),
        wrong("book_log_eps_typical", book_loss, p, backprop, EVERY_LEAF),
        wrong(
            "book_log_eps_saturated", book_loss, mlp_params(12), backprop, EVERY_LEAF
        ),
    ]


def hidden_mlp_cases() -> list[Case]:
    """More bugs of the same backward pass."""
    p = mlp_params()
    return [
        *_reductions(p),
        *_one_part(p),
        wrong(
            "mlp_sigmoid_slope_of_activation",
            mlp_loss,
            p,
            lambda q: backprop(q, slope=lambda h: sigmoid_slope(jax.nn.sigmoid(h))),
            keys("W1", "b1"),
        ),
        wrong("mlp_stale_activations", mlp_loss, p, stale_backprop, keys("W2")),
        wrong("missing_regulariser", decayed_loss, p, backprop, keys("W1", "W2")),
        wrong(
            "weight_decay_on_bias",
            decayed_loss,
            p,
            lambda q: decayed_backprop(q, 1.0, "W1", "b1", "W2", "b2"),
            keys("b1", "b2"),
        ),
    ]


def _reductions(p: dict[str, np.ndarray]) -> list[Case]:
    return [
        wrong("mean_for_sum", sum_loss, p, backprop, EVERY_LEAF, f"×1/{BATCH}"),
        wrong(
            "mlp_b2_first_row_only",
            mlp_loss,
            p,
            lambda q: {**backprop(q), "b2": _first_output_error(q)},
            keys("b2"),
        ),
        wrong(
            "mlp_b1_zeroed",
            mlp_loss,
            p,
            altered_leaf(mlp_loss, "b1", jnp.zeros_like),
            keys("b1"),
            "zero",
        ),
    ]


def _first_output_error(params: Any) -> jax.Array:
    """The gradient of b2 un-broadcast by taking the batch's first row."""
    targets = like(TARGETS, params["W1"])
    return (jax.nn.softmax(logits(params)) - targets)[0] / BATCH


def _one_part(p: dict[str, np.ndarray]) -> list[Case]:
    return [
        wrong(
            "mlp_one_row_1pct",
            mlp_loss,
            p,
            altered_leaf(mlp_loss, "W1", lambda d: d.at[1].multiply(1.01)),
            tuple(f"['W1'][1, {j}]" for j in range(HIDDEN)),
            "row",
        ),
        wrong(
            "mlp_one_column_zero",
            mlp_loss,
            p,
            altered_leaf(mlp_loss, "W1", lambda d: d.at[:, 4].set(0)),
            tuple(f"['W1'][{i}, 4]" for i in range(PIXELS)),
            "column",
        ),
        wrong(
            "mlp_b1_reversed",
            mlp_loss,
            p,
            altered_leaf(mlp_loss, "b1", lambda d: d[::-1]),
            ("['b1'][0]", "['b1'][1]", "['b1'][3]", "['b1'][4]"),
            "reversed",
        ),
        wrong(
            "mlp_0.1pct_everywhere",
            mlp_loss,
            p,
            altered(mlp_loss, lambda d: {k: v * 1.001 for k, v in d.items()}),
            EVERY_LEAF,
        ),
    ]
