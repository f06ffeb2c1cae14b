"""Methods whose answer is remembered by the object that gave it."""

from collections.abc import Callable
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")
S = TypeVar("S")


def once(method: Callable[Concatenate[S, P], T]) -> Callable[Concatenate[S, P], T]:
    """A method of an object that does not change, asked once for the same arguments."""
    name = f"_{method.__name__}_of"

    @wraps(method)
    def remembered(self: Any, *args: Any, **kwargs: Any) -> T:
        known = self.__dict__.setdefault(name, {})
        key = args, *kwargs.items()
        if key not in known:
            known[key] = method(self, *args, **kwargs)
        found: T = known[key]
        return found

    return remembered
