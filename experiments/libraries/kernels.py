"""Pallas kernels in the manner of softmax, layer norm and attention, interpreted.

Forward and backward are kernels, as those that fuse them for an accelerator are; the
backward one recomputes what the forward one did not keep.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import pallas as pl

from experiments.libraries.entry import Entry, Point, sample

EPSILON = 1e-5
"""Beside the variance of a layer norm."""


def kernel_entries() -> list[Entry]:
    """The three kernels; where rows tie, and where exp would overflow."""
    rows = Point("2×4 numbers", (sample(2, 4),))
    ties = Point("2×4 zeros", (np.zeros((2, 4)),), True)
    large = Point("2×4 numbers around 800", (800 + sample(2, 4),), True)
    scale, shift = sample(4, start=20), sample(4, start=30)
    normed = [
        Point(point.label, (*point.args, scale, shift), point.is_edge)
        for point in (rows, large)
    ]
    attended = tuple(sample(3, 2, start=start) for start in (0, 7, 14))
    return [
        Entry("pallas softmax kernel", softmax, (rows, ties, large)),
        Entry("pallas layer norm kernel", layer_norm, tuple(normed)),
        Entry(
            "pallas attention kernel",
            attention,
            (
                Point("q, k, v of 3×2", attended),
                Point(
                    "q, k of zeros",
                    (np.zeros((3, 2)), np.zeros((3, 2)), attended[2]),
                    True,
                ),
            ),
        ),
    ]


def _run(body: Callable[..., None], shapes: Any, *arrays: Any) -> Any:
    """One program that sees whole arrays, for outputs of the shapes of others."""
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), shapes)
    return pl.pallas_call(body, out_shape=like, interpret=True)(*arrays)


def _softmax_of(x: Any) -> Any:
    raised = jnp.exp(x - jnp.max(x, axis=-1, keepdims=True))
    return raised / jnp.sum(raised, axis=-1, keepdims=True)


def _softmax_forward(x_ref: Any, y_ref: Any) -> None:
    y_ref[...] = _softmax_of(x_ref[...])


def _softmax_backward(y_ref: Any, d_y_ref: Any, d_x_ref: Any) -> None:
    y, d_y = y_ref[...], d_y_ref[...]
    d_x_ref[...] = y * (d_y - jnp.sum(y * d_y, axis=-1, keepdims=True))


@jax.custom_vjp
def softmax(x: Any) -> Any:
    """Of each row."""
    return _run(_softmax_forward, x, x)


def _softmax_kept(x: Any) -> Any:
    y = softmax(x)
    return y, y


def _softmax_pulled(y: Any, d_y: Any) -> Any:
    return (_run(_softmax_backward, y, y, d_y),)


softmax.defvjp(_softmax_kept, _softmax_pulled)


def _centred(x: Any) -> tuple[Any, Any]:
    """(x - mean) / σ and 1 / σ, by row."""
    mean = jnp.mean(x, axis=-1, keepdims=True)
    variance = jnp.mean((x - mean) ** 2, axis=-1, keepdims=True)
    per_sigma = jax.lax.rsqrt(variance + EPSILON)
    return (x - mean) * per_sigma, per_sigma


def _norm_forward(x_ref: Any, scale_ref: Any, shift_ref: Any, y_ref: Any) -> None:
    y_ref[...] = _centred(x_ref[...])[0] * scale_ref[...] + shift_ref[...]


def _norm_backward(
    x_ref: Any,
    scale_ref: Any,
    d_y_ref: Any,
    d_x_ref: Any,
    d_scale_ref: Any,
    d_shift_ref: Any,
) -> None:
    normed, per_sigma = _centred(x_ref[...])
    d_y = d_y_ref[...]
    d_normed = d_y * scale_ref[...]
    mean = jnp.mean(d_normed, axis=-1, keepdims=True)
    along = jnp.mean(d_normed * normed, axis=-1, keepdims=True)
    d_x_ref[...] = (d_normed - mean - normed * along) * per_sigma
    d_scale_ref[...] = jnp.sum(d_y * normed, axis=0)
    d_shift_ref[...] = jnp.sum(d_y, axis=0)


@jax.custom_vjp
def layer_norm(x: Any, scale: Any, shift: Any) -> Any:
    """Of each row, then scaled and shifted."""
    return _run(_norm_forward, x, x, scale, shift)


def _norm_kept(x: Any, scale: Any, shift: Any) -> Any:
    return layer_norm(x, scale, shift), (x, scale, shift)


def _norm_pulled(kept: Any, d_y: Any) -> Any:
    x, scale, _ = kept
    return tuple(_run(_norm_backward, kept, x, scale, d_y))


layer_norm.defvjp(_norm_kept, _norm_pulled)


def _weights(q: Any, k: Any) -> Any:
    return _softmax_of(q @ k.T / np.sqrt(q.shape[-1]))


def _attention_forward(q_ref: Any, k_ref: Any, v_ref: Any, y_ref: Any) -> None:
    y_ref[...] = _weights(q_ref[...], k_ref[...]) @ v_ref[...]


def _attention_backward(
    q_ref: Any,
    k_ref: Any,
    v_ref: Any,
    d_y_ref: Any,
    d_q_ref: Any,
    d_k_ref: Any,
    d_v_ref: Any,
) -> None:
    q, k, d_y = q_ref[...], k_ref[...], d_y_ref[...]
    weights = _weights(q, k)
    d_weights = d_y @ v_ref[...].T
    d_v_ref[...] = weights.T @ d_y
    along = jnp.sum(weights * d_weights, axis=-1, keepdims=True)
    d_scores = weights * (d_weights - along) / np.sqrt(q.shape[-1])
    d_q_ref[...] = d_scores @ k
    d_k_ref[...] = d_scores.T @ q


@jax.custom_vjp
def attention(q: Any, k: Any, v: Any) -> Any:
    """softmax(q kᵀ / √d) v."""
    return _run(_attention_forward, q, q, k, v)


def _attention_kept(q: Any, k: Any, v: Any) -> Any:
    return attention(q, k, v), (q, k, v)


def _attention_pulled(kept: Any, d_y: Any) -> Any:
    return tuple(_run(_attention_backward, kept, *kept, d_y))


attention.defvjp(_attention_kept, _attention_pulled)
