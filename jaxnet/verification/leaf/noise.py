"""The noise of the objective as one leaf moves."""

import math
from dataclasses import dataclass, replace

import numpy as np

from jaxnet.differences.noise import is_flat, noise_level, noise_times
from jaxnet.precision import DOUBLE
from jaxnet.verification.context import Context
from jaxnet.verification.directions import Direction, Together
from jaxnet.verification.point import Leaf

CHAOTIC = 0.01
"""Above this share of the function's size, noise is no longer noise: it is chaos."""

HIDDEN = 8.0
"""How many times the noise that values show must rounding be to be hidden by stairs."""

MUCH = 1e4
"""How many ulps of the value are more than rounding makes of most programs: where no
finer step moves it by any, it is no noise."""

UNMEASURED = 1e-12
"""The noise of a function that cannot be moved at all, by its size."""


@dataclass(frozen=True)
class LeafNoise:
    """level: its standard deviation. reach: the largest value where it was measured.

    own_level: where each coordinate moves by its own size, however small that is.
    """

    level: float
    reach: float
    own_level: float

    def drowns(self, size: float) -> bool:
        """Whether nothing is seen beside it in values of this size."""
        return self.level > CHAOTIC * max(size, self.reach)


NO_NOISE = LeafNoise(0.0, 0.0, 0.0)
"""Of a loss that the leaf does not change."""


def measure_noise(context: Context, leaf: Leaf) -> LeafNoise:
    """Along one random direction; moved out of the domain, each by its own size."""
    if not context.objective.depends_on(leaf):
        return NO_NOISE
    found, finely = _measured(context, leaf), leaf.finely()
    own = _measured(context, finely) if leaf.has_tiny or found is None else None
    level, reach = found or own or (UNMEASURED * abs(context.start.value), 0.0)
    solver = context.objective.solver_noise
    own_level = own[0] if own else level
    return LeafNoise(max(level, solver), reach, max(own_level, solver))


def beside_rounding(context: Context, noise: LeafNoise) -> LeafNoise | None:
    """The noise with rounding that values do not show; None where they do.

    Nor is anything known where rounding leaves the domain: it moves a value to inf.
    """
    inside = context.rounding_inside
    if not HIDDEN * noise.level < inside < math.inf:
        return None
    return replace(noise, level=inside, own_level=max(inside, noise.own_level))


def measure_noise_together(context: Context, direction: Together) -> LeafNoise:
    """Along a direction through several leaves."""
    found = _along(context, direction, context.objective.precision)
    level, reach = found or (UNMEASURED * abs(context.start.value), 0.0)
    return LeafNoise(level, reach, level)


def _measured(context: Context, leaf: Leaf) -> tuple[float, float] | None:
    precision = context.objective.precision_of(leaf)
    return _along(context, Direction(leaf, context.seed), precision)


def _along(
    context: Context, direction: Direction | Together, precision: float
) -> tuple[float, float] | None:
    times = noise_times(precision)
    values = context.values_along(direction, times)
    level = noise_level(context.start.value, values, precision)
    if level is None:
        return None
    largest = float(np.max(np.abs(values[np.isfinite(values)]), initial=0.0))
    is_large = level > MUCH * DOUBLE * largest
    if is_large and is_flat(values) and context.objective.rounds_as_shown:
        level = min(level, HIDDEN * context.rounding_inside)
    return level, largest
