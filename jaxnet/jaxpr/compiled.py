"""Programs that were compiled, kept under what identifies them.

A function is traced anew at each check, so that a changed closure is seen. What is
compiled for it depends on the equations of its trace alone, and on the shapes of its
constants, which are arguments: the same check again, the next of the same shapes, and
a new function of the same body compile nothing.
"""

from collections.abc import Callable, Container, Hashable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.array_types import PyTree
from jaxnet.float64 import platform
from jaxnet.jaxpr.evaluate import bind, detached, evaluate
from jaxnet.jaxpr.reader import is_literal, opened
from jaxnet.xla_options import in_haste

MOST = 1024
"""So many programs are kept of each kind, the last used."""

SMALL = 64
"""A larger array that an inner program holds is the caller's, and is not kept."""

NOT_READ = {
    "jit": {"name"},
    "custom_jvp_call": {"name", "jvp_jaxpr_fun"},
    "custom_vjp_call": {"name", "fwd_jaxpr_thunk", "bwd", "out_trees"},
}
"""Parameters that no value depends on: names, and rules of derivatives."""


@dataclass(frozen=True, eq=False)
class Bare:
    """A program without its constants; two are equal if they compute the same.

    jaxpr: its equations; it takes the constants first.
    out_tree: the structure of its result.
    key: what identifies it; None where something in it cannot be compared.
    """

    jaxpr: Any
    out_tree: Any
    key: Hashable = field(repr=False)

    @classmethod
    def of(cls, jaxpr: Any, out_tree: Any) -> "Bare":
        """Of a jaxpr, whatever its constants are."""
        jaxpr = detached(jaxpr)
        try:
            return cls(jaxpr, out_tree, (_identity(jaxpr), out_tree))
        except _Unidentified:
            return cls(jaxpr, out_tree, None)

    def __call__(self, consts: Sequence[Any], *leaves: Any) -> PyTree:
        """The result, for constants and inputs."""
        outputs = evaluate(self.jaxpr, leaves, bind, consts=consts)
        return jax.tree.unflatten(self.out_tree, outputs)

    def __hash__(self) -> int:
        return hash(self.key) if self.key is not None else id(self)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Bare) or self.key is None:
            return self is other
        return self.key == other.key

    def compiled(self, make: Callable[..., Any], *rest: Hashable) -> Any:
        """What `make(bare, *rest)` gave the first time."""
        kept = _kept if self.key is not None else _kept.__wrapped__
        return kept(make, self, *rest)


@lru_cache(maxsize=MOST)
def _kept(make: Callable[..., Any], *args: Hashable) -> Any:
    return make(*args)


def forget() -> None:
    """Let go of every program."""
    _kept.cache_clear()


def compiled(function: Callable[..., PyTree], *args: PyTree) -> Callable[..., PyTree]:
    """A function traced at `args`, and compiled in haste if no other was like it."""
    closed, out = jax.make_jaxpr(function, return_shape=True)(*args)
    bare = Bare.of(closed.jaxpr, jax.tree.structure(out))
    jitted = bare.compiled(in_haste, platform())

    def run(*args: PyTree) -> PyTree:
        pairs = zip(jax.tree.leaves(args), closed.in_avals, strict=True)
        return jitted(closed.consts, *(_as_traced(x, aval.dtype) for x, aval in pairs))

    return run


def _as_traced(value: Any, dtype: Any) -> Any:
    """A value in the dtype of the trace: JAX gives a NumPy scalar to it as it is."""
    return value if getattr(value, "dtype", None) == dtype else np.asarray(value, dtype)


class _Unidentified(Exception):
    """Something that cannot be compared with another of its kind."""


def _identity(jaxpr: Any) -> Hashable:
    """What two jaxprs have in common if they compute the same; constants by shape."""
    numbers: dict[Any, int] = {}
    inputs = _numbered(jaxpr.constvars, numbers), _numbered(jaxpr.invars, numbers)
    equations = tuple(
        (
            e.primitive,
            _read(e.invars, numbers),
            _of_params(e.params, NOT_READ.get(e.primitive.name, ())),
            _of_context(e.ctx),
            _numbered(e.outvars, numbers),
        )
        for e in jaxpr.eqns
    )
    return inputs, equations, _read(jaxpr.outvars, numbers)


def _numbered(variables: Sequence[Any], numbers: dict[Any, int]) -> Hashable:
    """Types of new variables, which get their numbers."""
    for v in variables:
        numbers[v] = len(numbers)
    return tuple(_of_type(v.aval) for v in variables)


def _read(variables: Sequence[Any], numbers: dict[Any, int]) -> Hashable:
    """Known variables by their numbers, literals by value."""
    return tuple(
        (_of_array(v.val), _of_type(v.aval)) if is_literal(v) else numbers[v]
        for v in variables
    )


def _of_params(params: dict[str, Any], not_read: Container[str] = ()) -> Hashable:
    names = sorted(name for name in params if name not in not_read)
    return tuple((name, _of(params[name])) for name in names)


def _of(value: Any) -> Hashable:
    """A parameter of an equation, as what can be compared."""
    if hasattr(opened(value), "eqns"):
        consts = getattr(value, "consts", ())
        return _identity(opened(value)), tuple(map(_of_array, consts))
    if isinstance(value, (tuple, list)):
        return type(value), tuple(map(_of, value))
    if isinstance(value, dict):
        return _of_params(value)
    if isinstance(value, (np.ndarray, jax.Array)):
        return _of_array(value)
    try:
        hash(value)
    except TypeError as error:
        raise _Unidentified from error
    return type(value), value


def _of_array(value: Any) -> Hashable:
    if isinstance(value, jax.core.Tracer) or np.size(value) > SMALL:
        raise _Unidentified
    dtype = getattr(value, "dtype", type(value))
    if isinstance(value, jax.Array) and jnp.issubdtype(dtype, jax.dtypes.extended):
        raise _Unidentified
    array = np.asarray(value)
    return str(dtype), array.shape, array.tobytes()


def _of_type(aval: Any) -> Hashable:
    return type(aval), aval


def _of_context(context: Any) -> Hashable:
    """Where and how an equation computes, other than by default."""
    return str(getattr(context, "compute_type", None)), str(
        getattr(context, "xla_metadata", None)
    )
