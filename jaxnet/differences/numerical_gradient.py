"""Numerical differentiation of any scalar function of any pytree.

Source: *Deep Learning from Scratch*, section 4.3.
"""

import warnings
from collections.abc import Callable
from contextlib import suppress
from weakref import WeakSet

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Integer

from jaxnet.array_types import Array, PyTree, Scalar, ScalarFunction
from jaxnet.devices import automatic, spread
from jaxnet.differences.central import (
    Step,
    slopes_of,
    step_of,
    steps,
    values_beside,
)
from jaxnet.differences.flat_point import (
    Coordinates,
    Structure,
    Vector,
    VectorFunction,
    ravel_numpy,
    scalar_value,
)
from jaxnet.float64 import platform, traced_or_none
from jaxnet.input_checks import (
    check_callable,
    check_positive,
    check_untraced,
    complaint,
    without,
)
from jaxnet.jaxpr.compiled import Bare
from jaxnet.jaxpr.dependence import dependent
from jaxnet.jaxpr.lines import described
from jaxnet.jaxpr.reader import coarsest, coarsest_of
from jaxnet.precision import DOUBLE, eps
from jaxnet.xla_options import by_eigen

COARSE = (jnp.bfloat16, np.float16, np.float32)
"""Types that a called function may compute in, the coarsest first."""

FEW_BITS = 16.0
"""A constant that is a multiple of so small a part of its power of two has 4 bits."""

NUDGE = 1e-7 * (5**0.5 - 1)
"""No function in float64 gives a number of 24 bits so far beside a point, but a flat or
a linear one: its slope is the same with a wider step."""

FEW = 200
"""Up to so many numbers, a NumPy function is called: tracing it would take longer."""


@without(h="write step, or leave it out: it is chosen")
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
    where `step` is ∛ε by default: 6e-6, or more for a function that computes in float32
    or below, by the ε of its coarsest type. A function that JAX can trace sees many
    points at once, within 16 MiB. It is traced in every call, and compiled if its
    program is a new one. Any other, once tracing it has failed, is called on NumPy
    arrays, one point after the other; so is one that needs no JAX where there are few
    numbers.

    `mesh` spreads the coordinates of a traced function over the devices of its one
    axis: every process passes the same, and gets what one device gives, up to the
    rounding of the function's values.

    A function that does not read its argument, as the book's `lambda w: net.loss(x, t)`
    does not, has slopes of 0, and a warning says so.

    Raises:
        TypeError: `point` holds no numbers, or the result is not a real scalar.
        ValueError: the function is not finite beside the point, or `step` is lost there
            in rounding.
    Source: section 4.3.1, with h = 1e-4 there.

    >>> numerical_gradient(lambda x: x[0] ** 2 + x[1] ** 2, np.array([3, 4])).round(6)
    array([6., 8.])
    """
    check_callable("function", function, "write numerical_gradient(function, point)")
    if step is not None:
        check_positive("step", step)
    fix = "call numerical_gradient outside jit, grad and vmap"
    check_untraced("point", point, fix)
    flat, structure = ravel_numpy(point)
    with jax.enable_x64(True):
        slopes = _slopes(function, flat, structure, step, mesh)
    if not np.isfinite(slopes).all():
        index = int(np.argmin(np.isfinite(slopes)))
        fix = "pass a smaller `step`, or a point inside the function's domain"
        got = f"{slopes[index]} at coordinate {index}"
        raise ValueError(complaint("function", "finite values beside point", got, fix))
    if flat.size and not slopes.any() and _reads_nothing(function):
        expected, got = "a function of its argument", "one that does not read it"
        fix = "no array is changed in place here: write lambda w: loss(w, …)"
        warnings.warn(complaint("function", expected, got, fix), stacklevel=2)
    return structure(slopes)


def _reads_nothing(function: ScalarFunction) -> bool:
    """Whether it gives a value of whatever it is called with: all its slopes are 0."""
    try:
        function(object())
    except Exception:  # as whoever reads its argument will say
        return False
    return True


def _slopes(
    function: ScalarFunction,
    flat: Coordinates,
    structure: Structure,
    step: float | None,
    mesh: Mesh | None,
) -> Coordinates:
    """The differences, by the faster of the two ways that the function allows."""
    value = scalar_value(function, structure)
    if _is_known(function) or (flat.size <= FEW and _gives_numpy(value, flat)):
        return _by_calls(value, flat, step)
    traced = traced_or_none(value, flat)
    if traced is None:
        with suppress(TypeError):  # it cannot be hashed, or referred to weakly
            _UNTRACEABLE.add(function)
        return _by_calls(value, flat, step)
    moved = dependent(traced.jaxpr, [True])
    precision = coarsest(moved)
    where = described(coarsest_of(moved)[1]) if precision > DOUBLE else ""
    step = _usable(step, flat, precision, where)
    program = Bare.of(traced.jaxpr, jax.tree.structure(0.0))
    compiled = program.compiled(_compiled_slopes, automatic(mesh), platform())
    return np.asarray(compiled(traced.consts, flat, step))


def _by_calls(
    value: VectorFunction, flat: Coordinates, step: float | None
) -> Coordinates:
    """By plain calls; anew with a wider step if all values turn out to be coarser."""
    h = np.asarray(steps(flat, _usable(step, flat, DOUBLE)))
    forward, backward = values_beside(value, flat, h)
    values = np.concatenate([forward, backward])
    if step is None and _precision_of(values) > DOUBLE and _says_something(values):
        nudged = float(value(flat + NUDGE * np.abs(flat) + NUDGE))
        precision = _precision_of(np.append(values, nudged))
        h = np.asarray(steps(flat, _usable(step, flat, precision)))
        forward, backward = values_beside(value, flat, h)
    return np.asarray((forward - backward) / (2 * h))


def _says_something(values: Coordinates) -> bool:
    """Whether values are no constant of few bits, such as the 0 of a relu."""
    return bool(np.ptp(values) or (np.frexp(values[0])[0] * FEW_BITS) % 1)


def _precision_of(values: Coordinates) -> float:
    """ε of the coarsest type that holds all values: that of the function, it seems."""
    with np.errstate(over="ignore"):
        for dtype in COARSE if len(values) else ():
            if (values.astype(dtype).astype(np.float64) == values).all():
                return eps(dtype)
    return DOUBLE


def _usable(
    step: float | None, x: Coordinates, precision: float, where: str = ""
) -> float:
    """The step, by default that of a precision.

    Raises:
        ValueError: x + h is x, in that precision.
    """
    found = step_of(precision) if step is None else step
    lost = steps(x, found) < precision * np.abs(x) / 2
    if lost.any():
        i = int(np.argmax(lost))
        inside = f" within {where}" if where else ""
        got = f"{step}: x + h is x at coordinate {i}, {x[i]}{inside}"
        fix = f"pass a step above {precision:.1e}, or none"
        raise ValueError(complaint("step", "a step that moves x", got, fix))
    return found


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


def _compiled_slopes(
    program: Bare, mesh: Mesh | None, platform: str
) -> Callable[..., Vector]:
    """The differences of one program, to be compiled.

    jit finds a program of one function faster than one of its static arguments.
    """

    def slopes(
        coordinates: Integer[Array, " chosen"],
        consts: list[jax.Array],
        x: Vector,
        step: Step,
    ) -> Float[Array, " chosen"]:
        def value(x: Vector) -> Scalar:
            return jnp.asarray(program(consts, x))

        return slopes_of(value, x, step, coordinates)

    def compiled_slopes(consts: list[jax.Array], x: Vector, step: Step) -> Vector:
        coordinates = jnp.arange(x.size, dtype=jnp.int32)
        return jnp.asarray(spread(slopes, mesh)(coordinates, consts, x, step))

    return by_eigen(compiled_slopes, platform)
