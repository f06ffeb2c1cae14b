"""check_grads and its like with the signatures of jax.test_util and chex."""

import inspect
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import jax.test_util
import numpy as np
import pytest
from flax import nnx

from jaxnet import check_gradients, testing
from jaxnet.testing import (
    GradientMismatch,
    assert_numerical_grads,
    check_grads,
    check_jvp,
    check_vjp,
)
from jaxnet.verification import Verdict

X = jnp.asarray([0.25, -1.5, 0.75])
NAMES = ("check_grads", "check_vjp", "check_jvp")


def scaled_sine(factor: float) -> Any:
    """The sine, whose rule for forward mode is off by a factor."""
    sine = jax.custom_jvp(jnp.sin)
    sine.defjvp(lambda x, t: (sine(*x), factor * jnp.cos(x[0]) * t[0]))
    return sine


@pytest.mark.parametrize("name", NAMES)
def test_the_signatures_are_those_of_jax(name: str) -> None:
    """The same parameters in the same order, and keywords of ours after them."""
    theirs = inspect.signature(getattr(jax.test_util, name)).parameters
    ours = inspect.signature(getattr(testing, name)).parameters
    assert list(ours)[: len(theirs)] == list(theirs)
    required = [x for x in theirs if theirs[x].default is inspect.Parameter.empty]
    assert required == [x for x in theirs if ours[x].default is inspect.Parameter.empty]


@pytest.mark.slow
def test_what_jax_passes_for_its_tolerance_fails() -> None:
    """1 % off in forward mode, at rtol = 1; the right rule passes."""
    jax.test_util.check_grads(scaled_sine(1.01), (X,), 1, rtol=1.0)
    with pytest.raises(GradientMismatch, match=r"×1\.01 on every entry"):
        check_grads(scaled_sine(1.01), (X,), 1, rtol=1.0)
    assert check_grads(scaled_sine(1.0), (X,), 1, rtol=1.0).passed


@pytest.mark.slow
def test_tolerances_are_said_once_not_to_be_needed() -> None:
    """In the notes of the report, with their names; nothing where none was given."""
    report = check_grads(jnp.sin, (X,), 1, atol=1.0, eps=1e-2)
    assert str(report).count("not needed, the bound is derived: atol, eps") == 1
    assert "not needed" not in str(check_grads(jnp.sin, (X,), 1))


@pytest.mark.parametrize("modes", [["fwd", "bwd"], ["bwd"], [], "reverse"])
def test_an_unknown_mode_is_an_error(modes: Any) -> None:
    """jax.test_util ignores it and checks nothing."""
    with pytest.raises(ValueError, match="one of 'fwd', 'rev', 'lin'"):
        check_grads(jnp.sin, (X,), 1, modes=modes)


@pytest.mark.slow
def test_each_mode_is_checked_by_itself() -> None:
    """A rule for reverse mode alone; linearize by the one for forward mode."""
    rule = jax.custom_vjp(jnp.sin)
    rule.defvjp(lambda x: (rule(x), x), lambda x, c: (1.01 * c * jnp.cos(x),))
    with pytest.raises(GradientMismatch, match=r"vjp is .*×1\.01"):
        check_grads(rule, (X,), 1, modes="rev")
    assert check_grads(jnp.sin, (X,), 1, modes=["lin"]).passed
    with pytest.raises(GradientMismatch, match=r"jvp is .*×1\.01"):
        check_grads(scaled_sine(1.01), (X,), 1, modes=["lin"])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fwd", "rev"])
def test_a_mistake_in_a_higher_order_is_found_there(mode: str) -> None:
    """A rule whose derivative is right and whose own derivative is not, twice."""

    def of_order(order: int) -> Any:
        """sin, whose derivatives are right below an order and stopped from there on."""
        name = ("sin", "cos")[order % 2]
        function = jax.custom_jvp(getattr(jnp, name))

        def rule(primals: Any, tangents: Any) -> Any:
            (x,), (t,) = primals, tangents
            slope = inner(x) if order else jax.lax.stop_gradient(jnp.cos(x))
            sign = 1 if name == "sin" else -1
            return function(x), sign * slope * t

        inner = of_order(order - 1) if order else None
        function.defjvp(rule)
        return function

    wrong = of_order(2)
    report = check_grads(wrong, (X,), 2, modes=[mode])
    assert {leaf.verdict for leaf in report.leaves} <= {Verdict.AGREE}
    with pytest.raises(GradientMismatch) as failure:
        check_grads(wrong, (X,), 4, modes=[mode])
    ours = {"fwd": "jvp", "rev": "vjp"}[mode]
    assert f"{ours} of {ours} of {ours} of {ours} is" in str(failure.value)


@pytest.mark.slow
def test_every_order_and_mode_is_checked() -> None:
    """To order 2: each mode of each mode's derivative; 5 is one too many."""
    report = check_grads(lambda x, y: jnp.sin(x) * y, (X, 2 * X), 2)
    assert {leaf.candidate for leaf in report.leaves} == {
        "jvp",
        "vjp",
        *(f"{a} of {b}" for a in ("jvp", "vjp") for b in ("jvp", "vjp")),
    }
    with pytest.raises(ValueError, match="order"):
        check_grads(jnp.sin, (X,), 5)


@pytest.mark.slow
def test_a_pullback_by_hand() -> None:
    """The right one passes; a wrong one, or a wrong value, is named by its function."""

    def pullback(factor: float, more: float, x: Any) -> Any:
        return jnp.sin(x) + more, lambda c: (factor * c * jnp.cos(x),)

    assert check_vjp(jnp.sin, partial(pullback, 1.0, 0.0), (X,)).passed
    with pytest.raises(GradientMismatch, match=r"^mine\nFAILED: .*×2"):
        check_vjp(jnp.sin, partial(pullback, 2.0, 0.0), (X,), err_msg="mine")
    with pytest.raises(GradientMismatch, match="forward value"):
        check_vjp(jnp.sin, partial(pullback, 1.0, 1.0), (X,))
    assert check_vjp(jnp.sin, partial(jax.vjp, jnp.sin), (X,), rtol=1.0).passed

    def by_numpy(factor: float, x: Any) -> Any:
        return np.sin(x), lambda c: (factor * np.asarray(c) * np.cos(x),)

    assert check_vjp(jnp.sin, partial(by_numpy, 1.0), (X,)).passed
    with pytest.raises(GradientMismatch, match="×2"):
        check_vjp(jnp.sin, partial(by_numpy, 2.0), (X,))

    def tangent(factor: float, args: Any, tangents: Any) -> Any:
        return np.sin(args[0]), factor * np.asarray(tangents[0]) * np.cos(args[0])

    assert check_jvp(jnp.sin, partial(tangent, 1.0), (X,)).passed
    with pytest.raises(GradientMismatch, match="×2"):
        check_jvp(jnp.sin, partial(tangent, 2.0), (X,))
    own = partial(jax.vjp, lambda x: jax.nn.logsumexp(x))
    assert check_vjp(jax.nn.logsumexp, own, (X,)).passed


@pytest.mark.slow
def test_a_point_where_the_rule_is_due() -> None:
    """As the checks of `jaxnet` itself take it."""
    for check in (testing.check_vjp, testing.check_jvp):
        with pytest.raises(TypeError, match=r"f_.*expected a function.*, or assert_"):
            check(jnp.sin, X, X)


@pytest.mark.slow
def test_a_jvp_by_hand() -> None:
    """Likewise; a rule of the user's is named by the line it stands at."""

    def pushed(factor: float, primals: Any, tangents: Any) -> Any:
        (x,), (t,) = primals, tangents
        return jnp.sin(x), factor * t * jnp.cos(x)

    def wrong(primals: Any, tangents: Any) -> Any:
        return pushed(0.5, primals, tangents)

    assert check_jvp(jnp.sin, partial(pushed, 1.0), (X,)).passed
    line = f"test_drop_in.py:{inspect.getsourcelines(wrong)[1]}"
    with pytest.raises(GradientMismatch, match=line):
        check_jvp(jnp.sin, wrong, (X,))
    assert check_jvp(jnp.sin, partial(jax.jvp, jnp.sin), (X,)).passed


def to_target(x: Any) -> Any:
    """A loss with a target that no gradient flows into."""
    return (x - jax.lax.stop_gradient(jnp.exp(x))) ** 2


def in_scan(x: Any) -> Any:
    """Likewise, another one in each round."""

    def step(carry: Any, _: None) -> tuple[Any, None]:
        return carry * jax.lax.stop_gradient(jnp.cos(carry)) + x, None

    return jax.lax.scan(step, x, None, length=3)[0]


@pytest.mark.slow
@pytest.mark.parametrize("function", [to_target, in_scan])
def test_a_stop_gradient_is_a_constant_for_chex(function: Any) -> None:
    """It passes there, and is wrong as the derivative of the function's values."""
    assert assert_numerical_grads(function, (X,), 1).passed
    with pytest.raises(GradientMismatch, match="stop_gradient"):
        check_grads(function, (X,), 1, modes="rev")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fwd", "rev"])
def test_a_wrong_rule_beside_a_stop_gradient_fails(mode: str) -> None:
    """What else is wrong is not hidden by it: the rule holds a stop_gradient too."""
    sine = scaled_sine(1.01)
    with pytest.raises(GradientMismatch):
        assert_numerical_grads(lambda x: sine(x) * to_target(x), (X,), 1, modes=[mode])
    held = jax.custom_vjp(lambda x: jnp.sin(x) * jax.lax.stop_gradient(2.0))
    held.defvjp(lambda x: (held(x), x), lambda x, c: (c * jnp.cos(x),))
    with pytest.raises(GradientMismatch, match="×½"):
        assert_numerical_grads(lambda x: held(x) + to_target(x), (X,), 1, modes=["rev"])


class Affine(eqx.Module):
    """A module, with a bound method."""

    weight: jax.Array
    name: str = "affine"

    def __call__(self, x: Any) -> Any:
        """Its value."""
        return jnp.tanh(self.weight @ x)


class Linear(nnx.Module):
    """A module of flax, its weight a variable."""

    def __init__(self) -> None:
        self.weight = nnx.Param(jnp.full((2, 3), 0.3))


@pytest.mark.slow
def test_functions_and_arguments_of_every_kind() -> None:
    """Bound methods, partials, jitted ones; modules, keys, integers and static ones."""
    module = Affine(jnp.full((2, 3), 0.3))

    def of_key(key: Any, x: Any, count: Any, power: int = 1) -> Any:
        return jnp.sin(x) ** power * jax.random.normal(key, x.shape) * count

    calls: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
        (module.__call__, (X,), {}),
        (lambda module, x: module(x), (module, X), {}),
        (partial(jnp.power, jnp.abs(X)), (X,), {}),
        (jax.jit(jnp.sin), (X,), {}),
        (of_key, (jax.random.key(0), X, 3), {"kwargs": {"power": 2}}),
        (lambda model, x: jnp.tanh(model.weight[...] @ x), (Linear(), X), {}),
    ]
    for function, args, options in calls:
        assert check_grads(function, args, 1, modes=["rev"], **options).passed
        wrong = _doubled(function)
        with pytest.raises(GradientMismatch):
            check_grads(wrong, args, 1, modes=["rev"], **options)


def scaled(x: Any, factor: float = 1.0) -> Any:
    """With a keyword."""
    return jnp.sin(factor * x)


@pytest.mark.slow
def test_keyword_arguments_in_every_check() -> None:
    """They are bound before a rule by hand stands beside the function."""
    options = {"kwargs": {"factor": 2.0}}
    assert check_grads(scaled, (X,), 1, modes=["lin", "rev"], **options).passed
    own = partial(scaled, factor=2.0)
    assert check_vjp(scaled, partial(jax.vjp, own), (X,), **options).passed
    assert check_jvp(scaled, partial(jax.jvp, own), (X,), **options).passed
    assert assert_numerical_grads(scaled, (X,), 1, **options).passed
    with pytest.raises(GradientMismatch):
        check_vjp(scaled, partial(jax.vjp, scaled), (X,), **options)


def _doubled(function: Any) -> Any:
    """The function, with a derivative twice as large."""

    def doubled(*args: Any, **kwargs: Any) -> Any:
        value = function(*args, **kwargs)
        return jax.tree.map(lambda y: 2 * y - jax.lax.stop_gradient(y), value)

    return doubled


@pytest.mark.slow
def test_auxiliary_output_is_not_differentiated() -> None:
    """Of a pair the first alone, here and in check_gradients; no pair is an error."""

    def with_aux(x: Any) -> Any:
        return jnp.sum(jnp.sin(x)), {"wrong": jax.lax.stop_gradient(x)}

    report = check_grads(with_aux, (X,), 1, has_aux=True)
    assert report.passed
    assert {leaf.path for leaf in report.leaves} == {"x"}
    assert check_gradients(with_aux, X, has_aux=True).passed
    assert not check_gradients(with_aux, X, 2 * jnp.cos(X), has_aux=True).passed
    with pytest.raises(GradientMismatch):
        check_grads(with_aux, (X,), 1)
    with pytest.raises(TypeError, match=r"^`function\(\*args\)`: expected a pair, got"):
        check_grads(jnp.sin, (X,), 1, has_aux=True)
    with pytest.raises(TypeError, match=r"^`loss\(params\)`: expected a pair, got"):
        check_gradients(jnp.sum, X, has_aux=True)
    with pytest.raises(TypeError, match="has_aux=True"):
        check_gradients(with_aux, X)
