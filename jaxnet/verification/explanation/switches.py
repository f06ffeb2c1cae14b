"""What switches at a kink: the program run on both sides, decision by decision.

A decision is what a primitive picks by comparing: the larger operand of `max`, the
branch of `select_n` or `cond`, the sign in `abs`, the order in `sort`. Where one
differs between x - h and x + h, it is named with its source line.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

from jaxnet.jaxpr.evaluate import evaluate
from jaxnet.jaxpr.lines import described_once
from jaxnet.verification.directions import Coordinate, step_size
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.point import Leaf

KINK_STEP = 1e-6
"""How far from a kink, in units of the coordinate, the program is run on both sides:
hardly past another kink…"""

KINK_ULPS = 4.0
"""…and beyond the rounding of its comparisons."""

Outcome = Shaped[np.ndarray, "..."]


class Decision(NamedTuple):
    """An equation and what it decided."""

    equation: Any
    outcome: Outcome


def _larger(a: Any, b: Any) -> Any:
    return jnp.stack([a > b, a < b])


DECIDED: dict[str, Callable[..., Any]] = {
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
"""What each primitive decides, from its inputs."""


def switches_beside(objective: Objective, leaf: Leaf, flat: int) -> list[str]:
    """The decisions that differ on the two sides of one coordinate of a leaf."""
    move = np.zeros(leaf.values.shape)
    share = max(KINK_STEP, KINK_ULPS * objective.own_precision_of(leaf))
    move.reshape(-1)[flat] = share * step_size(Coordinate(leaf, flat))
    sides = (objective.point.arrays([leaf.moved(m)]) for m in (-move, move))
    return switches(objective.traced.own.closed, *sides)


def switches(closed: Any, below: list[Any], above: list[Any]) -> list[str]:
    """The decisions that differ between two points, by primitive and source line.

    A primitive within a rule that has no line of its own is given the rule's.
    """
    found = []
    sides = decisions(closed, below), decisions(closed, above)
    pairs = zip(*sides, strict=False)
    for one, other in pairs:
        if one.equation is not other.equation:
            break  # from here on, the two run different programs
        if not np.array_equal(one.outcome, other.outcome):
            found.append(one.equation)
    return described_once(closed, found)


def decisions(closed: Any, values: list[Any]) -> list[Decision]:
    """Run a jaxpr on values, keeping each decision as it is made."""
    made: list[Decision] = []

    def chosen(equation: Any, choice: Any) -> None:
        made.append(Decision(equation, np.asarray(choice)))

    def recorded(equation: Any, inputs: list[Any]) -> None:
        decided = DECIDED.get(equation.primitive.name)
        if decided is None or not _are_numbers(inputs):
            return
        chosen(equation, decided(*inputs))

    arrays = list(map(jnp.asarray, values))
    evaluate(closed, arrays, recorded, in_python=True, chosen=chosen)
    return made


def _are_numbers(inputs: list[Any]) -> bool:
    """Whether no input is a key, which cannot be compared."""
    dtypes = (getattr(x, "dtype", np.dtype(float)) for x in inputs)
    return not any(jnp.issubdtype(d, jax.dtypes.extended) for d in dtypes)
