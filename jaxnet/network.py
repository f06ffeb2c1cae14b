"""The network: parameters as a pytree, and pure functions of them.

aₗ = f(aₗ₋₁ Wₗ + bₗ) for every hidden layer, logits = a W + b for the last.
Source: *Deep Learning from Scratch*, section 4.5 (class TwoLayerNet).
"""

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Key

from jaxnet.activations import ACTIVATIONS, Activation
from jaxnet.array_types import (
    Array,
    Images,
    Labels,
    Logits,
    Losses,
    Probabilities,
    RandomKey,
    Scalar,
)
from jaxnet.input_checks import (
    check_batch,
    check_choice,
    check_images,
    check_layer_sizes,
    check_num_parameters,
    check_positive,
    complaint,
    describe,
    without,
)
from jaxnet.losses import OUTPUTS, OutputLoss


class Dense(NamedTuple):
    """One dense layer x W + b; its gradient has the same form."""

    weight: Float[Array, "*runs inputs outputs"]
    bias: Float[Array, "*runs outputs"]


Params: TypeAlias = tuple[Dense, ...]


@dataclass(frozen=True)
class Network:
    """What the layers are; how many and how wide is up to the parameters.

    hidden: "sigmoid" (the book), "relu" or "tanh".
    output: the output layer with its loss, "softmax_cross_entropy" (the book),
        "sigmoid_cross_entropy" (log(y + 1e-7) on sigmoid outputs),
        "identity_squared_error" or "softmax_squared_error".
    Immutable and hashable: a static argument under jit.
    """

    hidden: str = "sigmoid"
    output: str = "softmax_cross_entropy"

    def __post_init__(self) -> None:
        check_choice("hidden", self.hidden, ACTIVATIONS)
        check_choice("output", self.output, OUTPUTS)

    @property
    def activation(self) -> Activation:
        """The hidden activation with its derivative."""
        return ACTIVATIONS[self.hidden]

    @property
    def output_loss(self) -> OutputLoss:
        """The output layer with its loss and derivative."""
        return OUTPUTS[self.output]


BOOK_NETWORK = Network()


@without(weight_init_std="write scale")
def init_params(
    key: RandomKey | int,
    layer_sizes: Sequence[int] = (784, 50, 10),
    scale: float = 0.01,
) -> Params:
    """Weights drawn from N(0, scale²) and biases 0, in float32.

    `key` is consumed: split it first if you need it again. A whole number is the seed
    of a key. One layer for each pair of neighbouring sizes.

    >>> [layer.weight.shape for layer in init_params(0)]
    [(784, 50), (50, 10)]
    """
    check_layer_sizes(layer_sizes)
    check_num_parameters(layer_sizes)
    check_positive("scale", scale)
    keys = jax.random.split(as_key(key), len(layer_sizes) - 1)
    return tuple(
        Dense(
            weight=scale * jax.random.normal(k, (inputs, outputs), jnp.float32),
            bias=jnp.zeros(outputs, jnp.float32),
        )
        for k, inputs, outputs in zip(
            keys, layer_sizes[:-1], layer_sizes[1:], strict=True
        )
    )


def as_key(key: RandomKey | int) -> Key[jax.Array, "*runs"]:
    """The key itself, one of `PRNGKey` as one of `jax.random.key`, or that of a seed.

    Raises:
        TypeError: it is none of these.
    """
    if isinstance(key, (jax.Array, np.ndarray)):
        if jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
            return jnp.asarray(key)
        if key.dtype == np.uint32:
            return jax.random.wrap_key_data(jnp.asarray(key))
    try:
        return jax.random.key(operator.index(key))
    except TypeError:
        expected, fix = "a key or a whole number", "pass jax.random.key(0), or 0"
        raise TypeError(complaint("key", expected, describe(key), fix)) from None


def forward(
    params: Params, images: Images, network: Network
) -> tuple[list[Float[Array, "batch inputs"]], Logits]:
    """The input of every layer, first to last, and the logits.

    Images are cast to the dtype of the parameters.
    """
    inputs: list[Array] = [jnp.asarray(images, params[0].weight.dtype)]
    for layer in params[:-1]:
        inputs.append(network.activation.value(affine(inputs[-1], layer)))
    return inputs, affine(inputs[-1], params[-1])


def affine(x: Float[Array, "batch inputs"], layer: Dense) -> Float[Array, "batch outs"]:
    """x W + b."""
    return x @ layer.weight + layer.bias[None, :]


def example_losses(
    params: Params, images: Images, labels: Labels, network: Network
) -> Losses:
    """The loss of each example, unchecked and not jitted."""
    return network.output_loss.losses(forward(params, images, network)[1], labels)


def mean_loss(
    params: Params, images: Images, labels: Labels, network: Network
) -> Scalar:
    """The mean loss over the batch, unchecked and not jitted: what gradients are of."""
    return jnp.mean(example_losses(params, images, labels, network))


def logits(params: Params, images: Images, network: Network = BOOK_NETWORK) -> Logits:
    """The last layer's values before its output function."""
    params, images = check_images(params, images, network)
    return _logits(params, images, network)


def predict(
    params: Params, images: Images, network: Network = BOOK_NETWORK
) -> Probabilities:
    """Class probabilities (the plain outputs, where the output is the identity).

    >>> params = init_params(jax.random.key(0))
    >>> predict(params, jnp.zeros((3, 784))).shape
    (3, 10)
    """
    params, images = check_images(params, images, network)
    return _predict(params, images, network)


def loss(
    params: Params, images: Images, labels: Labels, network: Network = BOOK_NETWORK
) -> Scalar:
    """The mean loss over the batch, in nats for cross entropy.

    Raises:
        TypeError, ValueError: `images` or `labels` do not fit the network; the range
            of labels is checked outside jit only.

    >>> params = init_params(jax.random.key(0))
    >>> print(f"{loss(params, jnp.zeros((3, 784)), jnp.array([0, 1, 2])):.1f} = log 10")
    2.3 = log 10
    """
    params, images, labels = check_batch(params, images, labels, network)
    return _loss(params, images, labels, network)


def accuracy(
    params: Params, images: Images, labels: Labels, network: Network = BOOK_NETWORK
) -> Scalar:
    """The share of examples, 0 to 1, whose largest output is that of the label."""
    params, images, labels = check_batch(params, images, labels, network)
    return _accuracy(params, images, labels, network)


with_static_network = partial(jax.jit, static_argnames="network")


@with_static_network
def _logits(params: Params, images: Images, network: Network) -> Logits:
    return forward(params, images, network)[1]


@with_static_network
def _predict(params: Params, images: Images, network: Network) -> Probabilities:
    return network.output_loss.probabilities(forward(params, images, network)[1])


_loss = with_static_network(mean_loss)


@with_static_network
def _accuracy(
    params: Params, images: Images, labels: Labels, network: Network
) -> Scalar:
    answers = jnp.argmax(forward(params, images, network)[1], axis=-1)
    right = answers == jnp.asarray(labels, answers.dtype)
    return jnp.mean(right, dtype=params[0].weight.dtype)
