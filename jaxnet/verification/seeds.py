"""Seeds of the random directions."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.input_checks import complaint


def seed_of(key: Any) -> tuple[int, ...]:
    """The words of a key: of `jax.random.key`, `PRNGKey` or an integer; (0,) of None.

    Raises:
        TypeError: it is none of these.
    """
    if key is None:
        return (0,)
    if hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.key_data(key)
    words = np.asarray(key)
    if words.dtype.kind not in "iu" or (words < 0).any():
        fix = "pass jax.random.key(0)"
        raise TypeError(complaint("key", "a JAX key or an integer ≥ 0", repr(key), fix))
    return tuple(int(word) for word in words.reshape(-1))
