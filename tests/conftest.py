"""Strict promotion for every test, and a random key."""

import gc

import jax
import pytest

collect_ignore = ["sample_package"]
"""A suite of its own, which the tests of the plugin run."""

gc.set_threshold(100_000, 50, 100)  # collections took a fourteenth of all the time
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def key() -> jax.Array:
    """A random key, the same in every test; float64 is not enabled here."""
    return jax.random.key(0)
