"""Convolution, normalisation, dropout, residual paths, embeddings: right and wrong."""

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
BATCH, INPUTS, UNITS = 6, 3, 4


def network_cases() -> list[Case]:
    """All cases on layers other than the book's."""
    return [
        *_convolution(),
        *_normalisation(),
        *_embedding(),
        _dropout(),
        _residual(),
        _wrong_axis(),
        _dropped_term(),
        _complex(),
        _log_sum_exp(),
    ]


def _convolution() -> list[Case]:
    images, weights = normal(80, 2, 6, 6, 1), normal(81, 2, 4, 4, 1)

    def loss(params: Params) -> jax.Array:
        kernel = params["kernel"]
        features = jax.lax.conv_general_dilated(
            like(images, kernel),
            kernel,
            window_strides=(1, 1),
            padding="VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        return jnp.sum(like(weights, kernel) * jnp.tanh(features + params["bias"]))

    params = {"kernel": normal(82, 3, 3, 1, 1), "bias": np.asarray(0.2)}
    return [
        Case("convolution_right", loss, params, jax.grad(loss), AGREE),
        wrong(
            "convolution_kernel_flipped",
            loss,
            params,
            altered_leaf(loss, "kernel", lambda d: d[::-1, ::-1]),
            keys("kernel"),
            "reversed",
        ),
    ]


def _normalised_loss(axis: int, detach: bool) -> Callable[[Params], jax.Array]:
    """Σ c tanh(γ ẑ + β); ẑ is normalised along axis 0 (batchnorm) or 1 (layernorm)."""
    inputs, weights = normal(83, BATCH, INPUTS), normal(84, BATCH, UNITS)

    def loss(params: Params) -> jax.Array:
        z = like(inputs, params["W"]) @ params["W"]
        mean = jnp.mean(z, axis=axis, keepdims=True)
        mean = jax.lax.stop_gradient(mean) if detach else mean
        variance = jnp.mean((z - mean) ** 2, axis=axis, keepdims=True)
        unit = (z - mean) / jnp.sqrt(variance + 1e-5)
        out = jnp.tanh(params["gamma"][None, :] * unit + params["beta"][None, :])
        return jnp.sum(like(weights, z) * out)

    return loss


def _normalisation() -> list[Case]:
    params = {
        "W": normal(85, INPUTS, UNITS),
        "gamma": 1 + 0.1 * normal(86, UNITS),
        "beta": normal(87, UNITS),
    }
    batch, layer = _normalised_loss(0, False), _normalised_loss(1, False)
    batch_detached = jax.grad(_normalised_loss(0, True))
    layer_detached = jax.grad(_normalised_loss(1, True))
    return [
        Case("batchnorm_right", batch, params, jax.grad(batch), AGREE),
        wrong("batchnorm_mean_detached", batch, params, batch_detached, keys("W")),
        Case("layernorm_right", layer, params, jax.grad(layer), AGREE),
        wrong("layernorm_mean_detached", layer, params, layer_detached, keys("W")),
    ]


def _embedding() -> list[Case]:
    rows, weights = np.array([1, 3, 3, 5, 0]), normal(88, 5, 3)

    def loss(params: Params) -> jax.Array:
        vectors = params["table"][jnp.asarray(rows)]
        return jnp.sum(like(weights, vectors) * jnp.tanh(vectors))

    def last_write_wins(params: Params) -> dict[str, jax.Array]:
        table = jnp.asarray(params["table"])
        vectors = table[jnp.asarray(rows)]
        d_vectors = like(weights, vectors) * (1 - jnp.tanh(vectors) ** 2)
        d_table = jnp.zeros_like(table)
        for row, d_vector in zip(rows, d_vectors, strict=True):
            d_table = d_table.at[int(row)].set(d_vector)
        return {"table": d_table}

    params = {"table": normal(89, 7, 3)}
    return [
        Case("embedding_unused_rows_right", loss, params, jax.grad(loss), AGREE),
        wrong(
            "embedding_last_write_wins",
            loss,
            params,
            last_write_wins,
            tuple(f"['table'][3, {j}]" for j in range(3)),
            "row",
        ),
        wrong(
            "embedding_gradient_in_unused_row",
            loss,
            params,
            altered_leaf(loss, "table", lambda d: d.at[6, 1].set(0.3)),
            ("['table'][6, 1]",),
        ),
    ]


def _dropout() -> Case:
    """The mask multiplies the activations forward, but nothing backward."""
    mask = np.array([2.0, 0.0, 2.0, 0.0])
    inputs = normal(90, BATCH, INPUTS)

    def loss(params: Params) -> jax.Array:
        h = jnp.tanh(like(inputs, params["W1"]) @ params["W1"])
        return jnp.sum(jnp.sin((h * like(mask, h)[None, :]) @ params["W2"]))

    def unmasked(params: Params) -> dict[str, jax.Array]:
        x = like(inputs, params["W1"])
        h = jnp.tanh(x @ params["W1"])
        dropped = h * like(mask, h)[None, :]
        dy = jnp.cos(dropped @ params["W2"])
        da = (dy @ jnp.asarray(params["W2"]).T) * (1 - h**2)
        return {"W1": x.T @ da, "W2": dropped.T @ dy}

    params = {"W1": normal(91, INPUTS, UNITS), "W2": normal(92, UNITS, 2)}
    return wrong("dropout_mask_not_reapplied", loss, params, unmasked, keys("W1"))


def _residual() -> Case:
    """y = h + tanh(h V), whose skip path is counted twice on the way back."""
    inputs = normal(93, BATCH, INPUTS)

    def loss(params: Params) -> jax.Array:
        h = like(inputs, params["W"]) @ params["W"]
        return jnp.sum(jnp.sin(h + jnp.tanh(h @ params["V"])))

    def counted_twice(params: Params) -> dict[str, jax.Array]:
        x = like(inputs, params["W"])
        h = x @ params["W"]
        branch = jnp.tanh(h @ params["V"])
        dy = jnp.cos(h + branch)
        da = dy * (1 - branch**2)
        dh = 2 * dy + da @ jnp.asarray(params["V"]).T
        return {"W": x.T @ dh, "V": h.T @ da}

    params = {"W": normal(94, INPUTS, UNITS), "V": normal(95, UNITS, UNITS)}
    return wrong("residual_counted_twice", loss, params, counted_twice, keys("W"))


def _wrong_axis() -> Case:
    """Batch and units are alike, so a bias summed over the wrong one has its shape."""
    inputs = normal(96, UNITS, UNITS)

    def scores(params: Params) -> jax.Array:
        return like(inputs, params["b"]) + params["b"][None, :]

    def loss(params: Params) -> jax.Array:
        return jnp.sum(jnp.sin(scores(params)))

    def over_units(params: Params) -> dict[str, jax.Array]:
        return {"b": jnp.sum(jnp.cos(scores(params)), axis=1)}

    b = {"b": normal(97, UNITS)}
    return wrong("bias_summed_over_wrong_axis", loss, b, over_units, keys("b"))


def _dropped_term() -> Case:
    """The product rule with one of its terms forgotten: f = Σ x² sin y."""

    def loss(params: Params) -> jax.Array:
        return jnp.sum(params["x"] * jnp.exp(params["x"]) * jnp.sin(params["y"]))

    def one_term(params: Params) -> dict[str, jax.Array]:
        x, y = params["x"], params["y"]
        return {"x": jnp.exp(x) * jnp.sin(y), "y": x * jnp.exp(x) * jnp.cos(y)}

    params = {"x": normal(98, 5), "y": normal(99, 5)}
    return wrong("product_rule_term_dropped", loss, params, one_term, keys("x"))


def _complex() -> Case:
    """Σ c |FFT x|² is real; its Wirtinger derivative is half the gradient."""
    weights = 1 + 0.3 * normal(100, 8)

    def loss(params: Params) -> jax.Array:
        spectrum = jnp.fft.fft(params["x"])
        power = jnp.real(spectrum * jnp.conj(spectrum))
        return jnp.sum(like(weights, power) * power)

    return wrong(
        "wirtinger_half",
        loss,
        {"x": normal(101, 8)},
        altered_leaf(loss, "x", lambda d: d / 2),
        keys("x"),
        "×½",
    )


def _log_sum_exp() -> Case:
    def loss(params: Params) -> jax.Array:
        return jax.nn.logsumexp(params["x"])

    x = {"x": 1000 + normal(102, 6)}
    return Case("logsumexp_of_1000_right", loss, x, jax.grad(loss), AGREE)
