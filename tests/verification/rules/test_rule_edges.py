"""check_vjp and check_jvp at the edges: complex, empty, broken and missing rules."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import Verdict, check_jvp, check_vjp

Rule = Callable[..., Any]

X = jnp.asarray(np.random.default_rng(0).standard_normal(5), jnp.float32)


def square(rule: Rule) -> Rule:
    """z², with a backward pass that multiplies by a function of z."""
    f = jax.custom_vjp(lambda z: z * z)
    f.defvjp(lambda z: (f(z), z), lambda z, g: (rule(z) * g,))
    return f


@pytest.mark.parametrize(
    ("forward", "backward", "words"),
    [
        (lambda x: (x, x), lambda x, g: g, "gives an array, expected a tuple"),
        (lambda x: (x, x), lambda x, g: None, "gives None: a `return` is missing"),
        (lambda x: (x, x), lambda x, g: (g, g), "gives the structure (*, *), expected"),
        (lambda x: x, lambda x, g: (g,), "gives no pair: write `return value, resid"),
    ],
)
def test_a_slip_is_said_in_few_words(forward: Rule, backward: Rule, words: str) -> None:
    """Those that whoever writes a custom_vjp makes first; JAX says them in many."""
    rule = jax.custom_vjp(lambda x: x)
    rule.defvjp(forward, backward)
    report = check_vjp(rule, X, demands=())
    assert report.verdict is Verdict.MALFORMED
    assert words in report.worst.cause


def test_what_has_no_derivative_is_refused() -> None:
    """An integer output, and a function that raises, are errors that say so."""
    with pytest.raises(TypeError, match="a floating output"):
        check_vjp(lambda x: jnp.argmax(x), X)
    with pytest.raises(TypeError, match="got no arguments"):
        check_vjp(jnp.sin)
    with pytest.raises(ValueError, match="a value, got ZeroDivisionError"):
        check_vjp(lambda x: x * (1 / 0), X)


@pytest.mark.slow
@pytest.mark.parametrize("order", [1, 2])
def test_a_rule_that_raises_or_gives_nan_is_malformed(order: int) -> None:
    """The leaf says how; no demand adds a cause that would mislead."""

    def broken(backward: Rule) -> Rule:
        f = jax.custom_vjp(jnp.sin)
        f.defvjp(lambda x: (f(x), x), backward)
        return f

    def raises(x: Any, g: Any) -> Any:
        raise RuntimeError("no such kernel")

    for backward, said in [
        (raises, "RuntimeError: no such kernel"),
        (lambda x, g: (g[:2],), "Custom VJP bwd rule"),
        (lambda x, g: (g * jnp.nan,), "nan in 5 of 5 entries"),
    ]:
        report = check_vjp(broken(backward), X, order=order)
        (row,) = (row for row in report.leaves if not row.passed)
        assert (row.path, row.verdict) == ("x", Verdict.MALFORMED)
        assert said in row.cause


def test_a_mode_that_a_rule_lacks_is_malformed() -> None:
    """A custom_vjp has no forward mode, and check_jvp says so."""
    report = check_jvp(square(lambda x: 2 * x), X)
    assert report.verdict is Verdict.MALFORMED
    assert "forward-mode" in report.worst.cause


@pytest.mark.slow
@pytest.mark.parametrize("check", [check_jvp, check_vjp])
def test_complex_arguments_follow_jax(check: Rule) -> None:
    """z² conj(z) is not holomorphic: both parts of every number are looked at."""
    z = jnp.asarray(np.array([1 + 2j, -0.5 + 1j, 2 - 1j]), jnp.complex64)
    assert check(lambda z: z * z * jnp.conj(z), z).passed


@pytest.mark.slow
def test_a_conjugated_complex_rule_is_caught() -> None:
    """For z², the pullback of g is 2 z g, without a conjugate."""

    z = jnp.asarray(np.array([1 + 2j, -0.5 + 1j, 2 - 1j]), jnp.complex64)
    assert check_vjp(square(lambda z: 2 * z), z).passed
    wrong = check_vjp(square(lambda z: 2 * jnp.conj(z)), z).worst
    assert (wrong.path, wrong.verdict) == ("z", Verdict.DISAGREE)


@pytest.mark.slow
@pytest.mark.parametrize("check", [check_jvp, check_vjp])
def test_empty_and_scalar_arguments(check: Rule) -> None:
    """No entries at all, a Python float, and a large argument of one direction."""
    for x in (X[:0], 1.5, X[0], jnp.cos(jnp.arange(5000.0, dtype=jnp.float32))):
        assert check(jnp.sin, x).passed


@pytest.mark.slow
def test_an_empty_argument_beside_another() -> None:
    """A cache of no rows yet, and rows that are put behind it."""

    def appended(cache: Any, rows: Any) -> Any:
        return jnp.concatenate([cache, jnp.sin(rows)])

    cache, rows = np.zeros((0, 3), np.float32), np.ones((2, 3), np.float32)
    assert check_vjp(appended, cache, rows).passed
    assert check_jvp(appended, cache, rows).passed
