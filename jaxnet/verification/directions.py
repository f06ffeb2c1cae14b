"""Directions in one leaf along which a derivative is looked at.

A direction is v_i = (m_i / 64) s_i with whole multipliers m_i in -127…127 and s_i a
power of two near the size of the coordinate: t v_i is then exact for the ladder's t.
Multipliers are drawn again when needed, never kept: a large leaf costs no memory.
"""

import zlib
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int8

from jaxnet.verification.leaves import CHUNK, Leaf, largest_size, units

ONE = 64
"""The multiplier that stands for 1."""

Multipliers = Int8[np.ndarray, "*shape"]


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
        random = np.random.default_rng([*self.seed, name, self.number])
        drawn = random.integers(-ONE, ONE, self.leaf.values.size, np.int8)
        drawn += np.where(drawn < 0, np.int8(1 - ONE), np.int8(ONE))
        drawn[: self.start] = 0
        if self.stop is not None:
            drawn[self.stop :] = 0
        drawn[list(self.left_out)] = 0
        return drawn.reshape(self.leaf.values.shape)

    def part(self, start: int, stop: int) -> "Direction":
        """The same multipliers on fewer coordinates."""
        return replace(self, start=start, stop=stop)

    def without(self, left_out: tuple[int, ...]) -> "Direction":
        """The same multipliers, 0 on some coordinates."""
        return replace(self, left_out=left_out)


@dataclass(frozen=True)
class Coordinate:
    """One coordinate by itself."""

    leaf: Leaf
    flat: int

    def multipliers(self) -> Multipliers:
        """64, which stands for 1, at the coordinate."""
        values = np.zeros(self.leaf.values.size, np.int8)
        values[self.flat] = ONE
        return values.reshape(self.leaf.values.shape)


@dataclass(frozen=True, eq=False)
class Chosen:
    """Multipliers that are given."""

    leaf: Leaf
    given: Multipliers

    def multipliers(self) -> Multipliers:
        """As given."""
        return self.given


AnyDirection = Direction | Coordinate | Chosen


def along(gradient: np.ndarray, direction: AnyDirection) -> float:
    """Σ gᵢ vᵢ in float64."""
    if isinstance(direction, Coordinate):
        value = float(gradient.reshape(-1)[direction.flat])
        return value * direction.leaf.size(direction.flat)
    return _weighted(gradient, direction.multipliers(), direction.leaf, 0.0)


def norm_along(gradient: np.ndarray, direction: AnyDirection) -> float:
    """√Σ (gᵢ vᵢ)²: what Σ gᵢ vᵢ is for signs that neither help nor cancel."""
    if isinstance(direction, Coordinate):
        return abs(along(gradient, direction))
    return norm(gradient, direction.multipliers(), direction.leaf)


def norm(gradient: np.ndarray, multipliers: Multipliers, leaf: Leaf) -> float:
    """√Σ (gᵢ vᵢ)² with vᵢ given by its multipliers."""
    largest = largest_size(gradient) * leaf.largest
    if not largest or not np.isfinite(largest):
        return largest
    return largest * _weighted(gradient, multipliers, leaf, largest) ** 0.5


def _weighted(
    gradient: np.ndarray, multipliers: Multipliers, leaf: Leaf, scale: float
) -> float:
    """Σ gᵢ vᵢ, or with a scale Σ (gᵢ vᵢ / scale)²."""
    total = 0.0
    flat = [a.reshape(-1) for a in (gradient, multipliers, leaf.values)]
    for i in range(0, leaf.values.size, CHUNK):
        g, m, x = (a[i : i + CHUNK].astype(np.float64) for a in flat)
        terms = g * (m / ONE) * units(x, leaf.floor)
        terms = terms / scale if scale else terms
        total += float(terms @ terms) if scale else float(np.sum(terms))
    return total
