"""A function whose stop_gradients are constants: what its derivative is meant to be."""

from collections.abc import Callable
from typing import Any

import jax

from jaxnet.array_types import PyTree
from jaxnet.jaxpr.reader import every_equation
from jaxnet.verification.function.planted import planted
from jaxnet.verification.function.sites import outermost
from jaxnet.verification.point import floating_leaves, with_floating


def with_stopped_held(
    function: Callable[..., PyTree], args: tuple[Any, ...]
) -> Callable[..., PyTree]:
    """The function, with what each stop_gradient gives at `args` in its place.

    At `args` it has the value and the derivatives of the function, and differences of
    it leave out what a stop_gradient leaves out. A function without any, or one that
    JAX cannot trace, is itself.
    """

    def of_floating(args: tuple[Any, ...]) -> Callable[[list[Any]], PyTree]:
        return lambda moved: function(*with_floating(args, moved))

    def stopped(args: tuple[Any, ...], moved: list[Any]) -> tuple[Any, Any, set[int]]:
        trace = jax.make_jaxpr(of_floating(args), return_shape=True)
        closed, shapes = trace(moved)
        found = outermost(every_equation(closed))
        chosen = {id(e) for e in found if e.primitive.name == "stop_gradient"}
        return closed, jax.tree.structure(shapes), chosen

    def held(*args: Any) -> PyTree:
        moved = floating_leaves(args)
        closed, outputs, chosen = stopped(args, moved)
        # written so, the point is computed with in the precision of what moves
        same = [x + 0 * y for x, y in zip(point, moved, strict=True)]
        there = planted(closed, same, chosen, {})[1]
        given = {
            place: [jax.lax.stop_gradient(y) for y in seen.outputs]
            for place, seen in there.items()
        }
        values = planted(closed, moved, chosen, given, put=lambda _, given: given)[0]
        return jax.tree.unflatten(outputs, values)

    point = floating_leaves(args)
    try:
        some = stopped(args, point)[2]
    except Exception:  # the caller's function cannot be traced
        return function
    return held if some else function
