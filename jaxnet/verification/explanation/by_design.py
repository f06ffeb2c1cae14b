"""Derivatives that are not those of the values, and mostly meant: what they are."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnet.jaxpr import (
    dependence,
    described,
    enclosing,
    is_call,
    opened,
    sub_jaxprs,
)
from jaxnet.verification.function.program import Program
from jaxnet.verification.function.sites import RULES, Site
from jaxnet.verification.point import Leaf

ROUNDING = {
    "round",
    "floor",
    "ceil",
    "sign",
    "argmax",
    "argmin",
    "eq",
    "ge",
    "gt",
    "le",
    "lt",
}
"""Primitives whose values are steps: their derivative is 0, where it is not meant."""

CHOOSING = {"select_n", "cond"}
"""Primitives whose first input says which of the others is taken."""


def straight_through(closed: Any, site: Site) -> str:
    """What rounds the value that a site stops, or what a rule rounds; in words."""
    if site.name:
        body = opened(next(sub_jaxprs(site.equations[0])))
        found, _ = _valued(body.eqns, body.outvars)
        rounded = (e for e in found if has_no_slope(e))
    else:
        stopped = site.equations[0]
        found, _ = _valued(_before(closed, stopped), stopped.invars)
        rounded = (e for e in found if e.primitive.name in ROUNDING)
    outer = enclosing(closed)
    words = (described(e, outer.get(id(e))) for e in rounded)
    return next((f"a straight-through estimator of {x}" for x in words), "")


def has_no_slope(equation: Any) -> bool:
    """Whether it gives steps: integers, or what is rounded; no booleans."""
    name, output = equation.primitive.name, equation.outvars[0].aval.dtype
    if name != "convert_element_type":
        return name in ROUNDING and output != np.bool_
    is_float = jnp.issubdtype(equation.invars[0].aval.dtype, np.inexact)
    return bool(is_float and not jnp.issubdtype(output, np.inexact))


def only_ways(program: Program, leaf: Leaf) -> list[str]:
    """What stops its gradient on every way from a leaf to the loss; else nothing."""
    closed, needed = program.closed, program.needed.closed
    moving = [i == leaf.number for i in range(len(needed.jaxpr.invars))]
    found, outputs, _ = dependence(needed, moving, _stops)
    if any(outputs):
        return []
    outer = enclosing(closed)
    words = (described(e, outer.get(id(e))) for e in found if _stops(e))
    return list(dict.fromkeys(words))


def roundings(program: Program, leaf: Leaf) -> list[str]:
    """What rounds values that a leaf moves and the loss is computed from."""
    closed = program.closed
    moved = {id(e) for e in program.moved_by(leaf.number)}
    found, _ = _valued(closed.jaxpr.eqns, closed.jaxpr.outvars)
    outer = enclosing(closed)
    rounded = (e for e in reversed(found) if id(e) in moved and has_no_slope(e))
    return list(dict.fromkeys(described(e, outer.get(id(e))) for e in rounded))


def _stops(equation: Any) -> bool:
    """Whether no derivative flows through it, whatever it runs."""
    if next(sub_jaxprs(equation), None) is not None:
        return False
    dtypes = (v.aval.dtype for v in equation.outvars)
    is_float = any(jnp.issubdtype(d, np.inexact) for d in dtypes)
    return equation.primitive.name in {*ROUNDING, "stop_gradient"} or not is_float


def _valued(
    equations: Sequence[Any], outputs: Sequence[Any]
) -> tuple[list[Any], set[int]]:
    """The equations whose values reach some outputs, and the variables, by id.

    The last first; those inside a rule are left out. What only chooses between values,
    such as the sign that makes a NaN of a logarithm, does not reach them.
    """
    needed, found = set(map(id, outputs)), list[Any]()
    for equation in reversed(equations):
        if needed.isdisjoint(map(id, equation.outvars)):
            continue
        name, used = equation.primitive.name, equation.invars
        found.append(equation)
        if name in CHOOSING:
            used = used[1:]
        if name not in RULES:
            for inner in map(opened, sub_jaxprs(equation)):
                within, reached = _valued(inner.eqns, inner.outvars)
                found += within
                if is_call(equation):
                    pairs = zip(used, inner.invars, strict=True)
                    used = [outer for outer, own in pairs if id(own) in reached]
        needed.update(map(id, used))
    return found, needed


def _before(jaxpr: Any, chosen: Any) -> Sequence[Any]:
    """The equations before one, in the jaxpr that it stands in."""
    equations: list[Any] = opened(jaxpr).eqns
    number = next((i for i, e in enumerate(equations) if e is chosen), None)
    if number is not None:
        return equations[:number]
    inner = [j for e in equations for j in sub_jaxprs(e)]
    return next(filter(None, (_before(j, chosen) for j in inner)), [])
