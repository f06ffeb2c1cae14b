"""Small constants that guard a logarithm or division, and gradients that forget them.

Such a constant, 1e-7 in log(p + 1e-7), is a literal that is added to something.
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from jaxnet.jaxpr.evaluate import Hook
from jaxnet.jaxpr.lines import source_line
from jaxnet.jaxpr.reader import is_literal
from jaxnet.verification.explanation.causes import WrongLeaf
from jaxnet.verification.explanation.switched import gradient_by_switches
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.point import Reals

LARGEST = 1e-4
"""A larger constant is part of the function, not a guard."""

MOST_REMOVED = 4
"""So many guards are removed one by one."""

NEAR = 1e-2
"""How near the candidate must be to the gradient without guards, in units of what the
guards change."""


class Unguarded(NamedTuple):
    """The gradient of the loss without some of its guards, and their equations."""

    gradient: list[Reals]
    guards: tuple[Any, ...]

    @classmethod
    def of(cls, objective: Objective) -> "list[Unguarded]":
        """Without all guards; and where they are several, without each of some."""
        program = objective.program
        guards = [] if program is None else list(filter(is_guard, program.equations))
        if not guards:
            return []
        some = guards[:MOST_REMOVED] if len(guards) > 1 else []
        parts = [[guard] for guard in some] + [guards[len(some) :]]
        gradient = gradient_by_switches(objective, parts, _with_switch)
        without_one = (1 - np.eye(len(parts)))[: len(some)]
        found = [
            cls(gradient(one), (guard,))
            for one, guard in zip(without_one, some, strict=True)
        ]
        return [*found, cls(gradient(np.zeros(len(parts))), tuple(guards))]


def forgotten_guard(wrong: WrongLeaf, unguarded: list[Unguarded]) -> str:
    """Whether the candidate is the gradient of the loss without a guard.

    It is if the guard changes the gradient, and what it changes mends the candidate.
    """
    leaf = wrong.probes.leaf
    true = wrong.context.autodiff.array(leaf) if unguarded else None
    for found in unguarded if true is not None else ():
        change = true - found.gradient[leaf.number]
        gap = np.max(np.abs(change))
        apart = np.max(np.abs(wrong.gradient - found.gradient[leaf.number]))
        if not (0 < gap < np.inf and apart <= NEAR * gap):
            continue
        if not wrong.is_mended_by(wrong.gradient + change):
            continue
        equation = found.guards[0]
        constant = next(float(v.val) for v in equation.invars if is_literal(v))
        line = source_line(equation)
        return (
            f"the loss adds {constant:.3g}{f' ({line})' if line else ''} and the "
            f"candidate is the gradient without it, error ~{constant:.0e}/p"
        )
    return ""


def is_guard(equation: Any) -> bool:
    """Whether an equation adds a small constant."""
    return _kept(equation) is not None


def _with_switch(
    equation: Any, switch: Any, inputs: list[Any], within: Hook
) -> list[Any]:
    """What it adds, times the switch."""
    kept = _kept(equation)
    assert kept is not None
    number = jnp.asarray(inputs[1 - kept], inputs[kept].dtype)
    return [inputs[kept] + number * switch.astype(number.dtype)]


def _kept(equation: Any) -> int | None:
    """Which input is left if the other is a small constant that is added to it."""
    if equation.primitive.name != "add":
        return None
    for position, variable in enumerate(equation.invars):
        scalar = is_literal(variable) and np.ndim(variable.val) == 0
        if scalar and 0 < abs(variable.val) <= LARGEST:
            return 1 - position
    return None
