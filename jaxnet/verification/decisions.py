"""What switches at a kink: the program run on both sides, decision by decision.

A decision is what a primitive picks by comparing: the larger operand of `max`, the
branch of `select_n` or `cond`, the sign in `abs`, the order in `sort`. Where one
differs between x - h and x + h, it is named with its source line. This explains a
verdict and never makes one.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.verification.program import described, source_line, sub_jaxprs
from jaxnet.verification.rerun import run_equation

MOST_ROUNDS = 1000
"""How many rounds of a loop are followed."""


class Decision(NamedTuple):
    """An equation and what it decided."""

    equation: Any
    outcome: np.ndarray
    caller: Any = None

    def __str__(self) -> str:
        """The primitive, at its own source line or at that of the rule it is in."""
        return described(self.equation, self.caller)


def _larger(a: Any, b: Any) -> Any:
    return jnp.sign(a - b)


_OUTCOMES: dict[str, Callable[..., Any]] = {
    "max": _larger,
    "min": _larger,
    "abs": jnp.sign,
    "sign": jnp.sign,
    "floor": jnp.floor,
    "ceil": jnp.ceil,
    "round": jnp.round,
    "clamp": lambda low, x, high: jnp.sign(x - low) + jnp.sign(x - high),
    "select_n": lambda which, *cases: which,
    "sort": lambda *operands: jnp.argsort(operands[0], axis=-1),
    "argmax": lambda x: jnp.argsort(x, axis=None),
    "argmin": lambda x: jnp.argsort(x, axis=None),
    "reduce_max": lambda x: jnp.argmax(x),
    "reduce_min": lambda x: jnp.argmin(x),
    "top_k": lambda x: jnp.argsort(x, axis=-1),
    "gt": jnp.greater,
    "lt": jnp.less,
    "ge": jnp.greater_equal,
    "le": jnp.less_equal,
    "eq": jnp.equal,
    "ne": jnp.not_equal,
}


def switches(closed: Any, below: list[Any], above: list[Any]) -> list[str]:
    """The decisions that differ between two points, by primitive and source line."""
    first = decisions(closed, below)
    second = decisions(closed, above)
    found: list[str] = []
    for one, other in zip(first, second, strict=False):
        if one.equation is not other.equation:
            break
        if not np.array_equal(one.outcome, other.outcome):
            found.append(str(one))
    return list(dict.fromkeys(found))


def decisions(closed: Any, values: list[Any]) -> Iterator[Decision]:
    """Run a jaxpr on values, yielding each decision as it is made."""
    yield from _run(closed.jaxpr, closed.consts, values)


def _run(jaxpr: Any, consts: Any, values: Any, caller: Any = None) -> Any:
    """A generator of decisions that returns the outputs."""
    known = dict(
        zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *values], strict=True)
    )

    def read(variable: Any) -> Any:
        return variable.val if hasattr(variable, "val") else known[variable]

    for equation in jaxpr.eqns:
        inputs = [read(v) for v in equation.invars]
        name = equation.primitive.name
        if name in _OUTCOMES:
            outcome = _outcome(name, inputs)
            if outcome is not None:
                yield Decision(equation, outcome, caller)
        if name in _INSIDE:
            outputs = yield from _INSIDE[name](equation, inputs)
        else:
            outputs = yield from _plain(equation, inputs, caller)
        known.update(zip(equation.outvars, outputs, strict=True))
    return [read(v) for v in jaxpr.outvars]


def _outcome(name: str, inputs: list[Any]) -> np.ndarray | None:
    try:
        return np.asarray(_OUTCOMES[name](*inputs))
    except TypeError:
        return None


def _plain(equation: Any, inputs: list[Any], caller: Any) -> Any:
    """An equation without a program in it, or one that is called as a whole."""
    inner = list(sub_jaxprs(equation))
    same = len(inner) == 1 and len(inner[0].invars) == len(inputs)
    if (
        same
        and len(inner[0].outvars) == len(equation.outvars)
        and not inner[0].constvars
    ):
        consts = _consts(equation)
        own = equation if source_line(equation) else caller
        return (yield from _run(inner[0], consts, inputs, own))
    return run_equation(equation, inputs)


def _consts(equation: Any) -> Any:
    for value in equation.params.values():
        if hasattr(value, "consts") and hasattr(value, "jaxpr"):
            return value.consts
    return []


def _cond(equation: Any, inputs: list[Any]) -> Any:
    branches = equation.params["branches"]
    which = int(np.clip(int(inputs[0]), 0, len(branches) - 1))
    yield Decision(equation, np.asarray(which))
    return (yield from _run(branches[which].jaxpr, branches[which].consts, inputs[1:]))


def _while(equation: Any, inputs: list[Any]) -> Any:
    test, body = equation.params["cond_jaxpr"], equation.params["body_jaxpr"]
    n, m = equation.params["cond_nconsts"], equation.params["body_nconsts"]
    test_consts, body_consts, state = inputs[:n], inputs[n : n + m], inputs[n + m :]
    for _ in range(MOST_ROUNDS):
        (more,) = yield from _run(test.jaxpr, test.consts, [*test_consts, *state])
        yield Decision(equation, np.asarray(more))
        if not more:
            break
        state = yield from _run(body.jaxpr, body.consts, [*body_consts, *state])
    return state


def _scan(equation: Any, inputs: list[Any]) -> Any:
    params, body = equation.params, equation.params["jaxpr"]
    c = _same_rank(equation.outvars, body.jaxpr.outvars)
    n = _same_rank(equation.invars, body.jaxpr.invars) - c
    consts, carry, rows = inputs[:n], inputs[n : n + c], inputs[n + c :]
    length = params["length"]
    order = range(length - 1, -1, -1) if params["reverse"] else range(length)
    results: dict[int, list[Any]] = {}
    for i in order:
        values = [*consts, *carry, *(row[i] for row in rows)]
        outputs = yield from _run(body.jaxpr, body.consts, values)
        carry, results[i] = outputs[:c], outputs[c:]
    stacked = [
        jnp.stack(list(r))
        for r in zip(*(results[i] for i in range(length)), strict=True)
    ]
    return [*carry, *stacked]


def _same_rank(outside: list[Any], inside: list[Any]) -> int:
    """How many variables the loop takes whole; the rest it takes or gives by rows."""
    pairs = zip(outside, inside, strict=True)
    return sum(len(a.aval.shape) == len(b.aval.shape) for a, b in pairs)


_INSIDE: dict[str, Callable[[Any, list[Any]], Any]] = {
    "cond": _cond,
    "while": _while,
    "scan": _scan,
}


def at_kink(closed: Any, values: list[jax.Array], number: int, move: Any) -> list[str]:
    """The switches between `values` with leaf `number` moved by -move and +move."""
    sides = []
    for sign in (-1.0, 1.0):
        side = list(values)
        side[number] = side[number] + sign * move
        sides.append(side)
    try:
        return switches(closed, *sides)
    except Exception:
        return []
