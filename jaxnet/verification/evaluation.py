"""The function along a line: every evaluation of the loss, counted.

A function that JAX can trace is compiled in float64, whatever the parameters' dtype.
Any other function is called on NumPy arrays, one point after the other.
"""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxnet.array_types import PyTree, ScalarFunction
from jaxnet.float64 import Traced, in_float64
from jaxnet.input_checks import complaint, describe, first_line
from jaxnet.verification.directions import ONE, Multipliers
from jaxnet.verification.leaves import Parameters, units
from jaxnet.verification.lines import Lines
from jaxnet.verification.program import Program, draws_numbers
from jaxnet.verification.rerun import one_more_round, rounding_spread, solvers

DOUBLE = float(np.finfo(np.float64).eps)

UNTRACEABLE = (jax.errors.JAXTypeError, jax.errors.JAXIndexError)
"""What JAX raises when a function wants the values of its argument."""


class Function:
    """The loss of the moving leaves.

    traceable: whether JAX could trace it.
    own_dtype: whether it takes the parameters in the dtype given only.
    as_given: whether it is called without float64: its random draws differ there.
    given: the loss as its caller calls it, twice; None where that fails.
    traced, program: what it computes, where it could be traced.
    evaluations: how many values were computed so far.
    """

    def __init__(
        self, loss: ScalarFunction, parameters: Parameters, mesh: Mesh | None = None
    ) -> None:
        self.loss = loss
        self.parameters = parameters
        self.mesh = mesh
        self.evaluations = 0
        self.own_dtype = False
        self.as_given = False
        self.program: Program | None = None
        self._plain_precision = float(np.finfo(np.float32).eps)
        self._solver_noise: float | None = None
        self._precisions: dict[int, float] = {}
        self.traced: Traced
        self.given = self._given_value(), self._given_value()
        self._trace()

    @property
    def traceable(self) -> bool:
        """Whether lines run as one compiled program."""
        return self.program is not None

    @property
    def precision(self) -> float:
        """ε of the coarsest floating type on the way from parameters to result.

        Of a function that is not traced: float32's, until a value needs float64.
        """
        return self.program.precision if self.program else self._plain_precision

    def precision_of(self, number: int) -> float:
        """ε of the coarsest floating type between one leaf and the result."""
        if self.program is None:
            return self._plain_precision
        if number not in self._precisions:
            self._precisions[number] = self.program.precision_of(number)
        return self._precisions[number]

    def plain_value(self) -> float:
        """The loss at the point, by a plain call on NumPy arrays in float64."""
        self.evaluations += 1
        with in_float64():
            return self._plain([leaf.values for leaf in self.parameters.leaves])

    def traces_alike(self) -> bool:
        """Whether the loss is the same program when it is traced once more."""
        with in_float64():
            return Traced(self._of, self._shapes()).is_same(self.traced)

    def eager_value(self) -> float | None:
        """The loss in float64 without tracing; None where that fails."""
        self.evaluations += 1
        try:
            with in_float64():
                return float(self._of(self._point()))
        except Exception:
            return None

    def _given_value(self) -> float | None:
        """The loss called as its caller calls it; None where that fails."""
        self.evaluations += 1
        try:
            with warnings.catch_warnings():  # NumPy's float64 is cut to float32
                warnings.simplefilter("ignore")
                return float(self.loss(self.parameters.as_given()))
        except Exception:
            return None

    def solver_noise(self) -> float:
        """How much one more round of its iterations to a tolerance changes the loss."""
        if self.program is None or not solvers(self.program):
            return 0.0
        if self._solver_noise is None:
            self.evaluations += 2
            with in_float64():
                point = self._point()
                longer = float(one_more_round(self.program, point))
                self._solver_noise = abs(longer - float(self._of(point)))
        return self._solver_noise

    def rounding_spread(self) -> float:
        """How far rounding inside the loss may move its value; 0.0 if not traced."""
        if self.program is None:
            return 0.0
        with in_float64():
            return rounding_spread(self.program, self._point())

    def line(
        self,
        number: int,
        multipliers: Multipliers,
        times: np.ndarray,
        parameters: Parameters | None = None,
    ) -> np.ndarray:
        """The loss at x + t v for all times t, v in leaf `number` alone.

        parameters: another point of the same structure, in place of the given one.
        """
        parameters = parameters or self.parameters
        self.evaluations += len(times)
        with in_float64():
            if self.program is None:
                return self._plain_line(number, multipliers, times, parameters)
            return self._lines.values(number, multipliers, times, parameters)

    def _trace(self) -> None:
        """Find how to call the loss: traced in float64, in its own dtype, or plain."""
        errors: list[Exception] = []
        with in_float64():
            for self.own_dtype in (False, True):
                try:
                    traced = Traced(self._of, self._shapes())
                except UNTRACEABLE as error:
                    errors.append(error)
                    break
                except Exception as error:
                    errors.append(error)
                    continue
                _check_scalar(traced.out)
                self.traced, self.program = traced, Program.of(traced)
                if draws_numbers(self.program) and self._differs_in_float64():
                    self.program, self.as_given = None, True
                    self._jitted = jax.jit(self.loss_of_leaves)
                    return
                self._lines = Lines(traced, self.parameters, self.mesh)
                return
        self.own_dtype = False
        try:
            with in_float64():
                self._plain([leaf.values for leaf in self.parameters.leaves])
        except (TypeError, ValueError) as error:
            if str(error).startswith("`loss(params)`"):
                raise
            raise _raised(errors[0]) from error
        except Exception as error:
            raise _raised(errors[0]) from error

    def _differs_in_float64(self) -> bool:
        """Whether float64 changes more than the rounding of what the loss gives."""
        given = self.given[0]
        with in_float64():
            wide = float(jax.jit(self.traced)(self._point()))
        return given is not None and not abs(given - wide) <= 1e-3 * abs(wide)

    def _of(self, moved: list[Any]) -> Any:
        return self.loss(self.parameters.rebuild(moved, self.own_dtype))

    def gradient_as_given(self, params: PyTree) -> PyTree:
        """jax.grad in the caller's mode; None for held leaves."""
        flat = jax.tree.leaves(params)
        moving = [jnp.asarray(flat[leaf.position]) for leaf in self.parameters.leaves]
        tree: list[Any] = [None] * len(flat)
        slopes = jax.grad(self.loss_of_leaves)(moving)
        for leaf, slope in zip(self.parameters.leaves, slopes, strict=True):
            tree[leaf.position] = slope
        return self.parameters.structure.unflatten(tree)

    def loss_of_leaves(self, moved: list[Any]) -> Any:
        """The loss of the moving leaves, each cast to the dtype it was given in."""
        return self.loss(self.parameters.rebuild(moved, own_dtype=True))

    def _point(self) -> list[jax.Array]:
        return [jnp.asarray(x.values, np.float64) for x in self.parameters.leaves]

    def _shapes(self) -> list[jax.ShapeDtypeStruct]:
        leaves = self.parameters.leaves
        return [jax.ShapeDtypeStruct(x.values.shape, np.float64) for x in leaves]

    def _plain_line(
        self, number: int, multipliers: Multipliers, times: Any, parameters: Parameters
    ) -> np.ndarray:
        values = [np.array(leaf.values, np.float64) for leaf in parameters.leaves]
        x = values[number]
        size = units(x, parameters.leaves[number].floor)
        results = []
        for t in times:
            values[number] = x + t * (multipliers / ONE) * size
            results.append(self._plain_or_nan(values))
        return np.array(results)

    def _plain_or_nan(self, values: list[np.ndarray]) -> float:
        """NaN where the function raises: the point lies outside its domain."""
        try:
            return self._plain(values)
        except Exception:
            return float("nan")

    def _plain(self, values: list[np.ndarray]) -> float:
        copies = [np.array(v, np.float64)[()] for v in values]
        if self.as_given:
            with jax.enable_x64(False):
                return float(self._jitted(copies))
        result = self.loss(self.parameters.rebuild(copies))
        _check_scalar(result)
        if float(np.float32(result)) != float(result):
            self._plain_precision = DOUBLE
        return float(result)


def _check_scalar(result: Any) -> None:
    fix = "return one real number, such as a mean"
    leaves = jax.tree.leaves(result)
    if isinstance(result, (tuple, list, dict)) or len(leaves) != 1:
        got = f"{type(result).__name__} of {len(leaves)}"
        fix = "return the loss alone, auxiliary output has no gradient"
        raise TypeError(complaint("loss(params)", "a real scalar", got, fix))
    dtype = getattr(leaves[0], "dtype", np.dtype(type(leaves[0])))
    if getattr(leaves[0], "shape", ()) != () or not jnp.issubdtype(dtype, np.floating):
        got = describe(leaves[0])
        error = ValueError if getattr(leaves[0], "shape", ()) else TypeError
        raise error(complaint("loss(params)", "a real scalar", got, fix))


def _raised(error: Exception) -> ValueError:
    fix = "call it on the parameters yourself to see where"
    return ValueError(complaint("loss(params)", "a value", first_line(error), fix))
