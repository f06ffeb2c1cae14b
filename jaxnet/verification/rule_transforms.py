"""A derivative rule under JAX's transformations: jit, vmap, and batches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.array_types import PyTree
from jaxnet.input_checks import first_line
from jaxnet.verification.comparison import factor_between
from jaxnet.verification.leaves import with_floating
from jaxnet.verification.program import Program
from jaxnet.verification.report import LeafReport
from jaxnet.verification.rule import Rule
from jaxnet.verification.verdict import Verdict

EXAMPLES = 3
"""How many examples vmap is tried on."""

Map = Callable[..., PyTree]


def jitted(rule: Rule, linear: Map) -> LeafReport:
    """The rule as it is called, and compiled."""
    moving = rule.moving(rule.args)
    try:
        compiled = _compiled(rule, linear)(moving)
    except Exception as error:
        return failed("jit = eager", error)
    eager, afresh = linear(rule.args), _without_any_jit(rule, linear)
    if afresh is not None and not rule.comparison.close(eager, afresh):
        cause = "a closed-over Python value is another than when jit froze it"
        return rule.comparison.row("jit = eager", afresh, eager, cause)
    cause = "jit gives another value: a Python value or branch was frozen"
    return rule.comparison.row("jit = eager", eager, compiled, cause)


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


def vmapped(rule: Rule, linear: Map) -> LeafReport | None:
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
        return failed("vmap = loop", error)
    looped = [_compiled(rule, linear)(m) for m in examples]
    expected = jax.tree.map(lambda *xs: jnp.stack(xs), *looped)
    cause = "vmap gives another value than a loop over the examples"
    return rule.comparison.row(
        "vmap = loop",
        expected,
        together,
        cause + _shape_factor(rule, expected, together, EXAMPLES),
    )


def by_examples(rule: Rule, linear: Map, name: str) -> LeafReport | None:
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
        if not rule.comparison.close(outputs, joined):
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
    return rule.comparison.row("batch = examples", expected, together, cause)


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


def _near(x: jax.Array, random: np.random.Generator, number: int) -> jax.Array:
    """The point itself, then points a little beside it."""
    return moved_beside(x, random, (-0.01, 0.01) if number else (0.0, 0.0))


def moved_beside(
    x: jax.Array, random: np.random.Generator, share: tuple[float, float]
) -> jax.Array:
    """A point moved by a random share of each coordinate."""
    return x * jnp.asarray(1 + random.uniform(*share, x.shape), x.dtype)


def failed(name: str, error: Exception) -> LeafReport:
    """The row of what raised."""
    cause = first_line(error)
    return LeafReport(name, "", (), Verdict.MALFORMED, False, cause=cause)
