"""Numerical differentiation of any scalar function of any pytree, and descent by it.

Source: *Deep Learning from Scratch*, sections 4.3 and 4.4.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float, Integer

from jaxnet.array_types import Array, PyTree, ScalarFunction
from jaxnet.input_checks import check_count, check_positive, complaint, describe

UNTRACEABLE = (jax.errors.JAXTypeError, jax.errors.JAXIndexError)
"""What JAX raises when a function wants the values of its argument."""

MAX_BYTES = 2**28
"""How much memory the nudged copies of the point may take at once."""

Vector = Float[Array, " coordinates"]


def relative_step(dtype: Any) -> float:
    """∛ε: where truncation, h², and rounding, ε/h, of a central difference meet."""
    return float(jnp.finfo(dtype).eps) ** (1 / 3)


def numerical_gradient(
    function: ScalarFunction, point: PyTree, *, step: float | None = None
) -> PyTree:
    """The gradient by central differences, (f(x + h eᵢ) - f(x - h eᵢ)) / 2h for each i.

    `point` is an array, a number or any pytree of them; it is never written to, and
    integers are promoted. The result has its structure, in NumPy float64. Everything is
    computed in float64 with h = `step` × max(|xᵢ|, 1), where `step` is ∛ε ≈ 6e-6 by
    default. A function that JAX can trace is compiled once and called on many points at
    once, within 256 MB; any other is called on NumPy arrays, one point after the other.

    Raises:
        TypeError: `point` holds no numbers, or the result is not a real scalar.
        ValueError: the function is not finite beside the point.
    Source: section 4.3.1, with h = 1e-4 there.
    """
    step = relative_step(np.float64) if step is None else step
    check_positive("step", step)
    flat, unravel = ravel_numpy(point)
    try:
        with jax.enable_x64(True):
            slopes = _vectorised(function, _Structure.of(point), flat, step)
    except UNTRACEABLE:
        slopes = _one_by_one(lambda x: function(unravel(x)), flat, step)
    slopes = np.asarray(slopes)
    if not np.isfinite(slopes).all():
        index = int(np.argmin(np.isfinite(slopes)))
        fix = "pass a smaller `step`, or a point inside the function's domain"
        got = f"{slopes[index]} at coordinate {index}"
        raise ValueError(complaint("function", "finite values beside point", got, fix))
    return unravel(slopes)


def gradient_descent(
    function: ScalarFunction,
    init: PyTree,
    learning_rate: float = 0.01,
    num_steps: int = 1000,
) -> tuple[PyTree, PyTree]:
    """Where x ← x - learning_rate × numerical_gradient(x) leads, and the way there.

    Both have the structure of `init`, in NumPy float64; the leaves of the path have one
    more leading axis, of num_steps + 1 points from `init` to the result.
    Source: section 4.4.1.
    """
    check_positive("learning_rate", learning_rate)
    check_count("num_steps", num_steps, minimum=0)
    flat, unravel = ravel_numpy(init)
    step = relative_step(np.float64)
    try:
        with jax.enable_x64(True):
            path = np.asarray(
                _descend(
                    function, _Structure.of(init), flat, step, learning_rate, num_steps
                )
            )
    except UNTRACEABLE:
        path = np.empty((num_steps + 1, flat.size))
        path[0] = flat
        for i in range(num_steps):
            slopes = _one_by_one(lambda x: function(unravel(x)), path[i], step)
            path[i + 1] = path[i] - learning_rate * slopes
    points = [unravel(x) for x in (path if flat.size else [flat])]
    return points[-1], jax.tree.map(lambda *leaves: np.stack(leaves), *points)


def ravel_numpy(point: PyTree) -> tuple[np.ndarray, Callable[[np.ndarray], PyTree]]:
    """The point as one float64 vector (a copy), and the way back to its structure."""
    leaves, structure = jax.tree.flatten(point)
    arrays = [np.asarray(leaf) for leaf in leaves]
    for (path, _), array in zip(
        jax.tree_util.tree_leaves_with_path(point), arrays, strict=True
    ):
        if array.dtype.kind not in "iuf" and not jnp.issubdtype(
            array.dtype, np.floating
        ):
            name = f"point{jax.tree_util.keystr(path)}"
            fix = "differentiate by real numbers only"
            raise TypeError(complaint(name, "real numbers", describe(array), fix))
    ends = np.cumsum([a.size for a in arrays], dtype=int)
    flat = np.concatenate([np.zeros(0), *(a.astype(float).ravel() for a in arrays)])

    def unravel(vector: np.ndarray) -> PyTree:
        pieces = np.split(np.array(vector), ends[:-1]) if arrays else []
        return structure.unflatten(
            p.reshape(a.shape) for p, a in zip(pieces, arrays, strict=True)
        )

    return flat, unravel


class _Structure:
    """Hashable shape of a pytree: how a traced flat vector becomes it again."""

    def __init__(self, structure: Any, shapes: tuple[tuple[int, ...], ...]) -> None:
        self.key = (structure, shapes)

    @classmethod
    def of(cls, point: PyTree) -> "_Structure":
        leaves, structure = jax.tree.flatten(point)
        return cls(structure, tuple(np.shape(leaf) for leaf in leaves))

    def unravel(self, vector: Vector) -> PyTree:
        structure, shapes = self.key
        example = structure.unflatten([jnp.zeros(s, vector.dtype) for s in shapes])
        return ravel_pytree(example)[1](vector)

    def __hash__(self) -> int:
        return hash(self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Structure) and self.key == other.key


def _scalar(value: Any) -> jax.Array:
    if np.shape(value) != () or not jnp.issubdtype(
        jnp.result_type(value), np.floating
    ):
        fix = "return one real number"
        got = describe(value)
        raise TypeError(complaint("function(point)", "a real scalar", got, fix))
    return jnp.asarray(value)


def _steps(x: Any, step: Any) -> Any:
    """h = step × max(|x|, 1), such that x + h is exact: no rounding of the input."""
    xp = jnp if isinstance(x, jax.Array) else np
    magnitude = step * xp.maximum(xp.abs(x), 1.0)
    return xp.exp2(xp.ceil(xp.log2(magnitude)))


def _slopes(
    function: ScalarFunction, structure: _Structure, x: Vector, step: Any, chunk: int
) -> Vector:
    """Central differences by every coordinate of x, `chunk` coordinates at a time."""
    h = _steps(x, step)
    coordinates = jnp.arange(x.size)

    def value(moved: Vector) -> jax.Array:
        return _scalar(function(structure.unravel(moved)))

    def slope(i: Integer[Array, ""]) -> jax.Array:
        forth = value(jnp.where(coordinates == i, x + h, x))
        back = value(jnp.where(coordinates == i, x - h, x))
        return (forth - back).astype(x.dtype) / (2 * h[i])

    return jax.lax.map(slope, coordinates, batch_size=chunk)


@partial(jax.jit, static_argnums=(0, 1, 4))
def _all_slopes(
    function: ScalarFunction, structure: _Structure, x: Vector, step: Any, chunk: int
) -> Vector:
    return _slopes(function, structure, x, step, chunk)


def _vectorised(
    function: ScalarFunction, structure: _Structure, flat: np.ndarray, step: float
) -> np.ndarray:
    return _all_slopes(function, structure, flat, step, _chunk(flat.size))


@partial(jax.jit, static_argnums=(0, 1, 5))
def _descend(
    function: ScalarFunction,
    structure: _Structure,
    init: Vector,
    step: Any,
    learning_rate: Any,
    num_steps: int,
) -> Float[Array, "points coordinates"]:
    def move(x: Vector, _: None) -> tuple[Vector, Vector]:
        slopes = _slopes(function, structure, x, step, _chunk(init.size))
        moved = x - learning_rate * slopes
        return moved, moved

    _, path = jax.lax.scan(move, init, length=num_steps)
    return jnp.concatenate([init[None, :], path])


def _chunk(size: int) -> int:
    """How many coordinates may be nudged at once, two float64 copies of x each."""
    return int(np.clip(MAX_BYTES // (16 * max(size, 1)), 1, max(size, 1)))


def _one_by_one(
    function: Callable[[np.ndarray], Any], x: np.ndarray, step: float
) -> np.ndarray:
    slopes = np.empty_like(x)
    for i, h in enumerate(_steps(x, step)):
        moved = [x.copy(), x.copy()]
        moved[0][i] += h
        moved[1][i] -= h
        forth, back = (float(_plain_scalar(function(m))) for m in moved)
        slopes[i] = (forth - back) / (2 * h)
    return slopes


def _plain_scalar(value: Any) -> np.ndarray:
    array = np.asarray(value)
    if array.shape != () or array.dtype.kind not in "fiu":
        fix = "return one real number"
        got = describe(value)
        raise TypeError(complaint("function(point)", "a real scalar", got, fix))
    return array
