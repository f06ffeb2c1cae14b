"""Rules where the program calls them: with its own inputs and cotangents, verified.

What a rule gives for them is held against differences of what it computes, as any
gradient is. So a rule is judged whose body JAX cannot differentiate: a kernel's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.jaxpr import bind
from jaxnet.verification.candidates.candidate import claims
from jaxnet.verification.context import Context
from jaxnet.verification.explanation.causes import WrongLeaf, causes
from jaxnet.verification.function.cotangents import Arrays, inner, random_like
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.function.planted import Place, Seen, planted
from jaxnet.verification.function.programs import compiled
from jaxnet.verification.function.same_bits import fingerprint
from jaxnet.verification.function.sites import Site
from jaxnet.verification.leaf.probes import probe_leaf
from jaxnet.verification.leaf.second_point import SecondPoint, nearby
from jaxnet.verification.leaf.verdict import judge_leaf
from jaxnet.verification.point import Point, floating_leaves, is_inexact, with_floating
from jaxnet.verification.report.leaf_report import LeafReport
from jaxnet.verification.report.verdict import Verdict

MOST_CALLS = 4
"""How many calls of a site are verified: the rounds of a loop are much alike."""


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a rule.

    inputs: what the program gives it.
    moving: the numbers of those that are floating and that the parameters move.
    cotangent: of its floating outputs: the program's own, or random where that is 0 or
        cannot be had.
    """

    equation: Any
    inputs: Arrays
    moving: tuple[int, ...]
    cotangent: Arrays

    def paired(self, values: Arrays) -> Any:
        """<cotangent, what it gives> for other values of the moving inputs."""
        inputs = list(self.inputs)
        for number, value in zip(self.moving, values, strict=True):
            inputs[number] = value
        pairs = zip(inputs, self.equation.invars, strict=True)
        outputs = bind(self.equation, [_as_taken(x, v) for x, v in pairs])
        return inner(self.cotangent, floating_leaves(outputs))


def calls(objective: Objective, chosen: Sequence[Site], seed: Any) -> list[list[Call]]:
    """The calls of each site, some of them where they are many.

    None of a site that stands in another one, a linear solve or a shard_map.
    """
    assert objective.program is not None
    closed, point = objective.program.closed, objective.point
    given = point.as_traced()
    pairs = zip(nearby(point, seed).leaves, given, strict=True)
    other = [leaf.values.astype(np.asarray(x).dtype) for leaf, x in pairs]
    every = {id(e): e for site in chosen for e in site.equations}

    def seen_at(inputs: Arrays) -> dict[Place, Seen]:
        return planted(closed, inputs, every, {})[1]

    def with_cotangents(inputs: Arrays) -> Any:
        shapes = jax.eval_shape(seen_at, inputs)
        zeros = jax.tree.map(
            lambda s: jnp.zeros(s.shape, s.dtype),
            {place: seen.outputs for place, seen in shapes.items()},
        )

        def loss(floats: Arrays) -> Any:
            added = with_floating(zeros, floats)
            outputs, seen = planted(closed, inputs, every, added)
            return outputs[0], seen

        value, pull, seen = jax.vjp(loss, floating_leaves(zeros), has_aux=True)
        pulled = pull(jnp.ones((), value.dtype))[0]
        return seen, with_floating(zeros, pulled)

    look = compiled(seen_at, given)
    moved = look(other)
    try:
        seen, cotangents = compiled(with_cotangents, given)(given)
    except Exception:  # the caller's rules, or a loop that has no reverse mode
        seen = look(given)
        cotangents = jax.tree.map(
            np.zeros_like, {place: one.outputs for place, one in seen.items()}
        )
    found = {
        place: list(_rounds(every[place[0]], one, moved[place], cotangents[place]))
        for place, one in seen.items()
    }
    return [
        some([c for p, each in found.items() if p[0] in ids for c in each])
        for ids in ({id(e) for e in site.equations} for site in chosen)
    ]


def verified(call: Call, context: Context) -> list[LeafReport]:
    """A report for each moving input, with the most telling cause; path: "input 0".

    An input that the rule gives 0 for, as differences do here and nearby, is right.
    """
    point = Point.of([np.asarray(call.inputs[i]) for i in call.moving])
    objective = Objective(call.paired, point)
    here = Context.of(objective, context.safety, context.seed, None)
    (candidate,) = claims(None, objective, here.autodiff)
    reports = list(candidate.faults)
    for leaf in point.leaves:
        if candidate.gives(leaf):
            probes = probe_leaf(here, leaf)
            report = judge_leaf(here, probes, candidate)
            if report.verdict is Verdict.UNINFORMATIVE:
                report = SecondPoint(here).judged(report, candidate, leaf)
            if report.verdict is Verdict.DISAGREE:
                wrong = WrongLeaf.of(here, probes, candidate, {}, report.worst_index)
                report = replace(report, cause=next(causes(wrong), report.cause))
            reports.append(report)
    numbers = {f"[{i}]": f"input {number}" for i, number in enumerate(call.moving)}
    return [replace(x, path=numbers.get(x.path, x.path)) for x in reports]


def _rounds(
    equation: Any, seen: Seen, moved: Seen, cotangents: Arrays
) -> Iterator[Call]:
    """One call for each round of the scans around it."""
    loops = np.ndim(seen.outputs[0]) - len(equation.outvars[0].aval.shape)
    moving = tuple(
        i
        for i, (x, y) in enumerate(zip(seen.inputs, moved.inputs, strict=True))
        if is_inexact(x) and fingerprint([x]) != fingerprint([y])
    )
    if not moving:
        return
    for round_ in np.ndindex(np.shape(seen.outputs[0])[:loops]):
        pairs = zip(seen.inputs, equation.invars, strict=True)
        inputs = [_at(x, round_, v) for x, v in pairs]
        outputs = [np.asarray(c)[round_] for c in cotangents]
        cotangent = floating_leaves(outputs)
        if not any(c.any() and np.isfinite(c).all() for c in cotangent):
            cotangent = random_like(cotangent, [0])
        given = map(jnp.asarray, inputs), map(jnp.asarray, cotangent)
        yield Call(equation, list(given[0]), moving, list(given[1]))


def _as_taken(value: Any, variable: Any) -> Any:
    """A float in the dtype that the equation takes, whatever the mode is."""
    dtype = variable.aval.dtype
    return jnp.asarray(value, dtype) if is_inexact(value) else value


def _at(value: Any, round_: tuple[int, ...], variable: Any) -> Any:
    """What one round is given; what no loop changes has no axis of rounds."""
    value = np.asarray(value)
    return value[round_] if value.ndim > len(variable.aval.shape) else value


def some(found: list[Call]) -> list[Call]:
    """As many as are verified, the first and the last among them."""
    chosen = np.linspace(0, len(found) - 1, min(len(found), MOST_CALLS))
    return [found[i] for i in chosen.astype(int)]
