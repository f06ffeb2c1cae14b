"""A pytree of numbers as one float64 vector, and scalar functions of it."""

import math
from collections.abc import Callable
from itertools import accumulate
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import PyTreeDef
from jaxtyping import Float, Float64

from jaxnet.array_types import Array, PyTree, ScalarFunction
from jaxnet.input_checks import complaint, describe

Vector: TypeAlias = Float[Array, " coordinates"]
Coordinates: TypeAlias = Float64[np.ndarray, " coordinates"]
"""The point itself; a Vector may also be traced."""

VectorFunction: TypeAlias = Callable[[Vector], Any]
"""A function of the caller's; that it gives a real scalar is checked at its calls."""

_REAL = (np.floating, np.integer)


class Structure(NamedTuple):
    """How a pytree of arrays lies in one vector; equal for the same pytrees."""

    tree: PyTreeDef | None
    """None for a single array."""
    shapes: tuple[tuple[int, ...], ...]

    def __call__(self, vector: Vector) -> PyTree:
        """The pytree of a vector's entries."""
        if self.tree is None:
            return vector.reshape(self.shapes[0])
        sizes = list(map(math.prod, self.shapes))
        pieces = [
            vector[end - size : end].reshape(shape)
            for end, size, shape in zip(
                accumulate(sizes), sizes, self.shapes, strict=True
            )
        ]
        return jax.tree.unflatten(self.tree, pieces)


def ravel_numpy(point: PyTree) -> tuple[Coordinates, Structure]:
    """The point as one float64 vector (a copy), and the way back to its structure.

    Raises:
        TypeError: it holds something else than real numbers.
    """
    if isinstance(point, np.ndarray) and point.dtype.kind in "fiu":
        return point.astype(float).ravel(), Structure(None, (point.shape,))
    leaves, tree = jax.tree.flatten(point)
    arrays = [np.asarray(leaf) for leaf in leaves]
    for number, array in enumerate(arrays):
        if not any(jnp.issubdtype(array.dtype, kind) for kind in _REAL):
            path, _ = jax.tree_util.tree_leaves_with_path(point)[number]
            name = f"point{jax.tree_util.keystr(path)}"
            fix = "differentiate by real numbers only"
            raise TypeError(complaint(name, "real numbers", describe(array), fix))
    flat = np.concatenate([np.zeros(0), *(a.astype(float).ravel() for a in arrays)])
    alone = len(leaves) == 1 and jax.tree_util.treedef_is_leaf(tree)
    shapes = tuple(array.shape for array in arrays)
    return flat, Structure(None if alone else tree, shapes)


def scalar_value(function: ScalarFunction, structure: Structure) -> VectorFunction:
    """The function of the flat vector; its result is checked to be a real scalar."""
    is_vector = structure.tree is None and len(structure.shapes[0]) == 1

    def value(x: Vector) -> Any:
        y = function(x if is_vector else structure(x))
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
