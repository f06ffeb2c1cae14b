"""The gradient of the loss as it would be if parts of it were otherwise.

Each part has a switch that the gradient takes as an argument, so that all ways of
setting them are one program, compiled once.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from jaxnet.float64 import in_float64
from jaxnet.jaxpr.evaluate import Hook, bind, evaluate
from jaxnet.jaxpr.reader import around
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.function.sites import RULES, has_derivative
from jaxnet.verification.function.widen import Widened
from jaxnet.verification.point import Reals

Otherwise = Callable[[Any, Any, list[Any], Hook], list[Any]]
"""Takes an equation, its switch (1 as it is, 0 otherwise), its inputs, and the hook for
what stands within it; gives its outputs."""

Switches = Float[np.ndarray, " parts"]

GradientBySwitches = Callable[[Switches], list[Reals]]
"""Takes 1 or 0 for each part; gives an array for each moving leaf."""


def gradient_by_switches(
    objective: Objective, parts: Sequence[Iterable[Any]], otherwise: Otherwise
) -> GradientBySwitches:
    """The gradient in float64, of the caller's program with a switch for each part.

    parts: the equations that a switch belongs to, wherever they stand; but in a rule
        whose body has no derivative, which is kept.
    """
    closed, known = objective.traced.own.closed, objective.traced.constants
    numbers = {id(e): number for number, part in enumerate(parts) for e in part}
    entered = around(closed, numbers)
    is_kept = lru_cache(None)(lambda rule: not has_derivative(rule))

    def gradient(values: list[Any]) -> list[Any]:
        *moved, switches = values

        def switched(equation: Any, inputs: list[Any]) -> list[Any] | None:
            number = numbers.get(id(equation))
            if number is not None:
                return otherwise(equation, switches[number], inputs, switched)
            is_rule = equation.primitive.name in RULES
            enters = id(equation) in entered and not (is_rule and is_kept(equation))
            return None if enters else bind(equation, inputs)

        slopes: list[Any] = jax.grad(lambda m: evaluate(closed, m, switched)[0])(moved)
        return slopes

    given = [*objective.point.as_traced(), np.ones(len(parts), np.float32)]
    widened = Widened.of(gradient, given, known, is_rerun=True)

    def of(switches: Switches) -> list[Reals]:
        with in_float64():
            values = [jnp.asarray(leaf.wide) for leaf in objective.point.leaves]
            set_to = jnp.asarray(switches, np.float64)
            return [np.asarray(g) for g in widened.compiled([*values, set_to])]

    return of
