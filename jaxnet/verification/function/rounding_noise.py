"""How far rounding, or one more round of a solver, moves the value of a program."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnet.precision import eps
from jaxnet.verification.function.jaxpr import (
    CALLS,
    Hook,
    Loop,
    bind,
    dependent,
    evaluate,
)
from jaxnet.verification.function.program import Program

ROUNDED_RUNS = 4
"""How often a function is run with its intermediate results off by a rounding."""


def rounding_spread(program: Program, values: list[Any]) -> float:
    """How far rounding alone may move the value: each result off by an ulp, at random.

    Source: Parker, *Monte Carlo Arithmetic*, 1997.
    """
    random = np.random.default_rng(0)

    def rounded(equation: Any, inputs: list[Any]) -> list[Any] | None:
        if equation.primitive.name in CALLS:
            return None
        return [_off_by_an_ulp(y, random) for y in bind(equation, inputs)]

    runs = [evaluate(program.closed, values, rounded)[0] for _ in range(ROUNDED_RUNS)]
    return float(np.ptp([float(value) for value in runs]))


def solvers(program: Program) -> list[Any]:
    """The loops whose end depends on floating values: iterations to a tolerance."""
    return [
        e
        for e in program.equations
        if e.primitive.name == "while" and _ends_by_value(e.params["cond_jaxpr"].jaxpr)
    ]


def one_more_round(program: Program) -> Hook:
    """The hook that adds one round to each loop that iterates to a tolerance."""
    ends = {id(e) for e in solvers(program)}

    def longer(equation: Any, inputs: list[Any]) -> list[Any] | None:
        if id(equation) not in ends:
            return None if equation.primitive.name == "jit" else bind(equation, inputs)
        loop = Loop.of(equation)
        consts, state = loop.split(inputs)[1], bind(equation, inputs)
        return evaluate(loop.body, [*consts, *state], longer)

    return longer


def _ends_by_value(jaxpr: Any) -> bool:
    moving = [jnp.issubdtype(v.aval.dtype, np.floating) for v in jaxpr.invars]
    used = {v for e in dependent(jaxpr, moving) for v in e.outvars}
    return any(v in used for v in jaxpr.outvars if not hasattr(v, "val"))


def _off_by_an_ulp(value: Any, random: np.random.Generator) -> Any:
    dtype = getattr(value, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, np.floating):
        return value
    ulps = random.integers(-1, 2, np.shape(value)) * eps(dtype)
    return value * jnp.asarray(1 + ulps, dtype)
