"""Rules that are right for the cotangents and dtypes of a test, and for no others."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.custom_derivatives import SymbolicZero

from jaxnet import GradientReport, Verdict, check_jvp, check_vjp
from jaxnet.verification import DemandReport

X = np.random.default_rng(1).normal(size=4).astype(np.float32)

Rule = Callable[..., Any]


def row(report: GradientReport, name: str) -> DemandReport:
    """The record of one demand."""
    (found,) = (demand for demand in report.demands if demand.name == name)
    return found


def with_cotangent(bent: Rule) -> Rule:
    """Sin whose backward pass bends the cotangent."""
    f = jax.custom_vjp(lambda x: jnp.sin(x))
    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, c: (jnp.cos(x) * bent(c),))
    return f


@pytest.mark.slow
@pytest.mark.parametrize(
    "bent",
    [
        lambda c: jnp.clip(c, -10, 10),
        lambda c: c * jnp.minimum(1.0, 100 / jnp.linalg.norm(c)),
        lambda c: jnp.where(jnp.abs(c) < 1e-3, 0, c),
        lambda c: c.astype(jnp.float16).astype(c.dtype),
        lambda c: c + 1e-4,
    ],
)
def test_a_rule_is_linear_over_many_scales(bent: Rule) -> None:
    """Clipped at 10 or at norm 100, dropped below 1e-3, kept in float16, shifted."""
    right = check_vjp(with_cotangent(lambda c: c), X)
    assert right.passed, str(right)
    wrong = check_vjp(with_cotangent(bent), X)
    assert wrong.verdict is Verdict.DISAGREE
    assert "not linear in the cotangent" in row(wrong, "linear in cotangent").cause


@pytest.mark.slow
def test_a_tangent_is_tried_over_many_scales_too() -> None:
    """A forward mode that clips at 5."""
    f = jax.custom_jvp(lambda x: jnp.sin(x))
    f.defjvp(lambda p, t: (f(p[0]), jnp.cos(p[0]) * jnp.clip(t[0], -5, 5)))
    report = check_jvp(f, X)
    assert "not linear in the tangent" in row(report, "linear in tangent").cause


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32])
def test_scales_stay_within_the_dtypes(dtype: Any) -> None:
    """A right rule in half precision overflows nowhere."""
    report = check_vjp(with_cotangent(lambda c: c), jnp.asarray(X, dtype))
    assert report.passed, str(report)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dtype", "off"), [(np.float32, 5e-5), (np.float16, 0.05), (jnp.bfloat16, 0.2)]
)
def test_a_forward_pass_is_held_to_measured_rounding(dtype: Any, off: float) -> None:
    """5e-5 in float32, 5 % in float16 and 20 % in bfloat16 are no rounding."""

    def rule(factor: float) -> Rule:
        f = jax.custom_vjp(lambda x: x**3)
        f.defvjp(
            lambda x: ((x**3) * jnp.asarray(factor, x.dtype), x),
            lambda x, c: (3 * x**2 * c,),
        )
        return f

    x = jnp.asarray(X, dtype)
    assert row(check_vjp(rule(1.0), x), "forward value").passed
    assert not row(check_vjp(rule(1.0 + off), x), "forward value").passed


@pytest.mark.slow
def test_two_ways_of_summing_are_equal_but_for_rounding() -> None:
    """A softmax in blocks, as attention kernels do it, is what the plain one is."""
    rng = np.random.default_rng(2)
    q, k = (rng.normal(size=(64, 16)).astype(np.float32) for _ in range(2))

    def plain(q: Any, k: Any) -> Any:
        return jax.nn.softmax(q @ k.T, axis=-1) @ k

    def blocks(q: Any, k: Any) -> Any:
        total, top = jnp.zeros_like(q), -jnp.inf
        weight = jnp.zeros((64, 1), q.dtype)
        for part in jnp.split(k, 8):
            scores = q @ part.T
            new = jnp.maximum(top, jnp.max(scores, axis=-1, keepdims=True))
            weights, decay = jnp.exp(scores - new), jnp.exp(top - new)
            total = total * decay + weights @ part
            weight = weight * decay + jnp.sum(weights, axis=-1, keepdims=True)
            top = new
        return total / weight

    f = jax.custom_vjp(plain)
    f.defvjp(
        lambda q, k: (blocks(q, k), (q, k)),
        lambda kept, c: jax.vjp(plain, *kept)[1](c),
    )
    for dtype in (np.float32, jnp.bfloat16):
        report = check_vjp(f, jnp.asarray(q, dtype), jnp.asarray(k, dtype))
        assert row(report, "forward value").passed, str(report)
        assert report.passed, str(report)


def symbolic(right: bool) -> Rule:
    """Two outputs; the backward pass is told which of them is not used."""
    f = jax.custom_vjp(lambda x: (jnp.sin(x), x**2))

    def backward(x: Any, c: Any) -> Any:
        sine, square = c
        unused = isinstance(square, SymbolicZero)
        from_sine = 0.0 if isinstance(sine, SymbolicZero) else jnp.cos(x) * sine
        if unused:
            return (from_sine if right else 0 * x,)
        return (from_sine + 2 * x * square,)

    f.defvjp(
        lambda x: ((jnp.sin(x.value), x.value**2), x.value),
        backward,
        symbolic_zeros=True,
    )
    return f


@pytest.mark.slow
def test_an_unused_output_changes_nothing() -> None:
    """A caller who uses the first output only gets 0 of the wrong rule."""
    right = check_vjp(symbolic(True), X)
    assert right.passed, str(right)
    wrong = row(check_vjp(symbolic(False), X), "outputs one at a time")
    assert wrong.verdict is Verdict.DISAGREE
    assert "with some outputs unused" in wrong.cause


@pytest.mark.slow
def test_a_held_argument_changes_nothing() -> None:
    """A product whose rules, told that y does not vary, give something else."""

    def reverse(right: bool) -> Rule:
        f = jax.custom_vjp(lambda x, y: jnp.sin(x) * y)

        def backward(kept: Any, c: Any) -> Any:
            x, y, varies = kept
            return jnp.cos(x) * (y if varies or right else 1.0) * c, jnp.sin(x) * c

        f.defvjp(
            lambda x, y: (
                jnp.sin(x.value) * y.value,
                (x.value, y.value, True if y.perturbed else None),
            ),
            backward,
            symbolic_zeros=True,
        )
        return f

    def forward(right: bool) -> Rule:
        f = jax.custom_jvp(lambda x, y: x * y)

        def rule(primals: Any, tangents: Any) -> Any:
            (x, y), (a, b) = primals, tangents
            is_held = isinstance(b, SymbolicZero)
            change = 0 if isinstance(a, SymbolicZero) else a * y
            change = change + (0 if is_held else x * b)
            return x * y, change + (0 if right or not is_held else jnp.ones_like(x))

        f.defjvp(rule, symbolic_zeros=True)
        return f

    for check, rule in ((check_vjp, reverse), (check_jvp, forward)):
        assert check(rule(True), X, X + 1).passed
        wrong = row(check(rule(False), X, X + 1), "arguments one at a time")
        assert wrong.verdict is Verdict.DISAGREE
        assert "with some arguments held" in wrong.cause
