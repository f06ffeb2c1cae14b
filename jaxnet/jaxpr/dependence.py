"""What of a jaxpr depends on inputs that move."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp

from jaxnet.jaxpr.reader import Loop, is_literal, opened, sub_jaxprs

Carries = Callable[[Any, Any], bool]
"""Asked of an equation and one of its outputs: whether that moves with its inputs."""


class Dependence(NamedTuple):
    """The equations and the outputs that depend on what moves; whether a loop's end."""

    equations: list[Any]
    outputs: list[bool]
    ends: bool = False


def _always(equation: Any, output: Any) -> bool:
    return True


def dependent(jaxpr: Any, moving: Sequence[bool]) -> list[Any]:
    """The equations that depend on the moving inputs, an outer one before its inner."""
    return dependence(jaxpr, moving).equations


def dependence(
    jaxpr: Any, moving: Sequence[bool], carries: Carries = _always
) -> Dependence:
    """What depends on the moving inputs, through outputs that carry it on."""
    jaxpr = opened(jaxpr)
    known = {v for v, moves in zip(jaxpr.invars, moving, strict=True) if moves}
    found = []
    for equation in jaxpr.eqns:
        inputs = _are_known(equation.invars, known)
        if any(inputs):
            inner, outputs, _ = dependence_within(equation, inputs, carries)
            found += [equation, *inner]
            pairs = zip(equation.outvars, outputs, strict=True)
            known |= {v for v, m in pairs if m and carries(equation, v)}
    return Dependence(found, _are_known(jaxpr.outvars, known))


def _are_known(variables: Sequence[Any], known: set[Any]) -> list[bool]:
    return [not is_literal(v) and v in known for v in variables]


def dependence_within(
    equation: Any, moving: Sequence[bool], carries: Carries = _always
) -> Dependence:
    """The same of one equation.

    All that it runs depends, unless its operands are known to line up.
    """
    inner = list(sub_jaxprs(equation))
    if equation.primitive.name in ("scan", "while"):
        return _dependence_of_loop(Loop.of(equation), moving, carries)
    if equation.primitive.name == "cond":
        parts = [dependence(branch, moving[1:], carries) for branch in inner]
        either = [any(m) for m in zip(*(p.outputs for p in parts), strict=True)]
        outputs = [moving[0] or m for m in either]
        return Dependence([e for part in parts for e in part.equations], outputs)
    if len(inner) == 1:
        body = opened(inner[0])
        sizes = len(body.invars), len(body.outvars)
        if sizes == (len(moving), len(equation.outvars)):
            return dependence(body, moving, carries)
    found = [e for j in inner for e in dependent(j, [True] * len(opened(j).invars))]
    return Dependence(found, [True] * len(equation.outvars))


def _dependence_of_loop(
    loop: Loop, moving: Sequence[bool], carries: Carries = _always
) -> Dependence:
    """What depends once a further round makes no more of the carried values depend."""
    test_consts, consts, carry, rows = loop.split(moving)
    while True:
        tested = Dependence([], [False])
        if loop.test is not None:
            tested = dependence(loop.test, [*test_consts, *carry], carries)
        inside = [*consts, *carry, *rows]
        found, outputs, _ = dependence(loop.body, inside, carries)
        after, stacked = outputs[: len(carry)], outputs[len(carry) :]
        more = tested.outputs[0]
        grown = [a or b or more for a, b in zip(carry, after, strict=True)]
        if grown == carry:
            found = [*tested.equations, *found]
            return Dependence(found, [*carry, *stacked], more)
        carry = grown


def ends_by_value(loop: Loop) -> bool:
    """Whether the end of a while loop depends on floats: it may be found in one round,
    carried as a flag, and tested before the next.
    """
    given = [*opened(loop.test).invars[: loop.tests], *opened(loop.body).invars]
    moving = [jnp.issubdtype(v.aval.dtype, jnp.floating) for v in given]
    return _dependence_of_loop(loop, moving).ends
