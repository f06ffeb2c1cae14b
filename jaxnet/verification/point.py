"""The point of a check: leaves of real numbers that move, and leaves that are held.

A complex leaf is seen as pairs of reals on one more trailing axis; its gradient, by
JAX's convention the conjugate of the textbook's, becomes the derivatives with respect
to each part.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Shaped

from jaxnet.array_types import PyTree
from jaxnet.input_checks import check_untraced, complaint, describe
from jaxnet.verification.report.numbers import listed

Reals = Shaped[np.ndarray, "..."]
"""Real numbers in whatever floating dtype they came in."""

MANY = 2**22
"""Parameters above this number (32 MiB in float64) are copied to float64 one leaf at a
time: a copy of all of them would be felt in the memory of the machine."""

TINY = 2.0**-26
"""A coordinate below this share of its leaf's floor is smaller than the finest step."""

CHUNK = 2**20
"""How many coordinates a sum takes in float64 at once: 8 MiB."""

FLOOR = 0.25
"""A coordinate smaller than this share of its leaf's root mean square moves as one of
that size does: its own size says little of the scale on which the loss changes."""


@dataclass(frozen=True, eq=False)
class Leaf:
    """One leaf that moves: where it is, and its values as real numbers.

    number, position: its place among the moving leaves, and among all.
    floor: the size that a smaller coordinate is taken to have.
    """

    path: str
    number: int
    position: int
    values: Reals
    dtype: Any
    is_complex: bool
    floor: float

    @property
    def name(self) -> str:
        """The path; "params" where these are one array."""
        return self.path or "params"

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape as the caller knows it."""
        return self.values.shape[:-1] if self.is_complex else self.values.shape

    @property
    def size(self) -> int:
        """How many real numbers it has."""
        return self.values.size

    @property
    def wide(self) -> Float[np.ndarray, "..."]:
        """The values in float64, as a copy where they are not."""
        return np.asarray(self.values, np.float64)

    @property
    def largest(self) -> float:
        """The size of the largest coordinate."""
        return max(largest_size(self.values), self.floor)

    @cached_property
    def has_tiny(self) -> bool:
        """Whether a coordinate is so small that no step is as small as it is."""
        return self.finely().floor < TINY * self.floor

    def is_tiny(self, flat: int) -> bool:
        """Whether one coordinate is."""
        return 0 < abs(float(self.values.reshape(-1)[flat])) < TINY * self.floor

    def derivatives(self, gradient: Any) -> Reals:
        """With respect to each real number: of x and y, a gradient is ∂/∂x - i ∂/∂y."""
        if self.is_complex:
            return real_view(np.conj(gradient))
        return np.asarray(gradient)

    def finely(self) -> "Leaf":
        """The leaf with its smallest coordinate as floor: every size is relative."""
        sizes = np.abs(self.values[self.values != 0])
        return replace(self, floor=float(np.min(sizes, initial=self.floor)))

    def moved(self, by: Reals) -> "Leaf":
        """The leaf beside itself."""
        return replace(self, values=self.wide + by)

    def index(self, flat: int) -> tuple[int, ...]:
        """The caller's index of one coordinate."""
        index = tuple(int(i) for i in np.unravel_index(flat, self.values.shape))
        return index[:-1] if self.is_complex else index

    def flat_index(self, index: tuple[int, ...]) -> int:
        """The coordinate of the caller's index (of a complex entry, the real part)."""
        flat = int(np.ravel_multi_index(index, self.shape)) if self.shape else 0
        return 2 * flat if self.is_complex else flat


@dataclass(frozen=True, eq=False)
class Point:
    """The moving leaves of a pytree, and how to put a pytree together from them.

    held: paths of integer, boolean and key leaves.
    everything: all leaves as they were given.
    """

    leaves: tuple[Leaf, ...]
    held: tuple[str, ...]
    everything: tuple[Any, ...]
    structure: Any

    @classmethod
    def of(cls, params: PyTree) -> "Point":
        """Split `params`.

        Raises:
            TypeError: a leaf is a tracer.
            ValueError: no leaf is real or complex, or one is not finite.
        """
        check_untraced("params", params, "check outside jit, grad and vmap")
        flat, structure = jax.tree_util.tree_flatten_with_path(params)
        moving, held = list[Leaf](), list[str]()
        for position, (path, value) in enumerate(flat):
            name = jax.tree_util.keystr(path)
            if is_inexact(value):
                moving.append(_leaf(name, len(moving), position, value))
            else:
                held.append(name)
        if not moving:
            fix = "differentiate with respect to at least one array of floats"
            kinds = [describe(value) for _, value in flat]
            got = f"none among {len(flat)}" + (f": {listed(kinds)}" if kinds else "")
            raise ValueError(complaint("params", "a floating leaf", got, fix))
        everything = tuple(value for _, value in flat)
        return cls(tuple(moving), tuple(held), everything, structure)

    @property
    def are_many(self) -> bool:
        """Whether a copy of all of them matters."""
        return are_many(leaf.size for leaf in self.leaves)

    def with_leaf(self, leaf: Leaf) -> "Point":
        """The point with one leaf replaced."""
        leaves = list(self.leaves)
        leaves[leaf.number] = leaf
        return replace(self, leaves=tuple(leaves))

    def wide(self) -> list[Reals]:
        """The leaves in float64. Float32 as it is where a copy of all matters.

        NumPy widens them, as XLA takes numbers below 1e-38 for zeros.
        """
        many = self.are_many
        return [
            x.values if many and x.values.dtype == np.float32 else x.wide
            for x in self.leaves
        ]

    def as_given(self) -> PyTree:
        """The pytree as JAX would take it; NumPy arrays are copies, to be written to.

        Without x64 it takes float64 for float32.
        """
        leaves = [
            x.astype(jax.dtypes.canonicalize_dtype(x.dtype))
            if isinstance(x, np.ndarray) and is_inexact(x)
            else x
            for x in self.everything
        ]
        return self.structure.unflatten(leaves)

    def as_traced(self) -> list[Any]:
        """The moving leaves as they were given, complex ones as pairs of reals."""
        return [
            x.values.astype(np.zeros((), x.dtype).real.dtype)
            if x.is_complex
            else self.everything[x.position]
            for x in self.leaves
        ]

    def arrays(self, moved: Iterable[Leaf] = ()) -> list[Shaped[np.ndarray, "..."]]:
        """The same as NumPy arrays, in their dtypes, with some leaves moved."""
        arrays = [np.asarray(x) for x in self.as_traced()]
        for leaf in moved:
            own = arrays[leaf.number]
            arrays[leaf.number] = leaf.values.astype(own.dtype)
        return arrays

    def rebuild(self, values: list[Any]) -> PyTree:
        """A pytree like the given one, with other values of the moving leaves."""
        everything = list(self.everything)
        for leaf, value in zip(self.leaves, values, strict=True):
            if leaf.is_complex:
                real, imaginary = value[..., 0], value[..., 1]
                if isinstance(value, np.ndarray):
                    value = real + 1j * imaginary
                else:
                    value = jax.lax.complex(real, imaginary)
            everything[leaf.position] = value
        return self.structure.unflatten(everything)


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class OfLeaves:
    """Arrays of the floating leaves of a pytree, in order; others have none.

    A tree like it with None for them would not do: sparse arrays and modules want
    arrays in their leaves.
    """

    values: list[Any]


def are_many(sizes: Iterable[int]) -> bool:
    """Whether a copy of all numbers of arrays of these sizes matters."""
    return sum(sizes) > MANY


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


def real_view(value: Any) -> Reals:
    """An array of reals; complex numbers as (real, imaginary) on one more axis.

    Real arrays keep their dtype: a large float32 leaf is not copied to float64. They
    are views: a loss may close over the caller's own, and JAX would remember for that
    in which dtype it was last seen.
    """
    array = np.asarray(value).view()
    if np.iscomplexobj(array):
        return np.stack([array.real, array.imag], axis=-1).astype(np.float64)
    return array


def not_finite(value: Any) -> str:
    """What of an array is no finite number, in words; empty if all are."""
    values = real_view(value)
    finite = np.isfinite(values)
    return "" if finite.all() else f"{values[~finite].flat[0]} among {describe(value)}"


def largest_size(values: Reals) -> float:
    """max |x|, 0 of no values, without a copy."""
    return float(max(np.max(values, initial=0.0), -np.min(values, initial=0.0)))


def two_norm(values: Reals) -> float:
    """√Σ xᵢ², without overflow and without a copy."""
    largest, total = largest_size(values), 0.0
    if not largest or not np.isfinite(largest):
        return largest
    flat = values.reshape(-1)
    for i in range(0, flat.size, CHUNK):
        part = flat[i : i + CHUNK].astype(np.float64) / largest
        total += float(part @ part)
    return largest * float(total**0.5)


def _leaf(path: str, number: int, position: int, value: Any) -> Leaf:
    values = real_view(value)
    if fault := not_finite(value):
        fix = "move the point"
        raise ValueError(complaint(f"params{path}", "finite numbers", fault, fix))
    dtype = np.asarray(value).dtype
    is_complex = bool(jnp.issubdtype(dtype, np.complexfloating))
    return Leaf(path, number, position, values, dtype, is_complex, _floor(values))


def _floor(values: Reals) -> float:
    """A share of the root of the mean square; 1 for zeros, which have no size."""
    size = two_norm(values)
    if not size:
        return 1.0
    floor = FLOOR * size / float(values.size**0.5)
    return max(floor, float(np.finfo(np.float64).tiny))
