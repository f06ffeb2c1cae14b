"""ε, the spacing of floating numbers just above 1, by dtype."""

from typing import Any

import jax.numpy as jnp
import numpy as np


def eps(dtype: Any) -> float:
    """ε of a real or complex floating dtype, JAX's coarse ones included."""
    return float(jnp.finfo(dtype).eps)


SINGLE = eps(np.float32)
DOUBLE = eps(np.float64)
