"""Activations: each value beside its derivative, derived by hand.

The derivative is written in terms of the *output* y = f(x), which a forward pass
has kept anyway. Source: *Deep Learning from Scratch*, sections 3.2 and 5.5.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Float, Integer

from jaxnet.array_types import Array

Values = Float[Array, "*shape"]

Given = Values | Integer[Array, "*shape"] | Sequence[Any] | float | int
"""Integers and lists, as in the book's first examples, become floats."""


class Activation(NamedTuple):
    """A function of each element, and its derivative as a function of its output."""

    value: Callable[[Given], Values]
    derivative: Callable[[Values], Values]


def sigmoid(x: Given) -> Values:
    """σ(x) = 1 / (1 + e⁻ˣ), without overflow at any finite x."""
    return jax.nn.sigmoid(_floats(x))


def d_sigmoid(y: Values) -> Values:
    """σ'(x) = y (1 - y), where y = σ(x)."""
    return y * (1 - y)


def relu(x: Given) -> Values:
    """max(x, 0). Not differentiable at 0, where the derivative is taken as 0."""
    return jax.nn.relu(_floats(x))


def d_relu(y: Values) -> Values:
    """1 where y > 0, else 0: the convention at the kink is 0."""
    return (y > 0).astype(y.dtype)


def tanh(x: Given) -> Values:
    """tanh(x) = (eˣ - e⁻ˣ) / (eˣ + e⁻ˣ)."""
    return jnp.tanh(_floats(x))


def d_tanh(y: Values) -> Values:
    """tanh'(x) = 1 - y², where y = tanh(x)."""
    return 1 - y * y


def _floats(x: Given) -> Values:
    array = jnp.asarray(x)
    return array if jnp.issubdtype(array.dtype, jnp.inexact) else array.astype(float)


ACTIVATIONS = {
    "sigmoid": Activation(sigmoid, d_sigmoid),
    "relu": Activation(relu, d_relu),
    "tanh": Activation(tanh, d_tanh),
}
