"""A candidate that is called, rather than given as arrays."""

import hashlib
from collections.abc import Callable, Sequence
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
        bits = _digest(first)
        del first  # a large gradient is held once
        second, again = self._called(parameters, traced)
        self._traced = None if again is not None else traced
        self._bits = bits
        if traced is not None and again is None:
            with in_float64():
                again = Traced(self._of(parameters), parameters.wide())
        alike = traced is None or (again is not None and traced.is_same(again))
        return second, alike and bits == _digest(second)

    def again(self) -> PyTree | None:
        """The gradient of `twice`; None if it raises now, or is another."""
        try:
            tree = self._called(self.function.parameters, self._traced)[0]
        except Exception:
            return None
        return tree if _digest(tree) == self._bits else None

    def at(self, parameters: Parameters) -> PyTree:
        """The gradient at another point."""
        return self._called(parameters)[0]

    def _called(
        self, parameters: Parameters, traced: Traced | None = None
    ) -> tuple[PyTree, Traced | None]:
        if self.function.as_given:
            return jax.tree.map(np.array, self.source(parameters.as_given())), None
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
        of, values = self._of(parameters), parameters.wide()
        with in_float64():
            try:
                new = Traced(of, values) if traced is None else None
            except UNTRACEABLE:
                plain = of([v[()] for v in values])
                return jax.tree.map(np.array, plain), None  # it may use them again
            if new is not None:
                self._compiled, self.program = jax.jit(new), Program.of(new)
            return jax.tree.map(np.asarray, self._compiled(values)), new

    def _of(self, parameters: Parameters) -> Callable[[list[Any]], PyTree]:
        def gradient(values: list[Any]) -> PyTree:
            wide = [v.astype(np.float64) for v in values]
            return self.source(parameters.rebuild(wide, self.own_dtype))

        return gradient


class LeafByLeaf(Sequence[np.ndarray | None]):
    """The gradient of many parameters, computed anew for each leaf that is asked for.

    Held whole in float64, it would take twice the memory of float32 parameters.
    """

    def __init__(
        self, compute: Callable[[], Sequence[np.ndarray | None]], length: int
    ) -> None:
        self._compute, self._length = compute, length
        self._number, self._leaf = -1, None

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, number: Any) -> Any:
        """The leaf's gradient, kept until another is asked for."""
        if not 0 <= number < self._length:
            raise IndexError(number)
        if number != self._number:
            self._leaf = None
            self._leaf, self._number = self._compute()[number], number
        return self._leaf


def _digest(tree: PyTree) -> list[bytes]:
    """A fingerprint of the bits of every leaf."""
    leaves = map(np.ascontiguousarray, jax.tree.leaves(tree))
    return [
        hashlib.sha256(
            x.tobytes() if x.dtype.hasobject else x.view(np.uint8).data
        ).digest()
        for x in leaves
    ]
