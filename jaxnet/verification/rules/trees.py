"""The leaves of a pytree that can be differentiated by, taken out and put back."""

from typing import Any

import jax

from jaxnet.array_types import PyTree
from jaxnet.verification.point import is_inexact


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
