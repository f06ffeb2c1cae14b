"""The function along a line: every evaluation of the loss, counted.

A function that JAX can trace is compiled once, in float64 whatever the parameters'
dtype, for one line of 32 points; every probe of every leaf runs the same program. Any
other function is called on NumPy arrays, one point after the other.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.array_types import PyTree, ScalarFunction
from jaxnet.input_checks import complaint, describe
from jaxnet.verification.directions import (
    EXPONENT_BITS,
    ONE,
    Multipliers,
    power_below,
)
from jaxnet.verification.leaves import Parameters
from jaxnet.verification.program import Program

BATCH_BYTES = 2**26
"""How much memory the moved copies of the parameters may take at once."""

WIDEST_BATCH = 32

DOUBLE = float(np.finfo(np.float64).eps)

UNTRACEABLE = (jax.errors.JAXTypeError, jax.errors.JAXIndexError)
"""What JAX raises when a function wants the values of its argument."""


class in_float64:
    """float64 for the time of a `with`, under the promotion that JAX users expect."""

    def __enter__(self) -> None:
        self.contexts = (
            jax.enable_x64(True),
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
        )
        for context in self.contexts:
            context.__enter__()

    def __exit__(self, *error: Any) -> None:
        for context in reversed(self.contexts):
            context.__exit__(*error)


class Function:
    """The loss of the moving leaves.

    traceable: whether JAX could trace it.
    own_dtype: whether it takes the parameters in the dtype given only.
    program: what it computes, where it could be traced.
    evaluations: how many values were computed so far.
    """

    def __init__(self, loss: ScalarFunction, parameters: Parameters) -> None:
        self.loss = loss
        self.parameters = parameters
        self.evaluations = 0
        self.own_dtype = False
        self.program: Program | None = None
        self._batched = True
        self._plain_precision = float(np.finfo(np.float32).eps)
        self._zeros: dict[int, jax.Array] = {}
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

    def value(self) -> float:
        """The loss at the point, computed without jit."""
        self.evaluations += 1
        with in_float64():
            if self.program is None:
                return self._plain([leaf.values for leaf in self.parameters.leaves])
            moved = [jnp.asarray(x, np.float64) for x in self._base(self.parameters)]
            return float(self._of(moved))

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
            moves = [
                jnp.asarray(multipliers) if i == number else self._zero(i)
                for i in range(len(parameters.leaves))
            ]
            floors = [leaf.floor for leaf in parameters.leaves]
            return np.asarray(self._run(self._base(parameters), moves, floors, times))

    def _trace(self) -> None:
        """Find how to call the loss: traced in float64, in its own dtype, or plain."""
        errors: list[Exception] = []
        with in_float64():
            for self.own_dtype in (False, True):
                shapes = [
                    jax.ShapeDtypeStruct(leaf.values.shape, np.float64)
                    for leaf in self.parameters.leaves
                ]
                try:
                    closed, out = jax.make_jaxpr(self._of, return_shape=True)(shapes)
                except UNTRACEABLE as error:
                    errors.append(error)
                    break
                except Exception as error:
                    errors.append(error)
                    continue
                _check_scalar(out)
                self.program = Program.of(closed)
                self._line = jax.jit(self._along, static_argnames="batch")
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

    def _of(self, moved: list[Any]) -> Any:
        return self.loss(self.parameters.rebuild(moved, self.own_dtype))

    def _base(self, parameters: Parameters) -> list[Any]:
        return [leaf.values for leaf in parameters.leaves]

    def _zero(self, number: int) -> jax.Array:
        if number not in self._zeros:
            shape = self.parameters.leaves[number].values.shape
            self._zeros[number] = jnp.zeros(shape, jnp.int8)
        return self._zeros[number]

    def _run(self, *line: Any) -> Any:
        if self._batched:
            try:
                return self._line(*line, batch=self._batch())
            except NotImplementedError:
                self._batched = False
        return self._line(*line, batch=1)

    def _batch(self) -> int:
        size = sum(leaf.values.size for leaf in self.parameters.leaves)
        fitting = max(1, BATCH_BYTES // (8 * max(size, 1)))
        return min(WIDEST_BATCH, 2 ** int(np.log2(fitting)))

    def _along(
        self,
        base: list[Any],
        moves: list[Any],
        floors: list[Any],
        times: jax.Array,
        batch: int,
    ) -> jax.Array:
        def phi(t: jax.Array) -> jax.Array:
            moved = [
                _move(x, m, t, floor)
                for x, m, floor in zip(base, moves, floors, strict=True)
            ]
            return jnp.asarray(self._of(moved), np.float64)

        if batch == 1:
            return jax.lax.map(phi, times)
        return jax.lax.map(phi, times, batch_size=batch)

    def _plain_line(
        self, number: int, multipliers: Multipliers, times: Any, parameters: Parameters
    ) -> np.ndarray:
        values = [np.array(leaf.values, np.float64) for leaf in parameters.leaves]
        x = values[number]
        size = power_below(np.maximum(np.abs(x), parameters.leaves[number].floor))
        results = []
        for t in times:
            values[number] = x + t * (multipliers / ONE) * size
            results.append(self._plain(values))
        return np.array(results)

    def _plain(self, values: list[np.ndarray]) -> float:
        copies = [np.array(v, np.float64)[()] for v in values]
        result = self.loss(self.parameters.rebuild(copies))
        _check_scalar(result)
        if float(np.float32(result)) != float(result):
            self._plain_precision = DOUBLE
        return float(result)


def _move(x: Any, multipliers: Any, t: Any, floor: Any) -> jax.Array:
    """x + t v in float64, as `directions` defines v."""
    x = jnp.asarray(x, np.float64)
    size = jnp.maximum(jnp.abs(x), floor)
    bits = jax.lax.bitcast_convert_type(size, jnp.uint64) & EXPONENT_BITS
    power = jax.lax.bitcast_convert_type(bits, jnp.float64)
    return x + t * (multipliers.astype(np.float64) / ONE) * power


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
    first = str(error).strip().splitlines() or [""]
    fix = "call it on the parameters yourself to see where"
    got = f"{type(error).__name__}: {first[0][:160]}"
    return ValueError(complaint("loss(params)", "a value", got, fix))


def call_in_float64(
    candidate: Callable[[PyTree], PyTree], parameters: Parameters, own_dtype: bool
) -> PyTree:
    """A candidate's gradient at the point, computed in float64 where it can be."""
    with in_float64():
        values = [jnp.asarray(leaf.values, np.float64) for leaf in parameters.leaves]
        gradient = candidate(parameters.rebuild(values, own_dtype))
        return jax.tree.map(partial(np.asarray), gradient)
