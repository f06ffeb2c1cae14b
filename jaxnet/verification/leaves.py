"""The parameters as a verifier sees them: leaves that move, and leaves that are held.

A complex leaf is seen as pairs of reals on one more trailing axis; its gradient, by
JAX's convention the conjugate of the textbook's, becomes the derivatives by each part.
"""

from dataclasses import dataclass, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.array_types import PyTree
from jaxnet.input_checks import complaint, describe

MANY = 2**22
"""Parameters above this number are copied to float64 as seldom as can be."""

CHUNK = 2**20
"""How many coordinates a sum takes in float64 at once."""


@dataclass(frozen=True, eq=False)
class Leaf:
    """One leaf that moves: where it is, and its values as real numbers."""

    path: str
    position: int
    values: np.ndarray
    dtype: Any
    is_complex: bool
    floor: float
    """The size, in its own unit, that a smaller coordinate is taken to have."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape as the caller knows it."""
        return self.values.shape[:-1] if self.is_complex else self.values.shape

    def finely(self) -> "Leaf":
        """The leaf with its smallest coordinate as floor: every size is relative."""
        sizes = np.abs(self.values[self.values != 0])
        return replace(self, floor=float(np.min(sizes, initial=self.floor)))

    @property
    def largest(self) -> float:
        """The size of the largest coordinate."""
        return max(largest_size(self.values), self.floor)

    def size(self, flat: int) -> float:
        """The unit in which a coordinate moves."""
        return float(units(self.values.reshape(-1)[flat], self.floor))

    def index(self, flat: int) -> tuple[int, ...]:
        """The caller's index of one coordinate."""
        index = tuple(int(i) for i in np.unravel_index(flat, self.values.shape))
        return index[:-1] if self.is_complex else index


@dataclass(frozen=True)
class Parameters:
    """The moving leaves of a pytree, and how to put a pytree together from them."""

    leaves: tuple[Leaf, ...]
    held: tuple[str, ...]
    everything: tuple[Any, ...]
    structure: Any

    @classmethod
    def of(cls, params: PyTree) -> "Parameters":
        """Split `params`.

        Raises:
            ValueError: no leaf is real or complex, or one is not finite.
        """
        flat, structure = jax.tree_util.tree_flatten_with_path(params)
        moving, held = [], []
        for position, (path, value) in enumerate(flat):
            name = jax.tree_util.keystr(path)
            if is_inexact(value):
                moving.append(_leaf(name, position, value))
            else:
                held.append(name)
        if not moving:
            fix = "differentiate by at least one array of floats"
            got = f"none among {len(flat)}"
            raise ValueError(complaint("params", "a floating leaf", got, fix))
        everything = tuple(value for _, value in flat)
        return cls(tuple(moving), tuple(held), everything, structure)

    @property
    def are_many(self) -> bool:
        """Whether a copy of all of them matters."""
        return sum(leaf.values.size for leaf in self.leaves) > MANY

    def wide(self) -> list[np.ndarray]:
        """The leaves in float64. Float32 as it is where a copy of all matters.

        NumPy widens them, as XLA takes numbers below 1e-38 for zeros.
        """
        return [
            x.values
            if self.are_many and x.values.dtype == np.float32
            else np.asarray(x.values, np.float64)
            for x in self.leaves
        ]

    def as_given(self) -> PyTree:
        """The pytree with every leaf in the dtype in which it was given."""
        return self.rebuild([leaf.values for leaf in self.leaves], own_dtype=True)

    def rebuild(self, values: list[Any], own_dtype: bool = False) -> PyTree:
        """The pytree with the moving leaves' values replaced, held ones as they were.

        own_dtype: cast each leaf back to the dtype in which it was given.
        """
        everything = list(self.everything)
        for leaf, value in zip(self.leaves, values, strict=True):
            if leaf.is_complex:
                value = value[..., 0] + 1j * value[..., 1]
            if own_dtype:  # without float64 the nearest there is: no warning
                value = value.astype(jax.dtypes.canonicalize_dtype(leaf.dtype))
            everything[leaf.position] = value
        return self.structure.unflatten(everything)


def units(values: Any, floor: Any, xp: Any = np) -> Any:
    """The power of two at or just below max(|x|, floor) of each entry, exactly.

    The mantissa m of frexp lies in [½, 1), so size / 2m is a power of two and the
    division does not round. xp: numpy, or jax.numpy within a traced program.
    """
    size = xp.maximum(xp.abs(xp.asarray(values, np.float64)), floor)
    return size / (2 * xp.frexp(size)[0])


def is_inexact(value: Any) -> bool:
    """Whether a leaf can be differentiated by: real or complex floating numbers."""
    if isinstance(value, (float, complex)):
        return True
    dtype = getattr(value, "dtype", None)
    return dtype is not None and jnp.issubdtype(dtype, np.inexact)


def floating_leaves(tree: PyTree) -> list[Any]:
    """The leaves that can be differentiated by, or be a cotangent of."""
    return [leaf for leaf in jax.tree.leaves(tree) if is_inexact(leaf)]


def with_floating(tree: PyTree, values: list[Any]) -> PyTree:
    """The pytree with its floating leaves replaced, others as they are."""
    rest = iter(values)
    return jax.tree.map(lambda leaf: next(rest) if is_inexact(leaf) else leaf, tree)


def only_floating(tree: PyTree, values: list[Any]) -> PyTree:
    """The pytree with its floating leaves replaced, None for others."""
    rest = iter(values)
    return jax.tree.map(lambda leaf: next(rest) if is_inexact(leaf) else None, tree)


def real_view(value: Any) -> np.ndarray:
    """An array of reals; complex numbers as (real, imaginary) on one more axis.

    Real arrays keep their dtype: a large float32 leaf is not copied to float64.
    """
    array = np.asarray(value)
    if np.iscomplexobj(array):
        return np.stack([array.real, array.imag], axis=-1).astype(np.float64)
    return array


def _leaf(name: str, position: int, value: Any) -> Leaf:
    values = real_view(value)
    finite = np.isfinite(
        np.asarray(values, np.float32) if values.itemsize < 4 else values
    )
    if not finite.all():
        where = f"params{name}"
        got = f"{values[~finite].flat[0]} among {describe(value)}"
        raise ValueError(complaint(where, "finite numbers", got, "move the point"))
    dtype = np.asarray(value).dtype
    is_complex = bool(jnp.issubdtype(dtype, np.complexfloating))
    return Leaf(name, position, values, dtype, is_complex, size_floor(values))


def largest_size(values: np.ndarray) -> float:
    """max |x|, 0 of no values, without a copy."""
    return float(max(np.max(values, initial=0.0), -np.min(values, initial=0.0)))


def size_floor(values: np.ndarray) -> float:
    """A quarter of the root of the mean square; 1 for zeros, which have no size."""
    largest = largest_size(values)
    if not largest:
        return 1.0
    total, flat = 0.0, values.reshape(-1)
    for i in range(0, flat.size, CHUNK):
        part = flat[i : i + CHUNK].astype(np.float64) / largest
        total += float(part @ part)
    floor = largest * (total / flat.size) ** 0.5 / 4
    return max(floor, float(np.finfo(np.float64).tiny))
