"""Looking at a leaf: which directions, and where in it something is wrong."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from jaxnet.verification.directions import AnyDirection, Coordinate, Direction
from jaxnet.verification.evaluation import Function
from jaxnet.verification.ladder import TIMES, Estimate, Slope, slope
from jaxnet.verification.leaves import Leaf, Parameters
from jaxnet.verification.noise import noise_level, noise_times

SMALL = 64
"""A leaf of at most so many entries is looked at by every coordinate."""

PROBES = 2
"""Random directions through a larger leaf."""

NOISY = 0.01
"""Above this share of the function's size, noise is no longer noise: it is chaos."""


UNMEASURED = 1e-12
"""The noise of a function that cannot be moved at all, by its size."""


class Look(NamedTuple):
    """One direction, and the derivative along it."""

    direction: AnyDirection
    slope: Slope


class Looker:
    """Looks along directions in the leaves of one point; measures noise once a leaf."""

    def __init__(
        self,
        function: Function,
        seed: tuple[int, ...],
        parameters: Parameters | None = None,
    ) -> None:
        self.function = function
        self.seed = seed
        self.parameters = parameters or function.parameters
        self.spread = 0.0
        self._start: float | None = None
        self._noise: dict[int, float] = {}

    def probes(self, number: int, left_out: tuple[int, ...] = ()) -> list[Look]:
        """Looks along random directions through a whole leaf."""
        leaf = self.parameters.leaves[number]
        directions = [
            Direction(leaf, self.seed, i, 0, None, left_out) for i in range(PROBES)
        ]
        return [self.look(number, direction) for direction in directions]

    def coordinates(self, number: int, flat: list[int] | range) -> list[Look]:
        """Looks by single coordinates."""
        leaf = self.parameters.leaves[number]
        return [self.look(number, Coordinate(leaf, i)) for i in flat]

    def look(self, number: int, direction: AnyDirection) -> Look:
        """The derivative along one direction.

        Where it does not settle, coordinates much smaller than their leaf may have been
        moved too far: it is looked at again with each moved by its own size.
        """
        look = self._look(number, direction)
        finely = direction.leaf.finely()
        if look.slope.central.settled or look.slope.jump or self._noisy(number, look):
            return look
        if finely.floor == direction.leaf.floor:
            return look
        return self._look(number, replace(direction, leaf=finely))

    def _noisy(self, number: int, look: Look) -> bool:
        return self.noise(number) > NOISY * look.slope.size

    def _look(self, number: int, direction: AnyDirection) -> Look:
        multipliers = direction.multipliers()
        noise = self.noise(number)
        point = self._with(number, direction.leaf)
        values = self.function.line(number, multipliers, TIMES, point)
        found = slope(values, noise)
        if self._noisy(number, Look(direction, found)):
            nothing = Estimate(found.central.value, np.inf, False)
            found = found._replace(central=nothing, gap=nothing, jump=0.0)
        return Look(direction, found)

    def search(
        self, number: int, suspicious: Callable[[Look], bool], limit: int
    ) -> list[int]:
        """Coordinates where `suspicious` looks end: O(log n) looks each, by halving."""
        leaf = self.parameters.leaves[number]
        parts, found = [(0, leaf.values.size)], list[int]()
        while parts and len(found) < limit:
            start, stop = parts.pop()
            if stop - start == 1:
                part: AnyDirection = Coordinate(leaf, start)
            else:
                part = Direction(leaf, self.seed, PROBES, start, stop)
            if not suspicious(self.look(number, part)):
                continue
            if stop - start == 1:
                found.append(start)
                continue
            middle = (start + stop) // 2
            parts += [(middle, stop), (start, middle)]
        return found

    def noise(self, number: int) -> float:
        """The standard deviation of the function's noise as a leaf moves."""
        if number not in self._noise:
            leaf = self.parameters.leaves[number]
            measured = self._measured(number, leaf)
            if measured is None:  # moved out of the domain: each by its own size
                measured = self._measured(number, leaf.finely())
            if measured is None:
                measured = UNMEASURED * abs(self.start(number))
            self._noise[number] = max(measured, self.function.solver_noise())
        return self._noise[number]

    def _measured(self, number: int, leaf: Leaf) -> float | None:
        precision = self.function.precision_of(number)
        multipliers = Direction(leaf, self.seed).multipliers()
        point = self._with(number, leaf)
        values = self.function.line(number, multipliers, noise_times(precision), point)
        return noise_level(self.start(number), values, precision)

    def _with(self, number: int, leaf: Leaf) -> Parameters:
        leaves = list(self.parameters.leaves)
        leaves[number] = leaf
        return replace(self.parameters, leaves=tuple(leaves))

    def start(self, number: int) -> float:
        """The function at the point, by the same program as all other values."""
        if self._start is None:
            still = np.zeros(self.parameters.leaves[number].values.shape, np.int8)
            times = np.zeros_like(TIMES)
            values = self.function.line(number, still, times, self.parameters)
            self._start = float(values[0])
            if np.isfinite(values).all():
                self.spread = float(np.ptp(values))
        return self._start


def is_small(leaf: Leaf, every_coordinate: bool | None) -> bool:
    """Whether every coordinate is looked at."""
    if every_coordinate is None:
        return leaf.values.size <= SMALL
    return every_coordinate
