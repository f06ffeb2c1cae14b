"""A probe: one direction, and the derivative of the objective along it."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from jaxnet.differences.least_squares import FIT_TIMES, from_fit, ulp_that_hides
from jaxnet.differences.noise import ROUGH_TIMES, roughness
from jaxnet.differences.stairs import (
    COARSE_STAIRS,
    STAIR_TIMES,
    from_stairs,
    may_hide_stairs,
    slope_between,
    stair_width,
)
from jaxnet.differences.step_ladder import (
    FINER,
    NO_ESTIMATE,
    TIMES,
    DirectionalDerivative,
    from_ladder,
    unmoved,
)
from jaxnet.precision import SINGLE
from jaxnet.verification.context import Context
from jaxnet.verification.directions import AnyDirection, Coordinate, Direction
from jaxnet.verification.leaf.noise import LeafNoise
from jaxnet.verification.point import Leaf

PROBES = 2
"""Random directions through a larger leaf: an error orthogonal to one of them is not
orthogonal to the other."""

PROBES_ALONE = 3
"""The same where JAX can derive no gradient that would direct one more."""

COARSE = 0.01
"""A bound above this share of the loss says nothing of a slope. Where a solver's noise
leaves it so, a curve is fitted to many values: its steps are wide, and average that
out. Where a jump does, the slope between jumps is taken from elsewhere."""


class Probe(NamedTuple):
    """One direction, and the derivative along it."""

    direction: AnyDirection
    derivative: DirectionalDerivative


def probe(context: Context, noise: LeafNoise, direction: AnyDirection) -> Probe:
    """The derivative along one direction.

    Where the ladder does not converge, or meets a kink, a jump or a cusp, coordinates
    much smaller than their leaf may have been moved too far: it is climbed again with
    each moved by its own size. Where it does not converge then either, or meets a jump,
    the function may change within much less than the size of its argument, as
    sin(x - 1e8) does, or a pole may lie beside it: a finer ladder is tried.
    """
    found = _derivative(context, noise, direction)
    if _is_final(found) and found.is_smooth:
        return Probe(direction, _beside_tiny(direction, found))
    finely = direction.leaf.finely()
    if finely.floor != direction.leaf.floor:
        own = replace(direction, leaf=finely)
        closer = _derivative(context, replace(noise, level=noise.own_level), own)
        if _is_final(closer) and closer.is_smooth:
            return Probe(own, closer)
    is_final = _is_final(found) and not found.jump
    if is_final or noise.drowns(found.size):
        return Probe(direction, found)
    finer = _derivative(context, noise, direction, FINER)
    is_smooth = finer.is_smooth or not found.jump
    if finer.central.converged and is_smooth and not _contradicts(finer, found):
        return Probe(direction, finer)
    return Probe(direction, found)


def random_probes(
    context: Context, noise: LeafNoise, leaf: Leaf, left_out: tuple[int, ...] = ()
) -> tuple[Probe, ...]:
    """Probes along random directions through a leaf, less some coordinates."""
    return tuple(
        probe(context, noise, Direction(leaf, context.seed, i, left_out=left_out))
        for i in range(PROBES if context.objective.traceable else PROBES_ALONE)
    )


def suspicious_coordinates(
    context: Context,
    noise: LeafNoise,
    leaf: Leaf,
    is_suspicious: Callable[[Probe], bool],
    limit: int,
) -> tuple[int, ...]:
    """Coordinates whose probes are suspicious, by halving: O(log n) probes each."""
    parts, found = [(0, leaf.size)], list[int]()
    while parts and len(found) < limit:
        start, stop = parts.pop()
        part: AnyDirection = Coordinate(leaf, start)
        if stop - start > 1:
            part = Direction(leaf, context.seed, PROBES, start, stop)
        if not is_suspicious(probe(context, noise, part)):
            continue
        if stop - start == 1:
            found.append(start)
            continue
        middle = (start + stop) // 2
        parts += [(middle, stop), (start, middle)]
    return tuple(found)


def _contradicts(finer: DirectionalDerivative, found: DirectionalDerivative) -> bool:
    """Whether two scales show two smooth functions: one is a ripple, or noise."""
    apart = abs(finer.central.value - found.central.rests)
    return found.is_smooth and apart > finer.central.bound + found.central.bound


def _beside_tiny(
    direction: AnyDirection, found: DirectionalDerivative
) -> DirectionalDerivative:
    """With a bound that says what a coordinate smaller than every step leaves open.

    The slope there may be any between those of the two sides, as far as they are known.
    """
    if isinstance(direction, Coordinate):
        is_open = direction.leaf.is_tiny(direction.flat)
    else:
        is_open = direction.leaf.has_tiny
    if not is_open:
        return found
    apart = abs(found.one_sided.value) + found.one_sided.bound
    central = found.central._replace(bound=found.central.bound + apart)
    return found._replace(central=central)


def _is_final(found: DirectionalDerivative) -> bool:
    """Whether the function was followed to where it is smooth, or seen not to be."""
    seen = found.on_stairs or found.is_cusp or bool(found.jump)
    return found.central.converged or seen


def _stairs(
    context: Context, direction: AnyDirection, found: DirectionalDerivative
) -> tuple[float, float]:
    """How wide the stairs are, 0.0 for none; and the slope from one to the next.

    found: at the point, where it says nothing of that slope if a jump is near.
    """
    central = found.central
    is_known = central.converged and central.bound <= COARSE * found.size
    if context.stair and is_known:  # of all directions together
        return COARSE_STAIRS, central.value
    beside = context.values_along(direction, STAIR_TIMES)
    width = stair_width(beside, context.objective.precision_of(direction.leaf))
    if context.stair:
        width = max(width, COARSE_STAIRS)
    return width, central.value if is_known else slope_between(beside, width)


def _derivative(
    context: Context, noise: LeafNoise, direction: AnyDirection, scale: float = 1.0
) -> DirectionalDerivative:
    """By a ladder; by a fit to many values, where no two steps would agree."""
    objective = context.objective
    if not objective.depends_on(direction.leaf):
        return unmoved(abs(context.start.value))
    if objective.precision_of(direction.leaf) > SINGLE:  # too coarse for any ladder
        return _fitted(context, direction)
    values = context.values_along(direction, scale * TIMES)
    may_round = objective.may_round_unseen
    found = from_ladder(values, noise.level, scale, may_round=may_round)
    if may_round and may_hide_stairs(found):
        width, between = _stairs(context, direction, found)
        if width >= COARSE_STAIRS:
            values = context.values_along(direction, FIT_TIMES)
            return from_stairs(values, context.stair, between)
        if width:
            rough = roughness(context.values_along(direction, ROUGH_TIMES))
            noise = replace(noise, level=max(noise.level, rough))
            found = from_ladder(values, noise.level, scale, may_round=may_round)
    if objective.solver_noise and not found.central.bound <= COARSE * found.size:
        both = found, _fitted(context, direction)
        return min(both, key=lambda one: one.central.bound)
    if noise.drowns(found.size):
        nothing = NO_ESTIMATE._replace(value=found.central.value)
        return found._replace(central=nothing, one_sided=nothing, jump=0.0)
    return found


def _fitted(context: Context, direction: AnyDirection) -> DirectionalDerivative:
    values = context.values_along(direction, FIT_TIMES)
    precision = context.objective.precision_of(direction.leaf)
    return from_fit(values, ulp_that_hides(values, precision))
