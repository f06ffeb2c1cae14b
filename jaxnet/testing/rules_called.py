"""The custom rules that a program calls, and the values that it calls them with.

A rule is verified once for each form: what it is made of, and the structure, shapes and
dtypes of its arguments.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from inspect import signature, unwrap
from pathlib import Path
from types import CellType, FrameType
from typing import Any, TypeAlias
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.input_checks import first_line
from jaxnet.jaxpr.lines import IN_JAX, VERIFIER, is_pythons
from jaxnet.verification import AuditReport, RuleReport, Verdict
from jaxnet.verification.function.intended import NOT_JUDGED, is_named
from jaxnet.verification.function.sites import INSTALLED, code_of, written
from jaxnet.verification.point import is_inexact, not_finite
from jaxnet.verification.rules.check_rule import check_modes
from jaxnet.verification.rules.rule import Mode

CLASSES: dict[type, Mode] = {jax.custom_vjp: "vjp", jax.custom_jvp: "jvp"}
"""What makes a rule, and the mode that it is the rule of."""

OURS = str(Path(__file__).parent.parent)
"""Where lines stand that are not the suite's."""

KERNEL = IN_JAX + "pallas/"
"""In the path of what traces a kernel, in which nothing can be recorded."""

NO_EFFECTS = {
    IN_JAX + name
    for name in (
        "make_jaxpr_f",
        "eval_shape",
        "jit_lower",
        "jit_trace",
        "_reduction_jaxpr",
        "_variadic_reduction_jaxpr",
        "custom_linear_solve",
        "custom_root",
        "_export_internal",
        "linear_transpose",
    )
}
"""Functions of JAX under which a program is looked at, kept, or may have no effects."""

NEVER_RUN = "not verified: its values, or finite ones, were not to be had"

Form: TypeAlias = tuple[Any, ...]


@dataclass(eq=False)
class Called:
    """A rule in one form: how often it was called, and with which values, once known.

    args: as they were given, their arrays on the host. lines: that call it.
    is_x64: whether it was called with float64 enabled. unknown: why there are no args.
    """

    rule: Any
    shapes: str
    is_x64: bool
    unknown: str = NEVER_RUN
    args: tuple[Any, ...] | None = None
    calls: int = 0
    lines: dict[str, None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the function."""
        return getattr(self.rule.fun, "__name__", "?")

    @property
    def place(self) -> str:
        """File and line of the rule; of the function where JAX makes its rule."""
        mode = CLASSES[type(self.rule)]
        own = written(getattr(self.rule, "bwd" if mode == "vjp" else "jvp", None))
        return own if own and IN_JAX not in own else written(self.rule.fun)

    def is_among(self, intended: Sequence[str]) -> bool:
        """Whether it is named there, or the line of its rule."""
        return any(is_named(one, self.name, [self.place]) for one in intended)

    def verified(self, is_intended: bool = False) -> RuleReport:
        """Whether it is right at those values."""
        row = RuleReport(
            name=self.name,
            rule=self.place,
            lines=tuple(self.lines),
            calls=self.calls,
            verified=0,
            forms=(self.shapes,),
            verdict=Verdict.UNRESOLVED,
            passed=False,
            cause=self.unknown,
        )
        if is_intended:
            row = replace(row, is_intended=True, cause=NOT_JUDGED)
            return replace(row, verdict=Verdict.UNINFORMATIVE, passed=True)
        if self.args is None:
            return row
        try:
            modes = (CLASSES[type(self.rule)],)
            with jax.enable_x64(self.is_x64):
                report = check_modes(self.rule, *self.args, modes=modes)
        except Exception as error:  # the caller's rule, called alone
            cause = f"not verified: called alone, {first_line(error)}"
            return replace(row, cause=cause)
        worst = report.worst
        return replace(
            row,
            verified=1,
            verdict=report.verdict,
            passed=report.passed,
            error=worst.error,
            bound=worst.bound,
            cause=worst.cause if worst.passed else worst.detail,
            worst=worst,
        )


class RulesCalled:
    """Records the calls of rules while `recorded`, and verifies them afterwards."""

    def __init__(self, intended: Sequence[str] = ()) -> None:
        """`intended`: names or lines ("file.py:12") of rules that are not judged."""
        self.forms, self.intended = dict[Form, Called](), intended

    @contextmanager
    def recorded(self) -> Iterator[None]:
        """While it is entered, every call of a rule is seen.

        Where the values are not known, as under jit, the first call of a form has a
        debug callback that hands them out as the program runs.
        """
        with ExitStack() as stack:
            for kind in CLASSES:
                seeing = mock.patch.object(kind, "__call__", self._seeing(kind))
                stack.enter_context(seeing)
            yield

    def rows(self) -> list[RuleReport]:
        """What is found of each form."""
        jax.effects_barrier()
        every = list(self.forms.values())
        return [called.verified(called.is_among(self.intended)) for called in every]

    def _seeing(self, kind: type) -> Callable[..., Any]:
        original: Any = kind.__call__

        @wraps(original)
        def called(rule: Any, *args: Any, **kwargs: Any) -> Any:
            __tracebackhide__ = True
            try:
                self._see(rule, args, kwargs)
            except Exception as error:  # the caller's objects: his call goes on
                self._not_seen(rule, error)
            return original(rule, *args, **kwargs)

        return called

    def _not_seen(self, rule: Any, error: Exception) -> None:
        why = f"not verified: its call was not recorded, {first_line(error)}"
        unseen = Called(rule, "", is_x64=False, unknown=why)
        self.forms.setdefault((type(rule), why), unseen).calls += 1

    def _see(self, rule: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        line, places = _caller()
        args = _by_position(rule, args, kwargs)
        leaves, structure = jax.tree.flatten(args)
        is_array = [isinstance(x, (jax.Array, np.ndarray)) for x in leaves]
        arrays = [x for x, is_one in zip(leaves, is_array, strict=True) if is_one]
        is_traced = any(isinstance(x, jax.core.Tracer) for x in arrays)
        if is_traced and any(place.startswith(VERIFIER) for place in places):
            return  # the verifier's own programs are not the suite's
        shapes = ", ".join(map(_shape, arrays))
        others = [x for x, is_one in zip(leaves, is_array, strict=True) if not is_one]
        is_x64 = bool(jax.config.read("jax_enable_x64"))
        kinds = (type(x) if isinstance(x, float) else _value(x) for x in others)
        form = (*_identity(rule), str(structure), shapes, is_x64, *kinds)
        called = self.forms.setdefault(form, Called(rule, shapes, is_x64))
        called.calls += 1
        called.lines |= {line: None} if line else {}
        if called.args is not None:
            return

        def record(*values: Any) -> None:
            if called.args is None and all(map(_is_finite, values)):
                each = iter(values)
                pairs = zip(leaves, is_array, strict=True)
                known = [next(each) if is_one else x for x, is_one in pairs]
                called.args = jax.tree.unflatten(structure, known)

        if not is_traced:
            record(*map(_kept, arrays))
        elif not any(place in NO_EFFECTS or KERNEL in place for place in places):
            _hand_out(record, arrays)


def audit_of(rows: list[RuleReport]) -> AuditReport:
    """The rows of each rule as one: the worst of them, with all forms and lines."""
    rules = dict[tuple[str, str], list[RuleReport]]()
    for row in rows:
        rules.setdefault((row.name, row.rule), []).append(row)
    return AuditReport(tuple(map(_together, rules.values())))


def _together(rows: list[RuleReport]) -> RuleReport:
    worst = min(rows, key=lambda row: row.severity)
    return replace(
        worst,
        calls=sum(row.calls for row in rows),
        verified=sum(row.verified for row in rows),
        forms=tuple(dict.fromkeys(form for row in rows for form in row.forms)),
        lines=tuple(dict.fromkeys(line for row in rows for line in row.lines)),
    )


def _by_position(
    rule: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[Any, ...]:
    """The arguments as JAX passes them to the rule: all by position."""
    if not kwargs:
        return args
    bound = signature(rule.fun).bind(*args, **kwargs)
    bound.apply_defaults()
    return bound.args


def _hand_out(record: Callable[..., None], arrays: list[Any]) -> None:
    """Call `record` with the values as the program runs."""
    jax.debug.callback(lambda *values: record(*map(_kept, values)), *arrays)


def _kept(array: Any) -> Any:
    """An array that stays when its buffer goes; random keys as they are."""
    is_key = jnp.issubdtype(array.dtype, jax.dtypes.extended)
    return array if is_key else np.array(array)


def _is_finite(array: Any) -> bool:
    return not is_inexact(array) or not not_finite(array)


def _shape(array: Any) -> str:
    sizes = "×".join(map(str, array.shape)) or "scalar"
    return f"{array.dtype} {sizes}"


def _identity(rule: Any) -> Form:
    """What a rule is made of: those of one factory with one setting are one."""
    derivative = getattr(rule, "bwd" if type(rule) is jax.custom_vjp else "jvp", None)
    return type(rule), _value(rule.fun), _value(derivative)


def _value(thing: Any, depth: int = 3) -> Any:
    """What tells a setting of a rule from another; of an array that it is one."""
    if thing is None or isinstance(thing, (bool, int, float, str)):
        return thing
    code, inner = code_of(thing), unwrap(getattr(thing, "func", thing))
    if code is None or not depth:
        return type(thing)
    cells = [_content(x) for x in getattr(inner, "__closure__", None) or ()]
    given = getattr(thing, "args", ())
    return code, *(_value(x, depth - 1) for x in (*cells, *given))


def _content(cell: CellType) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing yet
        return None


def _caller() -> tuple[str, list[str]]:
    """The line of the suite that calls, and what stands on the stack.

    Of JAX the names of functions, of others the files.
    """
    line, places = "", list[str]()
    frame: FrameType | None = sys._getframe(2)
    while frame is not None:
        file = frame.f_code.co_filename
        if IN_JAX in file:
            places += [IN_JAX + frame.f_code.co_name, file]
        elif file != __file__:
            places.append(file)
        is_library = IN_JAX in file or INSTALLED in file or is_pythons(file)
        if not line and not is_library and not file.startswith((OURS, "<")):
            line = f"{file}:{frame.f_lineno}"
        frame = frame.f_back
    return line, places
