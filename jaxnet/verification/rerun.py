"""A traced function run again, equation by equation, with something changed in it."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnet.verification.program import Program, dependent, is_literal

Instead = Callable[[Any, list[Any]], list[Any] | None]
"""What is given for an equation of these inputs; None to run it as it is."""

ROUNDED_RUNS = 4
"""How often a function is run with its intermediate results off by a rounding."""


def run_equation(equation: Any, inputs: list[Any]) -> list[Any]:
    """The outputs of one equation."""
    params = equation.primitive.get_bind_params(equation.params)
    outputs = equation.primitive.bind(*inputs, **params)
    return list(outputs) if equation.primitive.multiple_results else [outputs]


def _run(jaxpr: Any, consts: Any, values: Any, instead: Instead) -> list[Any]:
    """Run a jaxpr, through jit, with what `instead` gives for an equation."""
    known = dict(
        zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *values], strict=True)
    )

    def read(variable: Any) -> Any:
        return variable.val if is_literal(variable) else known[variable]

    for equation in jaxpr.eqns:
        inputs = [read(v) for v in equation.invars]
        inner = (
            equation.params.get("jaxpr") if equation.primitive.name == "jit" else None
        )
        outputs = instead(equation, inputs)
        if outputs is None and inner is not None:
            outputs = _run(inner.jaxpr, inner.consts, inputs, instead)
        elif outputs is None:
            outputs = run_equation(equation, inputs)
        known.update(zip(equation.outvars, outputs, strict=True))
    return [read(v) for v in jaxpr.outvars]


def without_small_constants(program: Program, values: list[Any]) -> Any:
    """The function with each constant that guards a logarithm or division set to 0.

    Such a constant is a literal of at most 1e-4 added to something. Returns the value.
    """

    def unguarded(equation: Any, inputs: list[Any]) -> list[Any] | None:
        kept = _guards(equation)
        return None if kept is None else [inputs[kept]]

    return _run(program.closed.jaxpr, program.closed.consts, values, unguarded)[0]


GUARD = 1e-4


def guards(program: Program) -> list[Any]:
    """The additions of a small constant."""
    return [e for e in program.equations if _guards(e) is not None]


def solvers(program: Program) -> list[Any]:
    """The loops whose end depends on floating values: iterations to a tolerance."""
    return [
        e
        for e in program.equations
        if e.primitive.name == "while" and _ends_by_value(e.params["cond_jaxpr"].jaxpr)
    ]


def _ends_by_value(jaxpr: Any) -> bool:
    moving = [jnp.issubdtype(v.aval.dtype, np.floating) for v in jaxpr.invars]
    used = {v for e in dependent(jaxpr, moving) for v in e.outvars}
    return any(v in used for v in jaxpr.outvars if not is_literal(v))


def one_more_round(program: Program, values: list[Any]) -> Any:
    """The value with one round more in each loop that iterates to a tolerance."""
    ends = {id(e) for e in solvers(program)}

    def longer(equation: Any, inputs: list[Any]) -> list[Any] | None:
        if id(equation) not in ends:
            return None
        body, params = equation.params["body_jaxpr"], equation.params
        n, m = params["cond_nconsts"], params["body_nconsts"]
        state = run_equation(equation, inputs)
        return _run(body.jaxpr, body.consts, [*inputs[n : n + m], *state], longer)

    return _run(program.closed.jaxpr, program.closed.consts, values, longer)[0]


def _guards(equation: Any) -> int | None:
    if equation.primitive.name != "add":
        return None
    for position, variable in enumerate(equation.invars):
        scalar = is_literal(variable) and np.ndim(variable.val) == 0
        if scalar and 0 < abs(variable.val) <= GUARD:
            return 1 - position
    return None


def rounding_spread(program: Program, values: list[Any]) -> float:
    """How far rounding alone may move the value: each result off by an ulp, at random.

    Source: Parker, *Monte Carlo Arithmetic*, 1997.
    """
    random = np.random.default_rng(0)

    def rounded(equation: Any, inputs: list[Any]) -> list[Any] | None:
        if equation.primitive.name == "jit":
            return None
        return [_off_by_an_ulp(y, random) for y in run_equation(equation, inputs)]

    jaxpr, consts = program.closed.jaxpr, program.closed.consts
    runs = [_run(jaxpr, consts, values, rounded)[0] for _ in range(ROUNDED_RUNS)]
    return float(np.ptp([float(value) for value in runs]))


def _off_by_an_ulp(value: Any, random: np.random.Generator) -> Any:
    dtype = getattr(value, "dtype", None)
    if dtype is None or not jnp.issubdtype(dtype, np.floating):
        return value
    ulps = random.integers(-1, 2, np.shape(value)) * float(jnp.finfo(dtype).eps)
    return value * jnp.asarray(1 + ulps, dtype)
