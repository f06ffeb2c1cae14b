"""What a derivative rule must satisfy beside being right: one row of a report each."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.verification.comparison import (
    arrays,
    bits,
    coarsest_real,
)
from jaxnet.verification.leaves import with_floating
from jaxnet.verification.report import LeafReport
from jaxnet.verification.rule import Rule, inner, random_like
from jaxnet.verification.rule_transforms import (
    Map,
    by_examples,
    failed,
    jitted,
    moved_beside,
    vmapped,
)
from jaxnet.verification.verdict import Verdict


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
    rows = [*_linearity(rule, linear, name), _adjoint(rule), jitted(rule, linear)]
    rows += [vmapped(rule, linear), by_examples(rule, linear, name)]
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
    return rule.comparison.row("forward value", value, by_rule, cause)


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
    close = rule.comparison.close
    ignores = close(twice, once) and close(none, once)
    cause = f"the rule ignores its {word}" if ignores else f"not linear in the {word}"
    zero = jax.tree.map(jnp.zeros_like, none)
    scale = max(
        (float(np.max(np.abs(x), initial=0)) for x in arrays(once)), default=0.0
    )
    return [
        rule.comparison.row(f"0 for {word} 0", zero, none, cause, scale),
        rule.comparison.row(
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
    return rule.comparison.row(
        "adjoint identity", [one], [other], cause, sum(sizes) / 32
    )


def _interrupted(rule: Rule, linear: Map) -> LeafReport:
    """A backward pass must see its own forward pass, not the one that came last."""
    random = np.random.default_rng([*rule.seed, 6])
    moved = [moved_beside(x, random, (-0.75, -0.25)) for x in rule.moving(rule.args)]
    expected = linear(rule.args)
    try:
        got = rule.interrupted_vjp(rule.args, with_floating(rule.args, moved))
    except Exception as error:
        return failed("two calls at once", error)
    cause = (
        "another forward pass before the backward changes the gradient: state is kept "
        "on an object or a global, not in the residuals"
    )
    return rule.comparison.row("two calls at once", expected, got, cause)
