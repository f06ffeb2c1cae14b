"""Where a program calls rules: derivatives that need not be those of what is computed.

A site is one line that calls a custom_vjp, a custom_jvp or a stop_gradient.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.jaxpr import (
    IN_JAX,
    Hook,
    at_line,
    evaluate,
    every_equation,
    opened,
    source_line,
    sub_jaxprs,
)
from jaxnet.verification.point import is_inexact

RULES = ("custom_vjp_call", "custom_vjp_call_jaxpr", "custom_jvp_call")
"""Primitives of functions with a rule of their own."""

SITES = (*RULES, "stop_gradient")
"""Primitives whose derivative need not be that of what they compute."""


@dataclass(frozen=True, eq=False)
class Site:
    """A rule, or a stop_gradient, where one line calls it.

    equations: its calls. name: of the rule, empty for a stop_gradient.
    rule, line: where the rule stands, and where it is called.
    """

    equations: tuple[Any, ...]
    name: str
    rule: str
    line: str

    @property
    def function(self) -> str:
        """The name of what it is the rule of, and where that stands."""
        return _made_by(next(sub_jaxprs(self.equations[0]), None))

    @property
    def place(self) -> str:
        """Where it stands, and its call."""
        calls = f"called {len(self.equations)} times" * (len(self.equations) > 1)
        called = at_line("called", self.line) if self.line else ""
        return ", ".join(filter(None, [self.rule, calls, called]))

    @property
    def described(self) -> str:
        """Its name, and where it stands."""
        name = f"the rule of `{self.name}`" if self.name else "stop_gradient"
        return f"{name} ({self.place})" if self.place else name


def sites(equations: Iterable[Any]) -> list[Site]:
    """Those among equations, the calls of one line together."""
    found = dict[tuple[tuple[str, str, str], int], list[Any]]()
    for equation in equations:
        if equation.primitive.name in SITES:
            words = (*_rule(equation), source_line(equation))
            found.setdefault((words, id(_backward(equation))), []).append(equation)
    return [Site(tuple(each), *words) for (words, _), each in found.items()]


def computed(equation: Any, inputs: Sequence[Any], within: Hook) -> list[Any]:
    """What a site computes, without its rule; `within`: the hook for what is in it."""
    if equation.primitive.name not in RULES:
        return list(inputs)
    return evaluate(next(sub_jaxprs(equation)), inputs, within)


def has_derivative(equation: Any) -> bool:
    """Whether JAX can differentiate what a site computes: no kernel, no callback."""
    if equation.primitive.name not in RULES:
        return True
    avals = [v.aval for v in equation.invars]
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals]
    floating = [i for i, a in enumerate(avals) if jnp.issubdtype(a.dtype, np.inexact)]

    def total(*values: Any) -> Any:
        outputs = computed(equation, values, lambda e, x: None)
        return sum(jnp.sum(jnp.abs(y)) for y in outputs if is_inexact(y))

    try:
        jax.eval_shape(jax.grad(total, floating), *shapes)
    except Exception:  # the caller's function
        return False
    return True


def inside(equation: Any) -> Iterator[Any]:
    """The equations that stand in one."""
    return (e for jaxpr in sub_jaxprs(equation) for e in every_equation(jaxpr))


def _rule(equation: Any) -> tuple[str, str]:
    """The name of a rule's function, and file and line of the rule; empty for none."""
    if equation.primitive.name not in RULES:
        return "", ""
    name, _, place = _made_by(next(sub_jaxprs(equation))).partition(" at ")
    backward = _backward(equation)
    code = getattr(getattr(backward, "func", backward), "__code__", None)
    if code is not None and IN_JAX not in code.co_filename:  # vmap's wrapper is
        return name, f"{code.co_filename}:{code.co_firstlineno}"
    tangent = _made_by(equation.params.get("jvp_jaxpr_fun")).partition(" at ")[2]
    return name, place if IN_JAX in tangent else tangent or place


def _backward(equation: Any) -> Any:
    """The function that a custom_vjp has for its backward pass."""
    return getattr(equation.params.get("bwd"), "f", None)


def _made_by(program: Any) -> str:
    info = getattr(opened(program), "debug_info", None)
    return str(getattr(info, "func_src_info", ""))
