"""Where a program calls rules: derivatives that need not be those of what is computed.

A site is one line that calls a custom_vjp, a custom_jvp, a stop_gradient or steps.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from inspect import unwrap
from types import CodeType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.jaxpr.evaluate import Hook, bind, evaluate
from jaxnet.jaxpr.lines import IN_JAX, at_line, source_lines
from jaxnet.jaxpr.reader import enclosing, inside, opened, sub_jaxprs
from jaxnet.verification.function.steps import STEPS
from jaxnet.verification.point import is_inexact

RULES = ("custom_vjp_call", "custom_jvp_call")
"""Primitives of functions with a rule of their own."""

INSTALLED = "-packages/"
"""Stands in the path of a library that was installed."""

MAKER = IN_JAX + "custom_derivatives.py"
"""Where JAX makes a rule of a function that gives its value and its derivative."""

SITES = (*RULES, "stop_gradient")
"""Primitives whose derivative need not be that of what they compute."""

UNBOUND = "unbound axis name"
"""What JAX says of a collective outside of its mesh."""


@dataclass(frozen=True, eq=False)
class Site:
    """A rule, a stop_gradient, or steps, where one line calls it.

    equations: its calls. name: of the rule, empty for a primitive.
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
    def primitive(self) -> str:
        """Of a call."""
        return str(self.equations[0].primitive.name)

    @property
    def place(self) -> str:
        """Where it stands, and its call."""
        calls = f"called {len(self.equations)} times" * (len(self.equations) > 1)
        called = at_line("called", self.line) if self.line else ""
        return ", ".join(filter(None, [self.rule, calls, called]))

    @property
    def described(self) -> str:
        """Its name, and where it stands."""
        primitive = f"`{self.primitive}`" if self.primitive in STEPS else self.primitive
        name = f"the rule of `{self.name}`" if self.name else primitive
        return f"{name} ({self.place})" if self.place else name


def sites(
    closed: Any, equations: Iterable[Any], names: Sequence[str] = SITES
) -> list[Site]:
    """Those among equations of a program, the calls of one line together."""
    found, outer = dict[Any, list[Any]](), enclosing(closed)
    for equation in equations:
        name = equation.primitive.name
        if name in names:
            words = (*_rule(equation), _line(equation, outer))
            same = words, name, id(backward(equation))
            found.setdefault(same, []).append(equation)
    return [Site(tuple(each), *words) for (words, *_), each in found.items()]


def site_of(equation: Any, line: str) -> Site:
    """The one of a single call, at a line."""
    return Site((equation,), *_rule(equation), line)


def outermost(equations: Iterable[Any]) -> list[Any]:
    """Without those that stand in a rule: its own derivative is used, not theirs."""
    every = list(equations)
    rules = (e for e in every if e.primitive.name in RULES)
    hidden = {id(one) for rule in rules for one in inside(rule)}
    return [e for e in every if id(e) not in hidden]


def computed(equation: Any, inputs: Sequence[Any], within: Hook) -> list[Any]:
    """What a site computes, without its rule; `within`: the hook for what is in it.

    Steps, with the derivative of what they are the steps of.
    """
    if equation.primitive.name in STEPS:
        (x,), (y,) = inputs, bind(equation, inputs)
        return [y + (x - jax.lax.stop_gradient(x))]
    if equation.primitive.name not in RULES:
        return list(inputs)
    return evaluate(next(sub_jaxprs(equation)), inputs, within)


def has_derivative(equation: Any) -> bool:
    """Whether JAX can differentiate what a site computes: no kernel, no callback.

    Also if it cannot be told, since that calls a collective.
    """
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
    except Exception as error:  # the caller's function
        return UNBOUND in str(error)
    return True


def backward(equation: Any) -> Any:
    """The function that a custom_vjp has for its backward pass; None if unknown."""
    wrapped = equation.params.get("bwd")
    while True:  # vmap wraps it
        function: Any = getattr(wrapped, "f", None)
        free = getattr(getattr(function, "__code__", None), "co_freevars", ())
        if "bwd" not in free or IN_JAX not in function.__code__.co_filename:
            return function
        wrapped = function.__closure__[free.index("bwd")].cell_contents


def _rule(equation: Any) -> tuple[str, str]:
    """The name of a rule's function, and file and line of the rule; empty for none.

    Of a rule that a library makes of a caller's function, the function's.
    """
    if equation.primitive.name not in RULES:
        return "", ""
    name, _, place = _made_by(next(sub_jaxprs(equation))).partition(" at ")
    if not place or MAKER in place or INSTALLED in place:
        name, place = _given_to_maker(equation) or (name, place)
    tangent = _made_by(equation.params.get("jvp_jaxpr_fun")).partition(" at ")[2]
    own = (line for line in (written(backward(equation)), tangent) if line)
    hidden = (IN_JAX,) if INSTALLED in place else (IN_JAX, INSTALLED)
    return name, next((x for x in own if not any(h in x for h in hidden)), place)


def code_of(function: Any) -> CodeType | None:
    """That of a function, wrapped or partial, or of an object that is called."""
    function = unwrap(getattr(function, "func", function))
    by_object = vars(type(function)).get("__call__")
    codes = (getattr(each, "__code__", None) for each in (function, by_object))
    return next((code for code in codes if isinstance(code, CodeType)), None)


def written(function: Any) -> str:
    """The file and line of a function; empty if unknown."""
    code = code_of(function)
    return f"{code.co_filename}:{code.co_firstlineno}" if code else ""


def _given_to_maker(equation: Any) -> tuple[str, str] | None:
    """The function that a rule was made of, by the lines of its body.

    Of those that the call itself has not, it is the outermost.
    """
    outer = source_lines(equation)
    for inner in map(source_lines, inside(equation)):
        own = (line for line in inner if line not in outer and INSTALLED not in line)
        if within := list(own):
            place, _, name = within[-1].removesuffix(")").partition(" (")
            name = name.removesuffix(".__call__").rpartition(".")[2]
            return name, place.rpartition(":")[0]
    return None


def _line(equation: Any, outer: dict[int, Any]) -> str:
    """Where it is called, or what it is called in; by the caller, if a library does."""
    lines = source_lines(equation)
    while not lines and id(equation) in outer:
        equation = outer[id(equation)]
        lines = source_lines(equation)
    return next((x for x in lines if INSTALLED not in x), next(iter(lines), ""))


def _made_by(program: Any) -> str:
    info = getattr(opened(program), "debug_info", None)
    return str(getattr(info, "func_src_info", ""))
