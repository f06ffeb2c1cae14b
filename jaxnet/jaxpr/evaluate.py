"""A jaxpr, evaluated with a hook that sees every equation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from jaxnet.float64 import platform
from jaxnet.jaxpr.reader import (
    CALLS,
    CONTROL,
    MOST_ROUNDS,
    Loop,
    is_call,
    is_literal,
    opened,
    sub_jaxprs,
)

Hook = Callable[[Any, list[Any]], list[Any] | None]
"""Takes an equation and its inputs; gives its outputs, or None to evaluate it as it is.

It is asked before an equation is entered, so it can replace a whole loop or custom
rule. To keep an equation whole (a custom rule with its derivative), it gives `bind`.
"""

Run = Callable[[Any, Sequence[Any]], list[Any]]
"""Evaluates a jaxpr that stands in an equation."""

Chosen = Callable[[Any, Any], None]
"""Told an equation and what it chose: the branch of a cond, the test of a while."""


def bind(equation: Any, inputs: Sequence[Any], **params: Any) -> list[Any]:
    """The outputs of one equation, kept whole, with some of its parameters replaced."""
    primitive = equation.primitive
    bound = primitive.get_bind_params({**equation.params, **params})
    outputs = primitive.bind(*inputs, **bound)
    return list(outputs) if primitive.multiple_results else [outputs]


def detached(jaxpr: Any) -> Any:
    """A jaxpr that holds no constants: it takes them first.

    From JAX 0.12 on, a jaxpr holds what a closed one held before.
    """
    return jaxpr.with_consts(()) if hasattr(jaxpr, "with_consts") else opened(jaxpr)


def evaluate(
    jaxpr: Any,
    inputs: Sequence[Any],
    hook: Hook,
    *,
    consts: Sequence[Any] | None = None,
    in_python: bool = False,
    chosen: Chosen = lambda equation, choice: None,
) -> list[Any]:
    """The outputs of a jaxpr with what `hook` gives in place of its equations.

    The hook sees every equation, wherever it stands: calls, checkpoints, custom rules
    (what they compute, without their derivative), branches, loops, the solving part
    of a linear solve. Loops and branches are built anew with jax.lax, so that the
    result can be traced and differentiated. A value may be a pytree of one array and
    what the hook needs to know of it.

    consts: in place of the jaxpr's own constants.
    in_python: loops run round by round and a cond takes its one branch, for concrete
    inputs. `chosen` is told which; a while ends after MOST_ROUNDS.
    """
    entered = partial(_enter_in_python, chosen=chosen) if in_python else enter
    return _Evaluation(hook, entered).run(jaxpr, inputs, consts)


@dataclass(frozen=True)
class _Evaluation:
    """What is done with each equation, in every jaxpr within the one that is given.

    An object, as a function that calls itself would hold, till garbage is collected,
    what it was given: the caller's arrays, in the dtypes of this mode.
    """

    hook: Hook
    entered: Callable[[Any, Sequence[Any], Run], list[Any]]

    def run(
        self, jaxpr: Any, values: Sequence[Any], consts: Sequence[Any] | None = None
    ) -> list[Any]:
        from jax.extend.source_info_util import user_context  # 80 ms, as in `lines`

        own = getattr(jaxpr, "consts", ()) if consts is None else consts
        jaxpr = opened(jaxpr)
        variables = [*jaxpr.constvars, *jaxpr.invars]
        known = dict(zip(variables, [*own, *values], strict=True))
        for equation in jaxpr.eqns:
            given = _read(equation.invars, known)
            with user_context(equation.source_info.traceback), equation.ctx.manager:
                outputs = self.hook(equation, given)
                if outputs is None:
                    outputs = self.entered(equation, given, self.run)
            known.update(zip(equation.outvars, outputs, strict=True))
        return _read(jaxpr.outvars, known)


def _read(variables: Sequence[Any], known: dict[Any, Any]) -> list[Any]:
    return [v.val if is_literal(v) else known[v] for v in variables]


def enter(equation: Any, inputs: Sequence[Any], run: Run) -> list[Any]:
    """The outputs of an equation, with `run` for the jaxprs in it."""
    name = equation.primitive.name
    if name in CALLS:
        return run(next(sub_jaxprs(equation)), inputs)
    if is_call(equation):
        return run(_branch_of_platform(equation), inputs[1:])
    if name in CONTROL:
        return BUILT[name](equation, inputs, run)
    return bind(equation, inputs)


def _branch_of_platform(equation: Any) -> Any:
    platforms, here = equation.params["branches_platforms"], platform()
    fitting = [i for i, names in enumerate(platforms) if not names or here in names]
    return equation.params["branches"][fitting[0]]


def _cond(equation: Any, inputs: Sequence[Any], run: Run) -> list[Any]:
    (index,), operands = jax.tree.leaves(inputs[0]), inputs[1:]
    branches = [
        lambda *values, branch=branch: run(branch, values)
        for branch in equation.params["branches"]
    ]
    outputs: list[Any] = jax.lax.switch(index, branches, *operands)
    return outputs


def _while(equation: Any, inputs: Sequence[Any], run: Run) -> list[Any]:
    loop = Loop.of(equation)
    test_consts, consts, carry, _ = loop.split(inputs)
    return jax.lax.while_loop(
        lambda carry: jax.tree.leaves(run(loop.test, [*test_consts, *carry]))[0],
        lambda carry: run(loop.body, [*consts, *carry]),
        carry,
    )


def _scan(equation: Any, inputs: Sequence[Any], run: Run) -> list[Any]:
    loop, params = Loop.of(equation), equation.params
    _, consts, carry, rows = loop.split(inputs)

    def body(carry: list[Any], row: list[Any]) -> tuple[list[Any], list[Any]]:
        outputs = run(loop.body, [*consts, *carry, *row])
        return outputs[: loop.carry], outputs[loop.carry :]

    options = {name: params[name] for name in ("length", "reverse", "unroll")}
    carry, stacked = jax.lax.scan(body, carry, rows, **options)
    return [*carry, *stacked]


def _linear_solve(equation: Any, inputs: Sequence[Any], run: Run) -> list[Any]:
    """The solve with its rule for derivatives, and `run` in each of its four parts."""
    lengths, parts = equation.params["const_lengths"], equation.params["jaxprs"]
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    consts = [inputs[e - n : e] for e, n in zip(ends, lengths, strict=True)]
    b = list(inputs[ends[-1] :])
    runs: list[Callable[..., list[Any]]] = [
        lambda *values, part=part, own=own: run(part, [*own, *values[-1]])
        for part, own in zip(parts, consts, strict=True)
    ]
    matvec, _, solve, transposed = runs
    solution, auxiliary = jax.lax.custom_linear_solve(
        matvec,
        b,
        lambda _, rhs: _with_auxiliary(solve(rhs), len(b)),
        None
        if parts.transpose_solve is None
        else lambda _, rhs: _with_auxiliary(transposed(rhs), len(b)),
        has_aux=True,
    )
    return [*solution, *auxiliary]


def _with_auxiliary(outputs: list[Any], size: int) -> tuple[list[Any], list[Any]]:
    return outputs[:size], outputs[size:]


def _shard_map(equation: Any, inputs: Sequence[Any], run: Run) -> list[Any]:
    params = equation.params
    options = {name: params[name] for name in ("mesh", "in_specs", "out_specs")}
    return list(
        jax.shard_map(
            lambda *values: tuple(run(params["jaxpr"], values)),
            axis_names=set(params["newly_manual_axes"]),
            check_vma=params["check_vma"],
            **options,
        )(*inputs)
    )


BUILT: dict[str, Callable[[Any, Sequence[Any], Run], list[Any]]] = {
    "cond": _cond,
    "while": _while,
    "scan": _scan,
    "custom_linear_solve": _linear_solve,
    "shard_map": _shard_map,
}
"""Primitives that are built anew around what they run."""


def _enter_in_python(
    equation: Any, inputs: list[Any], run: Run, chosen: Chosen
) -> list[Any]:
    """`enter` for concrete inputs: rounds and branches as they are run."""
    name, params = equation.primitive.name, equation.params
    if name == "cond":
        last = len(params["branches"]) - 1
        which = min(max(int(inputs[0]), 0), last)
        chosen(equation, which)
        return run(params["branches"][which], inputs[1:])
    if name == "custom_linear_solve":
        lengths = params["const_lengths"]
        start, end = lengths.matvec + lengths.vecmat, sum(lengths)
        own = inputs[start : start + lengths.solve]
        return run(params["jaxprs"].solve, [*own, *inputs[end:]])
    if name == "scan":
        return _scan_in_python(equation, inputs, run)
    if name != "while":
        return enter(equation, inputs, run)
    loop = Loop.of(equation)
    test_consts, consts, carry, _ = loop.split(inputs)
    for _ in range(MOST_ROUNDS):
        more = bool(run(loop.test, [*test_consts, *carry])[0])
        chosen(equation, more)
        if not more:
            break
        carry = run(loop.body, [*consts, *carry])
    return carry


def _scan_in_python(equation: Any, inputs: list[Any], run: Run) -> list[Any]:
    loop, length = Loop.of(equation), equation.params["length"]
    _, consts, carry, rows = loop.split(inputs)
    order = range(length)[:: -1 if equation.params["reverse"] else 1]
    results: dict[int, list[Any]] = {}
    for i in order:
        outputs = run(loop.body, [*consts, *carry, *(row[i] for row in rows)])
        carry, results[i] = outputs[: loop.carry], outputs[loop.carry :]
    if length:
        columns = zip(*(results[i] for i in range(length)), strict=True)
        return [*carry, *(jnp.stack(list(column)) for column in columns)]
    stacked = equation.outvars[loop.carry :]
    return [*carry, *(jnp.zeros(v.aval.shape, v.aval.dtype) for v in stacked)]
