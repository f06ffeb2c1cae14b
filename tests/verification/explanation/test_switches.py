"""A kink is explained from the program: by the primitive and line that switch there.

The lines expected are those marked below. No words here decide a verdict.
"""

import inspect
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnet import LeafReport, Verdict, check_gradients

Loss = Callable[[Any], Any]

X = np.array([1.25, 0.0, -1.5], np.float32)
"""Its middle coordinate sits on the kink of every loss below."""

KINKS: dict[str, tuple[str, Loss]] = {}
"""By the name of the loss: the primitive that decides, and the loss."""


def kink(primitive: str) -> Callable[[Loss], Loss]:
    """Keep a loss under the primitive that decides in it."""
    return lambda loss: KINKS.setdefault(loss.__name__, (primitive, loss))[1]


def marked_line(function: Loss) -> str:
    """File and number of the line that is marked in a function."""
    lines, first = inspect.getsourcelines(function)
    (number,) = (i for i, line in enumerate(lines) if "# here" in line)
    return f"{__file__}:{first + number}:"


def worst(loss: Loss, gradient: Any = None) -> LeafReport:
    """The one row of a check at X."""
    return check_gradients(loss, X, gradient).worst


@kink("max")
def by_max(x: Any) -> Any:
    """The rectifier."""
    return jnp.sum(jnp.maximum(x, 0.0))  # here


@kink("select_n")
def by_where(x: Any) -> Any:
    """A leaky rectifier."""
    positive = x > 0
    return jnp.sum(jnp.where(positive, x, 0.1 * x))  # here


@kink("gt")
def by_comparison(x: Any) -> Any:
    """The same, by its comparison."""
    positive = x > 0  # here
    return jnp.sum(jnp.where(positive, x, 0.1 * x))


@kink("abs")
def by_abs(x: Any) -> Any:
    """Absolute values: symmetric, so central differences agree with 0."""
    return jnp.sum(jnp.abs(x))  # here


@kink("sign")
def by_sign(x: Any) -> Any:
    """The same, by signs."""
    return jnp.sum(x * jnp.sign(x))  # here


@kink("sort")
def by_sort(x: Any) -> Any:
    """Ranks change where x meets 0."""
    ranked = jnp.sort(jnp.append(x, jnp.zeros((), x.dtype)))  # here
    return ranked @ jnp.arange(4, dtype=x.dtype)


@kink("argmax")
def by_argmax(x: Any) -> Any:
    """The larger of x and -x, doubled if it is x."""
    which = jnp.argmax(jnp.stack([x[1], -x[1]]))  # here
    return jnp.stack([2 * x[1], -x[1]])[which]


@kink("floor")
def by_floor(x: Any) -> Any:
    """x times its fraction."""
    return jnp.sum(x * (x - jnp.floor(x)))  # here


@kink("clamp")
def by_clamp(x: Any) -> Any:
    """A hard activation."""
    low, high = jnp.zeros((), x.dtype), jnp.ones((), x.dtype)
    return jnp.sum(lax.clamp(low, x, high))  # here


@kink("max")
def in_jit(x: Any) -> Any:
    """The rectifier in a jitted function."""
    return jax.jit(lambda x: jnp.sum(jnp.maximum(x, 0.0)))(x)  # here


@kink("max")
def in_scan(x: Any) -> Any:
    """The rectifier in a scan over the coordinates."""

    def step(total: Any, entry: Any) -> Any:
        return total + jnp.maximum(entry, 0.0), None  # here

    return lax.scan(step, jnp.zeros((), x.dtype), x)[0]


@kink("abs")
def in_while(x: Any) -> Any:
    """Absolute values in a while loop; it has no reverse mode."""

    def step(state: Any) -> Any:
        i, total = state
        return i + 1, total + jnp.abs(x[i])  # here

    return lax.while_loop(lambda s: s[0] < 3, step, (0, jnp.zeros((), x.dtype)))[1]


@kink("cond")
def in_cond(x: Any) -> Any:
    """Two branches with different slopes."""
    return lax.cond(x[1] > 0, lambda x: jnp.sum(2 * x), jnp.sum, x - X)  # here


@kink("max")
def in_custom_vjp(x: Any) -> Any:
    """The rectifier with a rule."""
    f = jax.custom_vjp(lambda x: jnp.maximum(x, 0.0))  # here
    f.defvjp(lambda x: (f(x), x), lambda x, g: (g * (x > 0),))
    return jnp.sum(f(x))


@kink("max")
def in_custom_jvp(x: Any) -> Any:
    """The rectifier with a rule for tangents."""
    f = jax.custom_jvp(lambda x: jnp.maximum(x, 0.0))  # here
    f.defjvp(lambda p, t: (f(p[0]), t[0] * (p[0] > 0)))
    return jnp.sum(f(x))


def gradient_of(loss: Loss) -> Any:
    """Autodiff's; by hand where the loop has no reverse mode."""
    return np.sign(X) if loss is in_while else None


@pytest.mark.slow
@pytest.mark.parametrize("name", KINKS)
def test_a_kink_names_what_switches(name: str) -> None:
    """By primitive and source line; a subgradient passes."""
    primitive, loss = KINKS[name]
    row = worst(loss, gradient_of(loss))
    assert (row.verdict, row.worst_index) == (Verdict.NONDIFFERENTIABLE, (1,))
    assert row.passed
    switching = row.cause.split("switching: ")[1].split(", ")
    assert any(
        text.startswith(f"`{primitive}` at {marked_line(loss)}") for text in switching
    ), row.cause


@pytest.mark.slow
@pytest.mark.parametrize("name", ["by_max", "by_abs", "in_scan"])
def test_outside_the_slopes_no_kink_excuses(name: str) -> None:
    """3 is the slope on neither side: DISAGREE, whatever switches there."""
    loss = KINKS[name][1]
    gradient = np.array(jax.grad(loss)(jnp.asarray(X)))
    gradient[1] = 3.0
    row = worst(loss, gradient)
    assert (row.verdict, row.worst_index) == (Verdict.DISAGREE, (1,))
    assert not row.passed


def test_what_does_not_switch_is_not_named() -> None:
    """Of two rectifiers, the one that is far from its kink stays out."""

    def loss(x: Any) -> Any:
        far = jnp.sum(jnp.maximum(x + 5, 0.0))
        return far + jnp.sum(jnp.abs(x))

    cause = worst(loss).cause
    assert "`abs`" in cause
    assert "`max`" not in cause


def test_a_smooth_loss_has_no_switch() -> None:
    """Relu(x) - relu(-x) is x: both rectifiers switch, and nothing is said of it."""
    right = worst(
        lambda x: jnp.sum(jnp.maximum(x, 0.0) - jnp.maximum(-x, 0.0)), X * 0 + 1
    )
    assert (right.verdict, right.cause) == (Verdict.AGREE, "")
