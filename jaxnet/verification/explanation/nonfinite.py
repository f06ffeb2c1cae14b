"""Who made the first NaN or inf of a gradient that JAX computed, and what to do.

The gradient's own program is run in Python at the point. Whatever gives numbers that
are not finite is mended: ones stand in their place. Guilty are those that must be
mended for the gradient to be finite; a -inf that is masked, or a log(0) that is
discarded, need not be. What they are derivatives of stands at the same source line in
the loss: it is what has no finite derivative, or value, at the inputs it gets there.
"""

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.jaxpr.evaluate import bind, evaluate
from jaxnet.jaxpr.lines import IN_JAX, at_line, source_line
from jaxnet.jaxpr.reader import (
    CALLS,
    PRINTS,
    every_equation,
    inside,
    is_literal,
    opened,
    sub_jaxprs,
)
from jaxnet.verification.candidates.fitted import by_path
from jaxnet.verification.explanation.remedies import guarded, remedy
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.function.once import once
from jaxnet.verification.function.sites import RULES, site_of
from jaxnet.verification.function.widen import Widened
from jaxnet.verification.point import is_inexact

MOST_BIRTHS = 16
"""Where NaNs are born at more lines than this, nobody is named: each costs a run."""

MOST_NAMED = 3
"""So many guilty lines are named: more is no hint."""

MOST_STEPS = 100_000
"""So many equations are run for one gradient, some 0.1 ms each: then it is given up."""

SUMS = ("reduce_sum", "dot_general")
"""What a norm takes the root of."""

ENTERED = {*CALLS, "cond", "custom_linear_solve"}
"""What is run equation by equation…"""

LOOPS = {"scan", "while"}
"""…and what is run round by round only where it matters."""

RESHAPES = {"broadcast_in_dim", "reshape", "squeeze"}
"""What may stand between a sum and its root."""

LOSS = "the loss"
"""In the place of a leaf's path."""

Step = Callable[[Any, list[Any], str], list[Any] | None]
"""A hook that is also told the source line, of the caller where there is none."""


class TooLong(Exception):
    """A run in Python takes more equations than an explanation is worth."""


class Birth(NamedTuple):
    """Where numbers that are not finite are first seen: a primitive and its line."""

    primitive: str
    line: str
    kind: str


class Ran(NamedTuple):
    """Of which paths a gradient is finite, and what was born."""

    finite: dict[str, bool]
    births: tuple[Birth, ...]

    def is_finite(self, path: str) -> bool:
        """Whether the gradient of one leaf is, or the loss."""
        return self.finite.get(path, True)


class Trouble(NamedTuple):
    """An equation of the loss with no finite derivative, or value, at its inputs.

    is_of_value: whether its value is not finite. kind: "nan" or "inf". at: the
    inputs of the first such entry, in words. poisoned: its outputs, NaN at all such.
    is_discarded: whether the loss is finite with these. made_by: who made its input.
    """

    equation: Any
    inputs: list[Any]
    line: str
    is_of_value: bool
    kind: str
    at: str
    poisoned: list[Any]
    is_discarded: bool = False
    made_by: str = ""

    @classmethod
    def of(cls, equation: Any, inputs: list[Any], line: str) -> "Trouble | None":
        """What is not finite of an equation; None if all is, or was not before."""
        if not all(map(_is_finite, inputs)):
            return None
        outputs = bind(equation, inputs)
        is_of_value = not all(map(_is_finite, outputs))
        suspects = [*outputs, *_slopes(equation, inputs)]
        bad = next((np.asarray(x) for x in suspects if not _is_finite(x)), None)
        if bad is None:
            return None
        places, at = ~np.isfinite(bad), ""
        if all(y.shape == bad.shape for y in outputs):  # entry by entry
            first = tuple(map(int, np.argwhere(places)[0]))
            at = _values(equation, inputs, first)
            poisoned = [_with_nan(y, places) for y in outputs]
        else:
            poisoned = [_with_nan(y, True) for y in outputs]
        kind = "nan" if np.isnan(bad).any() else "inf"
        return cls(equation, inputs, line, is_of_value, kind, at, poisoned)

    def said(self, birth: Birth, has_where: bool) -> "Said":
        """What is said of it."""
        name = self.equation.primitive.name
        what, infinite = f"`{name}`", "infinite" if self.kind == "inf" else "nan"
        here, at = at_line(what, self.line), f"is {infinite}{self.at}"
        if name in RULES:
            site = site_of(self.equation, self.line)
            line = _line_of_backward(self.equation, self.inputs, birth.primitive)
            by = f" by {at_line(f'`{birth.primitive}`', line)}" * bool(line)
            claim = f"the rule of `{site.name}` ({site.place}) gives {self.kind}{by}"
            return Said(claim, remedy(birth.primitive))
        if self.is_of_value and not self.is_discarded:
            return Said(f"{here} {at}", remedy(name))
        claim = f"the derivative of {here} {at}"
        if not self.is_discarded:
            is_norm = name == "sqrt" and self.made_by in SUMS
            return Said(claim, remedy("norm" if is_norm else name))
        twice = f"guard the argument as well, {guarded(name)} (the double where)"
        by = "`where`" if has_where else "what leaves its value out"
        return Said(f"{claim}, and {by} multiplies it by 0", twice)


class Said(NamedTuple):
    """What is not finite, and what helps."""

    claim: str
    helps: str


@dataclass(frozen=True, eq=False)
class NonFinite:
    """A candidate's program, at a point where what it gives is not finite.

    steps: counts the equations that are run.
    """

    objective: Objective
    widened: Widened
    steps: Iterator[int] = field(default_factory=itertools.count)

    def of(self, path: str) -> str:
        """Who makes the gradient of one leaf not finite, in words; empty if unknown.

        path: of the leaf, or LOSS for the loss itself, whose program this is then.
        """
        try:
            said = [self._said(birth) for birth in self._guilty(path)[:MOST_NAMED]]
        except TooLong:
            return ""
        claims = dict[str, list[str]]()
        for claim, helps in dict.fromkeys(said):
            claims.setdefault(helps, []).append(claim)
        parts = [(" and ".join(found), helps) for helps, found in claims.items()]
        return "; ".join(": ".join(filter(None, part)) for part in parts)

    def _guilty(self, path: str) -> list[Birth]:
        """The births without which a leaf's gradient is finite, rather the later.

        What is not born of finite numbers alone is looked at last.
        """
        if self._run(_of_finite, frozenset()).is_finite(path):
            return []
        for is_birth in (_of_finite, _of_no_nan, _of_anything):
            mended = self._run(is_birth, None)
            if not mended.is_finite(path) or len(mended.births) > MOST_BIRTHS:
                continue
            needed = list(mended.births)
            for birth in mended.births:
                rest = [other for other in needed if other != birth]
                if self._run(is_birth, frozenset(rest)).is_finite(path):
                    needed = rest
            return needed
        return []

    @once
    def _run(self, is_birth: "IsBirth", chosen: frozenset[Birth] | None) -> Ran:
        """The gradient with the chosen births mended; None: with all."""
        births = dict[Birth, None]()

        def step(equation: Any, inputs: list[Any], line: str) -> list[Any] | None:
            name = equation.primitive.name
            if name in ENTERED:
                return None
            outputs = bind(equation, inputs)
            if all(map(_is_finite, outputs)):
                return outputs
            if name in LOOPS:
                return None
            birth = Birth(name, line, "nan" if _has_nan(outputs) else "inf")
            is_chosen = chosen is None or birth in chosen
            if not is_chosen or not is_birth(inputs, outputs):
                return outputs
            births[birth] = None
            return [_mended(y) for y in outputs]

        outputs = self._at_point(self.widened, step)
        tree = jax.tree.unflatten(self.widened.out_tree, outputs)
        if self.widened is self.objective.widened:
            return Ran({LOSS: _is_finite(tree)}, tuple(births))
        given = by_path(tree, self.objective.point)
        finite = {path: _is_finite(value) for path, value in given.items()}
        return Ran(finite, tuple(births))

    def _said(self, birth: Birth) -> Said:
        trouble = self._trouble_at(birth.line)
        if trouble is not None:
            program = self.objective.program
            has_where = program is not None and program.runs("select_n")
            return trouble.said(birth, has_where)
        what = f"`{birth.primitive}`"
        claim = f"{at_line(what, birth.line)} gives the first {birth.kind}"
        return Said(claim, remedy(birth.primitive))

    @once
    def _trouble_at(self, line: str) -> Trouble | None:
        """What in the loss has no finite derivative, or value, at a source line.

        Without one it is what the verifier itself calls: the function of `check_vjp`.
        """
        widened, found = self.objective.widened, list[Trouble]()
        if widened is None:
            return None

        def step(equation: Any, inputs: list[Any], here: str) -> list[Any] | None:
            name = equation.primitive.name
            is_here, is_rule = here == line, name in RULES
            if name in ENTERED and not (is_rule and is_here):
                return None
            if name in LOOPS:
                is_in = is_here or line in map(source_line, inside(equation))
                return None if is_in else bind(equation, inputs)
            if is_here and not found:
                trouble = Trouble.of(equation, inputs, line)
                if trouble is not None:
                    found.append(trouble)
                    return trouble.poisoned
            return bind(equation, inputs)

        (loss,) = self._at_point(widened, step)
        if not found:
            return None
        made_by = _maker(widened.own.closed, found[0].equation.invars[0])
        return found[0]._replace(is_discarded=_is_finite(loss), made_by=made_by)

    def _at_point(self, widened: Widened, step: Step) -> list[Any]:
        """What a program gives at the point, in its caller's mode, run in Python."""
        closed, point = widened.own.closed, self.objective.point
        pairs = zip(point.as_traced(), closed.in_avals, strict=True)
        inputs = [jnp.asarray(value, aval.dtype) for value, aval in pairs]
        return _evaluated(closed, inputs, step, self.steps)


def of_value(objective: Objective) -> str:
    """Who makes a loss not finite, in words; empty if that cannot be found out."""
    if objective.widened is None:
        return ""
    try:
        return NonFinite(objective, objective.widened).of(LOSS)
    except Exception:  # the caller's program, run by itself
        return ""


IsBirth = Callable[[Sequence[Any], Sequence[Any]], bool]
"""Whether outputs that are not finite are born here, of these inputs."""


def _of_finite(inputs: Sequence[Any], outputs: Sequence[Any]) -> bool:
    return all(map(_is_finite, inputs))


def _of_no_nan(inputs: Sequence[Any], outputs: Sequence[Any]) -> bool:
    return _of_finite(inputs, outputs) or (_has_nan(outputs) and not _has_nan(inputs))


def _of_anything(inputs: Sequence[Any], outputs: Sequence[Any]) -> bool:
    return True


def _evaluated(
    jaxpr: Any, inputs: Sequence[Any], step: Step, steps: Iterator[int]
) -> list[Any]:
    """What a program gives, run in Python.

    What stands in a function of JAX's own is at its caller's line: JAX keeps its trace,
    with the lines of whoever called it first.
    """

    def run(jaxpr: Any, values: Sequence[Any], caller: str) -> list[Any]:
        is_own = IN_JAX in str(getattr(opened(jaxpr), "debug_info", ""))

        def hook(equation: Any, inputs: list[Any]) -> list[Any] | None:
            name = equation.primitive.name
            if next(steps) > MOST_STEPS:
                raise TooLong
            if name in PRINTS:
                return []
            line = caller if is_own and caller else source_line(equation) or caller
            outputs = step(equation, inputs, line)
            if outputs is None and name in CALLS:
                return run(next(sub_jaxprs(equation)), inputs, line)
            return outputs

        return evaluate(jaxpr, values, hook, in_python=True)

    return run(jaxpr, inputs, "")


def _line_of_backward(equation: Any, inputs: list[Any], primitive: str) -> str:
    """Where in a custom_vjp's backward pass a primitive gives what is not finite.

    A gradient's program has the line of the call for it, so it is traced by itself.
    """
    backward, given, lines = equation.params.get("bwd"), list[Any](), list[str]()

    def spied(*args: Any) -> Any:
        given.append(args)
        return backward.f_transformed(*args)

    def step(equation: Any, inputs: list[Any], line: str) -> list[Any] | None:
        name = equation.primitive.name
        if name in ENTERED:
            return None
        outputs = bind(equation, inputs)
        if all(map(_is_finite, outputs)):
            return outputs
        if name == primitive:
            lines.append(line)
        return None if name in LOOPS else outputs

    try:
        spy = copy.copy(backward)
        spy.f_transformed = spied
        _slopes(equation, inputs, bwd=spy)
        closed = jax.make_jaxpr(backward.f_transformed)(*given[0])
        _evaluated(closed, given[0], step, itertools.count())
    except Exception:  # what JAX keeps of a rule is its own affair
        return ""
    return next(iter(lines), "")


def _slopes(equation: Any, inputs: Sequence[Any], **params: Any) -> list[Any]:
    """The derivatives of the sum of its outputs; empty where there are none."""
    variables = equation.invars
    pairs = list(enumerate(zip(variables, inputs, strict=True)))
    moving = [i for i, (v, x) in pairs if not is_literal(v) and is_inexact(x)]

    def function(*moved: Any) -> list[Any]:
        values = list(inputs)
        for i, value in zip(moving, moved, strict=True):
            values[i] = value
        return [y for y in bind(equation, values, **params) if is_inexact(y)]

    try:
        outputs, pull = jax.vjp(function, *(inputs[i] for i in moving))
        return list(pull([jnp.ones_like(y) for y in outputs]))
    except Exception:  # a kernel, a callback or the caller's rule
        return []


def _maker(closed: Any, variable: Any) -> str:
    """The primitive that gives a variable, but for its shape."""
    makers = {v: e for e in every_equation(closed) for v in e.outvars}
    equation = None if is_literal(variable) else makers.get(variable)
    while equation is not None and equation.primitive.name in RESHAPES:
        equation = makers.get(equation.invars[0])
    return equation.primitive.name if equation is not None else ""


def _values(equation: Any, inputs: Sequence[Any], index: tuple[int, ...]) -> str:
    """The inputs that are no literals at one entry, in words."""
    pairs = zip(equation.invars, inputs, strict=True)
    given = [np.asarray(x) for v, x in pairs if not is_literal(v) and is_inexact(x)]
    texts = [f"{x[index] if x.ndim else x[()]:.4g}" for x in given]
    return f" at {texts[0]}" if len(texts) == 1 else f" at ({', '.join(texts)})"


def _is_finite(value: Any) -> bool:
    return not is_inexact(value) or bool(np.isfinite(np.asarray(value)).all())


def _has_nan(values: Sequence[Any]) -> bool:
    return any(bool(np.isnan(np.asarray(x)).any()) for x in values if is_inexact(x))


def _mended(value: Any) -> Any:
    if not is_inexact(value):
        return value
    array = np.asarray(value)
    return jnp.asarray(np.where(np.isfinite(array), array, array.dtype.type(1)))


def _with_nan(value: Any, places: Any) -> Any:
    if not is_inexact(value):
        return value
    array = np.asarray(value)
    return jnp.asarray(np.where(places, array.dtype.type(np.nan), array))
