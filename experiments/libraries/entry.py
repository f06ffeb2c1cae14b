"""One function of a library, and the points at which its derivatives are asked for."""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.array_types import PyTree

GOLDEN = 0.6180339887498949
"""Multiples of it, modulo 1, are spread evenly, and no sum of few of them is round."""


@contextmanager
def as_users_have_it() -> Iterator[None]:
    """JAX in float64 and otherwise as it comes; no warnings."""
    with (
        warnings.catch_warnings(),
        np.errstate(all="ignore"),
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        warnings.simplefilter("ignore")
        yield


@dataclass(frozen=True)
class Point:
    """Where a function is looked at.

    label: as the table writes it.
    args: floating arrays, all of which move.
    is_edge: whether something may happen here: 0, ties, the domain's end, large.
    """

    label: str
    args: tuple[Any, ...]
    is_edge: bool = False


@dataclass(frozen=True)
class Entry:
    """A function, with all that is not to be differentiated bound.

    name: as it is imported; variants of one function differ behind a bracket.
    function: of the arrays of a point, to a pytree.
    definition: what it is by its definition: of mpmath numbers, one for each argument
        of a function of scalars. None where there is no closed one.
    """

    name: str
    function: Callable[..., PyTree]
    points: tuple[Point, ...]
    definition: Callable[..., Any] | None = None

    @property
    def base(self) -> str:
        """The function's name without the variant."""
        return self.name.split("(")[0]

    @cached_property
    def scalar(self) -> Callable[..., Any]:
        """`weighted`, traced once for all that is asked of it."""
        return jax.jit(self.weighted)

    def weighted(self, *args: Any) -> Any:
        """Its floating outputs, real and imaginary parts, summed with fixed weights.

        The weight of a function of one output is 1.
        """
        leaves = jax.tree.leaves(self.function(*args))
        floats = [x for x in map(jnp.asarray, leaves) if jnp.issubdtype(x, jnp.inexact)]
        parts = [jnp.ravel(p) for x in floats for p in _real_parts(x)]
        if sum(part.size for part in parts) == 1:
            return next(part for part in parts if part.size).reshape(())
        total, before = jnp.zeros((), parts[0].dtype), 0
        for part in parts:
            weights = weights_of(part.size, before).astype(part.dtype)
            total, before = total + jnp.sum(weights * part), before + part.size
        return total


def weights_of(count: int, start: int = 0) -> np.ndarray:
    """`count` numbers between 0.5 and 1.5, of which no simple sum vanishes."""
    return 0.5 + (GOLDEN * np.arange(start + 1, start + count + 1)) % 1.0


def _real_parts(x: Any) -> list[Any]:
    return [x.real, x.imag] if jnp.iscomplexobj(x) else [x]


def sample(*shape: int, start: int = 0, low: float = -1.0, high: float = 1.0) -> Any:
    """Fixed numbers between `low` and `high`, all different, as float64."""
    count = int(np.prod(shape))
    spread = (np.sqrt(2.0) * np.arange(start + 1, start + count + 1)) % 1.0
    return (low + (high - low) * spread).reshape(shape)
