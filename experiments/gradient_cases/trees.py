"""Every kind of parameter tree, and candidates that do not fit theirs."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gradient_cases.case import (
    AGREE,
    MALFORMED,
    UNRESOLVED,
    Case,
    altered,
    altered_leaf,
    like,
    normal,
    wrong,
)


class Gates(NamedTuple):
    """Two leaves of one shape, easily swapped."""

    inward: Any
    outward: Any


def tree_cases() -> list[Case]:
    """All cases about structure, shape and dtype."""
    return [*_containers(), *_nested(), *_integer_leaf(), *_malformed()]


def _containers() -> list[Case]:
    def layer(params: Any) -> jax.Array:
        weight, bias = params
        x = like(normal(70, 4, 3), weight)
        return jnp.sum(jnp.tanh(x @ weight + bias[None, :]) ** 2)

    def gated(params: Gates) -> jax.Array:
        return jnp.sum(jax.nn.sigmoid(params.inward) * jnp.tanh(params.outward))

    def bare(x: jax.Array) -> jax.Array:
        return jnp.sum(jnp.exp(-x) * jnp.sin(x))

    pair = (normal(71, 3, 2), normal(72, 2))
    gates = Gates(normal(73, 3, 4), normal(74, 3, 4))
    return [
        Case("tuple_right", layer, pair, jax.grad(layer), AGREE),
        wrong(
            "tuple_bias_half",
            layer,
            pair,
            altered(layer, lambda d: (d[0], d[1] / 2)),
            ("[1]",),
            "×½",
        ),
        wrong(
            "namedtuple_swapped",
            gated,
            gates,
            altered(gated, lambda d: Gates(d.outward, d.inward)),
            (".inward", ".outward"),
            "swapped",
        ),
        wrong(
            "bare_array_one_coord_0.1pct",
            bare,
            normal(75, 20),
            altered(bare, lambda d: d.at[7].multiply(1.001)),
            ("[7]",),
        ),
    ]


def _nested_loss(params: Any) -> jax.Array:
    """Nested dicts and a list, with a 0-d leaf, an empty leaf and a None."""
    temperature = jnp.exp(params["temperature"])
    scores = jnp.zeros_like(params["layers"][0]["w"])
    for layer in params["layers"]:
        scores = jnp.tanh(scores + layer["w"])
    return jnp.sum(scores / temperature) + jnp.sum(params["extra"]["empty"])


def _nested() -> list[Case]:
    params = {
        "extra": {"empty": np.zeros((0,)), "unused": None},
        "layers": [{"w": normal(76, 3)}, {"w": normal(77, 3)}],
        "temperature": np.asarray(0.3),
    }
    return [
        Case("nested_right", _nested_loss, params, jax.grad(_nested_loss), AGREE),
        wrong(
            "nested_scalar_sign",
            _nested_loss,
            params,
            altered_leaf(_nested_loss, "temperature", jnp.negative),
            ("['temperature']",),
            "sign",
        ),
        wrong(
            "nested_layer_zero",
            _nested_loss,
            params,
            altered_leaf(
                _nested_loss, "layers", lambda d: [d[0], {"w": 0 * d[1]["w"]}]
            ),
            ("['layers'][1]['w']",),
            "zero",
        ),
    ]


def _integer_leaf() -> list[Case]:
    def loss(params: Any) -> jax.Array:
        return jnp.sum(jnp.sin(params["table"][params["rows"]]))

    def gradient(params: Any) -> Any:
        return jax.grad(loss, allow_int=True)(params)

    def doubled(params: Any) -> Any:
        d = gradient(params)
        return {**d, "table": 2 * d["table"]}

    params = {"rows": np.array([0, 2, 3, 3], dtype=np.int32), "table": normal(78, 4, 2)}
    return [
        Case("integer_leaf_right", loss, params, gradient, AGREE),
        wrong("integer_leaf_x2", loss, params, doubled, ("['table']",), "×2"),
    ]


def _malformed() -> list[Case]:
    def loss(params: Any) -> jax.Array:
        return jnp.sum(jnp.sin(params["w"])) + jnp.sum(params["b"] ** 2)

    def logarithms(params: Any) -> jax.Array:
        return jnp.sum(jnp.log(params["w"])) + jnp.sum(params["b"] ** 2)

    w, b = normal(79, 2, 3), np.array([0.5, -1.5, 1.0])
    right = {"w": np.cos(w), "b": 2 * b}
    infinite = 2 * b
    infinite[1] = np.inf

    def malformed(name: str, candidate: Any, *places: str) -> Case:
        return Case(
            name, loss, {"w": w, "b": b}, candidate, MALFORMED, places, right=False
        )

    return [
        malformed("inf_one_coord", {**right, "b": infinite}, "['b'][1]"),
        malformed("wrong_shape", {**right, "b": 2 * b[None, :]}, "['b']"),
        malformed("wrong_shape_transposed", {**right, "w": np.cos(w).T}, "['w']"),
        malformed("missing_leaf", {"w": np.cos(w)}, "['b']"),
        malformed("tuple_for_dict", (2 * b, np.cos(w))),
        malformed("integer_dtype", {**right, "b": np.array([1, -3, 2])}, "['b']"),
        malformed("complex_dtype", {**right, "b": 2 * b + 0j}, "['b']"),
        Case(
            "loss_is_nan",
            logarithms,
            {"w": w, "b": b},
            {"w": 1 / w, "b": 2 * b},
            MALFORMED + UNRESOLVED,
            right=False,
            smooth=False,
        ),
    ]
