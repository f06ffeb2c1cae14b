"""The function that is differentiated, at its point and along lines through it.

A function that JAX can trace is compiled in float64, whatever the parameters' dtype.
Any other function is called on NumPy arrays, one point after the other.
"""

import warnings
from functools import cache, cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from jaxnet.array_types import PyTree, ScalarFunction
from jaxnet.float64 import Traced, in_float64
from jaxnet.input_checks import complaint, describe, first_line
from jaxnet.precision import DOUBLE, SINGLE
from jaxnet.verification.directions import ONE, AnyDirection, units
from jaxnet.verification.function.lines import Lines
from jaxnet.verification.function.program import Program, draws_numbers
from jaxnet.verification.function.rounding_noise import (
    one_more_round,
    rounding_spread,
    solvers,
)
from jaxnet.verification.point import Leaf, Point, Reals

UNTRACEABLE = (jax.errors.JAXTypeError, jax.errors.JAXIndexError)
"""What JAX raises when a function wants the values of its argument."""

OTHER_FUNCTION = 1e-3
"""A loss that draws random numbers and changes by more than this share of itself in
float64 draws others there."""


class Objective:
    """The loss of the moving leaves; how it is called is found once.

    given: the loss as its caller calls it, twice; None where that fails.
    own_dtype: whether it takes the parameters in the dtype given only.
    as_given: whether it is called without float64: its random draws differ there.
    traced, program: what it computes, where it could be traced.
    evaluations: how many values were computed so far; all else stays as it is.
    """

    def __init__(
        self, loss: ScalarFunction, point: Point, mesh: Mesh | None = None
    ) -> None:
        self.loss, self.point, self.mesh = loss, point, mesh
        self.evaluations = 0
        self.own_dtype = False
        self.as_given = False
        self.program: Program | None = None
        self._called_precision = SINGLE
        self.traced: Traced
        self.given = self._given_value(), self._given_value()
        self._trace()
        self.precision_of = cache(self._precision_of)

    @property
    def traceable(self) -> bool:
        """Whether lines run as one compiled program."""
        return self.program is not None

    @property
    def precision(self) -> float:
        """ε of the coarsest floating type on the way from parameters to result.

        Of a function that is not traced: float32's, until a value needs float64.
        """
        return self.program.precision if self.program else self._called_precision

    def _precision_of(self, leaf: Leaf) -> float:
        """ε of the coarsest floating type between one leaf and the result."""
        if self.program is None:
            return self._called_precision
        return self.program.precision_of(leaf.number)

    def called_value(self) -> float:
        """The loss at the point, by a plain call on NumPy arrays in float64."""
        self.evaluations += 1
        with in_float64():
            return self._called([leaf.values for leaf in self.point.leaves])

    def traces_alike(self) -> bool:
        """Whether the loss is the same program when it is traced once more."""
        with in_float64():
            return Traced(self.of_leaves, self._shapes()).is_same(self.traced)

    def eager_value(self) -> float | None:
        """The loss in float64 without tracing; None where that fails."""
        self.evaluations += 1
        try:
            with in_float64():
                return float(self.of_leaves(self._wide()))
        except Exception:  # the caller's function
            return None

    @cached_property
    def solver_noise(self) -> float:
        """How much one more round of its iterations to a tolerance changes the loss."""
        if self.program is None or not solvers(self.program):
            return 0.0
        self.evaluations += 2
        with in_float64():
            point = self._wide()
            longer = float(one_more_round(self.program, point))
            return abs(longer - float(self.of_leaves(point)))

    def rounding_spread(self) -> float:
        """How far rounding inside the loss may move its value; 0.0 if not traced."""
        if self.program is None:
            return 0.0
        with in_float64():
            return rounding_spread(self.program, self._wide())

    def values_along(
        self, direction: AnyDirection, times: Float[np.ndarray, " times"], point: Point
    ) -> Float[np.ndarray, " times"]:
        """The loss at x + t v for all times t, with v in the direction's leaf alone."""
        point = point.with_leaf(direction.leaf)
        self.evaluations += len(times)
        with in_float64():
            if self.program is None:
                return self._called_along(direction, times, point)
            return self._lines.values(direction, times, point)

    def of_leaves(self, moved: list[Any]) -> Any:
        """The loss of the moving leaves."""
        return self.loss(self.point.rebuild(moved, self.own_dtype))

    def of_leaves_as_given(self, moved: list[Any]) -> Any:
        """The loss of the moving leaves, each cast to the dtype it was given in."""
        return self.loss(self.point.rebuild(moved, own_dtype=True))

    def gradient_as_given(self, params: PyTree) -> PyTree:
        """jax.grad in the caller's mode; None for held leaves."""
        flat = jax.tree.leaves(params)
        moving = [jnp.asarray(flat[leaf.position]) for leaf in self.point.leaves]
        tree: list[Any] = [None] * len(flat)
        slopes = jax.grad(self.of_leaves_as_given)(moving)
        for leaf, slope in zip(self.point.leaves, slopes, strict=True):
            tree[leaf.position] = slope
        return self.point.structure.unflatten(tree)

    def _given_value(self) -> float | None:
        """The loss called as its caller calls it; None where that fails."""
        self.evaluations += 1
        try:
            with warnings.catch_warnings():  # NumPy's float64 is cut to float32
                warnings.simplefilter("ignore")
                return float(self.loss(self.point.as_given()))
        except Exception:  # the caller's function
            return None

    def _trace(self) -> None:
        """Find how to call the loss: traced in float64, in its own dtype, or called."""
        errors: list[Exception] = []
        with in_float64():
            for self.own_dtype in (False, True):
                try:
                    traced = Traced(self.of_leaves, self._shapes())
                except UNTRACEABLE as error:
                    errors.append(error)
                    break
                except Exception as error:  # the caller's function
                    errors.append(error)
                    continue
                _check_scalar(traced.out)
                self.traced, self.program = traced, Program.of(traced)
                if draws_numbers(self.program) and self._differs_in_float64():
                    self.program, self.as_given = None, True
                    self._jitted = jax.jit(self.of_leaves_as_given)
                    return
                self._lines = Lines(traced, self.point, self.mesh)
                return
        self.own_dtype = False
        try:
            with in_float64():
                result = self._called_on([leaf.values for leaf in self.point.leaves])
        except Exception as error:  # the caller's function
            fix = "call it on the parameters yourself to see where"
            got = first_line(errors[0])
            raise ValueError(complaint("loss(params)", "a value", got, fix)) from error
        _check_scalar(result)

    def _differs_in_float64(self) -> bool:
        """Whether float64 changes more than the rounding of what the loss gives."""
        given = self.given[0]
        with in_float64():
            wide = float(jax.jit(self.traced)(self._wide()))
        near = OTHER_FUNCTION * abs(wide)
        return given is not None and not abs(given - wide) <= near

    def _wide(self) -> list[jax.Array]:
        return [jnp.asarray(x.values, np.float64) for x in self.point.leaves]

    def _shapes(self) -> list[jax.ShapeDtypeStruct]:
        leaves = self.point.leaves
        return [jax.ShapeDtypeStruct(x.values.shape, np.float64) for x in leaves]

    def _called_along(
        self, direction: AnyDirection, times: Float[np.ndarray, " times"], point: Point
    ) -> Float[np.ndarray, " times"]:
        values = [np.array(leaf.values, np.float64) for leaf in point.leaves]
        leaf, x = direction.leaf, values[direction.leaf.number]
        step = direction.multipliers() / ONE * units(x, leaf.floor)
        results = []
        for t in times:
            values[leaf.number] = x + t * step
            results.append(self._called_or_nan(values))
        return np.array(results)

    def _called_or_nan(self, values: list[Reals]) -> float:
        """NaN where the function raises: the point lies outside its domain."""
        try:
            return self._called(values)
        except Exception:  # the caller's function
            return float("nan")

    def _called(self, values: list[Reals]) -> float:
        if self.as_given:
            with jax.enable_x64(False):
                return float(
                    self._jitted([np.array(v, np.float64)[()] for v in values])
                )
        result = float(self._called_on(values))
        if float(np.float32(result)) != result:
            self._called_precision = DOUBLE
        return result

    def _called_on(self, values: list[Reals]) -> Any:
        """What the loss gives for NumPy arrays; it may write to them."""
        copies = [np.array(v, np.float64)[()] for v in values]
        return self.loss(self.point.rebuild(copies))


def _check_scalar(result: Any) -> None:
    fix = "return one real number, such as a mean"
    leaves = jax.tree.leaves(result)
    if isinstance(result, (tuple, list, dict)) or len(leaves) != 1:
        got = f"{type(result).__name__} of {len(leaves)}"
        fix = "return the loss alone, auxiliary output has no gradient"
        raise TypeError(complaint("loss(params)", "a real scalar", got, fix))
    dtype = getattr(leaves[0], "dtype", np.dtype(type(leaves[0])))
    shape = getattr(leaves[0], "shape", ())
    if shape != () or not jnp.issubdtype(dtype, np.floating):
        text = complaint("loss(params)", "a real scalar", describe(leaves[0]), fix)
        raise ValueError(text) if shape else TypeError(text)
