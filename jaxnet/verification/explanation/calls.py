"""Rules where the program calls them: with its own inputs and cotangents, verified.

What a rule gives for them is held against differences of what it computes, as any
gradient is. So a rule is judged whose body JAX cannot differentiate: a kernel's.
"""

import re
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from jaxnet.jaxpr.compiled import compiled
from jaxnet.jaxpr.evaluate import bind
from jaxnet.jaxpr.reader import enclosing
from jaxnet.precision import eps
from jaxnet.verification.candidates.candidate import claims
from jaxnet.verification.context import Context
from jaxnet.verification.directions import BESIDE, AnyDirection, beside, vector
from jaxnet.verification.explanation.causes import WrongLeaf, causes
from jaxnet.verification.function.callbacks import unless_raised
from jaxnet.verification.function.cotangents import Arrays, inner, random_like
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.function.once import once
from jaxnet.verification.function.planted import Place, Seen, planted
from jaxnet.verification.function.same_bits import fingerprint
from jaxnet.verification.function.sites import UNBOUND, Site
from jaxnet.verification.leaf.probes import probe_leaf
from jaxnet.verification.leaf.second_point import SecondPoint
from jaxnet.verification.leaf.verdict import judge_leaf
from jaxnet.verification.point import Point, floating_leaves, is_inexact, with_floating
from jaxnet.verification.report.leaf_report import LeafReport
from jaxnet.verification.report.verdict import Verdict

NAMED = r"\['(inputs?[^']*)'\]"
"""What a path makes of the name of an input."""

ANOTHER_VALUE = "its forward pass gives another value than the function"
"""By more than √ε of the largest: less may be rounding."""

WIDE = 2.0**-7
"""In units of a direction: how far apart are what a value is computed from in the
caller's own dtype, for a slope of two or three digits."""

SIZES = BESIDE, 2.0**-6, 2.0**-10
"""In units of the parameters: how far they are moved to see what moves with them."""

MOST_CALLS = 4
"""How many calls of a site are verified: the rounds of a loop are much alike."""


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a rule.

    inputs: what the program gives it.
    moving: the numbers of those that are floating and that the parameters move; of
        several that are one value of the program, the first: they move together.
    cotangent: of its floating outputs: the program's own, or random where that is 0 or
        cannot be had. is_used: whether it is the program's own.
    mesh: of the shard_map that it stands in; None for none.
    """

    equation: Any
    inputs: Arrays
    moving: tuple[int, ...]
    cotangent: Arrays
    is_used: bool
    mesh: Mesh | None

    def outputs(self, values: Arrays) -> Arrays:
        """The floats that it gives for other values of the moving inputs.

        Those of one device of a mesh, where all are given the same.
        """
        inputs = list(self.inputs)
        variables = self.equation.invars
        for number, value in zip(self.moving, values, strict=True):
            for i, variable in enumerate(variables):
                if variable is variables[number]:
                    inputs[i] = value
        taken = list(map(_as_taken, inputs, variables))
        if self.mesh is None:
            return floating_leaves(bind(self.equation, taken))

        def of_part(*inputs: Any) -> Arrays:
            return [jnp.asarray(y)[None] for y in bind(self.equation, inputs)]

        every = jax.shard_map(
            of_part,
            mesh=self.mesh,
            in_specs=PartitionSpec(),
            out_specs=PartitionSpec(self.mesh.axis_names),
            check_vma=False,
        )
        return floating_leaves([y[0] for y in every(*taken)])

    def name(self, number: int) -> str:
        """Of an input, among those that its caller gives; of one value, all of them."""
        variables, own = self.equation.invars, self.equation.params.get("num_consts", 0)
        given = variables[own:]
        same = [i for i, v in enumerate(given) if v is variables[number]]
        if sum(is_inexact(v.aval) for v in given) == 1:
            return "input"
        return f"input{'s' * bool(same[1:])} {' and '.join(map(str, same))}"


@dataclass(frozen=True)
class Calls:
    """How often a site is called, rounds of loops counted, and some of the calls."""

    count: int
    some: list[Call]


@dataclass(frozen=True, eq=False)
class Observed:
    """Some sites where a program calls them; what serves several leaves is kept."""

    context: Context
    chosen: tuple[Site, ...]

    @once
    def calls(self, leaf: int | None = None) -> list[Calls]:
        """The calls of each site that the parameters move, or that one leaf does.

        None of a site that `planted` does not see, or that sums over a mesh.
        """
        found, moved = dict[Place, Calls](), self._seen_beside(leaf)
        for place, one in self._at_point[0].items():
            found[place] = self._rounds(place, one, moved[place])
        ids = [{id(e) for e in site.equations} for site in self.chosen]
        return [_together([c for p, c in found.items() if p[0] in own]) for own in ids]

    @once
    def verified(self, call: Call) -> list[LeafReport]:
        """A report for each moving input of a call, with the most telling cause."""
        return verified(call, self.context)

    def _seen_beside(self, leaf: int | None) -> dict[Place, Seen]:
        """What is seen at another point, in the domain of what is called there."""
        point, seed = self.context.objective.point, self.context.seed
        for size in SIZES:
            there = beside(point, seed, leaf, size)
            seen = unless_raised(partial(self._seen_of, there))
            if seen is not None:
                return seen
        return self._seen_of(there)

    def _seen_of(self, inputs: Arrays) -> dict[Place, Seen]:
        return dict(jax.device_get(self._observe(inputs)))

    def _seen_at(self, inputs: Arrays) -> dict[Place, Seen]:
        return planted(self._closed, inputs, self._every, {})[1]

    def _with_cotangents(self, inputs: Arrays) -> Any:
        shapes = jax.eval_shape(self._seen_at, inputs)
        zeros = {place: list(map(_zeros, one.outputs)) for place, one in shapes.items()}

        def loss(floats: Arrays) -> Any:
            added = with_floating(zeros, floats)
            outputs, seen = planted(self._closed, inputs, self._every, added)
            return outputs[0], seen

        value, pull, seen = jax.vjp(loss, floating_leaves(zeros), has_aux=True)
        pulled = pull(jnp.ones((), value.dtype))[0]
        return seen, with_floating(zeros, pulled)

    @property
    def _closed(self) -> Any:
        return self.context.objective.traced.own.closed

    @cached_property
    def _every(self) -> dict[int, Any]:
        return {id(e): e for site in self.chosen for e in site.equations}

    @cached_property
    def _outer(self) -> dict[int, Any]:
        return enclosing(self._closed)

    @cached_property
    def _observe(self) -> Any:
        return compiled(self._seen_at, self.context.objective.point.as_traced())

    @cached_property
    def _at_point(self) -> tuple[dict[Place, Seen], dict[Place, Arrays]]:
        """What is seen there, and the cotangents of what each gives; 0 for none."""
        given = self.context.objective.point.as_traced()
        try:
            found = compiled(self._with_cotangents, given)(given)
        except Exception:  # the caller's rules, or a loop that has no reverse mode
            seen = self._observe(given)
            zeros = {p: list(map(_zeros, one.outputs)) for p, one in seen.items()}
            found = seen, zeros
        seen, cotangents = jax.device_get(found)  # of a mesh
        return seen, cotangents

    def _rounds(self, place: Place, seen: Seen, moved: Seen) -> Calls:
        """The rounds of the scans around an equation."""
        equation = self._every[place[0]]
        loops = np.ndim(seen.outputs[0]) - len(equation.outvars[0].aval.shape)
        moving = tuple(
            i
            for i, (x, y) in enumerate(zip(seen.inputs, moved.inputs, strict=True))
            if is_inexact(x) and np.size(x) and fingerprint([x]) != fingerprint([y])
        )
        first = {equation.invars[i]: i for i in reversed(moving)}
        moving = tuple(sorted(first.values()))
        is_sum = self._mesh(equation) is not None and _calls_a_collective(equation)
        is_seen = moving and not is_sum
        rounds = list(np.ndindex(np.shape(seen.outputs[0])[:loops])) if is_seen else []
        some_calls = [self._call(place, round_, moving) for round_ in some(rounds)]
        return Calls(len(rounds), some_calls)

    @once
    def _call(
        self, place: Place, round_: tuple[int, ...], moving: tuple[int, ...]
    ) -> Call:
        equation, (seen, cotangents) = self._every[place[0]], self._at_point
        pairs = zip(seen[place].inputs, equation.invars, strict=True)
        inputs = [_at(x, round_, v) for x, v in pairs]
        given = [c for c in cotangents[place] if c is not None]
        cotangent = [jnp.asarray(c)[round_] for c in given]
        is_used = any(bool(jnp.any(c != 0)) for c in cotangent)
        if not is_used or not all(bool(jnp.isfinite(c).all()) for c in cotangent):
            cotangent = list(map(jnp.asarray, random_like(cotangent, [0])))
        mesh = self._mesh(equation)
        return Call(equation, inputs, moving, cotangent, is_used, mesh)

    def _mesh(self, equation: Any) -> Mesh | None:
        """Of the shard_map that an equation stands in."""
        while id(equation) in self._outer:
            equation = self._outer[id(equation)]
            if equation.primitive.name == "shard_map":
                mesh: Mesh = equation.params["mesh"]
                return mesh
        return None


def slope_through(site: Site, objective: Objective, direction: AnyDirection) -> float:
    """How the loss moves along a direction by way of what a site gives, by differences.

    All else stays as it is at the point.
    """
    closed, given = objective.traced.own.closed, objective.point.as_traced()
    chosen, leaf = {id(e) for e in site.equations}, direction.leaf
    move = WIDE * vector(direction)

    def loss(there: Arrays, here: Arrays) -> Any:
        seen = planted(closed, there, chosen, {})[1]
        outputs = {place: one.outputs for place, one in seen.items()}
        return planted(closed, here, chosen, outputs, put=lambda _, new: new)[0][0]

    run, arrays = compiled(loss, given, given), objective.point.arrays
    above, below = (run(arrays([leaf.moved(m)]), given) for m in (move, -move))
    return (float(above) - float(below)) / (2 * WIDE)


def verified(call: Call, context: Context) -> list[LeafReport]:
    """A report for each moving input, with the most telling cause; path: its name.

    An input that the rule gives 0 for, as differences do here and nearby, is right.
    """
    names = [call.name(i) for i in call.moving]
    pairs = zip(names, call.moving, strict=True)
    point = Point.of({name: np.asarray(call.inputs[i]) for name, i in pairs})

    def loss(x: Any) -> Any:
        return inner(call.cotangent, call.outputs([x[name] for name in names]))

    objective = Objective(loss, point, whole=context.objective)
    here = Context.of(objective, context.safety, context.seed, None)
    (candidate,) = claims(None, objective, here.autodiff)
    reports, second_point = list(candidate.faults), SecondPoint(here)
    for leaf in point.leaves:
        if candidate.gives(leaf):
            probes = probe_leaf(here, leaf)
            report = judge_leaf(here, probes, candidate)
            if report.verdict is Verdict.UNINFORMATIVE:
                report = second_point.judged(report, candidate, leaf)
            if report.verdict is Verdict.DISAGREE:
                wrong = WrongLeaf.of(here, probes, candidate, {}, report.worst_index)
                report = replace(report, cause=next(causes(wrong), report.cause))
            reports.append(report)
    reports += _another_value(call, candidate.name)
    return [
        replace(
            report,
            path=re.sub(NAMED, r"\1", report.path),
            cause=re.sub(NAMED, r"\1", report.cause),
        )
        for report in reports
    ]


def _another_value(call: Call, name: str) -> list[LeafReport]:
    """A report if the rule's forward pass does not give what its function gives."""
    moved = [jnp.asarray(call.inputs[i]) for i in call.moving]
    try:
        by_function, by_rule = call.outputs(moved), jax.vjp(call.outputs, moved)[0]
    except Exception:  # the caller's rule: the reports of its inputs say so
        return []
    for one, other in zip(by_function, by_rule, strict=True):
        with np.errstate(invalid="ignore"):  # of infinities alike
            error = np.abs(np.asarray(one) - np.asarray(other))
        bound = eps(one.dtype) ** 0.5 * float(np.max(np.abs(one), initial=0.0))
        if error.size and np.max(error) > bound:
            index = np.unravel_index(int(np.argmax(error)), error.shape)
            where = tuple(int(i) for i in index)
            rest = name, error.shape, Verdict.DISAGREE, False, where
            values = float(np.real(other[where])), float(np.real(one[where]))
            return [LeafReport("output", *rest, *values, cause=ANOTHER_VALUE)]
    return []


def _calls_a_collective(equation: Any) -> bool:
    """Whether it, or its rule, needs the axis of a mesh.

    Then one device's call is not all of it.
    """

    def pulled(*inputs: Any) -> Any:
        floating = [i for i, x in enumerate(inputs) if is_inexact(x)]

        def of(moved: Arrays) -> Arrays:
            values = list(inputs)
            for i, value in zip(floating, moved, strict=True):
                values[i] = value
            return floating_leaves(bind(equation, values))

        outputs, pull = jax.vjp(of, [inputs[i] for i in floating])
        return pull(outputs)

    shapes = [jax.ShapeDtypeStruct(v.aval.shape, v.aval.dtype) for v in equation.invars]
    try:
        jax.eval_shape(pulled, *shapes)
    except Exception as error:  # the caller's rule
        return UNBOUND in str(error)
    return False


def _together(found: list[Calls]) -> Calls:
    every = [call for each in found for call in each.some]
    return Calls(sum(each.count for each in found), some(every))


def _zeros(output: Any) -> Any:
    """What is added to an output: nothing where that is no float."""
    is_float = jnp.issubdtype(output.dtype, np.inexact)
    return jnp.zeros(output.shape, output.dtype) if is_float else None


def some(found: list[Any]) -> list[Any]:
    """As many as are verified, the first and the last among them."""
    chosen = np.linspace(0, len(found) - 1, min(len(found), MOST_CALLS))
    return [found[i] for i in chosen.astype(int)]


def _as_taken(value: Any, variable: Any) -> Any:
    """A float in the dtype that the equation takes.

    Raises:
        TypeError: the mode does not have it.
    """
    if not is_inexact(value):
        return value
    dtype = variable.aval.dtype
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise TypeError(f"{dtype} needs jax_enable_x64")
    return jnp.asarray(value, dtype)


def _at(value: Any, round_: tuple[int, ...], variable: Any) -> Any:
    """What one round is given; what no loop changes has no axis of rounds."""
    value = jnp.asarray(value) if is_inexact(value) else value
    return value[round_] if np.ndim(value) > len(variable.aval.shape) else value
