"""A small transformer in plain JAX: a deep model for the verifier to check."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

BATCH, LENGTH, HEADS, VOCABULARY = 2, 8, 4, 50
STANDARD_DEVIATION = 0.05


def transformer(blocks: int, width: int) -> tuple[Callable[[Any], Any], Any]:
    """The loss of next tokens, and float32 parameters: 12 leaves a block, and one."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        values = STANDARD_DEVIATION * random.standard_normal(shape)
        return values.astype(np.float32)

    def block() -> dict[str, Any]:
        ones, zeros = np.ones(width, np.float32), np.zeros(width, np.float32)
        return {
            "gain1": ones,
            "shift1": zeros,
            **{name: normal(width, width) for name in ("q", "k", "v", "o")},
            "gain2": ones.copy(),
            "shift2": zeros.copy(),
            "w1": normal(width, 4 * width),
            "b1": np.zeros(4 * width, np.float32),
            "w2": normal(4 * width, width),
            "b2": np.zeros(width, np.float32),
        }

    params = {
        "embedding": normal(VOCABULARY, width),
        "blocks": [block() for _ in range(blocks)],
    }
    tokens = random.integers(0, VOCABULARY, (BATCH, LENGTH + 1))
    return lambda p: _loss(p, tokens), params


def _loss(params: Any, tokens: Any) -> Any:
    x = jnp.asarray(params["embedding"])[tokens[:, :-1]]
    for p in params["blocks"]:
        x = x + _attention(p, _normed(x, p["gain1"], p["shift1"]))
        h = _normed(x, p["gain2"], p["shift2"])
        x = x + jax.nn.gelu(h @ p["w1"] + _row(p["b1"])) @ p["w2"] + _row(p["b2"])
    scores = jax.nn.log_softmax(x @ jnp.transpose(params["embedding"]))
    return -jnp.mean(jnp.take_along_axis(scores, tokens[:, 1:, None], axis=-1))


def _attention(p: Any, x: Any) -> Any:
    batch, length, width = x.shape
    q, k, v = (
        (x @ p[name]).reshape(batch, length, HEADS, width // HEADS) for name in "qkv"
    )
    scores = jnp.einsum("blhd,bmhd->bhlm", q, k) / np.sqrt(width // HEADS)
    past = np.tril(np.ones((length, length), bool))[None, None]
    weights = jax.nn.softmax(jnp.where(past, scores, -1e9))
    mixed = jnp.einsum("bhlm,bmhd->blhd", weights, v)
    return mixed.reshape(batch, length, width) @ p["o"]


def _normed(x: Any, gain: Any, shift: Any) -> Any:
    centred = x - jnp.mean(x, -1, keepdims=True)
    variance = jnp.mean(centred**2, -1, keepdims=True)
    return centred / jnp.sqrt(variance + 1e-5) * _row(gain) + _row(shift)


def _row(x: Any) -> Any:
    return jnp.asarray(x)[None, None]
