"""A candidate that is called, rather than given as arrays."""

import warnings
from collections.abc import Callable, Sequence
from traceback import clear_frames
from typing import Any

import jax
import numpy as np

from jaxnet.array_types import PyTree
from jaxnet.float64 import in_float64
from jaxnet.verification.function.constants import trace
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.function.program import same_program
from jaxnet.verification.function.same_bits import fingerprint
from jaxnet.verification.function.widen import Widened
from jaxnet.verification.point import Point, Reals

UNTRACEABLE = (jax.errors.JAXTypeError, jax.errors.JAXIndexError)
"""What JAX raises when a function wants the values of its argument."""


class CalledGradient:
    """A candidate that is called: the caller's own program, widened to float64.

    If JAX cannot trace it, it is called on NumPy arrays in float64.

    widened: the program; None where it cannot be traced.
    """

    def __init__(
        self,
        source: Callable[[PyTree], PyTree],
        objective: Objective,
        widened: Widened | None = None,
    ) -> None:
        self.source, self.objective, self.widened = source, objective, widened
        if widened is not None:  # it was traced before
            return
        try:
            self.widened = objective.widen(self._of_leaves)
        except Exception as error:  # the caller's function: it may be no JAX at all
            self._tracing = error
            clear_frames(error.__traceback__)  # they hold what was traced

    def twice(self) -> tuple[PyTree, bool]:
        """The gradient at the objective's point, and whether it is the same again."""
        point = self.objective.point
        first = self.at(point)
        self._bits = fingerprint(first)
        del first  # a large gradient is held once
        second = self.at(point)
        return second, self._traces_alike() and self._bits == fingerprint(second)

    def as_run(self) -> PyTree:
        """The gradient as its caller gets it: his own call, in his mode and dtypes.

        Raises what the function raises.
        """
        with warnings.catch_warnings():  # NumPy's float64 is cut to float32
            warnings.simplefilter("ignore")
            return self.source(self.objective.point.as_given())

    def again(self) -> PyTree | None:
        """The gradient of `twice`; None if it raises now, or is another."""
        try:
            tree = self.at(self.objective.point)
        except Exception:  # the caller's function
            return None
        return tree if fingerprint(tree) == self._bits else None

    def at(self, point: Point) -> PyTree:
        """The gradient at a point.

        Raises what the function raises; where it can neither be traced nor called, what
        it said when it was traced, unless that was that it wants values.
        """
        with in_float64():
            values = point.wide()
            if self.widened is not None:
                return jax.tree.map(np.asarray, self.widened.compiled(values))
            try:
                copies = [np.array(v, np.float64)[()] for v in values]
                return jax.tree.map(np.array, self.source(point.rebuild(copies)))
            except Exception as error:  # the caller's function
                if isinstance(self._tracing, UNTRACEABLE):
                    raise
                raise self._tracing from error

    def _of_leaves(self, moved: list[Any]) -> PyTree:
        return self.source(self.objective.point.rebuild(moved))

    def _traces_alike(self) -> bool:
        """Whether it is the same program when it is traced once more."""
        if self.widened is None:
            return True
        again, _ = trace(self._of_leaves, self.objective.point.as_traced())
        return same_program(self.widened.own.closed, again)


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
