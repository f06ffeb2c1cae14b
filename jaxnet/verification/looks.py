"""Looking at a leaf: which directions, and where in it something is wrong."""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np

from jaxnet.verification.directions import AnyDirection, Coordinate, Direction
from jaxnet.verification.evaluation import Function
from jaxnet.verification.fit import FIT_TIMES, fitted_slope
from jaxnet.verification.ladder import SHRINK, TIMES, Estimate, Slope, slope
from jaxnet.verification.leaves import Leaf, Parameters
from jaxnet.verification.noise import noise_level, noise_times
from jaxnet.verification.program import calls_out

SMALL = 64
"""A leaf of at most so many entries is looked at by every coordinate."""

PROBES = 2
"""Random directions through a larger leaf."""

SINGLE = float(np.finfo(np.float32).eps)
"""A function that rounds more coarsely is fitted, not differenced."""

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
        self.spread, self.change = 0.0, 0.0
        """How far values at the point itself lie apart, in one run and in two."""
        self._start: float | None = None
        self._noise: dict[int, float] = {}
        self._reach: dict[int, float] = {}
        """The largest value seen where the noise was measured, by leaf."""

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
        moved too far: it is looked at again with each moved by its own size. Where that
        does not settle either, the function changes within much less than the size of
        its argument, as sin(x - 1e8) does: a finer ladder is tried.
        """
        look = self._look(number, direction)
        finely = direction.leaf.finely()
        if self._is_final(number, look):
            return look
        if finely.floor != direction.leaf.floor:
            look = self._look(number, replace(direction, leaf=finely))
            if self._is_final(number, look):
                return look
        finer = self._look(number, direction, SHRINK)
        return finer if finer.slope.central.settled else look

    def _is_final(self, number: int, look: Look) -> bool:
        slope = look.slope
        return (
            slope.central.settled or bool(slope.jump) or self._noisy(number, slope.size)
        )

    def _noisy(self, number: int, size: float) -> bool:
        return self.noise(number) > NOISY * max(size, self._reach[number])

    def _look(self, number: int, direction: AnyDirection, shrink: float = 1.0) -> Look:
        multipliers = direction.multipliers()
        point = self._with(number, direction.leaf)
        precision = self.function.precision_of(number)
        if precision > SINGLE:
            values = self.function.line(number, multipliers, FIT_TIMES, point)
            return Look(direction, fitted_slope(values, precision))
        noise = self.noise(number)
        values = self.function.line(number, multipliers, shrink * TIMES, point)
        found = slope(values, noise, shrink)
        if self._noisy(number, found.size):
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
        finite = np.abs(values[np.isfinite(values)])
        self._reach[number] = float(np.max(finite, initial=0.0))
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
            again, program = values, self.function.program
            if program is not None and calls_out(program):
                again = self.function.line(number, still, times, self.parameters)
            self._start = float(values[0])
            if np.isfinite([values, again]).all():
                self.spread = float(np.ptp(values))
                self.change = float(np.max(np.abs(values - again)))
        return self._start


def is_small(leaf: Leaf, every_coordinate: bool | None) -> bool:
    """Whether every coordinate is looked at."""
    if every_coordinate is None:
        return leaf.values.size <= SMALL
    return every_coordinate
