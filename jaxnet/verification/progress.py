"""A progress bar for checks that take long, where a person can see it."""

from typing import Any

DELAY = 2.0
"""Seconds before there is a bar: most checks are over by then."""


def progress(total: int) -> Any:
    """A bar of so many leaves, on a terminal; it needs tqdm, which is optional."""
    try:
        from tqdm import tqdm
    except ImportError:
        return _NoBar()
    what = {"desc": "check_gradients", "unit": "leaf", "leave": False}
    return tqdm(total=total, delay=DELAY, disable=None, **what)


class _NoBar:
    """What stands for a bar where there is none."""

    def __enter__(self) -> "_NoBar":
        return self

    def __exit__(self, *error: object) -> None: ...

    def update(self, leaves: int = 1) -> None:
        """So many more leaves are done."""

    def set_postfix_str(self, words: str) -> None:
        """What is being done."""
