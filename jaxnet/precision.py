"""ε, the spacing of floating numbers just above 1, by dtype."""

from typing import Any

import jax.numpy as jnp
import numpy as np

UNDERFLOW = float(np.finfo(np.float32).tiny)
"""What is smaller may be 0 in float32."""


def eps(dtype: Any) -> float:
    """ε of a real or complex floating dtype, JAX's coarse ones included."""
    return float(jnp.finfo(dtype).eps)


SINGLE = eps(np.float32)
DOUBLE = eps(np.float64)
