"""Where functions of numbers are looked at, by what they are defined on."""

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np

from experiments.libraries.entry import Entry, Point

TINY = 1e-10
LARGE = 40.0
JUST = 1e-10
"""How far inside the end of a domain the point next to it lies."""


@dataclass(frozen=True)
class Domain:
    """Numbers at which nothing should happen, and numbers at which something may."""

    regular: tuple[float, ...]
    edges: tuple[float, ...]

    def beside(self, *more: float) -> "Domain":
        """With more edges."""
        return Domain(self.regular, (*self.edges, *more))

    @property
    def few(self) -> "Domain":
        """One regular number and two edges: for a function seen under another name."""
        return Domain(self.regular[:1], self.edges[:2])

    @property
    def points(self) -> tuple[Point, ...]:
        """One for each number."""
        return tuple(point(x) for x in self.regular) + tuple(
            point(x, is_edge=True) for x in self.edges
        )


LINE = Domain((0.7, -1.3), (0.0, TINY, LARGE, -LARGE))
POSITIVE = Domain((0.4, 2.3), (0.0, TINY, LARGE))
BEYOND_MINUS_ONE = Domain((0.7, -0.4), (-1.0, 0.0, TINY, LARGE))
UNIT = Domain((0.3, 0.8), (0.0, TINY, 1.0 - JUST, 1.0))
SYMMETRIC_UNIT = Domain((0.3, -0.6), (0.0, TINY, 1.0 - JUST, 1.0))
BEYOND_ONE = Domain((1.4, 3.2), (1.0, 1.0 + JUST, LARGE))


@dataclass(frozen=True)
class Pairs:
    """The same for functions of several numbers."""

    regular: tuple[tuple[float, ...], ...]
    edges: tuple[tuple[float, ...], ...]

    @property
    def points(self) -> tuple[Point, ...]:
        """One for each tuple."""
        return tuple(point(*x) for x in self.regular) + tuple(
            point(*x, is_edge=True) for x in self.edges
        )


PLANE = Pairs(
    ((0.7, 1.9),),
    ((1.0, 1.0), (0.0, 1.0), (1.0, 0.0), (0.0, 0.0), (LARGE, -LARGE)),
)
QUADRANT = Pairs(
    ((0.7, 1.9),),
    ((1.0, 1.0), (TINY, 1.0), (1.0, TINY), (LARGE, LARGE), (LARGE, 1.0)),
)


def point(*numbers: float, is_edge: bool = False) -> Point:
    """A point of scalars, labelled by them."""
    label = ", ".join(f"{x:.12g}" for x in numbers)
    return Point(label, tuple(np.float64(x) for x in numbers), is_edge)


Row = tuple[Domain | Pairs, Callable[..., Any] | None]


def entries_of(module: ModuleType, prefix: str, table: dict[str, Row]) -> list[Entry]:
    """One for each name that the installed module has."""
    return [
        Entry(f"{prefix}.{name}", getattr(module, name), domain.points, definition)
        for name, (domain, definition) in table.items()
        if hasattr(module, name)
    ]
