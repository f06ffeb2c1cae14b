"""Which rule of the program is wrong, where a gradient that JAX derived from it is.

Each custom rule, and each stop_gradient, has a switch: off, the derivative of what it
computes stands in its place. With all off the gradient must be right; a rule that makes
it wrong alone, and that the gradient depends on, is convicted. All ways of setting the
switches are one program, and what it gives is held against the same differences as the
gradient was. No other rule is named.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.jaxpr import (
    Hook,
    bind,
    evaluate,
    every_equation,
    opened,
    source_line,
    sub_jaxprs,
)
from jaxnet.verification.context import Context
from jaxnet.verification.explanation.causes import WrongLeaf, times
from jaxnet.verification.explanation.switched import (
    GradientBySwitches,
    Switches,
    gradient_by_switches,
)
from jaxnet.verification.function.once import once
from jaxnet.verification.leaf.locate import same_as_autodiff
from jaxnet.verification.point import Reals, is_inexact

RULES = ("custom_vjp_call", "custom_vjp_call_jaxpr", "custom_jvp_call")
SITES = (*RULES, "stop_gradient")
"""Primitives whose derivative need not be that of what they compute."""

NOBODY = "no rule of the program can be convicted of it"

IN_JAX = "/jax/_src/"
"""Stands in the path of what JAX itself wrote."""

OWN = str(Path(__file__).parents[1])
"""The verifier's folder: the caller has nothing to mend at its lines."""

CHANGES = 1e-9
"""By more than this share of its largest entry a switch changes a gradient."""


@dataclass(frozen=True)
class Site:
    """A rule, or a stop_gradient, where one line calls it.

    equations: its calls. name: of the rule. rule, line: where it and the call stand.
    """

    equations: tuple[Any, ...]
    name: str
    rule: str
    line: str

    @property
    def place(self) -> str:
        """Where the rule stands, and its call."""
        calls = f"called {len(self.equations)} times" * (len(self.equations) > 1)
        return ", ".join(filter(None, [self.rule, calls, self.line]))

    @property
    def guilt(self) -> str:
        """What is said of it if it is convicted."""
        where = self.place
        if not self.name:
            return f"stop_gradient{f' ({where})' if where else ''} stops a part of it"
        return f"the rule of `{self.name}` ({where}) is wrong"


def sites(equations: Iterable[Any]) -> list[Site]:
    """Those among equations, the calls of one line together."""
    found = dict[tuple[tuple[str, str, str], int], list[Any]]()
    for equation in equations:
        if equation.primitive.name in SITES:
            words = (*_rule(equation), at_line("called", source_line(equation)))
            found.setdefault((words, id(_backward(equation))), []).append(equation)
    return [Site(tuple(each), *words) for (words, _), each in found.items()]


@dataclass(frozen=True)
class Culprits:
    """The rules of one program, and its gradient by their switches.

    switchable: those whose body has a derivative. fixed: others, always on.
    """

    context: Context
    switchable: tuple[Site, ...]
    fixed: tuple[Site, ...]

    @classmethod
    def of(cls, context: Context) -> "Culprits":
        """Those of the caller's own program."""
        program = context.objective.program
        found = sites(program.equations) if program else []
        can = [all(map(_has_derivative, site.equations)) for site in found]
        pairs = list(zip(found, can, strict=True))
        return cls(
            context,
            tuple(site for site, has in pairs if has),
            tuple(site for site, has in pairs if not has),
        )

    def of_leaf(self, wrong: WrongLeaf) -> str:
        """Who is guilty of a wrong leaf, in words.

        Nothing of a candidate that is not what JAX derives: it says nothing of the
        program.
        """
        if not _is_of_autodiff(wrong):
            return ""
        return self._convicted(wrong) or NOBODY

    def _convicted(self, wrong: WrongLeaf) -> str:
        if not (self.switchable or self.fixed):
            return ""
        number, count = wrong.probes.leaf.number, len(self.switchable)
        off, on, each = np.zeros(count), np.ones(count), np.eye(count)

        def gradient(switches: Switches) -> Reals:
            return self._gradient(tuple(switches.tolist()))[number]

        if not wrong.is_mended_by(gradient(off)):
            if len(self.fixed) != 1:
                return ""
            return f"{self.fixed[0].guilt}: with all others replaced, it is so as well"
        alone = [i for i in range(count) if not wrong.is_mended_by(gradient(each[i]))]
        guilty = [i for i in alone if _differ(gradient(on), gradient(on - each[i]))]
        guilty = guilty or self._innermost(alone)
        said = [
            self.switchable[i].guilt + _ratio(gradient(off), gradient(each[i]))
            for i in guilty
        ]
        if guilty and wrong.is_mended_by(gradient(on - each[guilty].sum(axis=0))):
            said.append("with the true derivative in its place, this leaf agrees")
        return "; ".join(said)

    def _innermost(self, chosen: list[int]) -> list[int]:
        """Those that hold none of the others: an outer rule may use an inner one's."""
        within = {
            i: {id(e) for x in self.switchable[i].equations for e in inside(x)}
            for i in chosen
        }
        own = {i: set(map(id, self.switchable[i].equations)) for i in chosen}
        return [i for i in chosen if not any(own[j] & within[i] for j in chosen)]

    @once
    def _gradient(self, switches: tuple[float, ...]) -> list[Reals]:
        return self._by_switches()(np.array(switches))

    @once
    def _by_switches(self) -> GradientBySwitches:
        parts = [site.equations for site in self.switchable]
        return gradient_by_switches(self.context.objective, parts, _with_switch)


def at_line(words: str, line: str) -> str:
    """Words with a source line, unless it is unknown or the verifier's own."""
    return f"{words} at {line}" if line and not line.startswith(OWN) else ""


def inside(equation: Any) -> Iterator[Any]:
    """All equations that stand in one."""
    return (e for jaxpr in sub_jaxprs(equation) for e in every_equation(jaxpr))


def _with_switch(
    equation: Any, switch: Any, inputs: list[Any], within: Hook
) -> list[Any]:
    """With its rule where the switch is on, else with that of what it computes."""
    outputs: list[Any] = jax.lax.cond(
        switch > 0,
        lambda *values: bind(equation, values),
        lambda *values: _body(equation, values, within),
        *inputs,
    )
    return outputs


def _body(equation: Any, inputs: Sequence[Any], within: Hook) -> list[Any]:
    if equation.primitive.name not in RULES:
        return list(inputs)
    return evaluate(next(sub_jaxprs(equation)), inputs, within)


def _has_derivative(equation: Any) -> bool:
    """Whether JAX can differentiate what it computes: no kernel, no callback."""
    if equation.primitive.name not in RULES:
        return True
    avals = [v.aval for v in equation.invars]
    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in avals]
    floating = [i for i, a in enumerate(avals) if jnp.issubdtype(a.dtype, np.inexact)]

    def total(*values: Any) -> Any:
        outputs = _body(equation, values, lambda e, x: None)
        return sum(jnp.sum(jnp.abs(y)) for y in outputs if is_inexact(y))

    try:
        jax.eval_shape(jax.grad(total, floating), *shapes)
    except Exception:  # the caller's function
        return False
    return True


def _is_of_autodiff(wrong: WrongLeaf) -> bool:
    """Whether the candidate is what JAX derives, but for rounding."""
    context, leaf = wrong.context, wrong.probes.leaf
    if wrong.candidate.is_derived(context.autodiff):
        return True
    autodiff = context.autodiff.array(leaf)
    if autodiff is None:
        return False
    allowed = same_as_autodiff(context, wrong.candidate, wrong.probes, autodiff)
    return bool((np.abs(wrong.gradient - autodiff) <= allowed).all())


def _differ(one: Reals, other: Reals) -> bool:
    largest = np.max(np.abs(one), initial=np.max(np.abs(other), initial=0.0))
    return not np.max(np.abs(one - other), initial=0.0) <= CHANGES * largest


def _ratio(right: Reals, wrong: Reals) -> str:
    """The one factor between two gradients, in words; empty if there is none."""
    a, b = right.reshape(-1), wrong.reshape(-1)
    factor = float(a @ b / (a @ a)) if a.any() else math.nan
    is_one = math.isfinite(factor) and not _differ(b, factor * a)
    return f" by {times(factor)}" if is_one else ""


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
