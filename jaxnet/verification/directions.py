"""Directions in one leaf or in several, along which a derivative is taken.

A direction is v_i = (m_i / 64) u_i with whole multipliers m_i in -127…127 and u_i the
unit of the coordinate, a power of two: x + t v_i is then exact for the ladder's t.
Multipliers are drawn again when needed, and few are kept: a large leaf costs no memory.
"""

import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from types import ModuleType
from typing import Any

import numpy as np
from jaxtyping import Float, Int8

from jaxnet.array_types import Array
from jaxnet.verification.point import CHUNK, Leaf, Point, Reals, largest_size

BESIDE = 0.5
"""The standard deviation, in units of each coordinate, of a second point: far enough
to leave a plateau or a symmetry, near enough to stay within most domains."""

ONE = 64
"""The multiplier that stands for 1: halfway up what an int8 holds, in powers of two."""

FEW = 0.05
"""The share of coordinates whose units may be smaller than `small_unit`."""

SAMPLED = 10_000
"""From about so many coordinates it is known."""

KEPT = 8
"""Of how many directions the multipliers are kept, in leaves of up to a MiB of them."""

Multipliers = Int8[np.ndarray, "*shape"]
Wide = Float[Array, "..."] | np.float64


def units(values: Any, floor: Any, xp: ModuleType = np) -> Wide:
    """The unit in which each coordinate moves: a power of two near its size.

    xp: numpy, or jax.numpy within a traced program.
    """
    wide = xp.asarray(values, np.float64)
    return power_below(xp.maximum(xp.abs(wide), floor), xp)


def nearby(point: Point, seed: tuple[int, ...], size: float = BESIDE) -> Point:
    """Each coordinate moved by a normal number of `size` units."""
    random = np.random.default_rng([*seed, 1])

    def moved(leaf: Leaf) -> Leaf:
        steps = size * random.standard_normal(leaf.values.shape)
        return leaf.moved(np.asarray(units(leaf.values, leaf.floor) * steps))

    return replace(point, leaves=tuple(map(moved, point.leaves)))


def beside(
    point: Point,
    seed: tuple[int, ...],
    leaf: int | None = None,
    size: float = BESIDE,
) -> list[Any]:
    """The moving leaves of such a point in the caller's dtypes.

    leaf: the number of the one that is moved; None for all.
    """
    moved = nearby(point, seed, size).leaves
    return point.arrays(moved if leaf is None else [moved[leaf]])


def power_below(size: Wide, xp: ModuleType = np) -> Wide:
    """The power of two at or just below each positive number, exactly.

    The mantissa m of frexp lies in [½, 1), so size / 2m is a power of two and the
    division does not round.
    """
    powers: Wide = size / (2 * xp.frexp(size)[0])
    return powers


@dataclass(frozen=True)
class Direction:
    """Random multipliers on the coordinates start…stop of a leaf, less those left out.

    Signs are random, and so are magnitudes (64…127): equal and opposite errors do not
    cancel. They depend on the seed, the leaf's path and `number` alone.
    """

    leaf: Leaf
    seed: tuple[int, ...]
    number: int = 0
    start: int = 0
    stop: int | None = None
    left_out: tuple[int, ...] = ()

    def multipliers(self) -> Multipliers:
        """One whole number a coordinate."""
        name = zlib.crc32(self.leaf.path.encode())
        seed, size = (*self.seed, name, self.number), self.leaf.size
        draw = _drawn if size <= CHUNK else _drawn.__wrapped__
        drawn = draw(seed, size, self.start, self.stop, self.left_out)
        return drawn.reshape(self.leaf.values.shape)


@lru_cache(maxsize=KEPT)
def _drawn(
    seed: tuple[int, ...],
    size: int,
    start: int,
    stop: int | None,
    left_out: tuple[int, ...],
) -> Int8[np.ndarray, " size"]:
    """The multipliers of a leaf of so many coordinates, to be read."""
    random = np.random.default_rng(seed)
    drawn = random.integers(-ONE, ONE, size, np.int8)
    drawn += np.where(drawn < 0, np.int8(1 - ONE), np.int8(ONE))
    drawn[:start] = 0
    if stop is not None:
        drawn[stop:] = 0
    drawn[list(left_out)] = 0
    drawn.flags.writeable = False
    return drawn


@dataclass(frozen=True)
class Coordinate:
    """One coordinate by itself."""

    leaf: Leaf
    flat: int

    @property
    def index(self) -> tuple[int, ...]:
        """The caller's index of it."""
        return self.leaf.index(self.flat)

    def multipliers(self) -> Multipliers:
        """64, which stands for 1, at the coordinate."""
        values = np.zeros(self.leaf.size, np.int8)
        values[self.flat] = ONE
        return values.reshape(self.leaf.values.shape)


@dataclass(frozen=True, eq=False)
class GivenDirection:
    """Signs that are given: each coordinate moves by plus or minus its unit, or not."""

    leaf: Leaf
    signs: Reals

    def multipliers(self) -> Multipliers:
        """64 times the signs."""
        return np.asarray(ONE * self.signs, np.int8)


AnyDirection = Direction | Coordinate | GivenDirection


@dataclass(frozen=True, eq=False)
class Together:
    """Directions in several leaves, along which all move at once."""

    parts: tuple[AnyDirection, ...]


def parts_of(direction: AnyDirection | Together) -> tuple[AnyDirection, ...]:
    """The direction in each leaf that moves."""
    return direction.parts if isinstance(direction, Together) else (direction,)


def vector(direction: AnyDirection) -> Float[np.ndarray, "..."]:
    """The direction itself: (m_i / 64) u_i, in float64."""
    leaf = direction.leaf
    return direction.multipliers() / ONE * units(leaf.values, leaf.floor)


def step_size(direction: AnyDirection) -> float:
    """By how much a coordinate moves, so that derivatives are with respect to it."""
    if not isinstance(direction, Coordinate):
        return 1.0
    leaf = direction.leaf
    return float(units(leaf.values.reshape(-1)[direction.flat], leaf.floor))


def along(gradient: Reals, direction: AnyDirection) -> float:
    """Σ gᵢ vᵢ in float64."""
    if isinstance(direction, Coordinate):
        return float(gradient.reshape(-1)[direction.flat]) * step_size(direction)
    terms = _terms(gradient, direction.multipliers(), direction.leaf)
    return sum(float(np.sum(part)) for part in terms)


def norm_along(gradient: Reals, direction: AnyDirection) -> float:
    """√Σ (gᵢ vᵢ)²: what Σ gᵢ vᵢ is for signs that neither help nor cancel."""
    if isinstance(direction, Coordinate):
        return abs(along(gradient, direction))
    return _norm(gradient, direction.multipliers(), direction.leaf)


def norm(gradient: Reals, leaf: Leaf) -> float:
    """√Σ (gᵢ uᵢ)² over all coordinates, each in its unit."""
    return _norm(gradient, np.full(leaf.values.shape, ONE, np.int8), leaf)


def small_unit(leaf: Leaf) -> float:
    """The unit that one coordinate in twenty is below, or the smallest."""
    some = leaf.values.reshape(-1)[:: 1 + leaf.size // SAMPLED]
    low = np.quantile(np.abs(some.astype(np.float64)), FEW)
    return float(units(low, leaf.floor))


def _norm(gradient: Reals, multipliers: Multipliers, leaf: Leaf) -> float:
    largest = largest_size(gradient) * leaf.largest
    if not largest or not np.isfinite(largest):
        return largest
    parts = (part / largest for part in _terms(gradient, multipliers, leaf))
    return largest * float(sum(float(part @ part) for part in parts) ** 0.5)


def _terms(
    gradient: Reals, multipliers: Multipliers, leaf: Leaf
) -> Iterator[Float[np.ndarray, " chunk"]]:
    """gᵢ vᵢ in float64, chunk by chunk."""
    flat = [a.reshape(-1) for a in (gradient, multipliers, leaf.values)]
    for i in range(0, leaf.size, CHUNK):
        g, m, x = (a[i : i + CHUNK].astype(np.float64) for a in flat)
        yield g * (m / ONE) * units(x, leaf.floor)
