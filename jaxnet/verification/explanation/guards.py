"""Small constants that guard a logarithm or division, and gradients that forget them.

Such a constant, 1e-7 in log(p + 1e-7), is a literal that is added to something.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.float64 import in_float64
from jaxnet.verification.explanation.causes import WrongLeaf
from jaxnet.verification.function.jaxpr import (
    bind,
    is_literal,
    source_line,
)
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.point import Reals

LARGEST = 1e-4
"""A larger constant is part of the function, not a guard."""

NEAR = 1e-2
"""How near the candidate must be to the gradient without guards, in units of what the
guards change."""


class Unguarded(NamedTuple):
    """The gradient of the loss without its guards, and the guards' equations."""

    gradient: list[Reals]
    guards: tuple[Any, ...]

    @classmethod
    def of(cls, objective: Objective) -> "Unguarded | None":
        """None where nothing is guarded."""
        program = objective.program
        guards = [] if program is None else list(filter(is_guard, program.equations))
        if program is None or not guards:
            return None

        def unguarded(equation: Any, inputs: list[Any]) -> list[Any] | None:
            kept = _kept(equation)
            if kept is not None:
                return [inputs[kept]]
            return None if equation.primitive.name == "jit" else bind(equation, inputs)

        loss = objective.rerun(unguarded)
        widened = objective.widen(lambda moved: jax.grad(loss)(moved))
        with in_float64():
            values = [jnp.asarray(leaf.wide) for leaf in objective.point.leaves]
            gradient = [np.asarray(g) for g in jax.jit(widened)(values)]
        return cls(gradient, tuple(guards))


def forgotten_guard(wrong: WrongLeaf, unguarded: Unguarded | None) -> str:
    """Whether the candidate is the gradient of the loss without its guards."""
    leaf = wrong.probes.leaf
    true = wrong.context.autodiff.array(leaf) if unguarded else None
    if unguarded is None or true is None:
        return ""
    without = unguarded.gradient[leaf.number]
    gap = np.max(np.abs(true - without))
    apart = np.max(np.abs(wrong.gradient - without))
    if not (np.isfinite(gap) and apart <= NEAR * gap):
        return ""
    equation = unguarded.guards[0]
    constant = next(float(v.val) for v in equation.invars if is_literal(v))
    return (
        f"the loss adds {constant:.3g} ({source_line(equation)}) and the candidate "
        f"is the gradient without it, error ~{constant:.0e}/p"
    )


def is_guard(equation: Any) -> bool:
    """Whether an equation adds a small constant."""
    return _kept(equation) is not None


def _kept(equation: Any) -> int | None:
    """Which input is left if the other is a small constant that is added to it."""
    if equation.primitive.name != "add":
        return None
    for position, variable in enumerate(equation.invars):
        scalar = is_literal(variable) and np.ndim(variable.val) == 0
        if scalar and 0 < abs(variable.val) <= LARGEST:
            return 1 - position
    return None
