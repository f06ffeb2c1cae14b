"""What a derivative rule must satisfy beside being right: one row of a report each."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.array_types import PyTree
from jaxnet.input_checks import first_line
from jaxnet.verification.comparison import (
    Comparison,
    arrays,
    bits,
    coarsest_real,
    factor_between,
)
from jaxnet.verification.leaves import with_floating
from jaxnet.verification.program import Program
from jaxnet.verification.report import LeafReport
from jaxnet.verification.rule import Rule, inner, random_like
from jaxnet.verification.verdict import Verdict

EXAMPLES = 3
"""How many examples vmap is tried on."""

Map = Callable[..., PyTree]


def consistency(rule: Rule, linear: Map, name: str) -> list[LeafReport]:
    """The rows for `rule.vjp` or `rule.jvp`, less demands that cannot be put.

    Of a rule that raises or gives a NaN, the leaves say so; no more is asked of it.
    """
    rows = [_forward(rule)]
    if _is_finite(rule, linear):
        repeats = _repeats(rule, linear)
        rows += [repeats, *(_demands(rule, linear, name) if repeats.passed else [])]
    return [replace(row, candidate=name) for row in rows if row is not None]


def _demands(rule: Rule, linear: Map, name: str) -> list[LeafReport | None]:
    """The rows that mean something only if the rule repeats."""
    rows = [*_linearity(rule, linear, name), _adjoint(rule), _jitted(rule, linear)]
    rows += [_vmapped(rule, linear), _one_by_one(rule, linear, name)]
    return [*rows, _interrupted(rule, linear) if name == "vjp" else None]


def _is_finite(rule: Rule, linear: Map) -> bool:
    try:
        return all(jnp.isfinite(x).all() for x in arrays(linear(rule.args)))
    except Exception:
        return False


def _forward(rule: Rule) -> LeafReport | None:
    try:
        by_rule = rule.value_by_rule(rule.args)
    except Exception:
        return None
    value = rule.value(rule.args)
    if bits(value) != bits(rule.value(rule.args)):
        return None  # its values differ anyway, as the leaves say
    cause = "the rule's forward pass gives another value than the function"
    return _comparison(rule).row("forward value", value, by_rule, cause)


def _repeats(rule: Rule, linear: Map) -> LeafReport:
    first, second = linear(rule.args), linear(rule.args)
    frozen = jax.jit(lambda: linear(rule.args))
    same = bits(first) == bits(second)
    cause = ""
    if not same:
        cause = "two values for one input"
        if bits(frozen()) == bits(frozen()):
            cause += (
                ": a closed-over Python value changes between calls, and jit freezes it"
            )
    verdict = Verdict.AGREE if same else Verdict.NONDETERMINISTIC
    return LeafReport("same bits twice", "", (), verdict, same, cause=cause)


def _linearity(rule: Rule, linear: Map, name: str) -> list[LeafReport]:
    """Zero of zero, and of minus double, minus double: |t| is not linear in t."""
    seed = rule.cotangent
    if name == "jvp":
        seed = random_like(rule.moving(rule.args), [*rule.seed, 4])
    once = linear(rule.args, seed)
    none = linear(rule.args, jax.tree.map(lambda c: 0.0 * c, seed))
    twice = linear(rule.args, jax.tree.map(lambda c: -2.0 * c, seed))
    word = "cotangent" if name == "vjp" else "tangent"
    ignores = _comparison(rule).close(twice, once) and _comparison(rule).close(
        none, once
    )
    cause = (
        f"not linear in the {word}" if not ignores else f"the rule ignores its {word}"
    )
    zero = jax.tree.map(jnp.zeros_like, none)
    scale = max(
        (float(np.max(np.abs(x), initial=0)) for x in arrays(once)), default=0.0
    )
    return [
        _comparison(rule).row(f"0 for {word} 0", zero, none, cause, scale),
        _comparison(rule).row(
            f"linear in {word}", jax.tree.map(lambda x: -2 * x, once), twice, cause
        ),
    ]


def _adjoint(rule: Rule) -> LeafReport | None:
    """<c, J v> = <Jᵀ c, v>, where the function has both modes."""
    tangent = random_like(rule.moving(rule.args), [*rule.seed, 4])
    try:
        forward = rule.jvp(rule.args, tangent)
        back = arrays(rule.vjp(rule.args))
    except Exception:
        return None
    pushed = float(inner(rule.cotangent, forward))
    pulled = float(inner(tangent, [jnp.asarray(x) for x in back]))
    sizes = [
        float(np.linalg.norm(np.ravel(a)) * np.linalg.norm(np.ravel(b)))
        for a, b in zip(tangent, back, strict=True)
    ]
    cause = "the forward and the reverse mode are not each other's transpose"
    one, other = (
        np.asarray(pushed, coarsest_real(back)),
        np.asarray(pulled, coarsest_real(back)),
    )
    return _comparison(rule).row(
        "adjoint identity", [one], [other], cause, sum(sizes) / 32
    )


def _interrupted(rule: Rule, linear: Map) -> LeafReport:
    """A backward pass must see its own forward pass, not the one that came last."""
    random = np.random.default_rng([*rule.seed, 6])
    moved = [_moved(x, random, (-0.75, -0.25)) for x in rule.moving(rule.args)]
    expected = linear(rule.args)
    try:
        got = rule.interrupted_vjp(rule.args, with_floating(rule.args, moved))
    except Exception as error:
        return _failed("two calls at once", error)
    cause = (
        "another forward pass before the backward changes the gradient: state is kept "
        "on an object or a global, not in the residuals"
    )
    return _comparison(rule).row("two calls at once", expected, got, cause)


def _jitted(rule: Rule, linear: Map) -> LeafReport:
    moving = rule.moving(rule.args)
    try:
        compiled = _compiled(rule, linear)(moving)
    except Exception as error:
        return _failed("jit = eager", error)
    eager, afresh = linear(rule.args), _without_any_jit(rule, linear)
    if afresh is not None and not _comparison(rule).close(eager, afresh):
        cause = "a closed-over Python value is another than when jit froze it"
        return _comparison(rule).row("jit = eager", afresh, eager, cause)
    cause = "jit gives another value: a Python value or branch was frozen"
    return _comparison(rule).row("jit = eager", eager, compiled, cause)


def _without_any_jit(rule: Rule, linear: Map) -> PyTree | None:
    """The rule with its own jits off too; None if it has none, or a loop to unroll."""
    try:
        traced = jax.make_jaxpr(_compiled(rule, linear))(rule.moving(rule.args))
        names = {e.primitive.name for e in Program.of(traced).equations}
        if "jit" not in names or names & {"scan", "while"}:
            return None
        with jax.disable_jit():
            return linear(rule.args)
    except Exception:
        return None


def _compiled(rule: Rule, linear: Map) -> Map:
    """The rule as a jitted function of the floating leaves."""
    return jax.jit(lambda m, *seed: linear(with_floating(rule.args, m), *seed))


def _vmapped(rule: Rule, linear: Map) -> LeafReport | None:
    """The rule on a batch by vmap, and by a loop over its examples."""
    random = np.random.default_rng([*rule.seed, 5])
    batch = [
        jnp.stack([_near(x, random, i) for i in range(EXAMPLES)])
        for x in rule.moving(rule.args)
    ]
    examples = [[x[i] for x in batch] for i in range(EXAMPLES)]
    try:
        together = jax.vmap(_compiled(rule, linear))(batch)
    except NotImplementedError:
        return None
    except Exception as error:
        return _failed("vmap = loop", error)
    looped = [_compiled(rule, linear)(m) for m in examples]
    expected = jax.tree.map(lambda *xs: jnp.stack(xs), *looped)
    cause = "vmap gives another value than a loop over the examples"
    return _comparison(rule).row(
        "vmap = loop",
        expected,
        together,
        cause + _shape_factor(rule, expected, together, EXAMPLES),
    )


def _one_by_one(rule: Rule, linear: Map, name: str) -> LeafReport | None:
    """A function that maps examples on its first axis must have a rule that does."""
    moving = rule.moving(rule.args)
    sizes = {x.shape[:1] for x in moving}
    outputs = rule.value(rule.args)
    shapes = {np.shape(x)[:1] for x in outputs}
    if name != "vjp" or len(sizes) != 1 or sizes != shapes or sizes & {(), (1,)}:
        return None
    (count,) = next(iter(sizes))

    def one(i: int) -> list[Any]:
        return [x[i : i + 1] for x in moving]

    try:
        value = jax.jit(lambda m: rule.value(with_floating(rule.args, m)))
        values = [value(one(i)) for i in range(count)]
        joined = jax.tree.map(lambda *xs: jnp.concatenate(xs), *values)
        if not _comparison(rule).close(outputs, joined):
            return None
        cotangent = rule.cotangent
        pull = _compiled(rule, linear)
        parts = [pull(one(i), [c[i : i + 1] for c in cotangent]) for i in range(count)]
    except Exception:
        return None
    expected = jax.tree.map(lambda *xs: jnp.concatenate(xs), *parts)
    together = linear(rule.args)
    cause = "a batch gives another gradient than its examples one by one"
    cause += _shape_factor(rule, expected, together)
    return _comparison(rule).row("batch = examples", expected, together, cause)


def _shape_factor(rule: Rule, expected: PyTree, got: PyTree, examples: int = 1) -> str:
    """Whether the two differ by one factor, made of axis sizes."""
    factor = factor_between(expected, got)
    if factor is None:
        return ""
    sizes = {s for x in rule.moving(rule.args) for s in x.shape} | {examples, 1}
    for n in sizes:
        for m in sizes:
            if n != m and abs(factor * n / m - 1) < 1e-3:
                return f", ×{m}/{n}: the rule divides by a shape such as x.shape[0]"
    return f", ×{factor:.4g}"


def _comparison(rule: Rule) -> Comparison:
    return Comparison(rule.precision)


def _near(x: jax.Array, random: np.random.Generator, number: int) -> jax.Array:
    """The point itself, then points a little beside it."""
    return _moved(x, random, (-0.01, 0.01) if number else (0.0, 0.0))


def _moved(
    x: jax.Array, random: np.random.Generator, share: tuple[float, float]
) -> jax.Array:
    """A point moved by a random share of each coordinate."""
    return x * jnp.asarray(1 + random.uniform(*share, x.shape), x.dtype)


def _failed(name: str, error: Exception) -> LeafReport:
    cause = first_line(error)
    return LeafReport(name, "", (), Verdict.MALFORMED, False, cause=cause)
