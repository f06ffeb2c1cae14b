"""Programs that call the caller's Python, where that may raise."""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

import jax

T = TypeVar("T")

RAISED = "error calling callback"
"""What XLA says where a callback raises."""


def unless_raised(run: Callable[[], T]) -> T | None:
    """What a program gives; None where a callback in it raises: outside its domain."""
    try:
        with _unlogged():
            return run()
    except (ValueError, jax.errors.JaxRuntimeError) as error:
        if RAISED not in str(error):
            raise
        return None


@contextmanager
def _unlogged() -> Iterator[None]:
    """JAX logs whatever a callback raises, with its traceback."""
    logger = logging.getLogger("jax._src.callback")
    was, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = was
