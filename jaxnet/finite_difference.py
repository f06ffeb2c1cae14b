"""Numerical differentiation of any scalar function of any pytree.

Source: *Deep Learning from Scratch*, section 4.3.
"""

from collections.abc import Callable
from functools import cache
from typing import Any
from weakref import WeakSet

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float, Integer

from jaxnet.array_types import Array, PyTree, Scalar, ScalarFunction
from jaxnet.devices import automatic, spread
from jaxnet.float64 import Traced
from jaxnet.input_checks import check_positive, complaint, describe

MAX_BYTES = 2**24
"""How much memory a function's values beside the point may take at once."""

FEW = 200
"""Up to so many numbers, a NumPy function is called: tracing it would take longer."""

REAL = (np.floating, np.integer)
Vector = Float[Array, " coordinates"]
VectorFunction = Callable[[Vector], Any]


def relative_step(dtype: Any) -> float:
    """∛ε: where truncation, h², and rounding, ε/h, of a central difference meet."""
    return float(jnp.finfo(dtype).eps) ** (1 / 3)


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
    where `step` is ∛ε ≈ 6e-6 by default. A function that JAX can trace is traced in
    every call, compiled if its program is a new one, and sees many points at once,
    within 16 MiB. Any other, once tracing it has failed, is called on NumPy arrays, one
    point after the other; so is one that needs no JAX where there are few numbers.

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
    step = relative_step(np.float64) if step is None else step
    check_positive("step", step)
    flat, unravel = ravel_numpy(point)
    value = scalar_value(function, unravel)
    with jax.enable_x64(True):
        needs_no_jax = _is_known(function) or (
            flat.size <= FEW and _gives_numpy(value, flat)
        )
        traced = None if needs_no_jax else _traced(value, flat)
        if traced is None:
            if not needs_no_jax:
                _remember(function)
            slopes = one_by_one(value, flat, step)
        else:
            compiled = _compiled_slopes(_Program(traced.jaxpr), automatic(mesh))
            slopes = np.asarray(compiled(traced.consts, flat, step))
    if not np.isfinite(slopes).all():
        index = int(np.argmin(np.isfinite(slopes)))
        fix = "pass a smaller `step`, or a point inside the function's domain"
        got = f"{slopes[index]} at coordinate {index}"
        raise ValueError(complaint("function", "finite values beside point", got, fix))
    return unravel(slopes)


def ravel_numpy(point: PyTree) -> tuple[np.ndarray, VectorFunction]:
    """The point as one float64 vector (a copy), and the way back to its structure."""
    leaves, structure = jax.tree.flatten(point)
    arrays = [np.asarray(leaf) for leaf in leaves]
    for number, array in enumerate(arrays):
        if not any(jnp.issubdtype(array.dtype, kind) for kind in REAL):
            path, _ = jax.tree_util.tree_leaves_with_path(point)[number]
            name = f"point{jax.tree_util.keystr(path)}"
            fix = "differentiate by real numbers only"
            raise TypeError(complaint(name, "real numbers", describe(array), fix))
    if len(arrays) == 1 and jax.tree_util.treedef_is_leaf(structure):
        shape = arrays[0].shape
        flat = arrays[0].astype(float).ravel()
        if len(shape) == 1:
            return flat, lambda vector: vector
        return flat, lambda vector: vector.reshape(shape)
    ends = np.cumsum([a.size for a in arrays], dtype=int)
    flat = np.concatenate([np.zeros(0), *(a.astype(float).ravel() for a in arrays)])

    def unravel(vector: Vector) -> PyTree:
        pieces = [
            vector[end - a.size : end].reshape(a.shape)
            for end, a in zip(ends, arrays, strict=True)
        ]
        return jax.tree.unflatten(structure, pieces)

    return flat, unravel


def _gives_numpy(value: VectorFunction, x: np.ndarray) -> bool:
    """Whether the function of a NumPy array is a number that is no JAX array."""
    try:
        return not isinstance(value(x.copy()), jax.Array)
    except Exception:  # tracing will tell whether that is the function's own fault
        return False


def _traced(value: VectorFunction, x: np.ndarray) -> Traced | None:
    """The function as JAX traces it; None if it cannot."""
    try:
        return Traced(value, x)
    except Exception:  # what NumPy code says to a tracer has many types
        return None


_UNTRACEABLE: WeakSet[Any] = WeakSet()
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

    def __init__(self, jaxpr: Any) -> None:
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

    def slopes(coordinates: Array, consts: Any, x: Vector, step: Any) -> Vector:
        def value(x: Vector) -> Any:
            return jax.core.eval_jaxpr(program.jaxpr, consts, x)[0]

        return slopes_of(value, x, step, coordinates)

    def compiled_slopes(consts: Any, x: Vector, step: Any) -> Vector:
        return spread(slopes, mesh)(jnp.arange(x.size), consts, x, step)

    return jax.jit(compiled_slopes)


def scalar_value(function: ScalarFunction, unravel: VectorFunction) -> VectorFunction:
    """The function of the flat vector; its result is checked to be a real scalar."""

    def value(x: Vector) -> Any:
        y = function(unravel(x))
        return y if isinstance(y, float) else _real_scalar(y)

    return value


def _real_scalar(y: Any) -> Any:
    if isinstance(y, int):
        return y
    real = jnp.issubdtype(getattr(y, "dtype", object), np.floating)
    if not real or np.shape(y) != ():
        fix = "return one real number"
        raise TypeError(complaint("function(point)", "a real scalar", describe(y), fix))
    return y


def _steps(x: Any, step: Any) -> Any:
    """h = step × max(|x|, 1), such that x + h is exact: no rounding of the input."""
    xp = jnp if isinstance(x, jax.Array) else np
    magnitude = step * xp.maximum(xp.abs(x), 1.0)
    return xp.exp2(xp.ceil(xp.log2(magnitude)))


def slopes_of(
    value: VectorFunction, x: Vector, step: Any, chosen: Array | None = None
) -> Vector:
    """Central differences by every coordinate of x, traceable, a chunk at a time.

    chosen: by these coordinates only.
    """
    h = _steps(x, step)
    coordinates = jnp.arange(x.size)

    def slope(i: Integer[Array, ""]) -> Scalar:
        forth = jnp.asarray(value(jnp.where(coordinates == i, x + h, x)), x.dtype)
        back = jnp.asarray(value(jnp.where(coordinates == i, x - h, x)), x.dtype)
        return (forth - back) / (2 * h[i])

    if x.size == 0:
        return x
    chosen = coordinates if chosen is None else chosen
    return jax.lax.map(slope, chosen, batch_size=_chunk(value, x))


def _chunk(value: VectorFunction, x: Vector) -> int:
    """How many coordinates may be nudged at once within MAX_BYTES, forth and back."""
    each = 2 * (8 * x.size + _bytes(jax.make_jaxpr(value)(x)))
    return int(np.clip(MAX_BYTES // max(each, 1), 1, x.size))


def _bytes(jaxpr: Any) -> int:
    """All that a traced function computes on its way, in float64: an upper bound."""
    own = sum(getattr(v.aval, "size", 1) for e in jaxpr.eqns for v in e.outvars)
    parts = [p for e in jaxpr.eqns for p in jax.tree.leaves(e.params)]
    return 8 * own + sum(_bytes(p) for p in parts if hasattr(p, "eqns"))


def one_by_one(value: VectorFunction, x: np.ndarray, step: float) -> np.ndarray:
    """Central differences by every coordinate of x, by plain calls on copies of x."""
    h = _steps(x, step)
    sides = []
    for beside in ((x + h).tolist(), (x - h).tolist()):
        values = np.empty(x.size)
        for i, nudged in enumerate(beside):
            point = x.copy()
            point[i] = nudged
            values[i] = value(point)
        sides.append(values)
    return np.asarray((sides[0] - sides[1]) / (2 * h))
