"""Attention and recurrent networks: right, and with the slips of hand-written ones."""

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
Gradient = dict[str, jax.Array]
STEPS, WIDTH, STATE = 5, 4, 3

TOKENS = normal(110, STEPS, WIDTH)
ATTENTION_WEIGHTS = normal(111, STEPS, WIDTH)
STATE_WEIGHTS = normal(112, STEPS, STATE)


def sequence_cases() -> list[Case]:
    """All cases with a time axis."""
    return [*_attention(), *_recurrent(), *_gated()]


def attention(params: Params) -> tuple[jax.Array, ...]:
    """Queries, keys, values and the attention matrix softmax(Q Kᵀ / √d)."""
    tokens = like(TOKENS, params["query"])
    q, k, v = (tokens @ params[name] for name in ("query", "key", "value"))
    return q, k, v, jax.nn.softmax(q @ k.T / WIDTH**0.5, axis=1)


def attention_loss(params: Params) -> jax.Array:
    """Σ c (A V)."""
    _, _, v, matrix = attention(params)
    return jnp.sum(like(ATTENTION_WEIGHTS, v) * (matrix @ v))


def attention_backward(
    params: Params, diagonal: bool = False, transpose: bool = True
) -> Gradient:
    """The gradient by hand; without softmax's off-diagonals, or with dS for dSᵀ."""
    q, k, v, matrix = attention(params)
    tokens, d_out = like(TOKENS, v), like(ATTENTION_WEIGHTS, v)
    d_matrix = d_out @ v.T
    shared = jnp.sum(d_matrix * matrix, axis=1, keepdims=True)
    inner = d_matrix * (1 - matrix) if diagonal else d_matrix - shared
    d_scores = matrix * inner / WIDTH**0.5
    d_key = (d_scores.T if transpose else d_scores) @ q
    return {
        "query": tokens.T @ (d_scores @ k),
        "key": tokens.T @ d_key,
        "value": tokens.T @ (matrix.T @ d_out),
    }


def _attention() -> list[Case]:
    params = {
        "query": normal(113, WIDTH, WIDTH),
        "key": normal(114, WIDTH, WIDTH),
        "value": normal(115, WIDTH, WIDTH),
    }
    return [
        Case("attention_right", attention_loss, params, attention_backward, AGREE),
        wrong(
            "attention_softmax_diagonal_only",
            attention_loss,
            params,
            lambda p: attention_backward(p, diagonal=True),
            keys("query", "key"),
        ),
        wrong(
            "attention_scores_not_transposed",
            attention_loss,
            params,
            lambda p: attention_backward(p, transpose=False),
            keys("key"),
        ),
    ]


def rnn_loss(params: Params) -> jax.Array:
    """Σ_t c_t h_t with h_t = tanh(x_t U + h_{t-1} V), by scan."""

    def step(h: jax.Array, token: jax.Array) -> tuple[jax.Array, jax.Array]:
        h = jnp.tanh(token @ params["U"] + h @ params["V"])
        return h, h

    start = like(np.full(STATE, 0.1), params["U"])
    _, states = jax.lax.scan(step, start, like(TOKENS, params["U"]))
    return jnp.sum(like(STATE_WEIGHTS, states) * states)


def rnn_backward(params: Params, lag: int = 1, memory: int = STEPS) -> Gradient:
    """Backpropagation through time; lag 0 pairs V with h_t instead of h_{t-1}.

    `memory`: how many steps back an error is carried.
    """
    tokens, weights = like(TOKENS, params["U"]), like(STATE_WEIGHTS, params["U"])
    states = [like(np.full(STATE, 0.1), params["U"])]
    for token in tokens:
        states.append(jnp.tanh(token @ params["U"] + states[-1] @ params["V"]))
    d_u, d_v = jnp.zeros_like(params["U"]), jnp.zeros_like(params["V"])
    for start in range(STEPS):
        d_state = weights[start]
        for t in range(start, max(-1, start - memory), -1):
            da = d_state * (1 - states[t + 1] ** 2)
            d_u = d_u + jnp.outer(tokens[t], da)
            d_v = d_v + jnp.outer(states[t + 1 - lag], da)
            d_state = jnp.asarray(params["V"]) @ da
    return {"U": d_u, "V": d_v}


def _recurrent() -> list[Case]:
    params = {"U": normal(116, WIDTH, STATE), "V": 0.5 * normal(117, STATE, STATE)}
    return [
        Case("rnn_right", rnn_loss, params, jax.grad(rnn_loss), AGREE),
        wrong(
            "rnn_off_by_one_step",
            rnn_loss,
            params,
            lambda p: rnn_backward(p, lag=0),
            keys("V"),
        ),
        wrong(
            "rnn_truncated",
            rnn_loss,
            params,
            lambda p: rnn_backward(p, memory=3),
            keys("U", "V"),
        ),
    ]


def gru_loss(sign: float = 1.0) -> Callable[[Params], jax.Array]:
    """Σ_t c_t h_t of a gated recurrent unit; `sign` multiplies the reset path's error.

    The value never depends on `sign`: it only turns the gradient through that path.
    """

    def turned(x: jax.Array) -> jax.Array:
        return sign * x + (1 - sign) * jax.lax.stop_gradient(x)

    def loss(params: Params) -> jax.Array:
        def step(h: jax.Array, token: jax.Array) -> tuple[jax.Array, jax.Array]:
            both = jnp.concatenate([token, h])
            update = jax.nn.sigmoid(both @ params["update"])
            reset = turned(jax.nn.sigmoid(both @ params["reset"]))
            new = jnp.tanh(jnp.concatenate([token, reset * h]) @ params["new"])
            h = (1 - update) * h + update * new
            return h, h

        start = like(np.full(STATE, 0.1), params["new"])
        _, states = jax.lax.scan(step, start, like(TOKENS, params["new"]))
        return jnp.sum(like(STATE_WEIGHTS, states) * states)

    return loss


def _gated() -> list[Case]:
    loss = gru_loss()
    params = {
        "update": normal(118, WIDTH + STATE, STATE),
        "reset": normal(119, WIDTH + STATE, STATE),
        "new": normal(120, WIDTH + STATE, STATE),
    }
    return [
        Case("gru_right", loss, params, jax.grad(loss), AGREE),
        wrong(
            "gru_reset_path_sign",
            loss,
            params,
            jax.grad(gru_loss(-1.0)),
            keys("update", "reset", "new"),
        ),
        wrong(
            "gru_update_gate_sign",
            loss,
            params,
            altered_leaf(loss, "update", jnp.negative),
            keys("update"),
            "sign",
        ),
    ]
