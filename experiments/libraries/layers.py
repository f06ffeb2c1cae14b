"""Layers of flax and equinox, with respect to their inputs and their parameters."""

from collections.abc import Callable, Iterable
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.libraries.entry import Entry, Point, sample

ROWS = "2 rows of 4"
"""Most layers' input."""


def layer_entries() -> list[Entry]:
    """All of them that are installed."""
    found = list[Entry]()
    if find_spec("flax") is not None:
        found += [*_linen(), *_nnx()]
    if find_spec("equinox") is not None:
        found += _equinox()
    return found


def _entry(name: str, apply: Callable[..., Any], params: Any, *inputs: Any) -> Entry:
    """Of a pure function (params, *inputs), with all leaves of params as arguments."""
    leaves, structure = jax.tree.flatten(params)
    moving = [i for i, leaf in enumerate(leaves) if _is_floating(leaf)]
    held = list(leaves)

    def function(*args: Any) -> Any:
        given = list(held)
        for i, value in zip(moving, args[: len(moving)], strict=True):
            given[i] = value
        return apply(jax.tree.unflatten(structure, given), *args[len(moving) :])

    own = [np.asarray(leaves[i], float) for i in moving]
    points = [Point("numbers", (*own, *inputs))]
    if inputs:
        zeros = tuple(np.zeros_like(x) for x in inputs)
        points.append(Point("input zero", (*own, *zeros), True))
    return Entry(name, function, tuple(points))


def _is_floating(leaf: Any) -> bool:
    return isinstance(leaf, (jax.Array, np.ndarray)) and jnp.issubdtype(
        leaf.dtype, jnp.floating
    )


def _linen() -> Iterable[Entry]:
    import flax.linen as nn

    rows, image, line = sample(2, 4), sample(1, 4, 4, 1), sample(1, 6, 1)
    layers: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("Dense", nn.Dense(2), (rows,)),
        ("DenseGeneral", nn.DenseGeneral((2, 2)), (rows,)),
        ("Einsum", nn.Einsum((4, 2), "ij,jk->ik"), (rows,)),
        ("Conv", nn.Conv(2, (3,)), (line,)),
        ("ConvLocal", nn.ConvLocal(1, (3,)), (line,)),
        ("ConvTranspose", nn.ConvTranspose(2, (3,), (2,)), (line,)),
        ("LayerNorm", nn.LayerNorm(), (rows,)),
        ("RMSNorm", nn.RMSNorm(), (rows,)),
        ("GroupNorm", nn.GroupNorm(2), (rows,)),
        ("InstanceNorm", nn.InstanceNorm(), (sample(1, 3, 2),)),
        ("BatchNorm", nn.BatchNorm(use_running_average=True), (rows,)),
        ("PReLU", nn.PReLU(), (rows,)),
        ("WeightNorm", nn.WeightNorm(nn.Dense(2)), (rows,)),
        ("SimpleCell", nn.SimpleCell(2), (sample(1, 2), rows[:1])),
        ("GRUCell", nn.GRUCell(2), (sample(1, 2), rows[:1])),
        ("MGUCell", nn.MGUCell(2), (sample(1, 2), rows[:1])),
        (
            "MultiHeadDotProductAttention",
            nn.MultiHeadDotProductAttention(2),
            (sample(1, 3, 2),),
        ),
        ("RNN", nn.RNN(nn.GRUCell(2, param_dtype=jnp.float64)), (sample(1, 3, 2),)),
    ]
    key = jax.random.key(0)
    for name, layer, inputs in layers:
        variables = layer.init(key, *map(jnp.float32, inputs))
        yield _entry(f"flax.linen.{name}", layer.apply, variables, *inputs)
    for name in ("LSTMCell", "OptimizedLSTMCell"):
        cell = getattr(nn, name)(2)
        carry = (jnp.float32(sample(1, 2)), jnp.float32(sample(1, 2, start=5)))
        variables = cell.init(key, carry, jnp.float32(rows[:1]))

        def apply(variables: Any, c: Any, h: Any, x: Any, cell: Any = cell) -> Any:
            return cell.apply(variables, (c, h), x)

        given = (sample(1, 2), sample(1, 2, start=5), rows[:1])
        yield _entry(f"flax.linen.{name}", apply, variables, *given)
    pools = [
        ("avg_pool", lambda _, x: nn.avg_pool(x, (2, 2))),
        ("max_pool", lambda _, x: nn.max_pool(x, (2, 2))),
        ("dot_product_attention", lambda _, x: nn.dot_product_attention(x, x, x)),
    ]
    for name, pool in pools:
        yield _entry(f"flax.linen.{name}", pool, (), image)


def _nnx() -> Iterable[Entry]:
    from flax import nnx

    rngs = nnx.Rngs(0)
    rows, line = sample(2, 4), sample(1, 6, 1)
    layers: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("Linear", nnx.Linear(4, 2, rngs=rngs), (rows,)),
        ("LinearGeneral", nnx.LinearGeneral(4, (2, 2), rngs=rngs), (rows,)),
        ("Einsum", nnx.Einsum("ij,jk->ik", (4, 2), rngs=rngs), (rows,)),
        ("Conv", nnx.Conv(1, 2, (3,), rngs=rngs), (line,)),
        ("ConvTranspose", nnx.ConvTranspose(1, 2, (3,), rngs=rngs), (line,)),
        ("LayerNorm", nnx.LayerNorm(4, rngs=rngs), (rows,)),
        ("RMSNorm", nnx.RMSNorm(4, rngs=rngs), (rows,)),
        ("GroupNorm", nnx.GroupNorm(4, 2, rngs=rngs), (rows,)),
        ("LoRA", nnx.LoRA(4, 1, 2, rngs=rngs), (rows,)),
        ("PReLU", nnx.PReLU(), (rows,)),
        (
            "MultiHeadAttention",
            nnx.MultiHeadAttention(1, 2, decode=False, rngs=rngs),
            (sample(1, 3, 2),),
        ),
        ("GRUCell", nnx.GRUCell(4, 2, rngs=rngs), (sample(1, 2), rows[:1])),
        ("SimpleCell", nnx.SimpleCell(4, 2, rngs=rngs), (sample(1, 2), rows[:1])),
    ]
    for name, layer, inputs in layers:
        graph, state = nnx.split(layer)

        def apply(state: Any, *inputs: Any, graph: Any = graph) -> Any:
            return nnx.merge(graph, state)(*inputs)

        yield _entry(f"flax.nnx.{name}", apply, state, *inputs)


def _equinox() -> Iterable[Entry]:
    import equinox as eqx

    nn, key = eqx.nn, jax.random.key(0)
    vector, line, image = sample(4), sample(1, 6), sample(1, 4, 4)
    layers: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("Linear", nn.Linear(4, 2, key=key), (vector,)),
        ("MLP", nn.MLP(4, 1, 2, 1, activation=jnp.tanh, key=key), (vector,)),
        ("Conv1d", nn.Conv1d(1, 2, 3, key=key), (line,)),
        ("Conv2d", nn.Conv2d(1, 1, 2, key=key), (image,)),
        ("ConvTranspose1d", nn.ConvTranspose1d(1, 2, 3, key=key), (line,)),
        ("ConvTranspose2d", nn.ConvTranspose2d(1, 1, 2, key=key), (image,)),
        ("LayerNorm", nn.LayerNorm(4), (vector,)),
        ("RMSNorm", nn.RMSNorm(4), (vector,)),
        ("GroupNorm", nn.GroupNorm(2, 4), (vector,)),
        ("PReLU", nn.PReLU(), (vector,)),
        ("GRUCell", nn.GRUCell(4, 2, key=key), (vector, sample(2, start=7))),
        ("WeightNorm", nn.WeightNorm(nn.Linear(4, 2, key=key)), (vector,)),
        ("RotaryPositionalEmbedding", nn.RotaryPositionalEmbedding(4), (sample(2, 4),)),
        ("AvgPool1d", nn.AvgPool1d(2), (line,)),
        ("MaxPool1d", nn.MaxPool1d(2), (line,)),
        ("AvgPool2d", nn.AvgPool2d(2), (image,)),
        ("MaxPool2d", nn.MaxPool2d(2), (image,)),
        ("AdaptiveAvgPool1d", nn.AdaptiveAvgPool1d(2), (line,)),
        ("AdaptiveMaxPool1d", nn.AdaptiveMaxPool1d(2), (line,)),
        ("AdaptiveAvgPool2d", nn.AdaptiveAvgPool2d(2), (image,)),
        ("AdaptiveMaxPool2d", nn.AdaptiveMaxPool2d(2), (image,)),
        (
            "MultiheadAttention",
            nn.MultiheadAttention(1, 2, key=key),
            (
                sample(3, 2),
                sample(3, 2, start=7),
                sample(3, 2, start=14),
            ),
        ),
        ("Identity", nn.Identity(), (vector,)),
        ("Lambda", nn.Lambda(jnp.sin), (vector,)),
    ]
    for name, layer, inputs in layers:
        params, static = eqx.partition(layer, eqx.is_inexact_array)

        def apply(params: Any, *inputs: Any, static: Any = static) -> Any:
            return eqx.combine(params, static)(*inputs)

        yield _entry(f"equinox.nn.{name}", apply, params, *inputs)
    cell = nn.LSTMCell(4, 2, key=key)
    params, static = eqx.partition(cell, eqx.is_inexact_array)

    def of_state(params: Any, x: Any, h: Any, c: Any) -> Any:
        return eqx.combine(params, static)(x, (h, c))

    given = (vector, sample(2, start=7), sample(2, start=9))
    yield _entry("equinox.nn.LSTMCell", of_state, params, *given)
