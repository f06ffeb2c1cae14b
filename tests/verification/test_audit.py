"""Every custom rule of a program is verified where it is called: one record a rule."""

import json
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.sharding import Mesh, PartitionSpec

from jaxnet import AuditReport, GradientMismatch, Verdict, audit
from jaxnet.testing import assert_rules
from jaxnet.verification.explanation.calls import ANOTHER_VALUE, MOST_CALLS

X = np.array([[1.2, 0.4, -1.3], [0.7, -0.2, 0.9]], np.float32)


def sine(factor: float) -> Callable[[Any], Any]:
    """Sin by a custom_vjp, whose gradient is so many times too large."""

    @jax.custom_vjp
    def sine(x: Any) -> Any:
        return jnp.sin(x)

    sine.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (factor * g * jnp.cos(x),))
    return sine


@jax.custom_jvp
def product(x: Any, y: Any) -> Any:
    """x y, right."""
    return x * y


product.defjvp(lambda p, t: (p[0] * p[1], t[0] * p[1] + p[0] * t[1]))


@jax.custom_jvp
def half_product(x: Any, y: Any) -> Any:
    """x y, whose tangent lacks a term."""
    return x * y


half_product.defjvp(lambda p, t: (p[0] * p[1], t[0] * p[1]))


def rows(report: AuditReport) -> dict[str, Any]:
    """The records by name."""
    assert len({rule.name for rule in report.rules}) == len(report.rules)
    return {rule.name: rule for rule in report.rules}


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1.0, 1.001])
def test_one_record_a_rule(factor: float) -> None:
    """A residual net of 24 blocks with three rules: three records, not 72."""
    wrong = sine(factor)

    def net(weights: Any, x: Any) -> Any:
        for w in weights:
            x = x + 0.1 * product(wrong(x @ w), jax.nn.relu(x))
        return x

    random = np.random.default_rng(0)
    weights = random.standard_normal((24, 3, 3)).astype(np.float32)
    report = audit(net, list(weights), X)
    found = rows(report)
    assert sorted(found) == ["product", "relu", "sine"]
    assert all(rule.calls == 24 for rule in report.rules)
    assert all(rule.verified == MOST_CALLS for rule in report.rules)
    assert all(rule.forms in [("2×3",), ("2×3, 2×3",)] for rule in report.rules)
    assert found["product"].passed
    assert found["relu"].passed
    assert found["sine"].passed is report.passed is (factor == 1.0)
    if factor > 1.0:
        assert report.records[0].name == "sine"
        assert "input" in found["sine"].cause
        assert "×1.001 on every entry" in found["sine"].cause
        assert f"{__file__}:" in found["sine"].rule
        assert "the rule of `sine` is wrong: at input[" in str(report)


def test_which_input() -> None:
    """Of a rule of two inputs, the second has no tangent; the right one passes."""
    report = audit(lambda x: half_product(x, product(x, x)), X)
    found = rows(report)
    assert found["product"].passed
    assert found["half_product"].cause.startswith("at input 1[")
    assert "all zero" in found["half_product"].cause


@pytest.mark.slow
def test_wherever_it_is_called() -> None:
    """In jit, a scan, a branch, under vmap; also a wrong round of many alike."""
    right = sine(1.0)

    @jax.custom_vjp
    def clipped(x: Any) -> Any:
        return jnp.sin(x)

    def backward(x: Any, g: Any) -> Any:
        return (jnp.where(jnp.abs(g) > 3.0, 0.0, g) * jnp.cos(x),)

    clipped.defvjp(lambda x: (jnp.sin(x), x), backward)

    @jax.jit
    def loss(x: Any) -> Any:
        x = lax.scan(lambda c, w: (clipped(c * w), None), x[0], 2.0 + x)[0]
        x = lax.cond(x[0] > -9, right, jnp.cos, x)
        return jnp.sum(jax.vmap(lambda row: right(row) ** 2)(x[None]))

    found = rows(audit(lambda x: 0.1 * loss(x), X))
    assert found["sine"].passed
    assert found["clipped"].passed
    assert found["sine"].calls == 2
    assert not rows(audit(lambda x: 1e4 * loss(x), X))["clipped"].passed


@pytest.mark.slow
def test_the_share_of_the_gradient() -> None:
    """What is lost without it: all of it, none, or a part known by hand."""
    right = sine(1.0)

    def shares(function: Callable[[Any], Any]) -> list[float]:
        return [rule.share for rule in audit(function, X).rules]

    assert shares(lambda x: jnp.sum(right(x))) == [1.0]
    (share,) = shares(lambda x: jnp.sum(3.0 * x) + jnp.sum(0.0 * right(x)))
    assert share == 0.0
    (share,) = shares(lambda x: jnp.sum(3.0 * x[0]) + 2.0 * jnp.sum(product(x[1], 1.0)))
    np.testing.assert_allclose(share, 2 / np.sqrt(3**2 + 2**2), rtol=1e-6)


@pytest.mark.slow
def test_what_stops_a_gradient() -> None:
    """No path, a stop_gradient that changes something, integers, rounding; no more."""

    def loss(params: Any) -> Any:
        x = product(params["used"], params["used"])
        index = jnp.argmax(x[0])
        whole = x.astype(jnp.int32)[0, index] + jnp.round(x[1, 0]).astype(jnp.int32)
        y = jax.nn.softmax(x) * lax.stop_gradient(x)  # here
        return jnp.sum(y) + whole.astype(jnp.float32)

    report = audit(loss, {"used": X, "unused": X})
    text = "\n".join(report.stops)
    assert "params['unused'] has no path to the output" in text
    assert text.count("stop_gradient") == 1
    for name in ("argmax", "round", "convert_element_type"):
        assert f"`{name}` at {__file__}" in text
    right = audit(lambda x: jnp.sum(jax.nn.softmax(product(x, x)) ** 2), X)
    assert not right.stops
    assert right.passed


def test_a_rule_that_a_shard_map_calls_is_not_called_right() -> None:
    """It is not seen there: its row says so, and the report does not pass."""
    mesh, spec = Mesh(np.array(jax.devices()[:1]), ("i",)), PartitionSpec()
    spread = jax.shard_map(sine(1.0), mesh=mesh, in_specs=spec, out_specs=spec)
    report = audit(lambda x: jnp.sum(product(spread(x), x)), X)
    assert rows(report)["sine"].verdict is Verdict.UNRESOLVED
    assert "not verified" in rows(report)["sine"].cause
    assert rows(report)["product"].passed
    assert not report.passed


def test_a_rule_within_a_rule_is_the_others_affair() -> None:
    """The program does not use the inner one's derivative."""
    wrong = sine(2.0)

    @jax.custom_vjp
    def outer(x: Any) -> Any:
        return wrong(x) ** 2

    outer.defvjp(
        lambda x: (outer(x), x), lambda x, g: (2 * g * jnp.sin(x) * jnp.cos(x),)
    )
    report = audit(outer, X)
    assert [rule.name for rule in report.rules] == ["outer"]
    assert report.passed


@pytest.mark.slow
def test_rules_of_one_function_are_told_apart() -> None:
    """By their backward passes: the wrong one of many has a row of its own."""
    rules = [sine(9.0 if i == 5 else 1.0) for i in range(8)]

    def net(x: Any) -> Any:
        for rule in rules:
            x = rule(x) + 0.1
        return x

    report = audit(net, X)
    assert len(report.rules) == 8
    assert [rule.passed for rule in report.rules].count(False) == 1
    assert "×9" in report.records[0].cause


def test_rounds_are_counted() -> None:
    """Of a loop, some are verified, and the report says how many of how many."""
    right = sine(1.0)
    report = audit(lambda x: lax.fori_loop(0, 50, lambda i, x: right(x), x), X)
    assert report.rules[0].calls == 50
    assert str(report).endswith(
        f"{MOST_CALLS} of 50 calls verified, some of each form; seed 0"
    )


@pytest.mark.slow
def test_where_no_gradient_flows() -> None:
    """A branch that is not taken, a loop without reverse mode: no crash, no blame."""
    wrong, right = sine(2.0), sine(1.0)
    report = audit(lambda x: lax.cond(x[0, 0] > 9, wrong, right, x), X)
    assert report.passed
    assert sorted(rule.verdict.value for rule in report.rules) == [
        "AGREE",
        "UNINFORMATIVE",
    ]

    def until(x: Any) -> Any:
        return lax.while_loop(lambda x: x[0, 0] > 0.5, right, x)

    assert audit(until, X).passed


@pytest.mark.slow
def test_what_is_intended_is_listed_and_not_judged() -> None:
    """All else is; a name that is not called is an error."""
    meant, wrong = sine(2.0), sine(3.0)
    report = audit(lambda x: meant(x) + product(x, x), X, intended=meant)
    assert report.passed
    assert rows(report)["sine"].cause == "not judged, as intended"
    assert not audit(lambda x: meant(x) + wrong(x), X, intended=[meant]).passed
    stopped = lambda x: product(x, lax.stop_gradient(x))  # noqa: E731
    line = f"test_audit.py:{stopped.__code__.co_firstlineno}"
    assert audit(stopped, X).stops
    assert not audit(stopped, X, intended=[line]).stops
    with pytest.raises(ValueError, match="rules that the loss calls: product"):
        audit(lambda x: product(x, x), X, intended="sine")


@pytest.mark.slow
def test_unused_steps_and_steps_within_a_rule_stop_nothing() -> None:
    """As the sign in logsumexp; what a rule rounds has the rule's derivative."""

    @jax.custom_vjp
    def whole(x: Any) -> Any:
        return jnp.round(x)

    whole.defvjp(lambda x: (jnp.round(x), None), lambda _, g: (g,))
    report = audit(lambda x: jax.nn.logsumexp(product(x, x)) + whole(x), X)
    assert not report.stops
    assert "a straight-through estimator of `round`" in rows(report)["whole"].cause


def test_nothing_is_proved_without_a_rule() -> None:
    """Such a report does not pass."""
    assert not audit(jnp.sin, X).passed
    with pytest.raises(GradientMismatch, match="no custom rule is left"):
        assert_rules(jnp.sin, X)


def test_assert_rules() -> None:
    """The message is the table; a report that passed is returned, and is JSON too."""
    with pytest.raises(GradientMismatch, match=r"sine .*DISAGREE"):
        assert_rules(sine(1.5), X)
    report = assert_rules(sine(1.0), X, key=1)
    assert json.loads(report.to_json())["rules"][0]["name"] == "sine"
    assert "sine" in report._repr_html_()
    assert report.seed == (1,)


def test_bad_input() -> None:
    """A function that JAX cannot trace, or that has nothing to differentiate."""
    with pytest.raises(ValueError, match="one that JAX can trace"):
        audit(lambda x: np.sin(np.asarray(x)), X)
    with pytest.raises(TypeError, match="a floating output"):
        audit(lambda x: jnp.argmax(x), X)


@pytest.mark.slow
@pytest.mark.parametrize("slope", [0.1, 0.3])
def test_constants_of_a_rule_are_those_of_what_it_computes(slope: float) -> None:
    """0.1 in the function and 0.1 in its rule are one number, in float32 too."""

    @jax.custom_vjp
    def leaky(x: Any) -> Any:
        return jnp.where(x > 0, x, slope * x)

    @jax.custom_vjp
    def off(x: Any) -> Any:
        return jnp.where(x > 0, x, slope * x)

    leaky.defvjp(
        lambda x: (leaky(x), x), lambda x, g: (g * jnp.where(x > 0, 1.0, slope),)
    )
    off.defvjp(
        lambda x: (off(x), x),
        lambda x, g: (g * jnp.where(x > 0, 1.0, slope * (1 + 1e-6)),),
    )
    found = rows(audit(lambda x: jnp.sum(leaky(x) ** 2 + off(x) ** 2), X))
    assert found["leaky"].verdict is Verdict.AGREE
    assert found["off"].verdict is Verdict.DISAGREE


@pytest.mark.slow
@pytest.mark.parametrize(
    ("factor", "verdict"), [(1.0, Verdict.AGREE), (1.05, Verdict.DISAGREE)]
)
def test_inputs_that_are_one_value_move_together(
    factor: float, verdict: Verdict
) -> None:
    """As a root's rule asks how it moves with the equation, not with the solver's copy:
    this one is right where both are the same.
    """

    @jax.custom_jvp
    def times(x: Any, same: Any) -> Any:
        return x * same

    times.defjvp(lambda p, t: (times(*p), 2 * factor * p[1] * t[0]))
    assert audit(lambda x: times(x, x), np.float32(2)).rules[0].verdict is verdict
    other = audit(lambda x: times(x, x + 1), np.float32(2))
    assert other.rules[0].verdict is Verdict.DISAGREE


def test_where_no_rule_was_verified_nothing_is_proved() -> None:
    """A wrong rule in a branch that is not taken; one that is intended is not asked."""
    wrong = sine(-7.0)

    def loss(x: Any) -> Any:
        taken = jnp.sum(x) > 100
        return lax.cond(taken, lambda: jnp.sum(wrong(x)), lambda: jnp.sum(x**2))

    report = audit(loss, X)
    assert not report.passed
    assert "nothing is proved, no gradient flows" in str(report)
    report = audit(lambda x: jnp.sum(wrong(x)), X, intended=["sine"])
    assert report.passed
    assert "PASSED: no rule was judged: 1 intended, or not used." in str(report)


@pytest.mark.slow
def test_a_forward_pass_that_gives_another_value() -> None:
    """The rule's derivative alone is right."""
    rule = jax.custom_vjp(jnp.sin)
    rule.defvjp(lambda x: (1.5 * jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))
    report = audit(lambda x: jnp.sum(rule(x)), X)
    assert not report.passed
    assert ANOTHER_VALUE in str(report).replace("\n      ", " ")


@pytest.mark.slow
def test_a_wrong_rule_within_a_wrong_rule_is_named() -> None:
    """The outer uses its derivative."""
    inner = sine(2.0)

    @jax.custom_vjp
    def outer(x: Any) -> Any:
        return inner(x) * x

    outer.defvjp(lambda x: jax.vjp(lambda z: inner(z) * z, x), lambda pull, g: pull(g))
    report = audit(lambda x: jnp.sum(outer(x) ** 2), X)
    (rule,) = report.rules
    assert rule.name == "outer"
    assert "the rule of `sine` (" in rule.cause


@pytest.mark.slow
def test_what_is_infinite_is_no_straight_through_estimator() -> None:
    """The determinant is 0."""
    singular = np.array([[1, 2], [2, 4]], np.float32)
    report = audit(lambda x: jnp.linalg.slogdet(x)[1], singular)
    assert "straight-through" not in str(report)
