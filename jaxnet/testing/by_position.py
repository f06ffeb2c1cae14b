"""A name for a function of positions alone, without a signature.

A `jax.custom_vjp` passes the defaults that a signature has to its rule, as arrays.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any

from jaxnet.array_types import PyTree


def named(like: Callable[..., PyTree]) -> Callable[..., Callable[..., PyTree]]:
    """A decorator: the name and the docstring of another function, no signature."""

    def of_positions(function: Callable[..., PyTree]) -> Callable[..., PyTree]:
        @wraps(like)
        def called(*args: Any) -> PyTree:
            return function(*args)

        del called.__wrapped__
        return called

    return of_positions
