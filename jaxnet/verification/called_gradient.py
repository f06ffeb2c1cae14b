"""A candidate that is called, rather than given as arrays."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from jaxnet.array_types import PyTree
from jaxnet.float64 import Traced, in_float64
from jaxnet.verification.evaluation import UNTRACEABLE, Function
from jaxnet.verification.leaves import Parameters
from jaxnet.verification.program import Program


class Gradient:
    """A candidate that is called, at the points of one function, in float64 if it can.

    It is traced and compiled; if it cannot be traced, it is called on NumPy arrays.

    program: what it computes, where it could be traced.
    """

    def __init__(self, source: Callable[[PyTree], PyTree], function: Function) -> None:
        self.source, self.function = source, function
        self.own_dtype = function.own_dtype
        self.program: Program | None = None

    def twice(self) -> tuple[PyTree, bool]:
        """The gradient at the function's point, and whether it is the same again."""
        parameters = self.function.parameters
        first, traced = self._called(parameters)
        second, again = self._called(parameters, traced)
        if traced is not None and again is None:
            with in_float64():
                again = Traced(self._of(parameters), self._values(parameters))
        alike = traced is None or (again is not None and traced.is_same(again))
        return second, alike and _bits(first) == _bits(second)

    def at(self, parameters: Parameters) -> PyTree:
        """The gradient at another point."""
        return self._called(parameters)[0]

    def _called(
        self, parameters: Parameters, traced: Traced | None = None
    ) -> tuple[PyTree, Traced | None]:
        if self.function.as_given:
            return jax.tree.map(np.asarray, self.source(parameters.as_given())), None
        try:
            return self._in_float64(parameters, traced)
        except Exception:
            if self.own_dtype:
                raise
            self.own_dtype = True
            return self._in_float64(parameters, traced)

    def _in_float64(
        self, parameters: Parameters, traced: Traced | None
    ) -> tuple[PyTree, Traced | None]:
        of, values = self._of(parameters), self._values(parameters)
        with in_float64():
            try:
                new = Traced(of, values) if traced is None else None
            except UNTRACEABLE:
                plain = of([v.copy()[()] for v in values])
                return jax.tree.map(np.asarray, plain), None
            if new is not None:
                self._compiled, self.program = jax.jit(new), Program.of(new)
            return jax.tree.map(np.asarray, self._compiled(values)), new

    def _of(self, parameters: Parameters) -> Callable[[list[Any]], PyTree]:
        return lambda values: self.source(parameters.rebuild(values, self.own_dtype))

    def _values(self, parameters: Parameters) -> list[np.ndarray]:
        return [np.asarray(leaf.values, np.float64) for leaf in parameters.leaves]


def _bits(tree: PyTree) -> list[bytes]:
    return [np.ascontiguousarray(x).tobytes() for x in jax.tree.leaves(tree)]
