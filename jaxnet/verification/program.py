"""What a traced function computes: read from its jaxpr, never a ground for a verdict."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend import core, source_info_util


@dataclass(frozen=True)
class Program:
    """A traced function with its equations that depend on the parameters."""

    closed: Any
    equations: tuple[Any, ...]

    @classmethod
    def of(cls, closed: Any) -> "Program":
        """Read a closed jaxpr, through jit, scan, while, cond and custom rules."""
        jaxpr = closed.jaxpr
        return cls(closed, tuple(dependent(jaxpr, [True] * len(jaxpr.invars))))

    @property
    def precision(self) -> float:
        """ε of the coarsest floating type that the parameters pass through."""
        return max((_eps(e) for e in self.equations), default=_DOUBLE)

    def coarsest(self) -> Any | None:
        """The first equation that computes in less than float64."""
        precision = self.precision
        if precision == _DOUBLE:
            return None
        return next(e for e in self.equations if _eps(e) == precision)

    def describe_coarsest(self) -> str:
        """Where the function leaves float64, with the source line."""
        equation = self.coarsest()
        dtype = next(v.aval.dtype for v in equation.outvars if _eps(equation))
        return f"computes in {dtype}: {described(equation)}"


def described(equation: Any) -> str:
    """The primitive's name and the source line that called it."""
    line = source_info_util.summarize(equation.source_info)
    return f"`{equation.primitive.name}` at {line}"


_DOUBLE = float(np.finfo(np.float64).eps)


def dependent(jaxpr: Any, moving: list[bool]) -> Iterator[Any]:
    """The equations that depend on the moving inputs, outer before inner."""
    known = {v for v, m in zip(jaxpr.invars, moving, strict=True) if m}
    for equation in jaxpr.eqns:
        inputs = [not _is_literal(v) and v in known for v in equation.invars]
        if not any(inputs):
            continue
        known.update(equation.outvars)
        yield equation
        for inner in sub_jaxprs(equation):
            same = len(inner.invars) == len(inputs)
            yield from dependent(inner, inputs if same else [True] * len(inner.invars))


def sub_jaxprs(equation: Any) -> Iterator[Any]:
    """The jaxprs that an equation runs."""
    for value in equation.params.values():
        for item in value if isinstance(value, (tuple, list)) else (value,):
            if isinstance(item, core.ClosedJaxpr):
                yield item.jaxpr
            elif isinstance(item, core.Jaxpr):
                yield item


def _is_literal(variable: Any) -> bool:
    return isinstance(variable, core.Literal)


def _eps(equation: Any) -> float:
    dtypes = [getattr(v.aval, "dtype", None) for v in equation.outvars]
    floats = [d for d in dtypes if d is not None and jnp.issubdtype(d, np.inexact)]
    return max((float(jnp.finfo(d).eps) for d in floats), default=_DOUBLE)
