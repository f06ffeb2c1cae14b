"""float64 for a while, in a session that computes in float32.

JAX (0.10 to 0.12) remembers for a NumPy array that a traced function closes over which
dtype it has, float64, as long as the traced program lives; a plain call of the function
then fails in float32. So functions are traced once, and what they close over is
kept as JAX arrays.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree


class in_float64:
    """float64 for the time of a `with`, under the promotion that JAX users expect."""

    def __enter__(self) -> None:
        self.contexts = (
            jax.enable_x64(True),
            jax.numpy_dtype_promotion("standard"),
            jax.numpy_rank_promotion("allow"),
            jax.debug_nans(False),
        )
        for context in self.contexts:
            context.__enter__()

    def __exit__(self, *error: Any) -> None:
        for context in reversed(self.contexts):
            context.__exit__(*error)


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
