"""A jaxpr, read: its equations, what runs inside them, and their dtypes."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from jaxnet import precision

WIDE = ("float64", "complex128", "int64", "uint64")
"""The dtypes of x64 mode."""

MOST_ROUNDS = 1000
"""Rounds of a while loop that are followed in Python, where an equation takes some
0.1 ms: a solver needs fewer, and an endless loop still ends within seconds."""

MOST_EXPANDED = 256
"""So many primitives that are written in terms of others are kept expanded."""

CALLS = (
    "jit",
    "closed_call",
    "eval_jaxpr",
    "call_hi_primitive",
    "remat2",
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vmap_call",
    "linear_call",
)
"""Primitives that run one jaxpr on their inputs."""

PRINTS = ("debug_callback", "debug_print")
"""Primitives that show a value and give none: run at 32 points, they print 32 times."""

CONTROL = ("cond", "while", "scan", "custom_linear_solve", "shard_map")
"""Primitives that are built anew around the jaxprs that they run."""


def is_literal(variable: Any) -> bool:
    """Whether an input of an equation is a number written into the program."""
    return hasattr(variable, "val")


def opened(jaxpr: Any) -> Any:
    """The jaxpr of a closed one."""
    return getattr(jaxpr, "jaxpr", jaxpr)


def sub_jaxprs(equation: Any) -> Iterator[Any]:
    """The jaxprs that an equation runs, closed ones with their constants."""
    if equation.primitive.name == "call_hi_primitive":
        yield _expanded(equation.params["_prim"])
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(opened(item), "eqns"):
                yield item


@lru_cache(maxsize=MOST_EXPANDED)
def _expanded(primitive: Any) -> Any:
    """What a primitive of JAX 0.12 that is written in terms of others runs.

    Where it takes 64 bits, it was called in x64 mode, whatever the mode is by now.
    """

    def expanded(*leaves: Any) -> Any:
        return primitive.expand(*jax.tree.unflatten(primitive.in_tree, leaves))

    avals = primitive.in_avals_flat
    is_wide = any(str(getattr(a, "dtype", "")) in WIDE for a in avals)
    with jax.enable_x64(True) if is_wide else nullcontext():
        return jax.make_jaxpr(expanded)(*avals)


def every_equation(jaxpr: Any) -> Iterator[Any]:
    """All equations, an outer one before those inside it."""
    for equation in opened(jaxpr).eqns:
        yield equation
        yield from inside(equation)


def inside(equation: Any) -> Iterator[Any]:
    """The equations that stand in one."""
    return (e for jaxpr in sub_jaxprs(equation) for e in every_equation(jaxpr))


def work(jaxpr: Any) -> int:
    """How many numbers a program computes; in a while loop, of its most rounds."""
    total = 0
    for equation in opened(jaxpr).eqns:
        inner = sum(map(work, sub_jaxprs(equation)))
        rounds = MOST_ROUNDS if equation.primitive.name == "while" else 1
        own = sum(getattr(v.aval, "size", 1) for v in equation.outvars)
        total += own + inner * equation.params.get("length", rounds)
    return total


def enclosing(jaxpr: Any) -> dict[int, Any]:
    """The equation in which another one stands, by the id of the inner one."""
    return {
        id(e): outer
        for outer in every_equation(jaxpr)
        for inner in sub_jaxprs(outer)
        for e in opened(inner).eqns
    }


def around(jaxpr: Any, chosen: Collection[int]) -> set[int]:
    """The equations, by id, in which any of the chosen ones stands."""
    found = set[int]()

    def holds(jaxpr: Any) -> bool:
        any_holds = False
        for equation in opened(jaxpr).eqns:
            if any([holds(inner) for inner in sub_jaxprs(equation)]):
                found.add(id(equation))
            any_holds |= id(equation) in chosen or id(equation) in found
        return any_holds

    holds(jaxpr)
    return found


def is_call(equation: Any) -> bool:
    """Whether it runs one jaxpr, if only on the platform that is here."""
    name = equation.primitive.name
    return name in CALLS or bool(equation.params.get("branches_platforms"))


@dataclass(frozen=True)
class Loop:
    """A scan or a while: its inputs are constants, what is carried, and rows.

    test, tests: the test of a while and how many constants it has; None, 0 for a scan.
    body, consts, carry: one round, and how many constants and carried values it has.
    """

    test: Any
    body: Any
    tests: int
    consts: int
    carry: int

    @classmethod
    def of(cls, equation: Any) -> "Loop":
        """Read the equation of a scan or a while."""
        p = equation.params
        if equation.primitive.name == "while":
            tests, consts = p["cond_nconsts"], p["body_nconsts"]
            carry = len(equation.outvars)
            return cls(p["cond_jaxpr"], p["body_jaxpr"], tests, consts, carry)
        body = opened(p["jaxpr"])  # the rows have one axis less inside
        carry = _same_rank(equation.outvars, body.outvars)
        consts = _same_rank(equation.invars, body.invars) - carry
        return cls(None, p["jaxpr"], 0, consts, carry)

    def split(self, inputs: Sequence[Any]) -> tuple[list[Any], ...]:
        """The constants of the test and of the body, what is carried, and the rows."""
        ends = [self.tests, self.tests + self.consts]
        ends.append(ends[1] + self.carry)
        starts = [0, *ends]
        return tuple(
            list(inputs[a:b]) for a, b in zip(starts, [*ends, None], strict=True)
        )


def _same_rank(outside: list[Any], inside: list[Any]) -> int:
    pairs = zip(outside, inside, strict=True)
    return sum(len(a.aval.shape) == len(b.aval.shape) for a, b in pairs)


def dtypes_of(equation: Any) -> list[Any]:
    """The floating types it gives. What calls and loops give, those inside them do."""
    if equation.primitive.name in {*CALLS, *CONTROL}:
        return []
    dtypes = [getattr(v.aval, "dtype", None) for v in equation.outvars]
    return [d for d in dtypes if d is not None and jnp.issubdtype(d, jnp.inexact)]


def coarsest(equations: Iterable[Any]) -> float:
    """ε of the coarsest floating type that equations give."""
    return max(map(_eps, equations), default=precision.DOUBLE)


def coarsest_of(equations: Sequence[Any]) -> tuple[Any, Any]:
    """The coarsest floating dtype, and the first equation that gives it."""
    equation = max(equations, key=_eps)
    return max(dtypes_of(equation), key=precision.eps), equation


def _eps(equation: Any) -> float:
    return max(map(precision.eps, dtypes_of(equation)), default=precision.DOUBLE)
