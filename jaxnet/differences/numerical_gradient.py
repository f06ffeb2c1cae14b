"""Numerical differentiation of any scalar function of any pytree.

Source: *Deep Learning from Scratch*, section 4.3.
"""

from collections.abc import Callable
from functools import cache
from weakref import WeakSet

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Jaxpr
from jax.sharding import Mesh
from jaxtyping import Float, Integer

from jaxnet.array_types import Array, PyTree, Scalar, ScalarFunction
from jaxnet.devices import automatic, spread
from jaxnet.differences.central import Step, one_by_one, relative_step, slopes_of
from jaxnet.differences.flat_point import (
    Coordinates,
    Structure,
    Vector,
    VectorFunction,
    ravel_numpy,
    scalar_value,
)
from jaxnet.float64 import traced_or_none
from jaxnet.input_checks import check_positive, complaint

FEW = 200
"""Up to so many numbers, a NumPy function is called: tracing it would take longer."""


def numerical_gradient(
    function: ScalarFunction,
    point: PyTree,
    *,
    step: float | None = None,
    mesh: Mesh | None = None,
) -> PyTree:
    """The gradient by central differences, (f(x + h eᵢ) - f(x - h eᵢ)) / 2h for each i.

    `point` is an array, a number or any pytree of them; it is never written to, and
    integers are promoted. The result has its structure, in NumPy float64. Everything is
    computed in float64 with h = `step` × max(|xᵢ|, 1), rounded up to a power of two,
    where `step` is ∛ε ≈ 6e-6 by default. A function that JAX can trace sees many points
    at once, within 16 MiB. It is traced in every call, and compiled if its program is a
    new one. Any other, once tracing it has failed, is called on NumPy arrays, one point
    after the other; so is one that needs no JAX where there are few numbers.

    `mesh` spreads the coordinates of a traced function over the devices of its one
    axis: every process passes the same, and gets what one device gives, up to the
    rounding of the function's values.

    Raises:
        TypeError: `point` holds no numbers, or the result is not a real scalar.
        ValueError: the function is not finite beside the point.
    Source: section 4.3.1, with h = 1e-4 there.

    >>> numerical_gradient(lambda x: x[0] ** 2 + x[1] ** 2, np.array([3, 4])).round(6)
    array([6., 8.])
    """
    if step is None:
        step = relative_step(np.float64)
    else:
        check_positive("step", step)
    flat, structure = ravel_numpy(point)
    with jax.enable_x64(True):
        slopes = _slopes(function, flat, structure, step, mesh)
    if not np.isfinite(slopes).all():
        index = int(np.argmin(np.isfinite(slopes)))
        fix = "pass a smaller `step`, or a point inside the function's domain"
        got = f"{slopes[index]} at coordinate {index}"
        raise ValueError(complaint("function", "finite values beside point", got, fix))
    return structure(slopes)


def _slopes(
    function: ScalarFunction,
    flat: Coordinates,
    structure: Structure,
    step: float,
    mesh: Mesh | None,
) -> Coordinates:
    """The differences, by the faster of the two ways that the function allows."""
    value = scalar_value(function, structure)
    if _is_known(function) or (flat.size <= FEW and _gives_numpy(value, flat)):
        return one_by_one(value, flat, step)
    traced = traced_or_none(value, flat)
    if traced is None:
        _remember(function)
        return one_by_one(value, flat, step)
    compiled = _compiled_slopes(_Program(traced.jaxpr), automatic(mesh))
    return np.asarray(compiled(traced.consts, flat, step))


def _gives_numpy(value: VectorFunction, x: Coordinates) -> bool:
    """Whether the function of a NumPy array is a number that is no JAX array."""
    try:
        return not isinstance(value(x.copy()), jax.Array)
    except Exception:  # tracing will tell whether that is the function's own fault
        return False


_UNTRACEABLE: WeakSet[ScalarFunction] = WeakSet()
"""Functions that could not be traced: trying again would take longer than calling."""


def _is_known(function: ScalarFunction) -> bool:
    try:
        return function in _UNTRACEABLE
    except TypeError:  # it cannot be hashed
        return False


def _remember(function: ScalarFunction) -> None:
    try:
        _UNTRACEABLE.add(function)
    except TypeError:  # it cannot be hashed, or referred to weakly
        return


class _Program:
    """What a function computes of a vector, equal where the texts of programs are.

    jit keeps one compiled program for all equal ones. A function traced anew in every
    call may close over what has changed since; arrays it closes over are arguments.
    """

    def __init__(self, jaxpr: Jaxpr) -> None:
        self.jaxpr, self.text = jaxpr, str(jaxpr)
        if "callback" in self.text:  # which function it calls is not in the text
            self.text += str(id(self))

    def __hash__(self) -> int:
        return hash(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Program) and self.text == other.text


@cache
def _compiled_slopes(program: _Program, mesh: Mesh | None) -> Callable[..., Vector]:
    """jit finds a program of one function faster than one of its static arguments."""

    def slopes(
        coordinates: Integer[Array, " chosen"],
        consts: list[jax.Array],
        x: Vector,
        step: Step,
    ) -> Float[Array, " chosen"]:
        def value(x: Vector) -> Scalar:
            (y,) = jax.core.eval_jaxpr(program.jaxpr, consts, x)
            return jnp.asarray(y)

        return slopes_of(value, x, step, coordinates)

    def compiled_slopes(consts: list[jax.Array], x: Vector, step: Step) -> Vector:
        coordinates = jnp.arange(x.size, dtype=jnp.int32)
        return jnp.asarray(spread(slopes, mesh)(coordinates, consts, x, step))

    return jax.jit(compiled_slopes)
