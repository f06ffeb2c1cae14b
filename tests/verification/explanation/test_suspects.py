"""On DISAGREE, what in the program may break a derivative is listed with its line."""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnet import Verdict, check_gradients

Loss = Callable[[Any], Any]

X = np.array([1.2, 0.4, -1.3], np.float32)

SUSPECTS: dict[str, tuple[str, Loss]] = {}
"""By the name of the loss: what is suspect in it, and the loss."""


def suspect(name: str) -> Callable[[Loss], Loss]:
    """Keep a loss under what is suspect in it."""
    return lambda loss: SUSPECTS.setdefault(loss.__name__, (name, loss))[1]


def marked_line(function: Loss) -> str:
    """File and number of the line that is marked in a function."""
    lines, first = inspect.getsourcelines(function)
    (number,) = (i for i, line in enumerate(lines) if "# here" in line)
    return f"{__file__}:{first + number}:"


@suspect("stop_gradient")
def stopped(x: Any) -> Any:
    """Half a gradient."""
    return jnp.sum(x * lax.stop_gradient(x))  # here


@suspect("stop_gradient")
def stopped_in_scan(x: Any) -> Any:
    """The same, inside a jitted scan."""

    def step(total: Any, entry: Any) -> Any:
        return total + entry * lax.stop_gradient(entry), None  # here

    return jax.jit(lambda x: lax.scan(step, jnp.zeros((), x.dtype), x)[0])(x)


@jax.custom_vjp
def vjp_sine(x: Any) -> Any:
    """Sin, with a rule."""
    return jnp.sin(x)


vjp_sine.defvjp(lambda x: (vjp_sine(x), x), lambda x, g: (1.5 * g * jnp.cos(x),))


@jax.custom_jvp
def jvp_sine(x: Any) -> Any:
    """Sin, with a rule for tangents."""
    return jnp.sin(x)


jvp_sine.defjvps(lambda t, y, x: 1.5 * jnp.cos(x) * t)


@suspect("a custom_vjp rule `vjp_sine`")
def by_custom_vjp(x: Any) -> Any:
    """A rule half too large."""
    return jnp.sum(vjp_sine(x))  # here


@suspect("a custom_jvp rule `jvp_sine`")
def by_custom_jvp(x: Any) -> Any:
    """A rule half too large."""
    return jnp.sum(jvp_sine(x))  # here


@suspect("a cast to bfloat16")
def by_cast(x: Any) -> Any:
    """A result of eight bits of mantissa, added as nothing."""
    low = x.astype(jnp.bfloat16)  # here
    return jnp.sum(jnp.sin(x)) + 1e-30 * jnp.sum(low).astype(x.dtype)


@suspect("a cast to int32")
def by_integers(x: Any) -> Any:
    """Whole parts."""
    whole = x.astype(jnp.int32)  # here
    return jnp.sum(x * whole.astype(x.dtype))


@suspect("rounding")
def by_floor(x: Any) -> Any:
    """Whole parts, as floats."""
    return jnp.sum(x * jnp.floor(x))  # here


@suspect("argmax")
def by_argmax(x: Any) -> Any:
    """The place of the largest entry."""
    place = jnp.argmax(x)  # here
    return jnp.sum(x) * (1 + place.astype(x.dtype))


@suspect("a callback")
def by_callback(x: Any) -> Any:
    """Sines of the host, without a gradient."""
    sine = jax.pure_callback(  # here
        np.sin, jax.ShapeDtypeStruct(x.shape, x.dtype), x, vmap_method="expand_dims"
    )
    return jnp.sum(sine)


@pytest.mark.slow
@pytest.mark.parametrize("name", SUSPECTS)
def test_a_suspect_is_named_with_its_line(name: str) -> None:
    """The gradient given is 7 everywhere: nothing else would explain that."""
    text, loss = SUSPECTS[name]
    row = check_gradients(loss, X, np.full(3, 7.0, np.float32)).worst
    assert row.verdict is Verdict.DISAGREE
    assert f"{text} at {marked_line(loss)}" in row.cause


@pytest.mark.parametrize("loss", [stopped, by_custom_vjp, by_custom_jvp])
def test_autodiff_itself_is_wrong_and_says_by_how_much(loss: Loss) -> None:
    """The factor comes from the numbers, the suspect from the program."""
    row = check_gradients(loss, X).worst
    factor = "×½; suspect" if loss is stopped else "×1.5 on every entry; suspect"
    assert row.cause.startswith(factor)


def test_casts_of_the_verifier_are_no_suspects() -> None:
    """A loss of float32 alone is called through a cast that is not the loss's."""

    def loss(x: Any) -> Any:
        if x.dtype != np.float32:
            raise TypeError("float32 only")
        return jnp.sum(jnp.sin(x))

    assert check_gradients(loss, X, 2 * np.cos(X)).worst.cause == "×2"


def test_suspects_decide_nothing() -> None:
    """A right gradient beside a rule, and a wrong one without: neither is swayed."""
    right = check_gradients(by_custom_vjp, X, np.cos(X))
    assert (right.worst.verdict, right.worst.cause) == (Verdict.AGREE, "")
    wrong = check_gradients(lambda x: jnp.sum(jnp.sin(x)), X, 2 * np.cos(X))
    assert wrong.worst.cause == "×2"
