"""The rules that a suite calls, recorded wherever they are called and verified."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.sharding import PartitionSpec

from jaxnet.testing.rules_called import NEVER_RUN, RulesCalled, audit_of
from jaxnet.verification import RuleReport, Verdict, check_vjp
from jaxnet.verification.function.sites import written

X = jnp.asarray([0.25, -1.5, 0.75])


def sine_of(factor: float) -> Any:
    """The sine, whose rule is off by a factor."""

    @jax.custom_vjp
    def sine(x: Any) -> Any:
        return jnp.sin(x)

    sine.defvjp(lambda x: (sine(x), x), lambda x, c: (factor * c * jnp.cos(x),))
    return sine


def rows_of(suite: Callable[[], Any]) -> list[RuleReport]:
    """The rows of the sines that a suite calls."""
    rules = RulesCalled()
    with rules.recorded():
        suite()
    return [row for row in rules.rows() if row.name == "sine"]


def in_shard_map(sine: Any) -> Any:
    """On a mesh of one device."""
    mesh = jax.make_mesh((1,), ("i",), (jax.sharding.AxisType.Auto,))
    spec = PartitionSpec("i")
    mapped = jax.shard_map(sine, mesh=mesh, in_specs=spec, out_specs=spec)
    return jax.jit(mapped)(X)


WHERE: dict[str, Callable[[Any], Any]] = {
    "as it is": lambda sine: sine(X),
    "by keyword": lambda sine: sine(x=X),
    "grad": lambda sine: jax.grad(lambda x: sine(x).sum())(X),
    "jit": lambda sine: jax.jit(lambda x: sine(2 * x))(X / 2),
    "vmap": lambda sine: jax.vmap(sine)(jnp.stack([X, X])),
    "scan": lambda sine: jax.lax.scan(lambda c, _: (sine(c), None), X, None, length=3),
    "cond": lambda sine: jax.lax.cond(X[0] > 0, sine, lambda x: x, X),
    "checkpoint": lambda sine: jax.grad(lambda x: jax.checkpoint(sine)(x).sum())(X),
    "shard_map": in_shard_map,
}


def test_a_rule_that_jax_makes_has_the_line_of_its_function() -> None:
    """And its call that of the suite, also where the verifier calls it."""

    @jax.custom_jvp
    def sine(x: Any) -> Any:
        return jnp.sin(x)

    sine.defjvps(lambda t, y, x: jnp.cos(x) * t)
    (row,) = rows_of(lambda: check_vjp(sine, X))
    assert row.rule == written(sine.fun)
    assert [line.rpartition(":")[0] for line in row.lines] == [__file__]


@pytest.mark.slow
@pytest.mark.parametrize("where", WHERE)
def test_a_rule_is_verified_at_its_own_values(where: str) -> None:
    """Wherever it is called; and the wrong one fails there, by its factor."""
    (right,) = rows_of(lambda: WHERE[where](sine_of(1.0)))
    assert right.verdict is Verdict.AGREE
    assert right.forms == ("float32 3",)
    assert right.lines
    (wrong,) = rows_of(lambda: WHERE[where](sine_of(1.5)))
    assert wrong.is_wrong
    assert "×1.5" in wrong.cause


def test_the_values_are_those_of_the_first_call() -> None:
    """Of one form once: the same shapes and setting; another of either is another."""
    rules, sine = RulesCalled(), sine_of(1.0)
    with rules.recorded():
        for factor in (1.0, 2.0):
            jax.jit(lambda x: sine(x))(factor * X)
            sine(factor * X)
        sine(X[:2])
        sine_of(1.5)(X)
    jax.effects_barrier()
    found = [x for x in rules.forms.values() if x.name == "sine"]
    assert [x.shapes for x in found] == ["float32 3", "float32 2", "float32 3"]
    assert [x.calls for x in found] == [4, 1, 1]
    assert found[0].args is not None
    np.testing.assert_array_equal(found[0].args[0], X)


def test_what_was_traced_alone_is_said_not_to_be_verified() -> None:
    """Its values were never there; nothing is called wrong for that."""
    (row,) = rows_of(lambda: jax.eval_shape(sine_of(1.5), X))
    assert row.verdict is Verdict.UNRESOLVED
    assert row.cause == NEVER_RUN
    assert not row.is_wrong


def test_a_rule_in_a_kernel_is_left_alone() -> None:
    """A kernel cannot hand out values: it runs as before, and the row says so."""
    sine = sine_of(1.5)

    def kernel(x: Any, out: Any) -> None:
        out[...] = sine(x[...])

    def suite() -> None:
        shape = jax.ShapeDtypeStruct(X.shape, X.dtype)
        call = pl.pallas_call(kernel, out_shape=shape, interpret=True)
        np.testing.assert_allclose(call(X), jnp.sin(X), rtol=1e-6)

    (row,) = rows_of(suite)
    assert row.cause == NEVER_RUN


def test_a_rule_that_cannot_be_called_alone_says_why() -> None:
    """A collective needs its mesh: not verified, and not wrong."""

    @jax.custom_vjp
    def sine(x: Any) -> Any:
        return jax.lax.psum(jnp.sin(x), "i")

    sine.defvjp(lambda x: (sine(x), x), lambda x, c: (c * jnp.cos(x),))
    mesh = jax.make_mesh((1,), ("i",), (jax.sharding.AxisType.Auto,))
    specs = {"in_specs": PartitionSpec("i"), "out_specs": PartitionSpec()}
    mapped = jax.shard_map(sine, mesh=mesh, **specs)
    (row,) = rows_of(lambda: jax.jit(mapped)(X))
    assert row.verdict is Verdict.UNRESOLVED
    assert "unbound axis name" in row.cause


def test_afterwards_all_is_as_before() -> None:
    """JAX's own classes are whole again, and a wrong call gets JAX's own message.

    What could not be recorded is said.
    """
    before = jax.custom_vjp.__call__, jax.custom_jvp.__call__
    rules = RulesCalled()
    with rules.recorded():
        assert jax.custom_vjp.__call__ is not before[0]
        with pytest.raises(TypeError, match="could not be resolved"):
            sine_of(1.0)(z=X)
    assert (jax.custom_vjp.__call__, jax.custom_jvp.__call__) == before
    (row,) = rules.rows()
    assert not row.is_wrong
    assert "its call was not recorded, TypeError" in row.cause


@pytest.mark.slow
def test_the_rows_of_one_rule_are_one() -> None:
    """The worst of its forms; calls, lines and forms of all."""
    sines = sine_of(1.0), sine_of(1.5)
    rows = rows_of(lambda: [sine(x) for sine in sines for x in (X, X[:2])])
    report = audit_of([*rows, *rows])
    assert not report.passed
    (row,) = report.rules
    assert row.is_wrong
    assert (row.calls, row.verified) == (8, 8)
    assert row.forms == ("float32 3", "float32 2")


def test_no_program_is_changed_that_is_looked_at() -> None:
    """Traced, lowered or reduced by: no effect is added where JAX may forbid one."""

    def suite() -> None:
        sine = sine_of(1.0)
        traced = jax.make_jaxpr(lambda x: sine(x))(X)
        assert len(traced.eqns) == 1
        assert not traced.effects
        assert "callback" not in jax.jit(lambda x: sine(x)).lower(X).as_text()
        jax.eval_shape(sine, X)
        jax.lax.reduce(X, -jnp.inf, jnp.logaddexp, (0,))

    (row,) = rows_of(suite)
    assert row.cause == NEVER_RUN


def test_values_that_are_not_finite_are_passed_over() -> None:
    """NaN says nothing of a rule; the next call of the form does."""
    sine = sine_of(1.5)
    rows = rows_of(lambda: sine(X * jnp.nan))
    assert [row.cause for row in rows] == [NEVER_RUN]
    (row,) = rows_of(lambda: [sine(X * jnp.nan), sine(X)])
    assert row.is_wrong


def test_a_rule_in_the_making_does_no_harm() -> None:
    """A closure may hold a name that has no value yet."""

    def made() -> Any:
        @jax.custom_vjp
        def sine(x: Any) -> Any:
            return later(x) if X is None else jnp.sin(x)

        sine.defvjp(lambda x: (sine(x), x), lambda x, c: (c * jnp.cos(x),))
        if X is None:
            later = sine
        return sine

    (row,) = rows_of(lambda: jax.jit(made())(X))
    assert row.passed


def test_what_is_intended_is_not_judged() -> None:
    """By name, or by the line of the rule."""
    sine = sine_of(1.5)
    code = sine.bwd.__code__
    line = f"test_rules_called.py:{code.co_firstlineno}"
    for named in ("sine", line):
        rules = RulesCalled([named])
        with rules.recorded():
            sine(X)
        (row,) = rules.rows()
        assert row.passed
        assert row.cause == "not judged, as intended"
