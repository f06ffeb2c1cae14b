"""Losses: the book's two on probabilities, and the network's four from logits.

Each network loss stands beside its derivative by the logits, derived by hand.
Source: *Deep Learning from Scratch*, sections 4.2 and 5.6.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Bool, Float, Integer

from jaxnet.activations import d_sigmoid, sigmoid
from jaxnet.array_types import (
    Array,
    Labels,
    Logits,
    Losses,
    Probabilities,
    Scalar,
)
from jaxnet.input_checks import (
    check_classes,
    check_count,
    check_floats,
    check_one_hot,
    check_targets,
)

BOOK_EPSILON = 1e-7
"""What the book adds to a probability before its logarithm."""


def softmax(x: Float[Array, "*batch classes"]) -> Float[Array, "*batch classes"]:
    """exp(xₖ) / Σⱼ exp(xⱼ) over the last axis, shifted by the maximum: no overflow.

    >>> [round(float(share), 3) for share in softmax(np.array([0.3, 2.9, 4.0]))]
    [0.018, 0.245, 0.737]
    """
    return jax.nn.softmax(jnp.asarray(x), axis=-1)


def one_hot(
    labels: Integer[Array, "*batch"], num_classes: int = 10
) -> Float[Array, "*batch classes"]:
    """Rows with a 1 at the label and 0 elsewhere, in float32.

    Raises:
        TypeError, ValueError: labels are no class numbers; under jit, where they have
            no values, the row of a label out of range is NaN.

    >>> one_hot(np.array([2, 0]), num_classes=3).tolist()
    [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]
    """
    check_count("num_classes", num_classes)
    check_classes("labels", labels, num_classes)
    return _one_hot(labels, num_classes, jnp.float32)


def from_one_hot(
    targets: Float[Array, "*batch classes"] | Integer[Array, "*batch classes"],
) -> Integer[Array, "*batch"]:
    """Class numbers of one-hot rows.

    Raises:
        ValueError: a row is not one-hot (checked outside jit).

    >>> from_one_hot(np.array([[0, 0, 1], [1, 0, 0]])).tolist()
    [2, 0]
    """
    check_one_hot("targets", targets)
    return jnp.argmax(jnp.asarray(targets), axis=-1)


def sum_squared_error(
    y: Float[Array, "*batch classes"] | Integer[Array, "*batch classes"],
    t: Float[Array, "*batch classes"]
    | Integer[Array, "*batch classes"]
    | Integer[Array, "*batch"]
    | int
    | np.integer,
) -> Scalar:
    """½ Σ (y - t)² over one example; the mean of that over a batch.

    `t` is one-hot (shape of `y`) or class numbers (integers, shape of `y` less its
    last axis). Source: section 4.2.1, which sees one example.

    >>> y = np.array([0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0])
    >>> print(f"{sum_squared_error(y, 2):.4f}")
    0.0975
    """
    y, t = _book_arguments(y, t)
    return jnp.mean(jnp.sum((y - t) ** 2, axis=-1) / 2)


def cross_entropy_error(
    y: Float[Array, "*batch classes"] | Integer[Array, "*batch classes"],
    t: Float[Array, "*batch classes"]
    | Integer[Array, "*batch classes"]
    | Integer[Array, "*batch"]
    | int
    | np.integer,
) -> Scalar:
    """-Σₖ tₖ log(yₖ + 1e-7) in nats over one example; the mean over a batch.

    `y` are probabilities; 0 and 1 may be integers. `t` is one-hot (shape of `y`) or
    class numbers (integers, shape of `y` less its last axis), told apart by shape and
    dtype, never by size.

    Raises:
        TypeError: `t` has the shape of class numbers but is not of integers.
        ValueError: `t` has another shape, or a class number is out of range.
    Source: section 4.2.4.

    >>> y = np.array([0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0])
    >>> print(f"{cross_entropy_error(y, 2):.6f}")
    0.510825
    """
    y, t = _book_arguments(y, t)
    return jnp.mean(-jnp.sum(t * jnp.log(y + BOOK_EPSILON), axis=-1))


def _book_arguments(
    y: Array, t: Array | int | np.integer
) -> tuple[jax.Array, jax.Array]:
    y, t = jnp.asarray(y), np.asarray(t) if isinstance(t, (int, np.integer)) else t
    if jnp.issubdtype(y.dtype, np.integer):
        y = y.astype(float)
    check_floats("y", y, "pass probabilities")
    check_targets(y.shape, t)
    t = jnp.asarray(t)
    if t.ndim < y.ndim:
        return y, _one_hot(t, y.shape[-1], y.dtype)
    return y, t.astype(y.dtype)


def in_range(
    labels: Integer[Array, "*batch"], num_classes: int, dtype: DTypeLike
) -> Float[Array, "*batch"]:
    """1 for each label that is a class, NaN for any other.

    A factor of whatever a label leads to, so that its derivatives are NaN as well:
    under jit nothing can be raised, and an index out of range would be wrapped or left
    out in silence.
    """
    one, none = jnp.ones((), dtype), jnp.full((), jnp.nan, dtype)
    return jnp.where(_is_class(labels, num_classes), one, none)


def _is_class(
    labels: Integer[Array, "*batch"], num_classes: int
) -> Bool[Array, "*batch"]:
    labels = _wide(labels)
    return (labels >= 0) & (labels < num_classes)


def _one_hot(
    labels: Integer[Array, "*batch"], num_classes: int, dtype: DTypeLike
) -> Float[jax.Array, "*batch classes"]:
    """NaN rows are chosen: XLA makes 0 of NaN times a 0 that was a truth value."""
    rows = jax.nn.one_hot(_wide(labels), num_classes, dtype=dtype)
    is_class = _is_class(labels, num_classes)[..., None]
    return jnp.where(is_class, rows, jnp.full((), jnp.nan, dtype))


def _wide(labels: Integer[Array, "*batch"]) -> Integer[jax.Array, "*batch"]:
    """In 32 bits or more, which hold the number of classes: uint8 does not hold 256."""
    labels = jnp.asarray(labels)
    return labels if labels.dtype.itemsize >= 4 else labels.astype(jnp.int32)


class OutputLoss(NamedTuple):
    """An output layer with its loss, as three functions of the logits."""

    probabilities: Callable[[Logits], Probabilities]
    losses: Callable[[Logits, Labels], Losses]
    """One loss an example."""
    d_logits: Callable[[Logits, Labels], Logits]
    """Derivative of each example's loss by its own logits."""


def _targets(labels: Labels, like: Logits) -> Logits:
    return _one_hot(labels, like.shape[-1], like.dtype)


def _of_label(values: Logits, labels: Labels) -> Losses:
    marked = values * in_range(labels, values.shape[-1], values.dtype)[:, None]
    index = _wide(labels)[:, None]
    return jnp.take_along_axis(marked, index, axis=-1)[:, 0]


def softmax_cross_entropy(logits: Logits, labels: Labels) -> Losses:
    """-log softmax(logits) of the label = log Σ exp(logits) - logits of the label."""
    return jax.nn.logsumexp(logits, axis=-1) - _of_label(logits, labels)


def d_softmax_cross_entropy(logits: Logits, labels: Labels) -> Logits:
    """softmax(logits) - t: the exponentials' derivative cancels the logarithm's."""
    return softmax(logits) - _targets(labels, logits)


def sigmoid_cross_entropy(logits: Logits, labels: Labels) -> Losses:
    """-log(σ(logit of the label) + 1e-7): the book's loss on sigmoid outputs."""
    return -jnp.log(sigmoid(_of_label(logits, labels)) + BOOK_EPSILON)


def d_sigmoid_cross_entropy(logits: Logits, labels: Labels) -> Logits:
    """-t y (1 - y) / (y + 1e-7), where y = σ(logits); not y - t, which forgets 1e-7."""
    y = sigmoid(logits)
    return -_targets(labels, logits) * d_sigmoid(y) / (y + BOOK_EPSILON)


def identity_squared_error(logits: Logits, labels: Labels) -> Losses:
    """½ Σ (logits - t)²."""
    return jnp.sum((logits - _targets(labels, logits)) ** 2, axis=-1) / 2


def d_identity_squared_error(logits: Logits, labels: Labels) -> Logits:
    """logits - t."""
    return logits - _targets(labels, logits)


def softmax_squared_error(logits: Logits, labels: Labels) -> Losses:
    """½ Σ (softmax(logits) - t)²."""
    return identity_squared_error(softmax(logits), labels)


def d_softmax_squared_error(logits: Logits, labels: Labels) -> Logits:
    """y (r - Σ y r), where y = softmax(logits), r = y - t."""
    y = softmax(logits)
    r = y - _targets(labels, logits)
    return y * (r - jnp.sum(y * r, axis=-1, keepdims=True))


def _identity(logits: Logits) -> Logits:
    return logits


OUTPUTS = {
    "softmax_cross_entropy": OutputLoss(
        softmax, softmax_cross_entropy, d_softmax_cross_entropy
    ),
    "sigmoid_cross_entropy": OutputLoss(
        sigmoid, sigmoid_cross_entropy, d_sigmoid_cross_entropy
    ),
    "identity_squared_error": OutputLoss(
        _identity, identity_squared_error, d_identity_squared_error
    ),
    "softmax_squared_error": OutputLoss(
        softmax, softmax_squared_error, d_softmax_squared_error
    ),
}
