"""Whether the loss gives one value for one input: else nothing can be differenced."""

from collections.abc import Callable

import numpy as np

from jaxnet.input_checks import complaint
from jaxnet.precision import UNDERFLOW
from jaxnet.verification.context import Context
from jaxnet.verification.leaf.noise import measure_noise

ROUNDING = 1e3
"""How many ulps of itself the loss may vary: sums are taken in another order."""

NOISES = 100.0
"""How many times its noise, or what rounding inside may do, it may vary."""

IS_IT_RANDOM = ": is it random? let it draw from a key that stays"


def irreproducibility(context: Context) -> str:
    """Why the loss's values cannot be differenced; empty if they can."""
    objective, start = context.objective, context.start
    first, second = objective.given
    if repr(first) != repr(second):
        return f"the loss gives {first!r} and {second!r} for one input{IS_IT_RANDOM}"
    if not objective.traceable:
        first, second = objective.called_value(), objective.called_value()
        same = first == second
        found = f"the loss gives {first!r} and {second!r} for one input{IS_IT_RANDOM}"
        return "" if same else found
    if not objective.traces_alike():
        return "the loss is another program each time it is traced"
    rounding = ROUNDING * objective.precision * abs(start.value)
    apart = max(start.spread, start.change)
    if start.change > rounding or _is_beyond_noise(context, start.spread - rounding):
        found = f"the compiled loss gives values {apart:.3g} apart for one input"
        return found + IS_IT_RANDOM
    return _eager_and_jit(context, rounding)


def _eager_and_jit(context: Context, rounding: float) -> str:
    """Whether the loss is what jit makes of it, but for rounding and noise."""
    objective, value = context.objective, context.start.value
    eager, program = objective.given[0], objective.program
    if eager is None or program is None or not np.isfinite(eager):
        return ""
    rounding += ROUNDING * (program.precision_anywhere * abs(value) + UNDERFLOW)
    apart = abs(value - eager) - rounding
    if not _is_beyond_noise(context, apart):
        return ""
    apart = abs(objective.compiled_as_run() - eager) - rounding
    if _is_beyond_noise(context, apart - NOISES * objective.rounding_spread()):
        return f"the loss is {eager!r} as it is called and {value!r} with jit"
    return ""


def _is_beyond_noise(context: Context, apart: float) -> bool:
    """Whether values differ by more than the noise, which is measured if need be."""
    if apart <= 0:
        return False
    return apart > NOISES * measure_noise(context, context.point.leaves[0]).level


def check_finite(value: float, why: Callable[[], str]) -> None:
    """The loss at the point; `why` says who makes it not finite.

    Raises:
        ValueError: it is not finite.
    """
    if not np.isfinite(value):
        fix = why() or "move the point into the loss's domain"
        raise ValueError(complaint("loss(params)", "a finite value", str(value), fix))
