"""Derivatives that are not those of the values, and mostly meant: what they are."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.jaxpr import (
    dependence,
    described_within,
    enclosing,
    is_call,
    opened,
    sub_jaxprs,
)
from jaxnet.precision import eps
from jaxnet.verification.directions import nearby
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.function.planted import Added, Place, Seen, planted
from jaxnet.verification.function.program import Program
from jaxnet.verification.function.programs import compiled
from jaxnet.verification.function.same_bits import fingerprint
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

MOVES = 2.0**-10, 2.0**-12, 2.0**-11, 2.0**-13
"""In units of the parameters: how far they are moved to see what moves with them. A
step is crossed at some, and hardly at all of them…"""

CLEAR = 32.0
"""…but by so many ulps at least."""

ULPS = 4.0
"""What moves by no more ulps of itself, or of what it is the sum of, stands still."""

SUMS = {"add", "sub", "add_any"}
"""Primitives by which a value may be added that takes another one's movement away."""

PUSHED = 0.125
"""By how much what a stop_gradient gives is moved, of itself and beside it."""

CHOOSING = {"select_n", "cond"}
"""Primitives whose first input says which of the others is taken."""


def straight_through(objective: Objective, site: Site, leaf: int | None = None) -> str:
    """Whether a derivative flows where no value moves; in words, with what rounds.

    A rule is such if nothing that it gives moves as its inputs do, and something in it
    rounds; a stop_gradient, if what moves is added to it and the sum does not.

    leaf: the number of what is moved; None for all.
    """
    assert objective.program is not None
    closed, otherwise = objective.program.closed, ""
    is_one = _gives_the_same if site.name else _cancels
    if objective.program.may_not_end(leaf):
        return ""
    try:
        if not is_one(objective, site, leaf):
            return ""
    except Exception:  # the caller's program, run equation by equation
        return ""
    if site.name:
        body = opened(next(sub_jaxprs(site.equations[0])))
        found, _ = _valued(body.eqns, body.outvars, through_choices=True)
    else:
        stopped = site.equations[0]
        found, _ = _valued(_before(closed, stopped), stopped.invars, True)
        otherwise = "a surrogate: its value does not move"
    outer = enclosing(closed)
    steps = (e for e in found if _stops(e) and e.primitive.name != "stop_gradient")
    words = (described_within(e, outer) for e in steps)
    kinds = (f"a straight-through estimator of {x}" for x in words)
    return next(kinds, otherwise)


Look = Callable[[list[Any]], dict[Place, Seen]]


def _gives_the_same(objective: Objective, site: Site, leaf: int | None) -> bool:
    """Whether no number that a rule gives moves, at some of the moves."""
    look, given = _look(objective, {id(e) for e in site.equations}), _given(objective)
    here, there = look(given), [look(x) for x in _moved(objective, leaf)]
    return bool(here) and all(
        _stands_still(here[p].outputs, [one[p].outputs for one in there], [], objective)
        for p in here
    )


def _cancels(objective: Objective, site: Site, leaf: int | None) -> bool:
    """Whether what a stop_gradient gives is added to what moves, and the sum does not.

    However far behind it: whether it is behind is seen by moving what it gives.
    """
    assert objective.program is not None
    every = objective.program.moved_by(leaf)
    sums = {id(e) for e in every if e.primitive.name in SUMS}
    own = {id(e) for e in site.equations}
    look, given = _look(objective, sums | own), _given(objective)
    here = look(given)
    pushed = {
        place: [_pushed(np.asarray(y)) for y in seen.outputs]
        for place, seen in here.items()
        if place[0] in own and is_inexact(seen.outputs[0])
    }
    behind = _look(objective, sums | own, pushed)(given)
    there = [look(x) for x in _moved(objective, leaf)]
    return any(
        _differ(seen.inputs, behind[p].inputs)
        and all(
            _differ([x], [there[0][p].inputs[i]]) for i, x in enumerate(seen.inputs)
        )
        and _stands_still(
            seen.outputs, [one[p].outputs for one in there], seen.inputs, objective
        )
        for p, seen in here.items()
        if p[0] in sums and is_inexact(seen.outputs[0])
    )


def _pushed(value: Any) -> Any:
    return (value * (1 + PUSHED) + PUSHED).astype(value.dtype)


def _look(objective: Objective, chosen: set[int], put: Added | None = None) -> Look:
    """What chosen equations are given and give; with what is put in some places."""
    assert objective.program is not None
    closed = objective.program.closed

    def seen(inputs: list[Any], put: Added) -> dict[Place, Seen]:
        return planted(closed, inputs, chosen, put, put=lambda _, new: new)[1]

    run = compiled(seen, _given(objective), put or {})
    return lambda inputs: jax.device_get(run(inputs, put or {}))


def _given(objective: Objective) -> list[Any]:
    return [np.asarray(x) for x in objective.point.as_traced()]


def _moved(objective: Objective, leaf: int | None) -> Iterator[list[Any]]:
    """The inputs, moved a little in several ways."""
    point, given = objective.point, _given(objective)
    least = CLEAR * max(objective.own_precision_of(x) for x in point.leaves)
    for seed, size in enumerate(MOVES):
        there = nearby(point, (seed,), max(size, least))
        pairs = zip(there.leaves, given, strict=True)
        yield [
            new.values.astype(x.dtype) if leaf in (None, i) else x
            for i, (new, x) in enumerate(pairs)
        ]


def _differ(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether any numbers do."""
    return fingerprint(list(one)) != fingerprint(list(other))


def _stands_still(
    here: Sequence[Any],
    there: Sequence[Sequence[Any]],
    summed: Sequence[Any],
    objective: Objective,
) -> bool:
    """Whether every number is the same at one of some other places, but for rounding.

    summed: what they are the sums of.
    """
    for number, value in enumerate(here):
        if not is_inexact(value) or jnp.iscomplexobj(value):
            continue
        x = np.asarray(value, np.float64)
        sizes = [np.abs(np.asarray(one, np.float64)) for one in (value, *summed)]
        size = np.max(np.stack(np.broadcast_arrays(*sizes)), axis=0)
        others = [np.asarray(one[number], np.float64) for one in there]
        if not np.isfinite([x, *others]).all():
            return False
        apart = np.min([np.abs(x - other) for other in others], axis=0)
        if (apart > ULPS * eps(np.asarray(value).dtype) * size).any():
            return False
    return True


def only_ways(program: Program, leaf: Leaf) -> list[str]:
    """What stops its gradient on every way from a leaf to the loss; else nothing."""
    needed = program.needed.closed
    moving = [i == leaf.number for i in range(len(needed.jaxpr.invars))]
    found, outputs, _ = dependence(needed, moving, _carries)
    if any(outputs):
        return []
    outer = enclosing(needed)
    return list(dict.fromkeys(described_within(e, outer) for e in found if _stops(e)))


def roundings(program: Program, leaf: Leaf) -> list[str]:
    """What rounds values that a leaf moves and the loss is computed from."""
    closed = program.closed
    moved = {id(e) for e in program.moved_by(leaf.number)}
    found, _ = _valued(closed.jaxpr.eqns, closed.jaxpr.outvars)
    outer = enclosing(closed)
    rounded = (e for e in reversed(found) if id(e) in moved and has_no_slope(e))
    return list(dict.fromkeys(described_within(e, outer) for e in rounded))


def has_no_slope(equation: Any) -> bool:
    """Whether it gives steps: integers, or what is rounded; no booleans."""
    name, output = equation.primitive.name, equation.outvars[0].aval.dtype
    if name != "convert_element_type":
        return name in ROUNDING and output != np.bool_
    is_float = jnp.issubdtype(equation.invars[0].aval.dtype, np.inexact)
    return bool(is_float and not jnp.issubdtype(output, np.inexact))


def _carries(equation: Any, output: Any) -> bool:
    """Whether a derivative may flow to an output: not to integers, nor to steps."""
    is_step = equation.primitive.name in {*ROUNDING, "stop_gradient"}
    return not is_step and bool(jnp.issubdtype(output.aval.dtype, np.inexact))


def _stops(equation: Any) -> bool:
    """Whether a float goes in, and its derivative ends at some of what comes out."""
    if next(sub_jaxprs(equation), None) is not None:
        return False
    taken = any(jnp.issubdtype(v.aval.dtype, np.inexact) for v in equation.invars)
    return taken and not all(_carries(equation, v) for v in equation.outvars)


def _valued(
    equations: Sequence[Any], outputs: Sequence[Any], through_choices: bool = False
) -> tuple[list[Any], set[int]]:
    """The equations whose values reach some outputs, and the variables, by id.

    The last first; those inside a rule are left out. What only chooses between values,
    such as the sign that makes a NaN of a logarithm, does not reach them, unless it is
    asked for.
    """
    needed, found = set(map(id, outputs)), list[Any]()
    for equation in reversed(equations):
        if needed.isdisjoint(map(id, equation.outvars)):
            continue
        name, used = equation.primitive.name, equation.invars
        found.append(equation)
        if name in CHOOSING and not through_choices:
            used = used[1:]
        if name not in RULES:
            for inner in map(opened, sub_jaxprs(equation)):
                within, reached = _valued(inner.eqns, inner.outvars, through_choices)
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
