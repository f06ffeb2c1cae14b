"""What the caller runs is held against its own float64: a run that is lost fails."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import Verdict, check_gradients, check_vjp
from jaxnet.float64 import in_float64

SOFTPLUS = jnp.array([1.0, 100.0], np.float32)


def with_rule(function, derivative):
    """The function with `derivative` by hand, entry by entry."""
    rule = jax.custom_vjp(function)
    rule.defvjp(lambda x: (function(x), x), lambda x, c: (c * derivative(x),))
    return rule


softplus = with_rule(jax.nn.softplus, lambda x: jnp.exp(x) / (1 + jnp.exp(x)))
stable = with_rule(jax.nn.softplus, jax.nn.sigmoid)
sinc = with_rule(
    lambda x: jnp.sinc(x / np.float32(np.pi)),
    lambda x: (x * jnp.cos(x) - jnp.sin(x)) / x**2,
)
square = with_rule(lambda x: x**2, lambda x: 2 * jnp.sqrt(x * x) * jnp.sign(x))


def total(function):
    """A loss of its outputs."""
    return lambda x: jnp.sum(function(x))


@pytest.mark.slow
def test_a_right_formula_that_overflows_is_malformed() -> None:
    """exp(100) is inf in float32: the user's gradient is NaN at [1]."""
    report = check_gradients(total(softplus), SOFTPLUS)
    assert report.verdict is Verdict.MALFORMED
    assert report.worst.worst_index == (1,)
    assert "float32, it is nan" in report.worst.cause
    assert check_gradients(total(stable), SOFTPLUS).passed
    half = np.array([1.0, 12.0], np.float16)
    assert check_vjp(softplus, half).verdict is Verdict.MALFORMED
    assert check_vjp(stable, half).passed


@pytest.mark.parametrize(("rule", "x"), [(sinc, 1e-4), (square, 1e-25)])
def test_a_right_formula_whose_digits_cancel_is_wrong(rule, x) -> None:
    """In float32 both give 0; in float64 they are right."""
    report = check_gradients(total(rule), jnp.array([x], np.float32))
    assert report.verdict is Verdict.DISAGREE
    assert report.worst.candidate_value == 0
    assert report.worst.as_run == pytest.approx(1)
    assert "lost to rounding; in float64 it is right" in str(report).replace("\n", " ")
    with in_float64():
        assert check_gradients(total(sinc), np.array([1e-3])).passed


def test_a_gradient_that_is_another_where_it_is_traced() -> None:
    """Nothing is lost to rounding: it asks what its input is."""

    def gradient(x):
        return jnp.cos(x) * (1 if isinstance(x, jax.core.Tracer) else 3)

    report = check_gradients(total(jnp.sin), jnp.array([0.5, 1.5]), gradient)
    assert report.verdict is Verdict.DISAGREE
    assert report.worst.cause == (
        "as it is run, in float32, it gives another gradient than when JAX traces it, "
        "where it is right"
    )


def products_that_meet(x):
    """Which a processor may multiply and add at once, if they are one program."""
    u, v = 1 + x * 2**-13, 1 + x * 2**-12
    return jnp.sum((u * u - v) ** 2) * 2.0**50


def roots_that_are_guarded(x):
    """1e-9 under the root is enough if equal products are equal."""
    apart = (x + 1) * (x - 1) - (x * x - 1)
    return jnp.sum(x) + jnp.sum(jnp.sqrt(apart + 1e-9))


@pytest.mark.parametrize(
    ("loss", "x", "is_lost"),
    [
        (products_that_meet, [0.75, 0.625], True),
        (roots_that_are_guarded, [1.1], False),
    ],
)
def test_what_is_run_is_what_its_caller_runs(loss, x, is_lost) -> None:
    """One program of all its operations, however little XLA may change, is another.

    So is the same by another name.
    """
    x = jnp.array(x, np.float32)
    for candidates in (None, {"mine": jax.grad(loss)}):
        report = check_gradients(loss, x, candidates)
        assert ("lost to rounding" in report.worst.cause) == is_lost
        assert report.passed != is_lost


@pytest.mark.slow
def test_a_loss_that_overflows_is_unresolved() -> None:
    """logsumexp without its shift."""
    loss = lambda x: jnp.log(jnp.sum(jnp.exp(x)))  # noqa: E731
    report = check_gradients(loss, SOFTPLUS)
    assert report.verdict is Verdict.UNRESOLVED
    assert "in float32, the loss is inf, in float64 100" in report.worst.cause
    given = check_gradients(loss, SOFTPLUS, jax.nn.softmax(SOFTPLUS))
    assert given.verdict is Verdict.UNRESOLVED
    assert check_gradients(jax.nn.logsumexp, SOFTPLUS).passed


@pytest.mark.parametrize(
    ("function", "x", "what"),
    [
        (sinc, [1e-4], "it is lost to rounding"),
        (softplus, [1.0, 100.0], "it is nan"),
        (lambda x: jnp.log(jnp.exp(x) + 1), [1.0, 100.0], "the loss is inf"),
    ],
)
def test_float64_that_jax_cuts_is_said_and_passes(function, x, what) -> None:
    """The caller gave float64: what is lost is lost by the mode, not by the rule."""
    report = check_gradients(total(function), np.array(x))
    assert report.passed
    cause = report.leaves[0].cause
    assert f"without jax_enable_x64: as it is run, in float32, {what}" in cause


@pytest.mark.slow
def test_a_wrong_gradient_stays_wrong() -> None:
    """The run is not blamed for a mistake of the algebra."""
    wrong = with_rule(jax.nn.softplus, lambda x: 2 * jnp.exp(x) / (1 + jnp.exp(x)))
    report = check_gradients(total(wrong), SOFTPLUS)
    assert report.verdict is Verdict.DISAGREE
    assert "as it is run" not in report.worst.cause


def test_what_no_program_in_that_dtype_could_give_is_not_blamed() -> None:
    """Rounding the parameters alone turns sin(1e8 x) over: the rule is not at fault."""
    x = jnp.array([0.3, 1.7], np.float32)
    report = check_gradients(lambda x: jnp.sum(jnp.sin(1e8 * x)), x)
    assert report.passed
    assert report.leaves[0].as_run > 0.5


@pytest.mark.slow
def test_zero_but_for_rounding_is_not_lost() -> None:
    """The shift before a normalisation has gradient 0, and dust in float32."""
    z = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)

    def loss(b):
        h = z + b[None]
        h = h - h.mean(0, keepdims=True)
        h = h / jnp.sqrt(h.var(0, keepdims=True) + np.float32(1e-5))
        return jnp.mean(jnp.tanh(h) ** 3)

    assert check_gradients(loss, jnp.ones(3)).passed


@pytest.mark.slow
def test_bfloat16_has_a_line_of_its_own() -> None:
    """The algebra is resolved to 1e-9, and how far the run is off is said beside it."""
    rng = np.random.default_rng(0)
    x, w = (rng.normal(size=s).astype(np.float32) for s in ((8, 5), (5, 4)))

    def loss(w):
        half = jnp.tanh(jnp.asarray(x, jnp.bfloat16) @ w.astype(jnp.bfloat16))
        return jnp.mean(half.astype(np.float32) ** 2)

    report = check_gradients(loss, w)
    assert report.passed
    assert report.leaves[0].resolution < 1e-6
    assert 1e-4 < report.leaves[0].as_run < 0.1
    assert "as it is run, autodiff is within" in str(report)
    assert "loss computes in bfloat16" in str(report).replace("\n", " ")


def test_where_all_is_float64_nothing_is_run_again() -> None:
    """The run is what is checked: no line is said."""
    with in_float64():
        report = check_gradients(lambda x: jnp.sum(x**2), np.array([1.0, 2.0]))
    assert report.leaves[0].as_run is None
    assert "as it is run" not in str(report)


def test_a_run_that_raises_is_said() -> None:
    """The verdict is of the algebra alone, and the report says so."""
    calls = []

    def gradient(x):
        if not isinstance(x, jax.core.Tracer):
            raise RuntimeError("only within jit")
        calls.append(1)
        return 2 * x

    report = check_gradients(lambda x: jnp.sum(x**2), jnp.ones(2), gradient)
    assert report.passed
    assert "raises as it is run: RuntimeError: only within jit" in str(report)
