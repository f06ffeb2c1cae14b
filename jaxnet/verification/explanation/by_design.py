"""Derivatives that are not those of the values, and mostly meant: what they are."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.jaxpr.compiled import compiled
from jaxnet.jaxpr.lines import described_once
from jaxnet.jaxpr.reader import opened, sub_jaxprs
from jaxnet.precision import eps
from jaxnet.verification.directions import beside
from jaxnet.verification.explanation.ends import reaching
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.function.planted import Added, Place, Seen, planted
from jaxnet.verification.function.same_bits import fingerprint
from jaxnet.verification.function.sites import Site
from jaxnet.verification.function.steps import ends_derivatives
from jaxnet.verification.point import is_inexact

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


def straight_through(objective: Objective, site: Site, leaf: int | None = None) -> str:
    """Whether a derivative flows where no value moves; in words, with what rounds.

    A rule is such if nothing that it gives moves as its inputs do, and something in it
    rounds; a stop_gradient, if what moves is added to it and the sum does not.

    leaf: the number of what is moved; None for all.
    """
    program = objective.traced.own
    closed, stopped = program.closed, site.equations[0]
    if site.name:
        body = opened(next(sub_jaxprs(stopped)))
        found = reaching(body.eqns, body.outvars, through_choices=True)
    else:
        found = reaching(_before(closed, stopped), stopped.invars, True)
    ends = (e for e in found if e.primitive.name != "stop_gradient")
    rounds = described_once(closed, filter(ends_derivatives, ends))
    if program.may_not_end(leaf) or (site.name and not rounds):
        return ""
    is_one = _gives_the_same if site.name else _cancels
    try:
        if not is_one(objective, site, leaf):
            return ""
    except Exception:  # the caller's program, run equation by equation
        return ""
    if not rounds:
        return "a surrogate: its value does not move"
    return f"a straight-through estimator of {rounds[0]}"


Observe = Callable[[list[Any]], dict[Place, Seen]]


def _gives_the_same(objective: Objective, site: Site, leaf: int | None) -> bool:
    """Whether no number that a rule gives moves, at some of the moves."""
    observe = _observed_by(objective, {id(e) for e in site.equations})
    given = objective.point.arrays()
    here, there = observe(given), [observe(x) for x in _moved(objective, leaf)]
    return bool(here) and all(
        _stands_still(here[p].outputs, [one[p].outputs for one in there]) for p in here
    )


def _cancels(objective: Objective, site: Site, leaf: int | None) -> bool:
    """Whether what a stop_gradient gives is added to what moves, and the sum does not.

    However far behind it: whether it is behind is seen by moving what it gives.
    """
    every = objective.traced.own.moved_by(leaf)
    sums = {id(e) for e in every if e.primitive.name in SUMS}
    own = {id(e) for e in site.equations}
    observe, given = _observed_by(objective, sums | own), objective.point.arrays()
    here = observe(given)
    pushed = {
        place: [_pushed(np.asarray(y)) for y in seen.outputs]
        for place, seen in here.items()
        if place[0] in own and is_inexact(seen.outputs[0])
    }
    behind = _observed_by(objective, sums | own, pushed)(given)
    there = [observe(x) for x in _moved(objective, leaf)]
    return any(
        _differ(seen.inputs, behind[p].inputs)
        and all(
            _differ([x], [there[0][p].inputs[i]]) for i, x in enumerate(seen.inputs)
        )
        and _stands_still(seen.outputs, [one[p].outputs for one in there], seen.inputs)
        for p, seen in here.items()
        if p[0] in sums and is_inexact(seen.outputs[0])
    )


def _pushed(value: Any) -> Any:
    return (value * (1 + PUSHED) + PUSHED).astype(value.dtype)


def _observed_by(
    objective: Objective, chosen: set[int], put: Added | None = None
) -> Observe:
    """What chosen equations are given and give; with what is put in some places."""
    closed = objective.traced.own.closed

    def seen(inputs: list[Any], put: Added) -> dict[Place, Seen]:
        return planted(closed, inputs, chosen, put, put=lambda _, new: new)[1]

    run = compiled(seen, objective.point.arrays(), put or {})
    return lambda inputs: jax.device_get(run(inputs, put or {}))


def _moved(objective: Objective, leaf: int | None) -> Iterator[list[Any]]:
    """The inputs, moved a little in several ways."""
    point = objective.point
    least = CLEAR * max(objective.own_precision_of(x) for x in point.leaves)
    for seed, size in enumerate(MOVES):
        yield beside(point, (seed,), leaf, max(size, least))


def _differ(one: Sequence[Any], other: Sequence[Any]) -> bool:
    """Whether any numbers do."""
    return fingerprint(list(one)) != fingerprint(list(other))


def _stands_still(
    here: Sequence[Any],
    there: Sequence[Sequence[Any]],
    summed: Sequence[Any] = (),
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


def _before(jaxpr: Any, chosen: Any) -> Sequence[Any]:
    """The equations before one, in the jaxpr that it stands in."""
    equations: list[Any] = opened(jaxpr).eqns
    number = next((i for i, e in enumerate(equations) if e is chosen), None)
    if number is not None:
        return equations[:number]
    inner = [j for e in equations for j in sub_jaxprs(e)]
    return next(filter(None, (_before(j, chosen) for j in inner)), [])
