"""How far rounding, or one more round of a solver, moves what a program gives."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Inexact

from jaxnet.jaxpr.compiled import compiled
from jaxnet.jaxpr.dependence import ends_by_value
from jaxnet.jaxpr.evaluate import Hook, bind, evaluate
from jaxnet.jaxpr.reader import CALLS, Loop, opened
from jaxnet.precision import eps
from jaxnet.verification.function.program import Program

ROUNDED_RUNS = 4
"""How often a program is run with what it computes off by rounding."""

POOL = 2**16
"""How many random numbers one run has; they come again where it takes more."""

EXACT = {
    *("abs", "argmax", "argmin", "broadcast_in_dim", "ceil", "clamp", "complex"),
    *("concatenate", "conj", "copy", "device_put", "dynamic_slice", "eq", "floor"),
    *("dynamic_update_slice", "expand_dims", "gather", "ge", "gt", "imag", "is_finite"),
    *("le", "lt", "max", "min", "ne", "neg", "optimization_barrier", "pad", "real"),
    *("reduce_max", "reduce_min", "reshape", "rev", "round", "select_n", "sign"),
    *("slice", "sort", "split", "squeeze", "stop_gradient", "top_k", "transpose"),
}
"""Primitives that move or compare numbers and round none. What they are given is given
to others too: rounded for one and not for the other, x = max(x) would hold no more."""

Numbers = Inexact[np.ndarray, "..."]


def rounded_runs(
    closed: Any, values: list[Any], runs: int = ROUNDED_RUNS
) -> list[list[Numbers]]:
    """The outputs of runs in which all that is computed is off by rounding, at random.

    What an operation is given, as that tells what its result is summed from; a loop
    that ends by a value is left whole, as it might not end.
    Source: Parker, *Monte Carlo Arithmetic*, 1997.
    """
    random = np.random.default_rng(0)
    pools = random.uniform(-0.5, 0.5, (runs, POOL)).astype(np.float32)
    run = compiled(partial(_rounded, closed), values, pools[0])
    return [[np.asarray(y) for y in run(values, pool)] for pool in pools]


def _rounded(closed: Any, values: list[Any], pool: Any) -> list[Any]:
    drawn = _Drawn(pool)

    def rounded(equation: Any, inputs: list[Any]) -> list[Any] | None:
        name = equation.primitive.name
        ends_by_count = name == "while" and not ends_by_value(Loop.of(equation))
        if name in CALLS or name in ("scan", "cond") or ends_by_count:
            return None
        if name in EXACT or not inputs:
            return bind(equation, inputs)
        if name == "convert_element_type":
            return [drawn.off(y) for y in bind(equation, inputs)]
        width = np.sqrt(_summed(equation))
        return bind(equation, [drawn.off(x, width) for x in inputs])

    return evaluate(closed, values, rounded)


class _Drawn:
    """Random numbers from a pool, one after the other."""

    def __init__(self, pool: Any) -> None:
        self.pool, self.position = pool, 0

    def off(self, value: Any, width: float = 1.0) -> Any:
        """Each number off by up to half an ulp, `width` times."""
        dtype = getattr(value, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, np.inexact):
            return value
        count = int(np.size(value))
        if self.position + count > POOL:
            self.position = 0
        pool = self.pool[self.position : self.position + count]
        if count > POOL:
            pool = jnp.resize(self.pool, (count,))
        self.position += min(count, POOL)
        finer = dtype if np.dtype(dtype).itemsize >= 4 else np.dtype(np.float32)
        ulps = pool.reshape(np.shape(value)).astype(finer) * (width * eps(dtype))
        return (jnp.asarray(value, finer) * (1 + ulps)).astype(dtype)


def rounding_of(
    closed: Any, values: list[Any], runs: int = ROUNDED_RUNS
) -> list[float]:
    """The standard deviation of rounding in each output, of its worst entry."""
    by_output = zip(*rounded_runs(closed, values, runs), strict=True)
    with np.errstate(all="ignore"):
        wide = [np.stack(outputs).astype(np.complex128) for outputs in by_output]
        spreads = [np.std(outputs, axis=0) for outputs in wide]
        return [float(np.max(s[~np.isnan(s)], initial=0.0)) for s in spreads]


def _summed(equation: Any) -> float:
    """How many numbers each result is summed from, one after the other."""
    name, first = equation.primitive.name, equation.invars[0].aval
    if name == "dot_general":
        contracted = equation.params["dimension_numbers"][0][0]
        return float(np.prod([first.shape[axis] for axis in contracted]))
    if name in ("reduce_sum", "cumsum", "reduce_prod"):
        params = equation.params
        axes = params["axes"] if "axes" in params else (params["axis"],)
        return float(np.prod([first.shape[axis] for axis in axes]))
    return 1.0


def solvers(program: Program) -> list[Any]:
    """The loops that end by floats that inputs move: iterations to a tolerance.

    A time that grows by a step until it is large enough is a count.
    """
    moved = {id(e) for e in program.equations}
    loops = [e for e in program.equations if e.primitive.name == "while"]
    return [
        e for e in loops if ends_by_value(loop := Loop.of(e)) and _is_moved(loop, moved)
    ]


def _is_moved(loop: Loop, moved: set[int]) -> bool:
    """Whether the end of a while loop is found by an equation that inputs move."""
    test, body = opened(loop.test), opened(loop.body)
    tested, found = test.outvars[0], test.eqns
    if tested in test.invars[loop.tests :]:  # a flag
        tested = body.outvars[test.invars.index(tested) - loop.tests]
        found = body.eqns
    return any(id(e) in moved for e in found if tested in e.outvars)


def more_rounds(program: Program, rounds: int) -> Hook:
    """The hook that adds rounds to each loop that iterates to a tolerance."""
    ends = {id(e) for e in solvers(program)}

    def longer(equation: Any, inputs: list[Any]) -> list[Any] | None:
        if id(equation) not in ends:
            return None
        loop = Loop.of(equation)
        consts, state = loop.split(inputs)[1], bind(equation, inputs)

        def one_more(_: Any, state: list[Any]) -> list[Any]:
            return evaluate(loop.body, [*consts, *state], longer)

        further: list[Any] = jax.lax.fori_loop(0, rounds, one_more, state)
        return further

    return longer
