"""A callback that raises says where its domain ends; it is no fault of a rule."""

import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import audit, check_gradients, check_vjp
from jaxnet.verification.function.callbacks import unless_raised

X = np.array([1.0, 1.2], np.float32)


def of_host(x: np.ndarray) -> np.ndarray:
    """A logarithm that refuses what has none."""
    if (x <= 0).any():
        raise ValueError("log of a number that is not positive")
    return np.log(x)


def log(x: Any) -> Any:
    """The same within JAX."""
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return jax.pure_callback(of_host, shape, x, vmap_method="broadcast_all")


def rule(factor: float) -> Any:
    """log(x - 0.9), near the end of its domain, with a gradient by hand."""
    shift = np.float32(0.9)
    function = jax.custom_vjp(lambda x: log(x - shift))
    function.defvjp(
        lambda x: (log(x - shift), x), lambda x, g: (factor * g / (x - shift),)
    )
    return function


@pytest.mark.slow
def test_it_is_outside_the_domain_where_a_callback_raises(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By every check; and nothing is logged, as it would be for each point."""
    right, wrong = rule(1.0), rule(1.1)
    with caplog.at_level(logging.ERROR):
        assert check_vjp(right, X).passed
        assert check_gradients(lambda x: jnp.sum(right(x)), X).passed
        assert audit(lambda x: jnp.sum(right(x)), X).passed
    assert not caplog.records
    assert not check_vjp(wrong, X).passed
    assert not check_gradients(lambda x: jnp.sum(wrong(x)), X).passed
    assert not audit(lambda x: jnp.sum(wrong(x)), X).passed


def test_only_what_a_callback_raises_is_let_pass() -> None:
    """Else an error is an error."""
    inside, outside = jax.jit(log), np.array([-1.0], np.float32)
    assert unless_raised(lambda: np.asarray(inside(outside))) is None
    assert unless_raised(lambda: float(inside(np.ones((), np.float32)))) == 0
    with pytest.raises(ValueError, match="another"):
        unless_raised(lambda: int("another"))


@pytest.mark.slow
def test_a_demand_is_not_put_outside_the_domain() -> None:
    """Where JAX raises for each NaN: the other forward pass is a quarter nearer 0."""
    with jax.debug_nans(True):
        report = check_vjp(lambda x: jnp.sqrt(x - np.float32(0.9)), X)
    assert report.passed, str(report)
    assert "two calls at once" not in [demand.name for demand in report.demands]
