"""Chosen equations of a program: what they are given, and their outputs moved.

A program is evaluated with two additions: something is added to the outputs of chosen
equations, and their inputs and outputs are handed out. By the first, derivatives with
respect to what stands inside a program can be had, by differences or by autodiff.
"""

import operator
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxnet.jaxpr.evaluate import bind, evaluate
from jaxnet.jaxpr.reader import Loop, around, every_equation, inside, is_call

Place = tuple[int, int]
"""The id of an equation, and how often it was run before: a function under jit that is
called twice is one program."""


class Seen(NamedTuple):
    """What an equation was given and gave, with an axis for each loop around it.

    The devices of a shard_map are a loop, too.
    """

    inputs: list[Any]
    outputs: list[Any]


Added = Mapping[Place, Sequence[Any]]
"""What is added to the outputs at some places, shaped as what is seen of them; None for
nothing."""


def planted(
    closed: Any,
    inputs: Sequence[Any],
    chosen: Collection[int],
    added: Added,
    is_cut: bool = False,
    put: Callable[[Any, Any], Any] = operator.add,
) -> tuple[list[Any], dict[Place, Seen]]:
    """The outputs of a program, and what its chosen equations, by id, gave.

    is_cut: no derivative flows back through what a chosen one gave, but to what is
        added to it.
    put: how an output and what is planted there make another one.

    Of a while loop the first round is seen, and nothing is added to it. An equation
    that stands in another chosen one, in a linear solve, or in a shard_map that keeps
    track of what varies over its mesh (check_vma), is not seen.
    """
    entered = around(closed, chosen)

    def run(
        jaxpr: Any, values: Sequence[Any], added: Added, before: Counter[int]
    ) -> Any:
        """`before`: how often each equation was run before this part of the program."""
        seen, counts = dict[Place, Seen](), Counter(before)

        def hook(equation: Any, inputs: list[Any]) -> list[Any] | None:
            key, name = id(equation), equation.primitive.name
            if key in chosen:
                place = key, counts[key]
                outputs = bind(equation, inputs)
                if is_cut:
                    outputs = list(map(jax.lax.stop_gradient, outputs))
                if place in added:
                    pairs = zip(outputs, added[place], strict=True)
                    outputs = [y if more is None else put(y, more) for y, more in pairs]
                seen[place] = Seen(inputs, outputs)
                counts[key] += 1
                return outputs
            if key not in entered:
                return bind(equation, inputs)
            if is_call(equation):
                return None
            if name not in ENTERED or equation.params.get("check_vma"):
                return bind(equation, inputs)
            outputs, found = ENTERED[name](equation, inputs, run, added, counts)
            seen.update(found)
            counts.update(map(id, inside(equation)))
            return list(outputs)

        return evaluate(jaxpr, values, hook), seen

    outputs, seen = run(closed, inputs, added, Counter())
    return outputs, seen


def _scan(equation: Any, inputs: list[Any], run: Any, added: Added, before: Any) -> Any:
    loop, params = Loop.of(equation), equation.params
    _, consts, carry, rows = loop.split(inputs)
    within = _of_this(added, before, Counter(map(id, inside(equation))))

    def body(carry: list[Any], row: tuple[list[Any], Added]) -> Any:
        given, more = row
        outputs, seen = run(loop.body, [*consts, *carry, *given], more, before)
        return outputs[: loop.carry], (outputs[loop.carry :], seen)

    options = {name: params[name] for name in ("length", "reverse", "unroll")}
    carry, (stacked, seen) = jax.lax.scan(body, carry, (rows, within), **options)
    return [*carry, *stacked], seen


def _cond(equation: Any, inputs: list[Any], run: Any, added: Added, before: Any) -> Any:
    """What is seen in the branches that are not taken is 0."""
    index, *operands = inputs
    parts, counts = [], Counter(before)
    for branch in equation.params["branches"]:
        parts.append((branch, Counter(counts)))
        counts.update(id(e) for e in every_equation(branch))

    def taken(branch: Any, start: Any, *values: Any) -> Any:
        return run(branch, values, added, start)

    shapes = [
        jax.eval_shape(lambda *v, part=part: taken(*part, *v)[1], *operands)
        for part in parts
    ]

    def filled(part: Any, *values: Any) -> Any:
        outputs, seen = taken(*part, *values)
        rest = {place: one for each in shapes for place, one in each.items()}
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), rest)
        return outputs, {**zeros, **seen}

    branches = [lambda *v, part=part: filled(part, *v) for part in parts]
    return jax.lax.switch(index, branches, *operands)


def _while(
    equation: Any, inputs: list[Any], run: Any, added: Added, before: Any
) -> Any:
    loop = Loop.of(equation)
    _, consts, carry, _ = loop.split(inputs)
    _, seen = run(loop.body, [*consts, *carry], {}, before)
    return bind(equation, inputs), seen


def _shard_map(
    equation: Any, inputs: list[Any], run: Any, added: Added, before: Any
) -> Any:
    """Each device has a part of what is seen, and of what is added."""
    params, counts = equation.params, Counter(map(id, inside(equation)))
    within = _of_this(added, before, counts)
    each = PartitionSpec(params["mesh"].axis_names)

    def of_part(more: Added, *values: Any) -> Any:
        own = jax.tree.map(lambda x: x[0], more)
        outputs, seen = run(params["jaxpr"], values, own, before)
        return tuple(outputs), jax.tree.map(lambda x: jnp.asarray(x)[None], seen)

    outputs, seen = jax.shard_map(
        of_part,
        mesh=params["mesh"],
        in_specs=(each, *params["in_specs"]),
        out_specs=(params["out_specs"], each),
        axis_names=set(params["newly_manual_axes"]),
        check_vma=False,
    )(within, *inputs)
    return outputs, seen


def _of_this(added: Added, before: Any, counts: Any) -> Added:
    """What is added inside one equation."""
    return {
        (key, number): more
        for (key, number), more in added.items()
        if before[key] <= number < before[key] + counts[key]
    }


ENTERED = {"scan": _scan, "cond": _cond, "while": _while, "shard_map": _shard_map}
"""Primitives that are built anew around what is planted in them."""
