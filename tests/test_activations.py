"""Activations: values against their formulas, derivatives against autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import activations
from jaxnet.activations import ACTIVATIONS
from tests.tolerances import close

FORMULAS = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "tanh": lambda x: (np.exp(x) - np.exp(-x)) / (np.exp(x) + np.exp(-x)),
}
POINTS = np.concatenate([np.linspace(-6, 6, 40), [0.1, -1e-3]])

each = pytest.mark.parametrize("name", list(FORMULAS))
each_mode = pytest.mark.parametrize(
    ("dtype", "jit"),
    [("float32", jax.jit), ("float64", jax.jit), ("float32", lambda f: f)],
    ids=["float32-jit", "float64-jit", "float32-plain"],
)


@each
@each_mode
def test_value_is_the_formula(name, dtype, jit):
    """f(x) is the book's formula, in the dtype of x."""
    with jax.enable_x64(True):
        y = jit(ACTIVATIONS[name].value)(jnp.asarray(POINTS, dtype))
        assert y.dtype == dtype
        assert close(y, FORMULAS[name](POINTS), dtype)


@each
def test_integers_and_lists_are_numbers(name):
    """As in the book's first examples."""
    want = FORMULAS[name](np.array([-1.0, 1.0, 2.0]))
    for given in (np.array([-1, 1, 2]), [-1, 1, 2], [-1.0, 1.0, 2.0]):
        assert close(ACTIVATIONS[name].value(given), want, "float32")
    assert close(ACTIVATIONS[name].value(2), want[2], "float32")


@each
@each_mode
def test_derivative_is_autodiff(name, dtype, jit):
    """f'(x) from the output y is jax.grad of f at x."""
    value, derivative = ACTIVATIONS[name]
    with jax.enable_x64(True):
        x = jnp.asarray(POINTS, dtype)
        want = jax.jit(jax.vmap(jax.grad(value)))(x)
        assert close(jit(derivative)(value(x)), want, dtype)


def test_a_wrong_derivative_is_caught():
    """The comparison sees a derivative that is wrong by a sign or of another output."""
    with jax.enable_x64(True):
        x = jnp.asarray(POINTS)
        right = jax.vmap(jax.grad(activations.tanh))(x)
        assert close(activations.d_tanh(activations.tanh(x)), right, "float64")
        assert not close(-activations.d_tanh(activations.tanh(x)), right, "float64")
        assert not close(activations.d_tanh(x), right, "float64")
        assert not close(activations.d_sigmoid(jnp.tanh(x)), right, "float64")


def test_relu_is_zero_at_its_kink():
    """At 0 the derivative by hand and by JAX are both 0."""
    zero = jnp.zeros(())
    assert activations.d_relu(activations.relu(zero)) == 0
    assert jax.grad(activations.relu)(zero) == 0


@each
def test_no_overflow_far_out(name):
    """±1e4 give the limits, and derivatives that are finite."""
    value, derivative = ACTIVATIONS[name]
    y = value(jnp.array([-1e4, 1e4]))
    limits = {"sigmoid": [0, 1], "relu": [0, 1e4], "tanh": [-1, 1]}
    assert y.tolist() == limits[name]
    assert jnp.isfinite(derivative(y)).all()
