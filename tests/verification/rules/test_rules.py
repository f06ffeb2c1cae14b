"""check_vjp and check_jvp hold a hand-written rule against differences.

Every kind of function is tried with a right rule, which passes, and with a wrong one,
whose place is named.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from jaxnet import GradientReport, LeafReport, Verdict, check_jvp, check_vjp

Rule = Callable[..., Any]

RNG = np.random.default_rng(0)
X = jnp.asarray(RNG.standard_normal(5), jnp.float32)
MATRIX = jnp.asarray(RNG.standard_normal((3, 5)), jnp.float32)
INDEX = jnp.array([0, 2, 2])


def failed(report: GradientReport) -> LeafReport:
    """The worst row of a report that must not have passed."""
    assert not report.passed, str(report)
    assert report.worst.verdict is Verdict.DISAGREE, str(report)
    return report.worst


def vector(factor: float) -> Rule:
    """Vector to vector: Jᵀg of tanh(M x)."""

    @jax.custom_vjp
    def f(x: Any) -> Any:
        return jnp.tanh(MATRIX.astype(x.dtype) @ x)

    def backward(y: Any, g: Any) -> Any:
        return (factor * (g * (1 - y**2)) @ MATRIX.astype(y.dtype),)

    f.defvjp(lambda x: (f(x), f(x)), backward)
    return f


def tree(factor: float) -> Rule:
    """A tree of parameters to a tree of outputs, one of them an integer, one None.

    The cotangents of the last two are float0 and None.
    """

    @jax.custom_vjp
    def f(p: Any, index: Any) -> Any:
        return {"y": p["a"][index] * p["b"], "none": None, "i": 2 * index}

    def backward(kept: Any, g: Any) -> Any:
        (p, index), d_y = kept, g["y"]
        assert g["i"].dtype == jax.dtypes.float0
        assert g["none"] is None
        d_a = jnp.zeros_like(p["a"]).at[index].add(factor * d_y * p["b"])
        float0 = np.zeros(index.shape, jax.dtypes.float0)
        return {"a": d_a, "b": jnp.sum(d_y * p["a"][index])}, float0

    f.defvjp(lambda p, index: (f(p, index), (p, index)), backward)
    return f


def power(factor: float) -> Rule:
    """The exponent, a Python integer, is a nondiff argument of the rule."""

    @partial(jax.custom_vjp, nondiff_argnums=(0,))
    def f(n: int, x: Any) -> Any:
        return x**n

    f.defvjp(
        lambda n, x: (f(n, x), x),
        lambda n, x, g: (factor * g * n * x ** (n - 1),),
    )
    return f


def weighted(factor: float) -> Rule:
    """The rule is of the second argument alone: the weight gets a zero."""

    @jax.custom_vjp
    def f(weight: Any, x: Any) -> Any:
        return weight * jnp.sin(x)

    def backward(kept: Any, g: Any) -> Any:
        weight, x = kept
        return jnp.zeros_like(weight), factor * g * weight * jnp.cos(x)

    f.defvjp(lambda weight, x: (f(weight, x), (weight, x)), backward)
    return f


def tangent_rule(factor: float) -> Rule:
    """A custom_jvp of two arguments, one an integer, to a pair."""

    @jax.custom_jvp
    def f(x: Any, n: Any) -> Any:
        return jnp.sin(x), n * 2

    @f.defjvp
    def rule(primals: Any, tangents: Any) -> Any:
        x, n = primals
        d_n = np.zeros(n.shape, jax.dtypes.float0)
        return f(x, n), (factor * jnp.cos(x) * tangents[0], d_n)

    return f


PARAMS = {"a": X, "b": jnp.float32(1.5)}
CASES = {
    "vector": (vector, (X,), "x"),
    "tree": (tree, (PARAMS, INDEX), "p['a']"),
    "power": (power, (3, X), "x"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_right_vjp_passes(name: str) -> None:
    """The right rule agrees on every leaf, and integers are held."""
    make, args, path = CASES[name]
    report = check_vjp(make(1.0), *args)
    assert report.passed, str(report)
    assert path in [leaf.path for leaf in report.leaves]
    assert report.held == {"tree": ("index",), "power": ("n",)}.get(name, ())


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_a_wrong_vjp_is_caught_at_its_leaf(name: str) -> None:
    """A factor 1.001 on one leaf is found there, and nowhere else."""
    make, args, path = CASES[name]
    report = check_vjp(make(1.001), *args)
    assert failed(report).path == path
    assert [x.path for x in report.leaves if not x.passed] == [path]


@pytest.mark.slow
def test_nondiff_argnums_are_left_alone() -> None:
    """Given as nondiff, the weight's zero is no mistake; not given, it is named."""
    weight = jnp.float32(2.0)
    assert check_vjp(weighted(1.0), weight, X, nondiff_argnums=(0,)).passed
    assert check_vjp(weighted(1.0), weight, X, nondiff_argnums=(-2,)).passed
    worst = failed(check_vjp(weighted(1.0), weight, X))
    assert (worst.path, worst.cause[:8]) == ("weight", "all zero")
    wrong = check_vjp(weighted(0.5), weight, X, nondiff_argnums=(0,))
    assert "×½" in failed(wrong).cause


@pytest.mark.slow
@pytest.mark.parametrize("check", [check_jvp, check_vjp])
def test_a_custom_jvp_is_checked_by_both(check: Rule) -> None:
    """With an integer argument and an integer output; a factor ½ is named."""
    assert check(tangent_rule(1.0), X, INDEX).passed
    assert "×½" in failed(check(tangent_rule(0.5), X, INDEX)).cause


@pytest.mark.slow
def test_reference_is_what_differences_are_taken_of() -> None:
    """A rule is right by one function and wrong by another."""
    report = check_vjp(vector(1.0), X, reference=lambda x: jnp.tanh(jnp.dot(MATRIX, x)))
    assert report.passed, str(report)
    other = check_vjp(vector(1.0), X, reference=lambda x: jnp.sin(jnp.dot(MATRIX, x)))
    assert failed(other).path == "x"


@pytest.mark.slow
def test_the_plain_body_of_a_rule_is_the_reference() -> None:
    """The forward pass is wrong as the rule is: only the body tells.

    A forward pass of 2 sin x with the gradient 2 cos x is consistent in itself.
    """

    @jax.custom_vjp
    def f(x: Any) -> Any:
        return jnp.sin(x)

    f.defvjp(lambda x: (2 * jnp.sin(x), x), lambda x, g: (2 * g * jnp.cos(x),))
    report = check_vjp(f, X)
    (leaf,) = report.leaves
    assert "×2" in leaf.cause
    causes = {x.name: x.cause for x in report.demands if not x.passed}
    assert "forward pass" in causes["forward value"]


@pytest.mark.slow
@pytest.mark.parametrize("check", [check_jvp, check_vjp])
def test_a_function_without_a_rule_passes(check: Rule) -> None:
    """What JAX derives itself is right, of scalars as of arrays."""
    assert check(lambda x, y: jnp.outer(jnp.sin(x), y), X, jnp.cos(X)).passed


@pytest.mark.slow
def test_a_sign_that_check_grads_misses_is_caught() -> None:
    """From 1000 float32 outputs, JAX's own forward check passes -cos for cos."""

    def sine(sign: float) -> Rule:
        f = jax.custom_jvp(jnp.sin)
        f.defjvps(lambda t, y, x: sign * jnp.cos(x) * t)
        return f

    x = jnp.asarray(RNG.standard_normal(1000), jnp.float32)
    check_grads(sine(-1.0), (x,), order=1, modes=["fwd"])
    for check in (check_jvp, check_vjp):
        assert check(sine(1.0), x).passed
        assert "sign flipped" in failed(check(sine(-1.0), x)).cause
