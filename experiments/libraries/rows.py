"""One function at one point: what JAX gives, what our verifier says, what is true."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations_with_replacement
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from mpmath import mp

from experiments.libraries.entry import Entry, Point, as_users_have_it
from experiments.libraries.truth import (
    SHRINKING,
    Method,
    Truth,
    methods,
    partials,
    truth,
)
from jaxnet.verification import GradientReport, LeafReport, Verdict, check_gradients
from jaxnet.verification.function.once import once

SAME = 1e-6
"""Relative to the largest entry: a right derivative in float64 is closer to the true
one, unless its digits are lost."""

EXACT, SLIGHT = 1e-9, 1e-4
"""Relative errors between which what our verifier says is wrong has lost digits."""

LOST = 0.5
"""Up to so much, relative to the largest entry, the verifier passes what float64 loses
of a right formula: half its norm. What it passes beyond is missed, unless the rounding
of the function's value hides it."""

OF_ITS_OWN = 1e-12
"""How far from a right derivative, relative to it, that of the program which computes
the value must be for our verifier to be right that they differ."""

ROUNDING = 1e-13
"""Of a value or a slope that cancels to 0 where the true one is."""

MOST_COORDINATES = 12
"""Of a point, for all second derivatives to be looked at by the second method."""


@dataclass(frozen=True)
class Row:
    """One derivative of one function at one point.

    order: 1 or 2; 0 of the value itself.
    mode: reverse or forward.
    verdict: of our verifier; empty where it was not asked.
    status: what it comes to, one of STATUSES.
    given, true: by JAX and by the second method, where they are most apart; the two
        slopes of a kink. Empty where the second method was not asked.
    place: which coordinate, or which two, of a point of several.
    method: definition, program or values.
    note: what else there is to know.
    """

    function: str
    point: str
    is_edge: bool
    order: int
    mode: str
    verdict: str = ""
    status: str = ""
    given: str = ""
    true: str = ""
    place: str = ""
    method: str = ""
    note: str = ""


WRONG_OF_OURS = ("accused", "false kink", "missed", "crash")
"""The statuses in which our verifier is wrong."""

STATUSES = {
    "agree": "right, as our verifier says",
    "fault": "wrong, by our verifier and by the second method",
    "follows": "not judged: the first order is wrong, which ours takes for granted",
    "unseen fault": "wrong by the second method; our verifier cannot tell",
    "value": "the function's own value is wrong, and its derivative is that of it",
    "approximation": "right; the value is approximated, by what has a slope of its own",
    "digits": "the formula is right, and float64 loses its digits",
    "end": "an end of the domain: the slope from within is finite, JAX gives another",
    "one-sided": "an end of the domain: JAX gives the slope from within",
    "convention": "a kink: JAX gives a slope between both sides'",
    "kink": "a kink: what JAX gives is not between the slopes of both sides",
    "none": "a pole, a jump or an infinite slope: no derivative",
    "unresolved": "right by the second method; our verifier cannot tell",
    "undecided": "neither our verifier nor the second method can tell",
    "accused": "right, or a slope of the kink, but our verifier says it is wrong",
    "false kink": "right and passed, but our verifier sees a kink where none is",
    "missed": "wrong by the second method, but our verifier says it is right",
    "crash": "our verifier raises an error",
    "silent": "no answer: a loop without end, or a process that died",
    "raises": "JAX has no such derivative, and says so",
}
"""In the order of the table."""


def rows_of(entry: Entry, point: Point) -> list[Row]:
    """The value, then both modes of the first order, then both of the second."""
    with as_users_have_it():
        return list(_rows(entry, point))


def _rows(entry: Entry, point: Point) -> Iterator[Row]:
    row = Row(entry.name, point.label, point.is_edge, 0, "value")
    args = tuple(jnp.asarray(x) for x in point.args)
    try:
        value = float(entry.scalar(*args))
    except Exception as error:  # the library's function
        yield replace(row, status="raises", note=first_line(error))
        return
    if wrong := _value_is_wrong(entry, args, value):
        yield replace(row, status="value", given=_number(value), true=wrong)
    if not np.isfinite(value):
        if not wrong:
            yield replace(row, status="none", given=_number(value))
        return
    subject = Subject(entry, args, value, bool(wrong))
    first = [_row(replace(row, order=1, mode=mode), subject) for mode in MODES]
    yield from first
    derived = [r for r in first if r.status != "raises"]
    if all(r.status in SMOOTH and r.given not in NOT_FINITE for r in derived):
        is_wrong = any(r.status in ("fault", "unseen fault") for r in derived)
        for mode in [r.mode for r in derived]:
            found = _row(replace(row, order=2, mode=mode), subject)
            follows = is_wrong and found.status in ("missed", "digits", "accused")
            yield replace(found, status="follows") if follows else found


MODES = ("reverse", "forward")
NOT_FINITE = ("nan", "inf", "-inf")
SMOOTH = ("agree", "fault", "unseen fault", "unresolved", "digits", "value")
"""Of the first order, where a second one may be asked for."""


@dataclass
class Subject:
    """A function at a point, and what has been found of it by either method."""

    entry: Entry
    args: tuple[Any, ...]
    value: float
    value_is_wrong: bool

    @cached_property
    def at(self) -> np.ndarray:
        """The coordinates of all arguments in a row."""
        return np.concatenate([np.ravel(x) for x in self.args])

    @cached_property
    def methods(self) -> list[Method]:
        """Second methods, the best first."""
        return methods(self.entry, self.args)

    @cached_property
    def opinions(self) -> dict[int, dict[tuple[int, ...], Truth]]:
        """What the second method said, by order and coordinates."""
        return {}

    def flat(self, vector: Any) -> Any:
        """The function of all coordinates in a row."""
        ends = np.cumsum([x.size for x in self.args])[:-1]
        pairs = zip(jnp.split(vector, ends), self.args, strict=True)
        return self.entry.scalar(*(part.reshape(x.shape) for part, x in pairs))

    @cached_property
    def direction(self) -> np.ndarray:
        """Along which the first derivative is taken where the second is asked for."""
        return SHRINKING ** np.arange(self.at.size)

    def slope_by_reverse(self, vector: Any) -> Any:
        """The change along the direction."""
        return jnp.vdot(self.direction, jax.grad(self.flat)(vector))

    def slope_by_forward(self, vector: Any) -> Any:
        """The same by forward mode."""
        tangent = jnp.asarray(self.direction)
        return jax.jvp(self.flat, (vector,), (tangent,))[1]

    @cached_property
    def gradients(self) -> dict[tuple[int, str], Callable[[Any], Any]]:
        """By order and mode, of the function or of its slope; those that JAX has."""
        all_of_them = {
            (1, "reverse"): jax.grad(self.flat),
            (1, "forward"): jax.jacfwd(self.flat),
            (2, "reverse"): jax.grad(self.slope_by_reverse),
            (2, "forward"): jax.jacfwd(self.slope_by_forward),
        }
        found = dict[tuple[int, str], Callable[[Any], Any]]()
        for which, gradient in all_of_them.items():
            try:
                jax.eval_shape(gradient, self.at)
                found[which] = gradient
            except Exception as error:  # of the library: what it cannot derive
                self.refusals[which] = first_line(error)
        return found

    @cached_property
    def refusals(self) -> dict[tuple[int, str], str]:
        """What JAX says of those that it has not."""
        return {}

    @once
    def report(self, order: int) -> GradientReport:
        """Of both modes, held against the same differences."""
        slopes = (self.slope_by_reverse, self.slope_by_forward)
        modes = [mode for mode in MODES if (order, mode) in self.gradients]
        by_mode = dict(zip(MODES, slopes, strict=True))
        loss = self.flat if order == 1 else by_mode[modes[0]]
        candidates = {mode: self.gradients[order, mode] for mode in modes}
        return check_gradients(loss, jnp.asarray(self.at), candidates)


def _row(row: Row, subject: Subject) -> Row:
    """The verifier's answer, and the second method's where one is wanted."""
    which = row.order, row.mode
    if which not in subject.gradients:
        return replace(row, status="raises", note=subject.refusals[which])
    try:
        report = subject.report(row.order)
    except Exception as error:  # ours: the function and its derivative can be had
        return replace(row, status="crash", note=first_line(error))
    leaf = next(x for x in report.leaves if x.candidate == row.mode)
    row = replace(row, verdict=leaf.verdict.value)
    agrees, at = _agrees(leaf), subject.at
    if agrees and subject.entry.definition is None:
        return replace(row, status="agree")
    if row.order == 2 and at.size > MOST_COORDINATES:
        return replace(row, status="undecided", note=f"{at.size} coordinates")
    try:
        given = DERIVATIVES[which](subject.flat, at)
    except Exception as error:  # of the library, where it is run
        return replace(row, status="raises", note=first_line(error))
    chosen = subject.methods[:1] if agrees else subject.methods
    own = subject.opinions.setdefault(row.order, {})
    if row.order == 1 and not agrees and not own:
        own |= partials(chosen, at)
    for where in combinations_with_replacement(range(at.size), row.order):
        if where not in own:
            own[where] = truth(chosen, at, where)
    return _decided(row, given, own, subject, leaf)


def _agrees(leaf: LeafReport) -> bool:
    return leaf.passed and leaf.verdict in (Verdict.AGREE, Verdict.UNINFORMATIVE)


# -------------------------------------------------------------------- what JAX gives


def _along(function: Callable[[Any], Any], i: int) -> Callable[[Any], Any]:
    """∂function/∂xᵢ by forward mode."""

    def slope(vector: Any) -> Any:
        unit = np.eye(vector.size)[i]
        return jax.jvp(function, (vector,), (unit,))[1]

    return slope


def _forward(flat: Callable[[Any], Any], at: Any) -> np.ndarray:
    return np.array([float(_along(flat, i)(jnp.asarray(at))) for i in range(at.size)])


def _reverse(flat: Callable[[Any], Any], at: Any) -> np.ndarray:
    return np.asarray(jax.grad(flat)(jnp.asarray(at)))


def _forward_twice(flat: Callable[[Any], Any], at: Any) -> np.ndarray:
    return np.stack([_forward(_along(flat, i), at) for i in range(at.size)])


def _reverse_twice(flat: Callable[[Any], Any], at: Any) -> np.ndarray:
    own = [lambda v, i=i: jax.grad(flat)(v)[i] for i in range(at.size)]
    return np.stack([_reverse(slope, at) for slope in own])


DERIVATIVES = {
    (1, "reverse"): _reverse,
    (1, "forward"): _forward,
    (2, "reverse"): _reverse_twice,
    (2, "forward"): _forward_twice,
}

# ------------------------------------------------------------------ what it comes to


def _decided(
    row: Row,
    given: np.ndarray,
    opinions: dict[tuple[int, ...], Truth],
    subject: Subject,
    leaf: LeafReport,
) -> Row:
    """Of all coordinates the one that tells most, held against both methods."""
    known = [abs(t.value) for t in opinions.values() if np.isfinite(t.value)]
    scale = max(known, default=0.0)
    both = {**opinions, **{k[::-1]: t for k, t in opinions.items()}}
    kind, apart, where = max(
        (KINDS.index(_kind(given[k], t, scale, len(both) > 1)), _apart(given[k], t), k)
        for k, t in both.items()
    )
    moves = apart * _size(subject.at[where[0]]) if row.order == 1 else apart
    is_hidden = moves <= np.finfo(float).eps * abs(subject.value)
    is_near = bool(is_hidden or apart <= LOST * scale)
    status = _status(KINDS[kind], leaf, subject.value_is_wrong, is_near)
    is_slight = apart <= SLIGHT * scale and status == "fault"
    is_inexact = apart > EXACT * abs(both[where].value) and status == "accused"
    if is_slight or is_inexact or (is_hidden and status == "unseen fault"):
        status = "digits"
    if status == "accused" and _is_approximated(subject, given[where], where):
        status = "approximation"
    return replace(
        row,
        status=status,
        given=_number(given[where]),
        true=_written(both[where]),
        place=str(list(where)) if len(both) > 1 else "",
        method=both[where].method,
        note=leaf.cause if status in OURS else "",
    )


OURS = ("accused", "false kink", "missed", "unresolved", "undecided")
"""Where it is of interest what our verifier says beside the verdict."""


def _status(kind: str, leaf: LeafReport, value_is_wrong: bool, is_near: bool) -> str:
    """Of the kind by the second method and our verdict, the one of STATUSES."""
    agrees, passed = _agrees(leaf), leaf.passed
    cannot_tell = leaf.verdict in (Verdict.UNRESOLVED, Verdict.UNINFORMATIVE)
    if kind == "unknown":
        return "agree" if agrees else "undecided"
    if kind == "right":
        if agrees:
            return "agree"
        return "unresolved" if cannot_tell else "false kink" if passed else "accused"
    if kind == "convention" and leaf.verdict is Verdict.DISAGREE:
        return "accused"
    if kind == "wrong":
        if value_is_wrong:
            return "value"
        if passed:
            return "digits" if is_near else "missed"
        return "unseen fault" if cannot_tell else "fault"
    return kind


KINDS = ("right", "one-sided", "unknown", "none", "convention", "kink", "end", "wrong")
"""Of one coordinate, by the second method; the last tells most."""


def _kind(given: float, true: Truth, scale: float, several: bool) -> str:
    """By the second method alone.

    Where several coordinates may tie, a few points nearby have not seen all slopes:
    only what is twice as far out as they are wide apart is called outside.
    """
    room = SAME * scale + 10 * np.nan_to_num(true.error)
    room += ROUNDING if true.value == 0 else 0.0
    if true.kind == "derivative":
        return "right" if abs(given - true.value) <= room else "wrong"
    if true.kind == "end":
        if np.isnan(true.value):
            return "none"
        return "one-sided" if abs(given - true.value) <= room else "end"
    if true.kind == "kink":
        room += true.high - true.low if several else 0.0
        inside = true.low - room <= given <= true.high + room
        return "convention" if inside else "kink"
    return true.kind


def _size(x: float) -> float:
    """Of a coordinate: what moves the value by less than its rounding is hidden."""
    return abs(float(x)) or 1.0


def _is_approximated(subject: Subject, given: float, where: tuple[int, ...]) -> bool:
    """Whether the program that computes the value has another derivative than `given`.

    By the second method: it is that of an approximation to what is meant.
    """
    program = [m for m in subject.methods if m.name == "program"]
    try:
        own = truth(program, subject.at, where)
    except IndexError:  # it cannot be had
        return False
    apart = abs(own.value - given)
    return own.kind == "derivative" and bool(apart > OF_ITS_OWN * abs(given))


def _apart(given: float, true: Truth) -> float:
    away = abs(given - true.value)
    return float(away) if np.isfinite(away) else float("inf")


def _value_is_wrong(entry: Entry, args: tuple[Any, ...], value: float) -> str:
    """What the value is by its definition, if JAX gives another; else empty."""
    if entry.definition is None:
        return ""
    try:
        with mp.workdps(50):
            true = entry.definition(*(mp.mpf(float(x)) for x in args))
            if mp.im(true) != 0 or not mp.isfinite(true):
                return ""
            true = mp.re(true)
            room = SAME * abs(true) + ROUNDING
            is_same = bool(np.isfinite(value)) and abs(true - value) <= room
            is_large = abs(true) > np.finfo(float).max
            return "" if is_same or is_large else mp.nstr(true, 10)
    except (ValueError, ZeroDivisionError):
        return ""


def _number(x: float) -> str:
    return f"{float(x):.10g}"


def _written(true: Truth) -> str:
    if true.kind == "kink":
        return f"{_number(true.low)} … {_number(true.high)}"
    return _number(true.value) if np.isfinite(true.value) else ""


def first_line(error: Exception) -> str:
    """The kind of an error and the beginning of what it says."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:120]
