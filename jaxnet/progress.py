"""A progress bar for what takes long, where a person can see it."""

from typing import Any

DELAY = 2.0
"""Seconds before there is a bar: most checks and many runs are over by then."""


def progress(
    total: int, what: str, unit: str, shown: bool | None = None, done: int = 0
) -> Any:
    """A bar of `total` units, of which so many are done; by tqdm, which is optional.

    shown: on a terminal only by default; True everywhere, at once; False nowhere.
    """
    try:
        from tqdm import tqdm
    except ImportError:
        return _NoBar()
    return tqdm(
        desc=what,
        total=total,
        initial=done,
        unit=unit,
        leave=bool(shown),
        delay=0.0 if shown else DELAY,
        disable=None if shown is None else not shown,
    )


class _NoBar:
    """What stands for a bar where there is none."""

    def __enter__(self) -> "_NoBar":
        return self

    def __exit__(self, *error: object) -> None: ...

    def update(self, units: int = 1) -> None:
        """So many more are done."""

    def set_postfix_str(self, words: str, refresh: bool = True) -> None:
        """What is being done."""
