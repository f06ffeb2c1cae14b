"""Central differences of a function of one vector: traceable, or by plain calls.

Source: *Deep Learning from Scratch*, section 4.3.
"""

import math
from functools import cache
from typing import TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr
from jax.typing import DTypeLike
from jaxtyping import Float, Integer

from jaxnet.array_types import Array, Scalar
from jaxnet.differences.flat_point import Coordinates, Vector, VectorFunction
from jaxnet.precision import eps

Step: TypeAlias = float | Scalar

MAX_BYTES = 2**24
"""How much memory a function's values beside the point may take at once."""


@cache
def relative_step(dtype: DTypeLike) -> float:
    """∛ε: where truncation, h², and rounding, ε/h, of a central difference meet."""
    return step_of(eps(dtype))


def step_of(precision: float) -> float:
    """The same for a function that computes with ε = `precision`."""
    return math.pow(precision, 1 / 3)


def steps(x: Vector, step: Step) -> Vector:
    """h = step × max(|x|, 1), such that x + h is exact: no rounding of the input."""
    xp = jnp if isinstance(x, jax.Array) else np
    magnitude = step * xp.maximum(xp.abs(x), 1.0)
    powers: Vector = xp.exp2(xp.ceil(xp.log2(magnitude)))
    return powers


def slopes_of(
    value: VectorFunction,
    x: Vector,
    step: Step,
    chosen: Integer[Array, " chosen"] | None = None,
) -> Float[Array, " slopes"]:
    """Central differences with respect to every coordinate of x, in chunks; traceable.

    chosen: with respect to these coordinates only.
    """
    h = steps(x, step)
    coordinates = jnp.arange(x.size, dtype=jnp.int32)

    def slope(i: Integer[Array, ""]) -> Scalar:
        def value_at(nudged: Scalar) -> Scalar:
            return jnp.asarray(value(jnp.where(coordinates == i, nudged, x)), x.dtype)

        forward, backward = jax.vmap(value_at)(jnp.stack([x[i] + h[i], x[i] - h[i]]))
        return jnp.asarray((forward - backward) / (2 * h[i]))

    if x.size == 0:
        return x
    chosen = coordinates if chosen is None else chosen
    slopes: Vector = jax.lax.map(slope, chosen, batch_size=_chunk(value, x))
    return slopes


def _chunk(value: VectorFunction, x: Vector) -> int:
    """How many coordinates fit into MAX_BYTES, each moved forward and backward."""
    each = 2 * (8 * x.size + _bytes(jax.make_jaxpr(value)(x)))
    return int(np.clip(MAX_BYTES // max(each, 1), 1, x.size))


def _bytes(jaxpr: Jaxpr | ClosedJaxpr) -> int:
    """All that a traced function computes on its way, in float64: an upper bound."""
    own = sum(getattr(v.aval, "size", 1) for e in jaxpr.eqns for v in e.outvars)
    parts = [p for e in jaxpr.eqns for p in jax.tree.leaves(e.params)]
    return 8 * own + sum(_bytes(p) for p in parts if hasattr(p, "eqns"))


def one_by_one(value: VectorFunction, x: Coordinates, step: float) -> Coordinates:
    """Central differences with respect to every coordinate of x, by plain calls.

    A function that writes to its argument gets a copy of its own in every call.
    """
    h = np.asarray(steps(x, step))
    forward, backward = values_beside(value, x, h)
    return np.asarray((forward - backward) / (2 * h))


def values_beside(
    value: VectorFunction, x: Coordinates, h: Coordinates
) -> tuple[Coordinates, Coordinates]:
    """The values at x + hᵢ eᵢ and at x - hᵢ eᵢ, by plain calls."""
    try:
        return _values_beside(value, x, h)
    except ValueError:  # from NumPy, or the function's own, which comes again
        return _values_beside(lambda view: value(view.copy()), x, h)


def _values_beside(
    value: VectorFunction, x: Coordinates, h: Coordinates
) -> tuple[Coordinates, Coordinates]:
    """The same; the function gets a view that it cannot write to."""
    forward, backward = np.empty(x.size), np.empty(x.size)
    point = x.copy()
    view = point.view()
    view.flags.writeable = False
    beside = zip(x.tolist(), (x + h).tolist(), (x - h).tolist(), strict=True)
    for i, (here, above, below) in enumerate(beside):
        point[i] = above
        forward[i] = value(view)
        point[i] = below
        backward[i] = value(view)
        point[i] = here
    return forward, backward
