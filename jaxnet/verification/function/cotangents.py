"""What a function of any output is paired with to be a scalar: a cotangent."""

from collections.abc import Sequence
from typing import Any, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

Arrays: TypeAlias = list[Any]
"""The floating leaves of arguments or outputs, in order."""


def random_like(leaves: Sequence[Any], seed: Sequence[int]) -> Arrays:
    """Standard normal numbers, one for each number of the leaves.

    They are sixteenths and none is 0: hardly any floating dtype would round them.
    """
    random = np.random.default_rng(list(seed))

    def normal(shape: tuple[int, ...]) -> Any:
        sixteenths = np.round(16 * random.standard_normal(shape))
        return np.asarray(np.where(sixteenths == 0, 1, sixteenths) / 16)

    def draw(leaf: Any) -> Any:
        shape = np.shape(leaf)
        real = normal(shape)
        return real + 1j * normal(shape) if np.iscomplexobj(leaf) else real

    return [draw(leaf) for leaf in leaves]


def inner(one: Arrays, other: Arrays) -> Any:
    """Re Σ aᵢ bᵢ, with aᵢ rounded to the dtype of bᵢ and summed as finely as may be.

    A sum in bfloat16 would hide what one entry of many changes.
    """
    wide = jax.dtypes.canonicalize_dtype(np.float64)
    is_traced = any(isinstance(x, jax.core.Tracer) for x in (*one, *other))
    xp: Any = jnp if is_traced else np  # each operation of jnp would be compiled
    total = xp.zeros((), wide)
    for a, b in zip(one, other, strict=True):
        a, b = xp.asarray(a).astype(b.dtype), xp.asarray(b)
        parts = [(xp.real(a), xp.real(b))]
        if jnp.iscomplexobj(b):
            parts.append((-xp.imag(a), xp.imag(b)))
        for x, y in parts:
            with np.errstate(invalid="ignore"):  # inf - inf is NaN, and said to be
                total = total + xp.sum(x.astype(wide) * y.astype(wide))
    return total
