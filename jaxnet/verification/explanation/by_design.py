"""Derivatives that are not those of the values, and mostly meant: what they are."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnet.jaxpr import (
    dependence,
    described,
    enclosing,
    every_equation,
    is_call,
    opened,
    sub_jaxprs,
)
from jaxnet.verification.directions import nearby
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.function.planted import planted
from jaxnet.verification.function.program import Program
from jaxnet.verification.function.programs import compiled
from jaxnet.verification.function.sites import RULES, Site
from jaxnet.verification.point import Leaf, is_inexact

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

LITTLE = 2.0**-10
"""In units of the parameters: how far they are moved to see what moves with them…"""

CLEAR = 32.0
"""…but by so many ulps at least."""

ULPS = 4.0
"""What moves by no more ulps of the largest stands still but for rounding."""

MOST = 0.7
"""The share of the entries that must: some cross a step."""

CHOOSING = {"select_n", "cond"}
"""Primitives whose first input says which of the others is taken."""


def straight_through(objective: Objective, site: Site) -> str:
    """Whether a derivative flows where no value moves; in words, with what rounds.

    A stop_gradient is one if what is made of its value stands still as the parameters
    move; a rule, if what it gives does, and something in it rounds.
    """
    assert objective.program is not None
    closed = objective.program.closed
    if not _stands_still(objective, site):
        return ""
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
    alone = "" if site.name else "a straight-through estimator: its value does not move"
    return next((f"a straight-through estimator of {x}" for x in words), alone)


def _stands_still(objective: Objective, site: Site) -> bool:
    """Whether most of what a rule gives, or is made of what is stopped, does not move.

    As all parameters do, by so little that few steps are crossed.
    """
    assert objective.program is not None
    closed, point = objective.program.closed, objective.point
    chosen = {id(e) for e in site.equations}
    if not site.name:
        stopped = {id(v) for e in site.equations for v in e.outvars}
        every = every_equation(closed)
        chosen = {id(e) for e in every if stopped & set(map(id, e.invars))}
    precision = max(objective.own_precision_of(leaf) for leaf in point.leaves)
    there = nearby(point, (0,), max(LITTLE, CLEAR * precision))
    given = point.as_traced()
    pairs = zip(there.leaves, given, strict=True)
    moved = [leaf.values.astype(np.asarray(x).dtype) for leaf, x in pairs]
    look = compiled(lambda x: planted(closed, x, chosen, {})[1], given)
    one, other = look(given), look(moved)
    outputs = [
        (np.asarray(a, np.float64), np.asarray(b, np.float64))
        for place in one
        for a, b in zip(one[place].outputs, other[place].outputs, strict=True)
        if is_inexact(a) and not jnp.iscomplexobj(a)
    ]
    if not outputs or not all(np.isfinite(pair).all() for pair in outputs):
        return False
    sizes = (np.max(np.abs(pair)) for pair in outputs)
    still = [
        np.abs(a - b).reshape(-1) <= ULPS * precision * size
        for (a, b), size in zip(outputs, sizes, strict=True)
    ]
    return bool(np.mean(np.concatenate(still)) > MOST)


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
