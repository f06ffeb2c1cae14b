"""Layers of flax and equinox, with respect to their inputs and their parameters."""

from collections.abc import Callable, Iterable
from functools import partial
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


def _entry(name: str, apply: Callable[..., Any], shapes: Any, *inputs: Any) -> Entry:
    """Of a pure function (params, *inputs), with all leaves of params as arguments.

    shapes: of the params, as `jax.eval_shape` gives them: nothing is initialised.
    """
    leaves, structure = jax.tree.flatten(shapes)
    moving = [i for i, leaf in enumerate(leaves) if _is_floating(leaf)]

    def function(*args: Any) -> Any:
        given = list(leaves)
        for i, value in zip(moving, args[: len(moving)], strict=True):
            given[i] = value
        return apply(jax.tree.unflatten(structure, given), *args[len(moving) :])

    own = [_numbers(leaves[i].shape, 3 * n) for n, i in enumerate(moving)]
    points = [Point("numbers", (*own, *inputs))]
    if inputs:
        zeros = tuple(np.zeros_like(x) for x in inputs)
        points.append(Point("input zero", (*own, *zeros), True))
    return Entry(name, function, tuple(points))


def _numbers(shape: tuple[int, ...], start: int) -> Any:
    """Of a parameter: positive, as a variance has to be."""
    return sample(*shape, start=start, low=0.1, high=0.9)


def _is_floating(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jnp.floating)


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
        variables = jax.eval_shape(layer.init, key, *inputs)
        yield _entry(f"flax.linen.{name}", layer.apply, variables, *inputs)
    for name in ("LSTMCell", "OptimizedLSTMCell"):
        cell = getattr(nn, name)(2)
        carry = (sample(1, 2), sample(1, 2, start=5))
        variables = jax.eval_shape(cell.init, key, carry, rows[:1])

        def apply(variables: Any, c: Any, h: Any, x: Any, cell: Any = cell) -> Any:
            return cell.apply(variables, (c, h), x)

        given = (*carry, rows[:1])
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

    def seeded(layer: Callable[..., Any], *sizes: Any, **options: Any) -> Any:
        return lambda: layer(*sizes, rngs=nnx.Rngs(0), **options)

    rows, line = sample(2, 4), sample(1, 6, 1)
    layers: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("Linear", seeded(nnx.Linear, 4, 2), (rows,)),
        ("LinearGeneral", seeded(nnx.LinearGeneral, 4, (2, 2)), (rows,)),
        ("Einsum", seeded(nnx.Einsum, "ij,jk->ik", (4, 2)), (rows,)),
        ("Conv", seeded(nnx.Conv, 1, 2, (3,)), (line,)),
        ("ConvTranspose", seeded(nnx.ConvTranspose, 1, 2, (3,)), (line,)),
        ("LayerNorm", seeded(nnx.LayerNorm, 4), (rows,)),
        ("RMSNorm", seeded(nnx.RMSNorm, 4), (rows,)),
        ("GroupNorm", seeded(nnx.GroupNorm, 4, 2), (rows,)),
        ("LoRA", seeded(nnx.LoRA, 4, 1, 2), (rows,)),
        ("PReLU", nnx.PReLU, (rows,)),
        (
            "MultiHeadAttention",
            seeded(nnx.MultiHeadAttention, 1, 2, decode=False),
            (sample(1, 3, 2),),
        ),
        ("GRUCell", seeded(nnx.GRUCell, 4, 2), (sample(1, 2), rows[:1])),
        ("SimpleCell", seeded(nnx.SimpleCell, 4, 2), (sample(1, 2), rows[:1])),
    ]
    for name, layer, inputs in layers:
        graph, state = nnx.split(nnx.eval_shape(layer))

        def apply(state: Any, *inputs: Any, graph: Any = graph) -> Any:
            return nnx.merge(graph, state)(*inputs)

        yield _entry(f"flax.nnx.{name}", apply, state, *inputs)


def _equinox() -> Iterable[Entry]:
    import equinox as eqx

    nn, key = eqx.nn, jax.random.key(0)
    vector, line, image = sample(4), sample(1, 6), sample(1, 4, 4)
    layers: list[tuple[str, Any, tuple[Any, ...]]] = [
        ("Linear", partial(nn.Linear, 4, 2, key=key), (vector,)),
        ("MLP", partial(nn.MLP, 4, 1, 2, 1, activation=jnp.tanh, key=key), (vector,)),
        ("Conv1d", partial(nn.Conv1d, 1, 2, 3, key=key), (line,)),
        ("Conv2d", partial(nn.Conv2d, 1, 1, 2, key=key), (image,)),
        ("ConvTranspose1d", partial(nn.ConvTranspose1d, 1, 2, 3, key=key), (line,)),
        ("ConvTranspose2d", partial(nn.ConvTranspose2d, 1, 1, 2, key=key), (image,)),
        ("LayerNorm", partial(nn.LayerNorm, 4), (vector,)),
        ("RMSNorm", partial(nn.RMSNorm, 4), (vector,)),
        ("GroupNorm", partial(nn.GroupNorm, 2, 4), (vector,)),
        ("PReLU", nn.PReLU, (vector,)),
        ("GRUCell", partial(nn.GRUCell, 4, 2, key=key), (vector, sample(2, start=7))),
        ("WeightNorm", lambda: nn.WeightNorm(nn.Linear(4, 2, key=key)), (vector,)),
        (
            "RotaryPositionalEmbedding",
            partial(nn.RotaryPositionalEmbedding, 4),
            (sample(2, 4),),
        ),
        ("AvgPool1d", partial(nn.AvgPool1d, 2), (line,)),
        ("MaxPool1d", partial(nn.MaxPool1d, 2), (line,)),
        ("AvgPool2d", partial(nn.AvgPool2d, 2), (image,)),
        ("MaxPool2d", partial(nn.MaxPool2d, 2), (image,)),
        ("AdaptiveAvgPool1d", partial(nn.AdaptiveAvgPool1d, 2), (line,)),
        ("AdaptiveMaxPool1d", partial(nn.AdaptiveMaxPool1d, 2), (line,)),
        ("AdaptiveAvgPool2d", partial(nn.AdaptiveAvgPool2d, 2), (image,)),
        ("AdaptiveMaxPool2d", partial(nn.AdaptiveMaxPool2d, 2), (image,)),
        (
            "MultiheadAttention",
            partial(nn.MultiheadAttention, 1, 2, key=key),
            (
                sample(3, 2),
                sample(3, 2, start=7),
                sample(3, 2, start=14),
            ),
        ),
        ("Identity", nn.Identity, (vector,)),
        ("Lambda", partial(nn.Lambda, jnp.sin), (vector,)),
    ]
    for name, layer, inputs in layers:
        params, static = _parts(eqx, layer)

        def apply(params: Any, *inputs: Any, static: Any = static) -> Any:
            return eqx.combine(params, static)(*inputs)

        yield _entry(f"equinox.nn.{name}", apply, params, *inputs)
    params, static = _parts(eqx, partial(nn.LSTMCell, 4, 2, key=key))

    def of_state(params: Any, x: Any, h: Any, c: Any) -> Any:
        return eqx.combine(params, static)(x, (h, c))

    given = (vector, sample(2, start=7), sample(2, start=9))
    yield _entry("equinox.nn.LSTMCell", of_state, params, *given)


def _parts(eqx: Any, layer: Callable[[], Any]) -> tuple[Any, Any]:
    """The shapes of its parameters, and what is no array."""
    return eqx.partition(eqx.filter_eval_shape(layer), _is_floating)
