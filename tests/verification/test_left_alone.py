"""A check leaves its caller's functions as they were, and each other check too.

JAX remembers for a NumPy array that a traced function closes over in which dtype it was
last seen, and keeps what a trace that raises has seen.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import Verdict, check_gradients

INDEX = np.array([-1, 0, 2])
WEIGHTS = np.random.default_rng(0).standard_normal(3)
X = np.arange(5.0, dtype=np.float32)


def weighted(x: Any) -> Any:
    """Over NumPy's float64 and int64 data."""
    return jnp.sum((jnp.asarray(x)[INDEX] * WEIGHTS) ** 2)


def in_float32_only(x: Any) -> Any:
    """It raises under x64, having seen the data."""
    value = weighted(x)
    if x.dtype != np.float32:
        raise RuntimeError("float32 only")
    return value


LOSSES: dict[str, Callable[[Any], Any]] = {
    "plain": weighted,
    "raising": in_float32_only,
    "jitted": jax.jit(lambda x: weighted(x)),
    "checkpointed": jax.checkpoint(lambda x: weighted(x)),
    "branch": lambda x: jax.lax.cond(x[0] > -1, weighted, jnp.sum, x),
}


@pytest.mark.slow
def test_one_after_the_other() -> None:
    """Each agrees, and gives its caller what it gave, whatever came before."""
    x = jnp.asarray(X)
    for _ in range(2):
        for name, loss in LOSSES.items():
            before = loss(x)
            report = check_gradients(loss, X)
            assert report.verdict is Verdict.AGREE, f"{name}\n{report}"
            assert report.worst.resolution < 1e-9
            assert loss(x) == before
            assert jnp.allclose(jax.jit(loss)(x), before)


def test_a_loss_of_its_own_parameters() -> None:
    """What it closes over is the array at which it is checked."""
    point = np.linspace(1.0, 2.0, 5)
    report = check_gradients(lambda x: jnp.sum(point * jnp.sin(x)), point)
    assert report.verdict is Verdict.AGREE
