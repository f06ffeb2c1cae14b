"""float64 for a while, in a session that computes in float32.

JAX (0.10 to 0.12) remembers for a NumPy array that a traced function closes over which
dtype it has, float64, as long as the traced program lives; a plain call of the function
then fails in float32. So functions are traced once, and what they close over is
kept as JAX arrays.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

FULL_RATE = {"6.0", "7.0", "8.0", "9.0", "10.0"}
"""The compute capabilities of NVIDIA's GPUs that have a float64 unit to two of float32:
P100, V100, A100, H100, B200. Source: throughput table, CUDA C++ Programming Guide."""

_CHOSEN = "jax_default_device"


def host() -> jax.Device | None:
    """The CPU, where the device in use has no float64 or a slow one; None elsewhere.

    A device that the caller chose by jax.default_device is his choice.
    """
    device = jax.local_devices()[0]
    is_fast = getattr(device, "compute_capability", "") in FULL_RATE
    if getattr(jax.config, _CHOSEN) is not None or device.platform == "cpu" or is_fast:
        return None
    try:
        return jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return None


def platform() -> str:
    """Of the device that programs run on: within `in_float64` it may be the host."""
    device = getattr(jax.config, _CHOSEN)
    return getattr(device, "platform", device) or jax.default_backend()


@contextmanager
def in_float64() -> Iterator[None]:
    """float64 for the time of a `with`, under the promotion that JAX users expect.

    It is computed by the host where the device has none, or a slow one.
    """
    device = host()
    with (
        jax.default_device(device) if device else nullcontext(),
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
        jax.debug_nans(False),
    ):
        yield


class Traced:
    """A function as traced once, under the mode of that moment.

    jaxpr, consts: what it computes, and the arrays that it closes over.
    out: the shape and dtype of its result, as a pytree.
    """

    def __init__(self, function: Callable[..., Any], *args: PyTree) -> None:
        closed, self.out = jax.make_jaxpr(function, return_shape=True)(*args)
        self.jaxpr = closed.jaxpr
        self.consts = [
            c if isinstance(c, jax.Array) else jnp.asarray(np.asarray(c))
            for c in closed.consts
        ]

    def __call__(self, *args: PyTree) -> PyTree:
        """The function, for arguments of the same shapes and dtypes."""
        values = jax.core.eval_jaxpr(self.jaxpr, self.consts, *jax.tree.leaves(args))
        return jax.tree.unflatten(jax.tree.structure(self.out), values)


def traced_or_none(function: Callable[..., Any], *args: PyTree) -> Traced | None:
    """The function as JAX traces it; None if it cannot be traced.

    What is raised then is swallowed: code for NumPy answers a tracer with exceptions of
    any type, its own among them. Whoever calls the function instead sees its errors.
    """
    try:
        return Traced(function, *args)
    except Exception:  # the caller's function
        return None
