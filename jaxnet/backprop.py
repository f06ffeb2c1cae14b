"""The gradient of the network by the chain rule, derived by hand.

With δ the derivative of the loss by a layer's output x W + b:
d_weight = xᵀ δ,  d_bias = Σ over the batch of δ,  d_x = δ Wᵀ,
and through the activation that made x: δ of the layer below = d_x f'(x).
Source: *Deep Learning from Scratch*, chapter 5.
"""

import jax.numpy as jnp

from jaxnet.array_types import Images, Labels
from jaxnet.network import Dense, Network, Params, forward


def backprop(
    params: Params, images: Images, labels: Labels, network: Network
) -> Params:
    """The gradient of `mean_loss` by every parameter, in the form of `params`."""
    inputs, logits = forward(params, images, network)
    d_affine = network.output_loss.d_logits(logits, labels) / len(logits)
    gradient = []
    for layer, x in zip(reversed(params), reversed(inputs), strict=True):
        gradient.append(Dense(x.T @ d_affine, jnp.sum(d_affine, axis=0)))
        if x is not inputs[0]:
            d_x = d_affine @ layer.weight.T
            d_affine = d_x * network.activation.derivative(x)
    return tuple(reversed(gradient))
