"""One function at one point: what JAX gives, what our verifier says, what is true."""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations_with_replacement
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from mpmath import mp

from experiments.libraries.entry import Entry, Point
from experiments.libraries.truth import Method, Truth, methods, truth
from jaxnet.verification import GradientReport, Verdict, check_jvp, check_vjp

SAME = 1e-6
"""Relative to the largest entry: a right derivative in float64 is closer to the true
one, unless its digits are lost."""

LOST = 0.5
"""Up to so much, relative to the largest entry, the verifier passes what float64 loses
of a right formula: half its norm."""

ROUNDING = 1e-13
"""Of a value that cancels to 0 where the true one does."""

NOTHING = 1e-30
"""What differences with steps of 1e-20 leave of 0."""

SHRINKING = 0.7
"""Of the direction of a second derivative by forward mode: it has no symmetry."""

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


STATUSES = {
    "agree": "right, as our verifier says",
    "fault": "wrong, by our verifier and by the second method",
    "follows": "wrong, because the first order is, which ours takes for granted",
    "unseen fault": "wrong by the second method; our verifier cannot tell",
    "value": "the function's own value is wrong, and its derivative is that of it",
    "digits": "the formula is right, and float64 loses its digits",
    "end": "an end of the domain: the slope from within is finite, JAX gives another",
    "one-sided": "an end of the domain: JAX gives the slope from within",
    "convention": "a kink: JAX gives a slope between both sides'",
    "kink": "a kink: what JAX gives is not between the slopes of both sides",
    "none": "a pole, a jump or an infinite slope: no derivative",
    "unresolved": "right by the second method; our verifier cannot tell",
    "undecided": "neither our verifier nor the second method can tell",
    "accused": "right by the second method, but our verifier says it is wrong",
    "false kink": "right and passed, but our verifier sees a kink where none is",
    "missed": "wrong by the second method, but our verifier says it is right",
    "raises": "JAX has no such derivative, and says so",
}
"""In the order of the table."""


def rows_of(entry: Entry, point: Point) -> list[Row]:
    """The value, then both modes of the first order, then both of the second."""
    with (
        warnings.catch_warnings(),
        np.errstate(all="ignore"),
        jax.enable_x64(True),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        warnings.simplefilter("ignore")
        return list(_rows(entry, point))


def _rows(entry: Entry, point: Point) -> Iterator[Row]:
    row = Row(entry.name, point.label, point.is_edge, 0, "value")
    args = tuple(jnp.asarray(x) for x in point.args)
    try:
        value = float(entry.scalar(*args))
    except Exception as error:  # the library's function
        yield replace(row, status="raises", note=_first_line(error))
        return
    if wrong := _value_is_wrong(entry, args, value):
        yield replace(row, status="value", given=_number(value), true=wrong)
    if not np.isfinite(value):
        if not wrong:
            yield replace(row, status="none", given=_number(value))
        return
    subject = Subject(entry, args, bool(wrong))
    first = [_row(replace(row, order=1, mode=mode), subject) for mode in MODES]
    yield from first
    if all(r.status in SMOOTH and r.given not in NOT_FINITE for r in first):
        is_wrong = any(r.status in ("fault", "unseen fault") for r in first)
        for mode in MODES:
            found = _row(replace(row, order=2, mode=mode), subject)
            follows = is_wrong and found.status == "missed"
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
    def opinions(self) -> dict[tuple[int, ...], Truth]:
        """What the second method said, by the coordinates differentiated for."""
        return {}

    @cached_property
    def by_reverse(self) -> GradientReport:
        """Of the first order and, where JAX has one, of the second."""
        try:
            return check_vjp(self.entry.scalar, *self.args, order=2, demands=())
        except Exception:  # of the library: no second derivative
            return check_vjp(self.entry.scalar, *self.args, demands=())

    def verified(self, order: int, mode: str) -> tuple[Verdict, bool, str]:
        """The worst verdict of our verifier, whether it passes, and the cause."""
        if mode == "reverse":
            name = "vjp" if order == 1 else "vjp order 2"
            report = self.by_reverse
            if order == 2 and not any(x.candidate == name for x in report.leaves):
                check_vjp(self.entry.scalar, *self.args, order=2, demands=())
        else:
            asked = self.entry.scalar if order == 1 else self.slope
            report, name = check_jvp(asked, *self.args, demands=()), "jvp"
        own = [leaf for leaf in report.leaves if leaf.candidate == name]
        own.sort(key=lambda leaf: leaf.severity)
        return own[0].verdict, all(leaf.passed for leaf in own), own[0].cause

    def slope(self, *moving: Any) -> Any:
        """The change along (1, 0.7, 0.49, …), by forward mode."""
        ends = np.cumsum([x.size for x in self.args])[:-1]
        along = np.split(SHRINKING ** np.arange(self.at.size), ends)
        pairs = zip(along, self.args, strict=True)
        tangents = tuple(jnp.asarray(t.reshape(x.shape)) for t, x in pairs)
        return jax.jvp(self.entry.scalar, moving, tangents)[1]

    def flat(self, vector: Any) -> Any:
        """The function of all coordinates in a row."""
        ends = np.cumsum([x.size for x in self.args])[:-1]
        pairs = zip(jnp.split(vector, ends), self.args, strict=True)
        return self.entry.scalar(*(part.reshape(x.shape) for part, x in pairs))


def _row(row: Row, subject: Subject) -> Row:
    """The verifier's answer, and the second method's where one is wanted."""
    try:
        verdict, passed, cause = subject.verified(row.order, row.mode)
    except Exception as error:  # of the library: what it cannot derive
        return replace(row, status="raises", note=_first_line(error))
    row = replace(row, verdict=verdict.value)
    agrees, at = _agrees(verdict, passed), subject.at
    if agrees and subject.entry.definition is None:
        return replace(row, status="agree")
    if row.order == 2 and at.size > MOST_COORDINATES:
        return replace(row, status="undecided", note=f"{at.size} coordinates")
    given = DERIVATIVES[row.order, row.mode](subject.flat, at)
    chosen = subject.methods[:1] if agrees else subject.methods
    own = {}
    for where in combinations_with_replacement(range(at.size), row.order):
        if where not in subject.opinions:
            subject.opinions[where] = truth(chosen, at, where)
        own[where] = subject.opinions[where]
    return _decided(row, given, own, verdict, passed, subject.value_is_wrong, cause)


def _agrees(verdict: Verdict, passed: bool) -> bool:
    return passed and verdict in (Verdict.AGREE, Verdict.UNINFORMATIVE)


# -------------------------------------------------------------------- what JAX gives


def _along(function: Callable[[Any], Any], i: int) -> Callable[[Any], Any]:
    """∂function/∂xᵢ by forward mode."""

    def slope(vector: Any) -> Any:
        unit = jnp.zeros_like(vector).at[i].set(1)
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
    verdict: Verdict,
    passed: bool,
    value_is_wrong: bool,
    cause: str,
) -> Row:
    """Of all coordinates the one that tells most, held against both methods."""
    known = [abs(t.value) for t in opinions.values() if np.isfinite(t.value)]
    scale = max(known, default=0.0)
    both = {**opinions, **{k[::-1]: t for k, t in opinions.items()}}
    judged = [
        (KINDS.index(_kind(given[k], t, scale)), _apart(given[k], t), k)
        for k, t in both.items()
    ]
    kind, apart, where = max(judged)
    status = _status(
        KINDS[kind], verdict, passed, value_is_wrong, apart <= LOST * scale
    )
    return replace(
        row,
        status=status,
        given=_number(given[where]),
        true=_written(both[where]),
        place=str(list(where)) if len(both) > 1 else "",
        method=both[where].method,
        note=cause if status in OURS else "",
    )


OURS = ("accused", "false kink", "missed", "unresolved", "undecided")
"""Where it is of interest what our verifier says beside the verdict."""


def _status(
    kind: str, verdict: Verdict, passed: bool, value_is_wrong: bool, is_near: bool
) -> str:
    """Of the kind by the second method and our verdict, the one of STATUSES."""
    agrees = _agrees(verdict, passed)
    cannot_tell = verdict in (Verdict.UNRESOLVED, Verdict.UNINFORMATIVE)
    if kind == "unknown":
        return "agree" if agrees else "undecided"
    if kind == "right":
        if agrees:
            return "agree"
        return "unresolved" if cannot_tell else "false kink" if passed else "accused"
    if kind == "wrong":
        if value_is_wrong:
            return "value"
        if passed:
            return "digits" if is_near else "missed"
        return "unseen fault" if cannot_tell else "fault"
    return kind


KINDS = ("right", "one-sided", "unknown", "none", "convention", "kink", "end", "wrong")
"""Of one coordinate, by the second method; the last tells most."""


def _kind(given: float, true: Truth, scale: float) -> str:
    room = SAME * scale + 10 * np.nan_to_num(true.error) + NOTHING
    if true.kind == "derivative":
        return "right" if abs(given - true.value) <= room else "wrong"
    if true.kind == "end":
        if np.isnan(true.value):
            return "none"
        return "one-sided" if abs(given - true.value) <= room else "end"
    if true.kind == "kink":
        inside = true.low - room <= given <= true.high + room
        return "convention" if inside else "kink"
    return true.kind


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
            is_same = (
                abs(true - value) <= SAME * abs(true) if np.isfinite(value) else False
            )
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


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:120]
