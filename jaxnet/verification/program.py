"""What a traced function computes, read from its jaxpr; no ground for a verdict."""

import os.path
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np


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

    @property
    def precision_anywhere(self) -> float:
        """ε of the coarsest floating type, constant parts included."""
        return max((_eps(e) for e in _every(self.closed.jaxpr)), default=_DOUBLE)

    def precision_of(self, number: int) -> float:
        """ε of the coarsest floating type that one input passes through."""
        jaxpr = self.closed.jaxpr
        moving = [i == number for i in range(len(jaxpr.invars))]
        return max((_eps(e) for e in dependent(jaxpr, moving)), default=_DOUBLE)

    def coarsest(self) -> Any | None:
        """The first equation that computes in less than float64."""
        precision = self.precision
        if precision == _DOUBLE:
            return None
        return next(e for e in self.equations if _eps(e) == precision)

    def describe_coarsest(self) -> str:
        """Where the function leaves float64, with the source line."""
        equation = self.coarsest()
        assert equation is not None
        dtype = next(v.aval.dtype for v in equation.outvars if _eps(equation))
        return f"computes in {dtype}: {described(equation)}"


def described(equation: Any, caller: Any = None) -> str:
    """The primitive's name and its source line, or that of the equation it is in."""
    line = _at(equation) or (_at(caller) if caller is not None else "")
    return f"`{equation.primitive.name}`{line}"


_DOUBLE = float(np.finfo(np.float64).eps)


def dependent(jaxpr: Any, moving: list[bool]) -> Iterator[Any]:
    """The equations that depend on the moving inputs, outer before inner."""
    known = {v for v, m in zip(jaxpr.invars, moving, strict=True) if m}
    for equation in jaxpr.eqns:
        inputs = [not is_literal(v) and v in known for v in equation.invars]
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
            inner = getattr(item, "jaxpr", item)
            if hasattr(inner, "eqns"):
                yield inner


def is_literal(variable: Any) -> bool:
    """Whether an input of an equation is a number written into the program."""
    return hasattr(variable, "val")


def _eps(equation: Any) -> float:
    dtypes = [getattr(v.aval, "dtype", None) for v in equation.outvars]
    floats = [d for d in dtypes if d is not None and jnp.issubdtype(d, np.inexact)]
    return max((float(jnp.finfo(d).eps) for d in floats), default=_DOUBLE)


_SUSPECTS = {
    "stop_gradient": "stop_gradient",
    "custom_vjp_call": "a custom_vjp rule",
    "custom_vjp_call_jaxpr": "a custom_vjp rule",
    "custom_jvp_call": "a custom_jvp rule",
    "round": "rounding",
    "floor": "rounding",
    "ceil": "rounding",
    "sign": "sign",
    "argmax": "argmax",
    "argmin": "argmin",
    "pure_callback": "a callback",
    "io_callback": "a callback",
}
_OWN = os.path.dirname(__file__)
"""The verifier casts too, to call a function in its own dtype; that is no suspect."""

_LIBRARY = (
    "/jax/_src/nn/",
    "/jax/_src/ops/",
    "/jax/_src/scipy/",
    "/jax/_src/numpy/linalg",
    "/jax/_src/lax/linalg",
    "/optax/",
)


_RANDOM = ("random_bits", "threefry2x32", "rng_bit_generator", "rng_uniform")


def draws_numbers(program: Program) -> bool:
    """Whether random numbers are drawn anywhere: others in float64 than in float32."""
    return any(e.primitive.name in _RANDOM for e in _every(program.closed.jaxpr))


_OUTSIDE = ("pure_callback", "io_callback", "ffi_call", "rng_uniform")


def calls_out(program: Program) -> bool:
    """Whether anything is computed outside the program, where it may be at random."""
    return any(e.primitive.name in _OUTSIDE for e in _every(program.closed.jaxpr))


def _every(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for inner in sub_jaxprs(equation):
            yield from _every(inner)


def suspects(program: Program) -> list[str]:
    """What on the way from the parameters may break a derivative, with source lines."""
    found = []
    for equation in program.equations:
        name = equation.primitive.name
        if _OWN in source_line(equation):
            continue
        if name in _SUSPECTS and not _is_library_own(equation):
            found.append(_SUSPECTS[name] + _rule(equation) + _at(equation))
        elif name == "convert_element_type" and _casts_down(equation):
            found.append(f"a cast to {equation.params['new_dtype']}{_at(equation)}")
    return list(dict.fromkeys(found))


def _at(equation: Any) -> str:
    line = source_line(equation)
    return f" at {line}" if line else ""


def source_line(equation: Any) -> str:
    """File, line and function that made an equation."""
    from jax.extend import source_info_util  # 80 ms, wanted by few runs

    return source_info_util.summarize(equation.source_info)


def _is_library_own(equation: Any) -> bool:
    """Whether a rule or stop_gradient is JAX's own, as in jax.nn.relu and softmax."""
    if any("jax/_src/" in _made_at(inner) for inner in sub_jaxprs(equation)):
        return True
    frames = getattr(equation.source_info.traceback, "frames", ())
    return any(part in frame.file_name for frame in frames for part in _LIBRARY)


def _rule(equation: Any) -> str:
    names = [_made_at(inner).split(" at ")[0] for inner in sub_jaxprs(equation)]
    return f" `{names[0]}`" if names and names[0] else ""


def _made_at(jaxpr: Any) -> str:
    return str(getattr(getattr(jaxpr, "debug_info", None), "func_src_info", ""))


def _casts_down(equation: Any) -> bool:
    old = getattr(equation.invars[0].aval, "dtype", None)
    new = equation.params["new_dtype"]
    if old is None or not jnp.issubdtype(old, np.floating):
        return False
    if not jnp.issubdtype(new, np.floating):
        return not jnp.issubdtype(new, np.complexfloating)
    return float(jnp.finfo(new).eps) > float(jnp.finfo(old).eps)


def axis_sizes(program: Program) -> dict[int, str]:
    """Axis sizes of the arrays that the function closes over."""
    sizes: dict[int, str] = {}
    for constant in program.closed.consts:
        shape = tuple(np.shape(constant))
        for axis, size in enumerate(shape):
            text = "×".join(map(str, shape))
            sizes.setdefault(size, f"axis {axis} of the {text} data")
    return sizes
