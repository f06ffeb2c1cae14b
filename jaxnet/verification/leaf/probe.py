"""A probe: one direction, and the derivative of the objective along it."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

from jaxnet.differences.least_squares import FIT_TIMES, from_fit
from jaxnet.differences.step_ladder import (
    FINER,
    NO_ESTIMATE,
    TIMES,
    DirectionalDerivative,
    from_ladder,
)
from jaxnet.precision import SINGLE
from jaxnet.verification.context import Context
from jaxnet.verification.directions import AnyDirection, Coordinate, Direction
from jaxnet.verification.leaf.noise import LeafNoise
from jaxnet.verification.point import Leaf

PROBES = 2
"""Random directions through a larger leaf: an error orthogonal to one of them is not
orthogonal to the other."""


class Probe(NamedTuple):
    """One direction, and the derivative along it."""

    direction: AnyDirection
    derivative: DirectionalDerivative


def probe(context: Context, noise: LeafNoise, direction: AnyDirection) -> Probe:
    """The derivative along one direction.

    Where the ladder does not converge, coordinates much smaller than their leaf may
    have been moved too far: it is climbed again with each moved by its own size. Where
    that does not converge either, the function changes within much less than the size
    of its argument, as sin(x - 1e8) does: a finer ladder is tried.
    """
    found = _derivative(context, noise, direction)
    if _is_final(noise, found):
        return Probe(direction, found)
    finely = direction.leaf.finely()
    if finely.floor != direction.leaf.floor:
        direction = replace(direction, leaf=finely)
        found = _derivative(context, noise, direction)
        if _is_final(noise, found):
            return Probe(direction, found)
    finer = _derivative(context, noise, direction, FINER)
    return Probe(direction, finer if finer.central.converged else found)


def random_probes(
    context: Context, noise: LeafNoise, leaf: Leaf, left_out: tuple[int, ...] = ()
) -> tuple[Probe, ...]:
    """Probes along random directions through a leaf, less some coordinates."""
    return tuple(
        probe(context, noise, Direction(leaf, context.seed, i, left_out=left_out))
        for i in range(PROBES)
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


def _is_final(noise: LeafNoise, found: DirectionalDerivative) -> bool:
    """Whether another ladder would say no more."""
    return found.central.converged or bool(found.jump) or noise.drowns(found.size)


def _derivative(
    context: Context, noise: LeafNoise, direction: AnyDirection, scale: float = 1.0
) -> DirectionalDerivative:
    objective = context.objective
    precision = objective.precision_of(direction.leaf)
    if precision > SINGLE:  # it rounds too coarsely for any ladder
        values = objective.values_along(direction, FIT_TIMES, context.point)
        return from_fit(values, precision)
    values = objective.values_along(direction, scale * TIMES, context.point)
    found = from_ladder(values, noise.level, scale)
    if noise.drowns(found.size):
        nothing = NO_ESTIMATE._replace(value=found.central.value)
        return found._replace(central=nothing, one_sided=nothing, jump=0.0)
    return found
