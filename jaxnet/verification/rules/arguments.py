"""The arguments of a call as one pytree, whose paths begin with their names."""

import inspect
import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from jaxnet.array_types import PyTree

BY_POSITION = (
    inspect.Parameter.POSITIONAL_ONLY,
    inspect.Parameter.POSITIONAL_OR_KEYWORD,
)


@dataclass(frozen=True)
class Name:
    """The key of an argument: `x` where a tuple has `[0]`."""

    name: str

    def __str__(self) -> str:
        return self.name


@jax.tree_util.register_pytree_with_keys_class
@dataclass(frozen=True, eq=False)
class Arguments:
    """A name for each value; of no two the same."""

    names: tuple[str, ...]
    values: tuple[Any, ...]

    @classmethod
    def of(cls, function: Callable[..., PyTree], values: Sequence[Any]) -> "Arguments":
        """With the names that the function has for them."""
        return cls(names_of(function, len(values)), tuple(values))

    def and_one(self, name: str, value: Any) -> "Arguments":
        """One more; its name gets a number if it is there."""
        numbered = (name if n == 1 else f"{name}{n}" for n in itertools.count(1))
        new = next(each for each in numbered if each not in self.names)
        return Arguments((*self.names, new), (*self.values, value))

    def tree_flatten_with_keys(self) -> tuple[Iterable[Any], Any]:
        """As JAX wants it."""
        return tuple(zip(map(Name, self.names), self.values, strict=True)), self.names

    @classmethod
    def tree_unflatten(cls, names: Any, values: Iterable[Any]) -> "Arguments":
        """The way back."""
        return cls(names, tuple(values))


def names_of(function: Callable[..., PyTree], count: int) -> tuple[str, ...]:
    """What a function calls its first arguments; `[0]` … where it has no names."""
    parameters = signature_of(function).parameters.values()
    names = [p.name for p in parameters if p.kind in BY_POSITION]
    several = [p.name for p in parameters if p.kind is inspect.Parameter.VAR_POSITIONAL]
    rest = max(count - len(names), 0)
    names += [f"{several[0] if several else ''}[{i}]" for i in range(rest)]
    return tuple(names[:count])


def signature_of(function: Callable[..., PyTree]) -> inspect.Signature:
    """That of a function; an empty one where it has none, being written in C."""
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return inspect.Signature()
