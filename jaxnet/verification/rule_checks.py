"""What a derivative rule must satisfy beside being right: one row of a report each."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.array_types import PyTree
from jaxnet.verification.leaves import floating_leaves, with_floating
from jaxnet.verification.program import Program
from jaxnet.verification.report import LeafReport
from jaxnet.verification.rule import Rule, inner, random_like
from jaxnet.verification.verdict import Verdict

ROUNDING = 1e3
"""How many ulps of the largest entry two ways of computing one thing may differ by…"""

COARSEST = 0.25
"""…and never by more than this share of it."""

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
    return [*rows, _vmapped(rule, linear), _one_by_one(rule, linear, name)]


def _is_finite(rule: Rule, linear: Map) -> bool:
    try:
        return all(jnp.isfinite(x).all() for x in _arrays(linear(rule.args)))
    except Exception:
        return False


def _forward(rule: Rule) -> LeafReport | None:
    try:
        by_rule = rule.value_by_rule(rule.args)
    except Exception:
        return None
    cause = "the rule's forward pass gives another value than the function"
    return _compared("forward value", rule.value(rule.args), by_rule, cause)


def _repeats(rule: Rule, linear: Map) -> LeafReport:
    first, second = linear(rule.args), linear(rule.args)
    frozen = jax.jit(lambda: linear(rule.args))
    same = _bits(first) == _bits(second)
    cause = ""
    if not same:
        cause = "two values for one input"
        if _bits(frozen()) == _bits(frozen()):
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
    ignores = _close(twice, once) and _close(none, once)
    cause = (
        f"not linear in the {word}" if not ignores else f"the rule ignores its {word}"
    )
    zero = jax.tree.map(jnp.zeros_like, none)
    scale = max(
        (float(np.max(np.abs(x), initial=0)) for x in _arrays(once)), default=0.0
    )
    return [
        _compared(f"0 for {word} 0", zero, none, cause, scale),
        _compared(
            f"linear in {word}", jax.tree.map(lambda x: -2 * x, once), twice, cause
        ),
    ]


def _adjoint(rule: Rule) -> LeafReport | None:
    """<c, J v> = <Jᵀ c, v>, where the function has both modes."""
    tangent = random_like(rule.moving(rule.args), [*rule.seed, 4])
    try:
        forward = rule.jvp(rule.args, tangent)
        back = _arrays(rule.vjp(rule.args))
    except Exception:
        return None
    pushed = float(inner(rule.cotangent, forward))
    pulled = float(inner(tangent, [jnp.asarray(x) for x in back]))
    sizes = [
        float(np.linalg.norm(np.ravel(a)) * np.linalg.norm(np.ravel(b)))
        for a, b in zip(tangent, back, strict=True)
    ]
    cause = "the forward and the reverse mode are not each other's transpose"
    one, other = np.asarray(pushed, _dtype(back)), np.asarray(pulled, _dtype(back))
    return _compared("adjoint identity", [one], [other], cause, sum(sizes) / 32)


def _jitted(rule: Rule, linear: Map) -> LeafReport:
    moving = rule.moving(rule.args)
    try:
        compiled = _compiled(rule, linear)(moving)
    except Exception as error:
        return _failed("jit = eager", error)
    eager, afresh = linear(rule.args), _without_any_jit(rule, linear)
    if afresh is not None and not _close(eager, afresh):
        cause = "a closed-over Python value is another than when jit froze it"
        return _compared("jit = eager", afresh, eager, cause)
    cause = "jit gives another value: a Python value or branch was frozen"
    return _compared("jit = eager", eager, compiled, cause)


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
    return _compared(
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
        if not _close(outputs, joined):
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
    return _compared("batch = examples", expected, together, cause)


def _shape_factor(rule: Rule, expected: PyTree, got: PyTree, examples: int = 1) -> str:
    """Whether the two differ by one factor, made of axis sizes."""
    one = np.concatenate([np.ravel(x) for x in _arrays(expected)])
    other = np.concatenate([np.ravel(x) for x in _arrays(got)])
    if one.shape != other.shape or not np.any(one) or np.iscomplexobj(one):
        return ""
    factor = float(one @ other / (one @ one))
    if not factor or not np.allclose(other, factor * one, rtol=1e-2, atol=0):
        return ""
    sizes = {s for x in rule.moving(rule.args) for s in x.shape} | {examples, 1}
    for n in sizes:
        for m in sizes:
            if n != m and abs(factor * n / m - 1) < 1e-3:
                return f", ×{m}/{n}: the rule divides by a shape such as x.shape[0]"
    return f", ×{factor:.4g}"


def _compared(
    name: str, expected: PyTree, got: PyTree, cause: str, scale: float = 0.0
) -> LeafReport:
    """A row that agrees if all entries are equal within rounding."""
    pairs = list(zip(_arrays(expected), _arrays(got), strict=True))
    worst = LeafReport(name, "", (), Verdict.AGREE, True, error=0.0, bound=0.0)
    for one, other in pairs:
        if one.shape != other.shape:
            shapes = f"{other.shape} for {one.shape}"
            return LeafReport(
                name, "", other.shape, Verdict.DISAGREE, False, cause=shapes
            )
        error, bound = _difference(one, other, scale)
        if error > bound or not error <= np.inf:
            index = np.unravel_index(int(np.argmax(np.abs(one - other))), one.shape)
            return LeafReport(
                name,
                "",
                one.shape,
                Verdict.DISAGREE,
                False,
                tuple(int(i) for i in index),
                float(np.real(other[index])),
                float(np.real(one[index])),
                error,
                bound,
                cause=cause,
            )
        if error >= worst.error:
            worst = LeafReport(
                name, "", one.shape, Verdict.AGREE, True, error=error, bound=bound
            )
    return worst


def _difference(
    one: np.ndarray, other: np.ndarray, scale: float
) -> tuple[float, float]:
    largest = max(float(np.max(np.abs(one), initial=0.0)), scale)
    share = min(ROUNDING * float(jnp.finfo(_coarser(one, other)).eps), COARSEST)
    wide = np.complex128 if np.iscomplexobj(one) else np.float64
    gap = np.abs(one.astype(wide) - other.astype(wide))
    return float(np.max(gap, initial=0.0)), share * largest


def _close(one: PyTree, other: PyTree) -> bool:
    return all(
        a.shape == b.shape and np.less_equal(*_difference(a, b, 0.0))
        for a, b in zip(_arrays(one), _arrays(other), strict=True)
    )


def _coarser(one: np.ndarray, other: np.ndarray) -> Any:
    dtypes = [one.dtype, other.dtype]
    return max(dtypes, key=lambda dtype: float(jnp.finfo(dtype).eps))


def _arrays(tree: PyTree) -> list[np.ndarray]:
    return [np.asarray(x) for x in floating_leaves(tree)]


def _dtype(arrays: list[np.ndarray]) -> Any:
    widest = max((x.dtype for x in arrays), key=lambda d: float(jnp.finfo(d).eps))
    return np.zeros(0, widest).real.dtype


def _bits(tree: PyTree) -> list[bytes]:
    return [x.tobytes() for x in _arrays(tree)]


def _near(x: jax.Array, random: np.random.Generator, number: int) -> jax.Array:
    """The point itself, then points a little beside it."""
    step = 0.0 if number == 0 else 0.01
    factor = 1 + step * random.uniform(-1, 1, x.shape)
    return x * jnp.asarray(factor, x.dtype)


def _failed(name: str, error: Exception) -> LeafReport:
    first = (str(error).strip().splitlines() or [""])[0][:160]
    cause = f"{type(error).__name__}: {first}"
    return LeafReport(name, "", (), Verdict.MALFORMED, False, cause=cause)
