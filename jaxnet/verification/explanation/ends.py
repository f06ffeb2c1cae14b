"""Where derivatives end on the way from a leaf to the loss, in words."""

from collections.abc import Sequence
from typing import Any

from jaxnet.jaxpr.dependence import dependence
from jaxnet.jaxpr.lines import described_once
from jaxnet.jaxpr.reader import is_call, opened, sub_jaxprs
from jaxnet.verification.function.program import Program
from jaxnet.verification.function.sites import RULES
from jaxnet.verification.function.steps import carries, ends_derivatives, has_no_slope
from jaxnet.verification.point import Leaf

CHOOSING = {"select_n", "cond"}
"""Primitives whose first input says which of the others is taken."""


def only_ways(program: Program, leaf: Leaf) -> list[str]:
    """What ends its gradient on every way from a leaf to the loss; else nothing."""
    needed = program.needed.closed
    moving = [i == leaf.number for i in range(len(needed.jaxpr.invars))]
    found, outputs, _ = dependence(needed, moving, carries)
    if any(outputs):
        return []
    return described_once(needed, filter(ends_derivatives, found))


def roundings(program: Program, leaf: Leaf) -> list[str]:
    """What rounds values that a leaf moves and the loss is computed from."""
    closed = program.closed
    moved = {id(e) for e in program.moved_by(leaf.number)}
    found = reaching(closed.jaxpr.eqns, closed.jaxpr.outvars)
    rounded = (e for e in reversed(found) if id(e) in moved and has_no_slope(e))
    return described_once(closed, rounded)


def reaching(
    equations: Sequence[Any], outputs: Sequence[Any], through_choices: bool = False
) -> list[Any]:
    """The equations whose values reach some outputs, the last first.

    Those inside a rule are left out. What only chooses between values, such as the
    sign that makes a NaN of a logarithm, does not reach them, unless it is asked for.
    """
    return _reaching(equations, outputs, through_choices)[0]


def _reaching(
    equations: Sequence[Any], outputs: Sequence[Any], through_choices: bool
) -> tuple[list[Any], set[int]]:
    """The same with the variables, by id."""
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
                rest = inner.eqns, inner.outvars, through_choices
                within, reached = _reaching(*rest)
                found += within
                if is_call(equation):
                    pairs = zip(used, inner.invars, strict=True)
                    used = [outer for outer, own in pairs if id(own) in reached]
        needed.update(map(id, used))
    return found, needed
