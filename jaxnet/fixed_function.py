"""Functions that will always compute the same, so that one trace of them lasts.

Most Python functions may not: an array they close over can be written to, a global name
assigned anew. One that reads nothing but its argument, numbers, strings and what JAX,
NumPy and Python provide is told by its code and by what it reads now.
"""

import builtins
import dis
from collections import ChainMap
from collections.abc import Callable, Hashable, Iterator
from functools import lru_cache
from types import BuiltinFunctionType, CodeType, FunctionType, ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

_SCALARS = (bool, int, float, complex, str, bytes, type(None))
_OF_NUMBERS = (abs, bool, complex, float, int, max, min, pow, round, sum)
_OF_SEQUENCES = (enumerate, isinstance, len, list, map, range, reversed, tuple, zip)
_LIBRARIES = ("jax", "numpy", "math")
_OF_LIBRARIES = (ModuleType, FunctionType, BuiltinFunctionType, type)
JITTED = type(jax.jit(jnp.sin))
"""What `jax.jit` makes of a function."""

_BEYOND_READING = {"IMPORT_NAME", "STORE_GLOBAL", "DELETE_GLOBAL", "LOAD_BUILD_CLASS"}


class FixedFunction:
    """A function that equals all those that compute the same; see `fixed`."""

    def __init__(self, function: Callable[..., Any], identity: Hashable) -> None:
        self.function, self.identity = function, identity

    def __call__(self, *args: Any) -> Any:
        return self.function(*args)

    def __hash__(self) -> int:
        return hash(self.identity)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FixedFunction) and self.identity == other.identity


def fixed(function: Callable[..., Any]) -> FixedFunction | None:
    """The function, if it is sure to compute the same for ever; None if it is not.

    What `jax.jit` has wrapped is: JAX itself keeps its first trace.
    """
    if isinstance(function, JITTED):
        return FixedFunction(function, function)
    if type(function) is not FunctionType or function.__dict__:
        return None
    names = _globals_read(function.__code__)
    if names is None:
        return None
    try:
        identity = tuple(map(_identity, _values_read(function, names)))
    except (KeyError, ValueError):  # a name without a value; or one that may change
        return None
    return FixedFunction(function, (function.__code__, identity))


@lru_cache(maxsize=1000)
def _globals_read(code: CodeType) -> tuple[str, ...] | None:
    """The global names that code reads; None if it does more than read them."""
    names: dict[str, None] = {}
    for instruction in dis.get_instructions(code):
        if instruction.opname in _BEYOND_READING or instruction.argval == "random":
            return None
        if instruction.opname == "LOAD_GLOBAL":
            names[instruction.argval] = None
    for inner in code.co_consts:
        if isinstance(inner, CodeType):
            more = _globals_read(inner)
            if more is None:
                return None
            names.update(dict.fromkeys(more))
    return tuple(names)


def _values_read(function: FunctionType, names: tuple[str, ...]) -> Iterator[Any]:
    """Of the globals by these names, of what it closes over, and of its defaults."""
    names_of = ChainMap(function.__globals__, vars(builtins))
    yield from map(names_of.__getitem__, names)
    yield from (cell.cell_contents for cell in function.__closure__ or ())
    yield from function.__defaults__ or ()
    yield from (function.__kwdefaults__ or {}).values()


def _identity(value: Any) -> Hashable:
    """Equal for values that are the same for ever.

    Raises:
        ValueError: this one may change.
    """
    if type(value) in _SCALARS or isinstance(value, np.generic):
        return type(value), repr(value)  # 0.0 is not -0.0, and not 0; NaN is NaN
    if isinstance(value, JITTED) or _is_builtin(value) or _is_of_library(value):
        return value
    raise ValueError(value)


def _is_builtin(value: Any) -> bool:
    return any(value is one for one in (*_OF_NUMBERS, *_OF_SEQUENCES))


def _is_of_library(value: Any) -> bool:
    """A module, function or class of JAX, NumPy or math, random numbers excepted."""
    if not isinstance(value, _OF_LIBRARIES):
        return False
    owner = getattr(value, "__self__", None)
    if not isinstance(owner, (ModuleType, type(None))):
        return False  # a method of some object
    if getattr(value, "__closure__", None):
        return False  # made of what a user passed
    module = isinstance(value, ModuleType)
    name = str(value.__name__ if module else getattr(value, "__module__", None))
    return name.split(".")[0] in _LIBRARIES and "random" not in name
