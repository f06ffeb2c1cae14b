"""A derivative by a second method, which uses no derivative of JAX and no verifier.

Differences from every side of the point: of the function's definition, or of JAX's own
program, with 200 digits; else of its float64 values, extrapolated. Whether the sides
agree says whether there is a derivative.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Any

import jax
import mpmath
import numpy as np
from mpmath import mp

from experiments.libraries.entry import Entry, weights_of
from experiments.libraries.many_digits import NotKnown, with_many_digits
from jaxnet.jaxpr.reader import every_equation

Values = Callable[[Sequence[Any]], Any]
"""The function of the flat coordinates, to one number."""

DIGITS = 200
"""Of the arithmetic: a second difference with steps of 1e-40 loses 80 of them."""

STEPS = (mp.mpf(10) ** -40, mp.mpf(10) ** -41)
"""Of a difference, in units of the coordinate: where a slope goes to 0 as the root of
the step does, it is below 1e-20."""

CONVERGED = 1e-9
"""Relative change from one step to the next, and of one side to the other, below which
both are the same limit: ten digits are written."""

FLOOR = 1e-14
"""A quotient below this that still shrinks with its step goes to 0."""

ROUNDING = 1e-80
"""Quotients below this are the rounding of 200 digits: they cancel to 0."""

HALVINGS = 14
"""Of the first step, where only float64 values can be had."""

FIRST_STEP = 0.05
"""In units of the coordinate: halved until rounding takes over."""

SHRINKING = 0.7
"""Of a direction that has no symmetry: 1, 0.7, 0.49, …"""

NEARBY, NEAR_BY, MAGNITUDES = 40, mp.mpf(10) ** -12, (-4.0, 0.0)
"""How many points beside a kink are looked at; how far away in units, times 10 to a
power between two: of coordinates that tie, one alone should move now and then."""

FINEST, NEAR = 4, 0.01
"""How many of the finest steps, without any extrapolation, have to come how near."""

TRUSTED = 1e-4
"""Estimated relative error beyond which an extrapolated difference says nothing."""


@dataclass(frozen=True)
class Side:
    """The limit of a difference quotient from one side, and the error it may have.

    value: nan where there is no limit.
    defined: whether the function has values on this side.
    """

    value: float
    error: float = 0.0
    defined: bool = True


@dataclass(frozen=True)
class Truth:
    """What the derivative is at a point.

    kind: "derivative"; "kink", where the sides differ; "end", where only one side has
        values; "none", where the quotients have no limit; "unknown", where the method
        cannot tell.
    value: the derivative, or that from the side that has one; nan otherwise.
    low, high: the slopes of a kink; else the value.
    """

    kind: str
    value: float
    low: float
    high: float
    error: float
    method: str


@dataclass(frozen=True)
class Method:
    """The values of a function, and the limits of its difference quotients."""

    name: str
    values: Values
    limit: Callable[[Values, list[Any], Sequence[int], tuple[int, ...]], Side]

    def derivative(self, at: np.ndarray, where: Sequence[int]) -> Truth:
        """With respect to one coordinate, or to two, one after the other."""
        signs = list(product((1, -1), repeat=len(where)))
        point = [float(x) for x in at]
        sides = [self.limit(self.values, point, where, sign) for sign in signs]
        found = _of_sides(sides, self.name)
        return self.with_slopes_nearby(found, at, where)

    def is_smooth_along(
        self, at: np.ndarray, slopes: np.ndarray, direction: np.ndarray
    ) -> bool:
        """Whether the slope along a direction is what the partial derivatives say.

        Where several coordinates tie, each alone may have a derivative, and the
        function has none.
        """

        def along(t: Sequence[Any]) -> Any:
            pairs = zip(at, direction, strict=True)
            return self.values([t[0] * float(d) + float(x) for x, d in pairs])

        sides = [self.limit(along, [0.0], (0,), (sign,)) for sign in (1, -1)]
        found, true = _of_sides(sides, self.name), float(slopes @ direction)
        room = CONVERGED * float(np.abs(slopes) @ np.abs(direction)) + FLOOR
        is_same = abs(found.value - true) <= room + 4 * found.error
        return found.kind == "unknown" or is_same

    def with_slopes_nearby(
        self, found: Truth, at: np.ndarray, where: Sequence[int]
    ) -> Truth:
        """A kink's slopes, and those at points nearby where there is a derivative.

        Between them lies what may be called its slope: of several that tie, each may
        have the slope of any.
        """
        if found.kind != "kink" or self.limit is not limit_of_digits:
            return found
        slopes = [found.low, found.high]
        for seed in range(NEARBY):
            random = np.random.default_rng(seed)
            sizes = 10.0 ** random.uniform(*MAGNITUDES, len(at))
            away = random.choice([-1.0, 1.0], len(at)) * sizes
            pairs = zip(at, away, strict=True)
            near = [mp.mpf(x) + NEAR_BY * mp.mpf(a) * _unit(x) for x, a in pairs]
            side = self.limit(self.values, near, where, (1,) * len(where))
            slopes += [side.value] if np.isfinite(side.value) else []
        return replace(found, low=min(slopes), high=max(slopes))


def methods(entry: Entry, args: Sequence[Any]) -> list[Method]:
    """The best first: by definition, by the program with many digits, by its values.

    A program with a loop that ends at float64's tolerance goes in stairs, with many
    digits as with few: there its values come before it.
    """
    shapes = [np.shape(x) for x in args]
    scalar = entry.scalar

    def split(flat: Sequence[Any], kind: Any) -> list[Any]:
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])[:-1]
        parts = np.split(np.asarray(flat, kind), ends)
        return [x.reshape(shape) for x, shape in zip(parts, shapes, strict=True)]

    program, compiled = with_many_digits(scalar, args), jax.jit(scalar)
    found = []
    if entry.definition is not None:
        definition = entry.definition
        found.append(Method("definition", lambda x: definition(*x), limit_of_digits))
    rest = [
        Method("program", lambda x: program(*split(x, object)), limit_of_digits),
        Method("values", lambda x: float(compiled(*split(x, float))), limit_of_floats),
    ]
    equations = every_equation(jax.make_jaxpr(scalar)(*args))
    has_loop = any(equation.primitive.name == "while" for equation in equations)
    return [*found, *(reversed(rest) if has_loop else rest)]


def truth(found: Sequence[Method], at: np.ndarray, where: Sequence[int]) -> Truth:
    """By the first of the methods that can tell.

    A program may switch from one approximation to another at the point: they are apart
    by 1e-16, and no limit of its differences is no proof that there is none. Of a
    definition it is.
    """
    answers = []
    for method in found:
        try:
            answer = method.derivative(at, where)
        except NotKnown:
            continue
        answers.append(answer)
        if answer.kind not in ("none", "unknown") or method.name == "definition":
            return answer
    return answers[0]


def partials(found: Sequence[Method], at: np.ndarray) -> dict[tuple[int, ...], Truth]:
    """With respect to each coordinate; kinks, if they make no derivative together."""
    places: list[tuple[int, ...]] = [(i,) for i in range(len(at))]
    own = {where: truth(found, at, where) for where in places}
    method = next(m for m in found if m.name == own[places[0]].method)
    if any(t.kind != "derivative" or t.method != method.name for t in own.values()):
        return own
    slopes = np.array([t.value for t in own.values()])
    signs = np.random.default_rng(0).choice([-1.0, 1.0], len(at))
    directions = np.ones(len(at)), signs * weights_of(len(at))
    if all(method.is_smooth_along(at, slopes, d) for d in directions):
        return own
    kinks = {k: replace(t, kind="kink", value=np.nan) for k, t in own.items()}
    return {k: method.with_slopes_nearby(t, at, k) for k, t in kinks.items()}


def _of_sides(sides: Sequence[Side], method: str) -> Truth:
    """One derivative if all sides have the same limit."""
    defined = [side for side in sides if side.defined]
    limits = [side for side in defined if np.isfinite(side.value)]
    nan = float("nan")
    if not defined:
        return Truth("end", nan, nan, nan, nan, method)
    if len(limits) < len(defined):
        return Truth("none", nan, nan, nan, nan, method)
    values = [side.value for side in limits]
    error = max(side.error for side in limits)
    low, high = min(values), max(values)
    is_one = high - low <= CONVERGED * max(abs(low), abs(high)) + FLOOR + 4 * error
    middle = float(np.mean(values))
    if not is_one:
        return Truth("kink", nan, low, high, error, method)
    kind = "end" if len(defined) < len(sides) else "derivative"
    return Truth(kind, middle, middle, middle, error, method)


def _unit(x: float) -> Any:
    return mp.mpf(abs(x)) if x != 0 else mp.mpf(1)


def _quotient(
    values: Values,
    at: Sequence[Any],
    where: Sequence[int],
    steps: Sequence[Any],
) -> Any:
    """Σ ± f(x + some of the steps) / Π steps, over all choices of some."""
    total, divisor = 0, 1
    for chosen in product((0, 1), repeat=len(where)):
        moved = list(at)
        for taken, i, step in zip(chosen, where, steps, strict=True):
            moved[i] = moved[i] + taken * step
        sign = (-1) ** (len(where) - sum(chosen))
        total = total + sign * values(moved)
    for step in steps:
        divisor = divisor * step
    return total / divisor


def limit_of_digits(
    values: Values, at: list[Any], where: Sequence[int], signs: tuple[int, ...]
) -> Side:
    """From two steps of 1e-40 units: what is linear in the step is removed."""
    with mp.workdps(DIGITS):
        point = [mp.mpf(x) for x in at]
        found = []
        for h in STEPS:
            steps = [s * h * _unit(at[i]) for s, i in zip(signs, where, strict=True)]
            try:
                found.append(_quotient(values, point, where, steps))
            except (ValueError, ZeroDivisionError, mpmath.libmp.NoConvergence):
                return Side(float("nan"), defined=False)
        coarse, fine = found
        if any(isinstance(q, mpmath.mpc) and q.imag != 0 for q in found):
            return Side(float("nan"), defined=False)
        coarse, fine = mp.re(coarse), mp.re(fine)
        if mp.isnan(coarse) or mp.isnan(fine):
            return Side(float("nan"), defined=False)
        if mp.isinf(coarse) or mp.isinf(fine):
            return Side(float("nan"))
        if abs(coarse - fine) <= CONVERGED * abs(fine):
            return Side(float((10 * fine - coarse) / 9))
        is_rounding = max(abs(fine), abs(coarse)) < ROUNDING
        goes_to_zero = abs(fine) < abs(coarse) < FLOOR or is_rounding
        return Side(0.0 if goes_to_zero else float("nan"))


def limit_of_floats(
    values: Values, at: list[Any], where: Sequence[int], signs: tuple[int, ...]
) -> Side:
    """By halving the step and extrapolating to 0 (Neville), where it is most stable.

    The error is the last change, and the rounding of the values over the steps. A limit
    that the finest steps do not come near is none: of a jump, or of coarse steps alone.
    """
    before, best, error = list[float](), float("nan"), float("inf")
    quotients = list[float]()
    rounding = 4 * np.finfo(float).eps * abs(float(values(at)))
    for n in range(HALVINGS):
        h = FIRST_STEP / 2**n
        steps = [s * h * float(_unit(at[i])) for s, i in zip(signs, where, strict=True)]
        row = [float(_quotient(values, at, where, steps))]
        if not np.isfinite(row[0]):
            before, quotients = [], []
            continue
        quotients.append(row[0])
        for k, coarser in enumerate(before):
            better = row[k] + (row[k] - coarser) / (2 ** (k + 1) - 1)
            row.append(better)
            change = max(abs(better - row[k]), abs(better - coarser))
            change += rounding / abs(float(np.prod(steps)))
            if change < error:
                best, error = better, change
        before = row
    if not quotients:
        return Side(float("nan"), defined=False)
    near = NEAR * max(abs(best), abs(quotients[0])) + error
    is_trusted = error <= TRUSTED * abs(best) + FLOOR
    is_near = all(abs(q - best) <= near for q in quotients[-FINEST:])
    return Side(best if is_trusted and is_near else float("nan"), error)
