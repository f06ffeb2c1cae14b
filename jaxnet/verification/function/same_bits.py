"""Whether two pytrees are the same in every bit."""

import hashlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.array_types import PyTree


def fingerprint(tree: PyTree) -> tuple[bytes, ...]:
    """Of the bits of every leaf: 32 bytes each, however large the leaf is."""
    return tuple(map(_digest, jax.tree.leaves(tree)))


def _digest(leaf: Any) -> bytes:
    dtype = getattr(leaf, "dtype", None)
    if dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key):
        leaf = jax.random.key_data(leaf)
    array = np.ascontiguousarray(leaf)
    raw = array.tobytes() if array.dtype.hasobject else array.view(np.uint8).data
    return hashlib.sha256(raw).digest()
