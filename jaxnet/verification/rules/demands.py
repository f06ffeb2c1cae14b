"""What a derivative rule must satisfy beside being right: a report for each demand."""

import itertools
from collections.abc import Callable, Container, Iterator, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.input_checks import first_line
from jaxnet.jaxpr.compiled import compiled
from jaxnet.precision import SINGLE, eps
from jaxnet.verification.function.callbacks import unless_raised
from jaxnet.verification.function.cotangents import Arrays, inner
from jaxnet.verification.function.program import Program
from jaxnet.verification.function.same_bits import fingerprint
from jaxnet.verification.report.demand_report import DemandReport
from jaxnet.verification.report.verdict import Verdict
from jaxnet.verification.rules.closeness import (
    DEVIATIONS,
    Closeness,
    arrays,
    factor_between,
    wrong,
)
from jaxnet.verification.rules.rule import NAMES, Rule

EXAMPLES = 3
"""How many examples vmap is tried on: the point itself and two beside it."""

BESIDE = (-0.01, 0.01)
"""The share by which an example lies beside the point: within its domain, mostly."""

ELSEWHERE = (-0.75, -0.25)
"""The share by which a forward pass between two others lies elsewhere: what it leaves
behind is then told from what it found."""

SCALE = 20
"""How many powers of two larger and smaller a cotangent is tried: a mean over a million
examples makes them so small, and a loss scale so large."""


SHAPE_FACTOR = 1e-3
"""How near a factor must be to a quotient of axis sizes to be called that."""


def demanded(rule: Rule, chosen: Container[str]) -> list[DemandReport]:
    """The reports of the chosen demands, less those that cannot be put.

    Of a rule that raises or gives a NaN, the leaves say so; no more is asked of it, and
    of one that does not repeat, nothing else.
    """

    def put(*names: str) -> list[DemandReport]:
        asked = [DEMANDS[name] for name in names if name in chosen]
        return [report for demand in asked for report in demand(rule)]

    first, second, *others = DEMANDS
    found = put(first)
    if any(name in chosen for name in (second, *others)) and _is_finite(rule):
        repeated = put(second)
        found += repeated
        if all(report.passed for report in repeated):
            found += put(*others)
    return [replace(report, candidate=rule.mode) for report in found]


def forward_value(rule: Rule) -> list[DemandReport]:
    """The forward pass of the rule gives what the function gives."""
    name = "forward value"
    try:
        by_rule = rule.value_by_rule(rule.moving)
    except Exception:  # the caller's rule: the leaves say what it raises
        return []
    if fingerprint(rule.outputs) != fingerprint(rule.function(rule.moving)):
        return []  # its values differ anyway, as the leaves say
    cause = "the rule's forward pass gives another value than the function"
    for one, other in zip(rule.outputs, by_rule, strict=True):
        if one.dtype != other.dtype:
            words = f"forward pass gives {other.dtype}, the function {one.dtype}"
            return [wrong(name, f"the rule's {words}")]
    report = rule.close_outputs.demanded(name, rule.outputs, by_rule, cause)
    both = rule.function, rule.value_by_rule
    return [_widely(rule, report, both, (rule.moving,), rule.precision, cause)]


def same_bits_twice(rule: Rule) -> list[DemandReport]:
    """The rule gives the same for the same input."""
    name = "same bits twice"
    if fingerprint(rule.mapped) == fingerprint(rule.linear_map(rule.moving)):
        return [DemandReport(name, "", Verdict.AGREE, True)]
    cause = "two values for one input"
    frozen = jax.jit(lambda: rule.linear_map(rule.moving))
    if fingerprint(frozen()) == fingerprint(frozen()):
        cause += (
            ": a closed-over Python value changes between calls, and jit freezes it"
        )
    return [wrong(name, cause, verdict=Verdict.NONDETERMINISTIC)]


def linear(rule: Rule) -> list[DemandReport]:
    """Zero of zero, and of any multiple, as large or small as may be, that multiple."""
    word, close, name = NAMES[rule.mode], rule.close, f"linear in {NAMES[rule.mode]}"

    def times(factor: float) -> Arrays:
        scaled = [factor * c for c in rule.direction]
        return list(arrays(rule.applied(scaled)))

    once, none, twice = times(1.0), times(0.0), times(-2.0)
    zero, doubled = [np.zeros_like(x) for x in none], [-2 * x for x in once]
    is_linear = close.holds(zero, none) and close.times(2.0).holds(doubled, twice)
    ignores = not is_linear and close.holds(twice, once) and close.holds(none, once)
    cause = f"the rule ignores its {word}" if ignores else f"not linear in the {word}"
    found = [close.demanded(f"0 for {word} 0", zero, none, cause)]
    found.append(close.times(2.0).demanded(name, doubled, twice, cause))
    for power in _powers(rule, once) if found[-1].passed else ():
        scaled, factor = [2.0**power * x for x in once], 2.0**power
        at = f"{cause}: it gives something else at 2^{power} times its size"
        report = close.times(factor).demanded(name, scaled, times(factor), at)
        found = found if report.passed else [found[0], report]
    return found


def _powers(rule: Rule, once: Arrays) -> Iterator[int]:
    """Powers of two by which the map's argument can be multiplied.

    Neither that nor what it gives leaves a dtype that the function computes in.
    """
    both = arrays([once, rule.direction])
    sizes = [float(size) for x in both if (size := np.max(np.abs(x), initial=0))]
    ranges = [(float(d.tiny), float(d.max)) for d in rule.ranges]

    def fits(power: int) -> bool:
        scaled = [size * 2.0**power for size in sizes]
        return all(low < size < high for low, high in ranges for size in scaled)

    for power in (SCALE, -SCALE):
        fitting = filter(fits, (power, power // 2, power // 4))
        yield from itertools.islice(fitting, 1)


def adjoint_identity(rule: Rule) -> list[DemandReport]:
    """<c, J t> = <Jᵀ c, t>, where the function has both modes."""
    try:
        forward = arrays(rule.compiled_map("jvp")(rule.moving, rule.tangent))
        backward = arrays(rule.compiled_map("vjp")(rule.moving, rule.cotangent))
    except Exception:  # the caller's rule has one mode only
        return []
    pushed = inner(rule.cotangent, forward)
    pulled = inner(rule.tangent, backward)
    cause = "the forward and the reverse mode are not each other's transpose"
    sums = (rule.cotangent, forward), (rule.tangent, backward)
    in_sums = sum(_of_sum(*pair, float(eps(pushed.dtype))) for pair in sums)

    def rounding() -> list[float]:
        close = rule.close_of(rule.jvp), rule.close_of(rule.vjp)
        pairs = zip((rule.cotangent, rule.tangent), close, strict=True)
        return [in_sums + sum(_of_factors(a, c.rounding) for a, c in pairs)]

    close, name = Closeness(lambda: [in_sums]), "adjoint identity"
    if not close.holds([pushed], [pulled]):
        close = Closeness(rounding)
    return [close.demanded(name, [pushed], [pulled], cause)]


def _of_sum(one: Arrays, other: Any, eps: float) -> float:
    """Rounding in Σ aᵢ bᵢ, of the sum."""
    pairs = zip(one, other, strict=True)
    return eps * sum(_norm(a) * _norm(b) for a, b in pairs)


def _of_factors(one: Arrays, rounding: Sequence[float]) -> float:
    """Rounding in Σ aᵢ bᵢ, of each bᵢ."""
    return sum(_norm(a) * r for a, r in zip(one, rounding, strict=True))


def _norm(values: Any) -> float:
    return float(np.linalg.norm(np.ravel(values)))


def jit_is_eager(rule: Rule) -> list[DemandReport]:
    """The rule as it is called, and compiled."""
    name = "jit = eager"
    try:
        jitted = rule.compiled_map(rule.mode)(rule.moving, rule.direction)
    except Exception as error:  # the caller's rule
        return [_raised(name, error)]
    eager, afresh = rule.mapped, _without_any_jit(rule)
    if afresh is not None and not rule.close.holds(eager, afresh):
        cause = "a closed-over Python value is another than when jit froze it"
        return [rule.close.demanded(name, afresh, eager, cause)]
    cause = "jit gives another value: a Python value or branch was frozen"
    return [rule.close.demanded(name, eager, jitted, cause)]


def vmap_is_loop(rule: Rule) -> list[DemandReport]:
    """The rule on a batch by vmap, and by a loop over its examples."""
    name, random = "vmap = loop", np.random.default_rng([*rule.seed, 5])
    still = [(0.0, 0.0), *[BESIDE] * (EXAMPLES - 1)]
    batch = [
        np.stack([_moved(x, random, share) for share in still]) for x in rule.moving
    ]
    try:
        one = rule.compiled_map(rule.mode)
        looped = [one([x[i] for x in batch], rule.direction) for i in range(EXAMPLES)]
    except Exception:  # the caller's rule: jit says so, or it is outside its domain
        return []
    try:
        given, mapped = (batch, rule.direction), jax.vmap(rule.linear_map, (0, None))
        together = compiled(mapped, *given)(*given)
    except NotImplementedError:
        return []
    except Exception as error:  # the caller's rule
        return [_raised(name, error)]
    expected = jax.tree.map(lambda *xs: np.stack(xs), *looped)
    cause = "vmap gives another value than a loop over the examples"
    cause += _shape_factor(rule, expected, together, EXAMPLES)
    report = rule.close.demanded(name, expected, together, cause)

    def loop(batch: Arrays, direction: Arrays) -> Arrays:
        each = [[x[i] for x in batch] for i in range(EXAMPLES)]
        looped = [rule.linear_map(one, direction) for one in each]
        return [jnp.stack(xs) for xs in zip(*looped, strict=True)]

    return [_widely(rule, report, (loop, mapped), given, SINGLE, cause)]


def _widely(
    rule: Rule,
    report: DemandReport,
    both: Sequence[Callable[..., Arrays]],
    given: tuple[Any, ...],
    share: float,
    cause: str,
) -> DemandReport:
    """The report, or that of both ways in float64, which may be off by a share.

    Where a rule computes in less than float32, its own numbers show a digit or two.
    """
    if not report.passed or rule.precision <= SINGLE:
        return report
    one, other = (rule.in_float64(function, *given) for function in both)
    if one is None or other is None:
        return report
    sizes = [np.max(np.abs(x), initial=0.0) for x in one]
    close = Closeness(lambda: [share / DEVIATIONS * size for size in sizes])
    found = close.demanded(report.name, one, other, cause)
    return report if found.passed else found


def batch_is_examples(rule: Rule) -> list[DemandReport]:
    """A function that maps examples on its first axis must have a rule that does.

    Whether it does is seen beside the point: of zeros, each is an example of a bias.
    """
    sizes = {x.shape[:1] for x in rule.moving}
    if rule.mode != "vjp" or len(sizes) != 1 or sizes & {(), (1,)}:
        return []
    if {np.shape(x)[:1] for x in rule.outputs} != sizes:
        return []
    random = np.random.default_rng([*rule.seed, 7])
    batch = [jnp.asarray(_moved(x, random, BESIDE)) for x in rule.moving]

    def one_by_one(*batch: Arrays) -> tuple[Arrays, Arrays]:
        rows = jax.tree.map(lambda x: x[:, None], batch)
        found = jax.lax.map(lambda one: rule.value_and_vjp(*one), rows)
        joined: tuple[Arrays, Arrays] = jax.tree.map(lambda x: x[:, 0], found)
        return joined

    try:
        given = batch, rule.cotangent
        values, expected = compiled(one_by_one, *given)(*given)
        if not rule.close_outputs.holds(rule.function(batch), values):
            return []
    except Exception:  # the caller's function wants the whole batch
        return []
    together = rule.applied(rule.direction, batch)
    cause = "a batch gives another gradient than its examples one by one"
    cause += _shape_factor(rule, expected, together)
    return [rule.close.demanded("batch = examples", expected, together, cause)]


def one_at_a_time(rule: Rule) -> list[DemandReport]:
    """A rule may be told which argument is held and which output is not used.

    It then gives what it gives for a tangent or a cotangent of 0 there.
    """
    found = _first_wrong(rule, "arguments", "held", rule.by_arguments)
    if rule.mode == "vjp":
        found += _first_wrong(rule, "outputs", "unused", rule.by_outputs)
    return found


def _first_wrong(rule: Rule, what: str, state: str, pairs: Any) -> list[DemandReport]:
    """The report of the first pair that differs, or of the last one."""
    name, found = f"{what} one at a time", list[DemandReport]()
    cause = f"with some {what} {state}, the rule gives another derivative"
    try:
        for expected, got in pairs():
            found = [rule.close.demanded(name, expected, got, cause)]
            if not found[0].passed:
                break
    except Exception as error:  # the caller's rule
        return [_raised(name, error)]
    return found


def two_calls_at_once(rule: Rule) -> list[DemandReport]:
    """A backward pass must see its own forward pass, not the one that came last."""
    if rule.mode != "vjp":
        return []
    name, random = "two calls at once", np.random.default_rng([*rule.seed, 6])
    elsewhere = [_moved(x, random, ELSEWHERE) for x in rule.moving]
    try:
        found = unless_raised(partial(rule.value_by_rule, elsewhere))
    except Exception:  # the caller's rule, outside its domain
        found = None
    if found is None:
        return []
    try:
        got = rule.interrupted_vjp(rule.moving, elsewhere)
    except Exception as error:  # the caller's rule
        return [_raised(name, error)]
    cause = (
        "another forward pass before the backward changes the gradient: state is kept "
        "on an object or a global, not in the residuals"
    )
    return [rule.close.demanded(name, rule.mapped, got, cause)]


Demand = Callable[[Rule], list[DemandReport]]

DEMANDS: dict[str, Demand] = {
    demand.__name__: demand
    for demand in (
        forward_value,
        same_bits_twice,
        linear,
        adjoint_identity,
        jit_is_eager,
        vmap_is_loop,
        batch_is_examples,
        one_at_a_time,
        two_calls_at_once,
    )
}
"""What is asked of a rule, in this order."""


def _is_finite(rule: Rule) -> bool:
    try:
        return all(np.isfinite(x).all() for x in arrays(rule.mapped))
    except Exception:  # the caller's rule: the leaves say what it raises
        return False


def _without_any_jit(rule: Rule) -> Arrays | None:
    """The rule with its own jits off too; None if it has none, or a loop to unroll.

    Without them it is traced anew, and then compiled whole.
    """
    given = rule.moving, rule.direction
    try:
        traced = jax.make_jaxpr(rule.linear_map)(*given)
        names = {e.primitive.name for e in Program(traced).equations}
        if "jit" not in names or names & {"scan", "while"}:
            return None
        with jax.disable_jit():
            afresh = compiled(rule.linear_map, *given)
        return list(afresh(*given))
    except Exception:  # the caller's rule
        return None


def _moved(
    x: jax.Array, random: np.random.Generator, share: tuple[float, float]
) -> Any:
    """A point moved by a random share of each coordinate, of 1 where it is 0."""
    by = random.uniform(*share, x.shape).astype(x.dtype)
    values = np.asarray(x)
    return np.asarray(values + by * np.where(values == 0, 1, values), x.dtype)


def _shape_factor(rule: Rule, expected: Any, got: Any, examples: int = 1) -> str:
    """Whether the two differ by one factor, made of axis sizes."""
    factor = factor_between(expected, got)
    if factor is None:
        return ""
    sizes = {s for x in rule.moving for s in x.shape if s} | {examples, 1}
    for n in sizes:
        for m in sizes:
            if n != m and abs(factor * n / m - 1) < SHAPE_FACTOR:
                return f", ×{m}/{n}: the rule divides by a shape such as x.shape[0]"
    return f", ×{factor:.4g}"


def _raised(name: str, error: Exception) -> DemandReport:
    return wrong(name, first_line(error), verdict=Verdict.MALFORMED)
