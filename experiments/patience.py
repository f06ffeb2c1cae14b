"""A word to who waits: what takes so long, if it takes over a second."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Timer

PATIENCE = 1.0
"""Seconds."""


@contextmanager
def said_if_slow(what: str) -> Iterator[None]:
    """Print `what` to standard error once the block has taken PATIENCE seconds."""
    timer = Timer(PATIENCE, print, [what], {"file": sys.stderr, "flush": True})
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
