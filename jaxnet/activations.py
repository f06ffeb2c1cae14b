"""Activations: each value beside its derivative, derived by hand.

The derivative is written in terms of the *output* y = f(x), which a forward pass
has kept anyway. Source: *Deep Learning from Scratch*, sections 3.2 and 5.5.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float

from jaxnet.array_types import Array

Values = Float[Array, "*shape"]


class Activation(NamedTuple):
    """A function of each element, and its derivative as a function of its output."""

    value: Callable[[Values], Values]
    derivative: Callable[[Values], Values]


def sigmoid(x: Values) -> Values:
    """σ(x) = 1 / (1 + e⁻ˣ), without overflow at any finite x."""
    return jax.nn.sigmoid(x)


def d_sigmoid(y: Values) -> Values:
    """σ'(x) = y (1 - y), where y = σ(x)."""
    return y * (1 - y)


def relu(x: Values) -> Values:
    """max(x, 0). Not differentiable at 0, where the derivative is taken as 0."""
    return jax.nn.relu(x)


def d_relu(y: Values) -> Values:
    """1 where y > 0, else 0: the convention at the kink is 0."""
    return (y > 0).astype(y.dtype)


def tanh(x: Values) -> Values:
    """tanh(x) = (eˣ - e⁻ˣ) / (eˣ + e⁻ˣ)."""
    return jnp.tanh(x)


def d_tanh(y: Values) -> Values:
    """tanh'(x) = 1 - y², where y = tanh(x)."""
    return 1 - y * y


ACTIVATIONS = {
    "sigmoid": Activation(sigmoid, d_sigmoid),
    "relu": Activation(relu, d_relu),
    "tanh": Activation(tanh, d_tanh),
}
