"""A candidate that is called, rather than given as arrays."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from jaxnet.array_types import PyTree
from jaxnet.float64 import Traced, in_float64
from jaxnet.verification.function.objective import UNTRACEABLE, Objective
from jaxnet.verification.function.program import Program
from jaxnet.verification.function.same_bits import fingerprint
from jaxnet.verification.point import Point, Reals


class CalledGradient:
    """A candidate that is called, in float64 if it can be.

    It is traced and compiled; if it cannot be traced, it is called on NumPy arrays.

    program: what it computes, where it could be traced.
    """

    def __init__(
        self, source: Callable[[PyTree], PyTree], objective: Objective
    ) -> None:
        self.source, self.objective = source, objective
        self.own_dtype = objective.own_dtype
        self.program: Program | None = None

    def twice(self) -> tuple[PyTree, bool]:
        """The gradient at the objective's point, and whether it is the same again."""
        point = self.objective.point
        first, traced = self._called(point)
        bits = fingerprint(first)
        del first  # a large gradient is held once
        second, again = self._called(point, traced)
        self._traced = None if again is not None else traced
        self._bits = bits
        if traced is not None and again is None:
            with in_float64():
                again = Traced(self._of(point), point.wide())
        alike = traced is None or (again is not None and traced.is_same(again))
        return second, alike and bits == fingerprint(second)

    def again(self) -> PyTree | None:
        """The gradient of `twice`; None if it raises now, or is another."""
        try:
            tree = self._called(self.objective.point, self._traced)[0]
        except Exception:  # the caller's function
            return None
        return tree if fingerprint(tree) == self._bits else None

    def at(self, point: Point) -> PyTree:
        """The gradient at another point."""
        return self._called(point)[0]

    def _called(
        self, point: Point, traced: Traced | None = None
    ) -> tuple[PyTree, Traced | None]:
        if self.objective.as_given:
            return jax.tree.map(np.array, self.source(point.as_given())), None
        try:
            return self._in_float64(point, traced)
        except Exception:  # the caller's function: it may want its own dtype
            if self.own_dtype:
                raise
            self.own_dtype = True
            return self._in_float64(point, traced)

    def _in_float64(
        self, point: Point, traced: Traced | None
    ) -> tuple[PyTree, Traced | None]:
        of, values = self._of(point), point.wide()
        with in_float64():
            try:
                new = Traced(of, values) if traced is None else None
            except UNTRACEABLE:
                called = of([v[()] for v in values])
                return jax.tree.map(np.array, called), None  # it may use them again
            if new is not None:
                self._compiled, self.program = jax.jit(new), Program.of(new)
            return jax.tree.map(np.asarray, self._compiled(values)), new

    def _of(self, point: Point) -> Callable[[list[Any]], PyTree]:
        def gradient(values: list[Any]) -> PyTree:
            wide = [v.astype(np.float64) for v in values]
            return self.source(point.rebuild(wide, self.own_dtype))

        return gradient


class LeafByLeaf(Sequence[Reals | None]):
    """The gradient of many parameters, computed anew for each leaf that is asked for.

    Held whole in float64, it would take twice the memory of float32 parameters.
    """

    def __init__(
        self, compute: Callable[[], Sequence[Reals | None]], length: int
    ) -> None:
        self._compute, self._length = compute, length
        self._number, self._array = -1, None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: Any) -> Any:
        """The leaf's gradient, kept until another is asked for."""
        if not 0 <= number < self._length:
            raise IndexError(number)
        if number != self._number:
            self._array = None
            self._array, self._number = self._compute()[number], number
        return self._array
