"""The canonical mistakes of a rule."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet.testing import GradientMismatch, assert_jvp, assert_vjp, mutants
from jaxnet.testing.mutants import MISTAKES, mutated

X = jnp.asarray([[0.5, -1.25, 2.0], [0.25, 1.5, -0.75]])


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def powered(x: Any, power: int, y: Any) -> Any:
    """xᵖ y, with a rule for reverse mode."""
    return x**power * y


powered.defvjp(
    lambda x, power, y: (powered(x, power, y), (x, y)),
    lambda power, saved, c: (
        c * power * saved[0] ** (power - 1) * saved[1],
        c * saved[0] ** power,
    ),
)


@jax.custom_jvp
def tanh(x: Any) -> Any:
    """The hyperbolic tangent, with a rule for forward mode."""
    return jnp.tanh(x)


tanh.defjvp(lambda x, t: (tanh(*x), (1 - jnp.tanh(x[0]) ** 2) * t[0]))


@pytest.mark.parametrize(("rule", "args"), [(powered, (X, 3, 1 + X**2)), (tanh, (X,))])
def test_the_values_are_those_of_the_rule(
    rule: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    """A mutant computes the same function, and is known by its name."""
    for mutant in mutants(rule).values():
        np.testing.assert_array_equal(mutant(*args), rule(*args))
        assert mutant.__name__ == rule.__name__


def _none(linear: Any, args: Any, direction: Any) -> Any:
    """No mistake."""
    return linear(args, direction)


@pytest.mark.slow
def test_every_mistake_is_caught() -> None:
    """All nine by the verifier; the rule itself, rebuilt with none, passes."""
    args = X[0], 3, 1 + X[1] ** 2
    found = mutants(powered, *args)
    assert list(found) == [name for name in MISTAKES if name != "transposed"]
    for mutant in [*found.values(), mutants(lambda x: x @ X.T, X)["transposed"]]:
        with pytest.raises(GradientMismatch):
            assert_vjp(mutant, *(args if mutant.__name__ == "powered" else (X,)))
    assert_vjp(mutated(powered, _none), *args)


@pytest.mark.slow
def test_mistakes_in_forward_mode_are_caught() -> None:
    """Of a custom_jvp the mutants are such rules too."""
    found = mutants(tanh, X[0])
    for name in ("a term less", "wrong under vmap", "wrong in float32"):
        with pytest.raises(GradientMismatch, match="jvp"):
            assert_jvp(found[name], X[0])
    assert_jvp(mutated(tanh, _none), X[0])


@pytest.mark.slow
def test_what_is_no_mistake_there_is_left_out() -> None:
    """A vector is not transposed; a linear function has one derivative everywhere."""
    assert "transposed" not in mutants(jnp.sin, X[0])
    assert "transposed" in mutants(jnp.sin, X)
    linear = mutants(lambda x: 3 * x, X)
    assert "wrong argument" not in linear
    assert "sign" in linear


@pytest.mark.slow
def test_a_function_with_defaults_gets_a_rule() -> None:
    """They are no arguments of the rule, and can be given by keyword."""
    twice = mutants(jax.nn.logsumexp, X)["times N"]
    for options in ({}, {"axis": 1}, {"axis": 0, "keepdims": True}):
        right = jax.grad(lambda x: jax.nn.logsumexp(x, **options).sum())  # noqa: B023
        wrong = jax.grad(lambda x: twice(x, **options).sum())  # noqa: B023
        np.testing.assert_allclose(wrong(X), 2 * right(X), rtol=1e-6)


@pytest.mark.parametrize(
    ("function", "args"),
    [
        (lambda x, kind: x * 2 if kind == "twice" else x**2, (X, "twice")),
        (lambda function, x: function(x), (jnp.sin, X)),
        (lambda x, power: x**power if power > 1 else x, (X, 2)),
    ],
)
def test_what_is_no_array_is_no_argument_of_the_rule(
    function: Callable[..., Any], args: tuple[Any, ...]
) -> None:
    """Names, functions and Python's integers are passed on as they are."""
    wrong = mutants(function, *args)["sign"]

    def gradient(f: Callable[..., Any]) -> Any:
        return jax.grad(lambda x: f(*(x if y is X else y for y in args)).sum())(X)

    np.testing.assert_allclose(gradient(wrong), -gradient(function), rtol=1e-6)


@pytest.mark.slow
def test_a_mistake_shows_only_where_it_is_made() -> None:
    """Under vmap, and in float32: elsewhere these two are right."""
    found = mutants(powered)
    args = (X[0], 3, X[1])

    def gradient(rule: Callable[..., Any], x: Any, y: Any) -> Any:
        return jax.grad(lambda x: rule(x, 3, y).sum())(x)

    right = gradient(powered, *args[::2])
    wrong = found["wrong under vmap"]
    np.testing.assert_array_equal(gradient(wrong, *args[::2]), right)
    batch = X, X**2 + 1
    rights = jax.vmap(partial(gradient, powered))(*batch)
    wrongs = jax.vmap(partial(gradient, wrong))(*batch)
    np.testing.assert_allclose(wrongs[0], rights[0], rtol=1e-6)
    assert not np.allclose(wrongs[1], rights[1])
    single = gradient(found["wrong in float32"], *args[::2])
    assert not np.any(single)
    with jax.enable_x64(True):
        own = [jnp.asarray(np.asarray(x), jnp.float64) for x in args[::2]]
        double = gradient(found["wrong in float32"], *own)
        np.testing.assert_array_equal(double, gradient(powered, *own))
