"""Functions with derivative rules by hand; in those of PLANTED there is a mistake."""

from functools import partial

import jax
import jax.numpy as jnp


@jax.custom_jvp
def softplus(x):
    """log(1 + exp(x)), without overflow."""
    return jnp.maximum(x, 0) + jnp.log1p(jnp.exp(-jnp.abs(x)))


@softplus.defjvp
def _softplus_jvp(primals, tangents):
    (x,), (t,) = primals, tangents
    return softplus(x), t * jax.nn.sigmoid(x)


def swish_of(factor):
    """x σ(x), whose rule is off by a factor."""

    @jax.custom_jvp
    def swish(x):
        return x * jax.nn.sigmoid(x)

    @swish.defjvp
    def swish_jvp(primals, tangents):
        (x,), (t,) = primals, tangents
        s = jax.nn.sigmoid(x)
        return swish(x), factor * t * (s + x * s * (1 - s))

    return swish


def layer_norm_of(with_mean):
    """(x - mean) / σ over the last axis; a wrong rule forgets what the mean does."""

    @partial(jax.custom_vjp, nondiff_argnums=(1,))
    def layer_norm(x, eps):
        centred = x - x.mean(-1, keepdims=True)
        return centred / jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + eps)

    def forward(x, eps):
        y = layer_norm(x, eps)
        scale = 1 / jnp.sqrt(x.var(-1, keepdims=True) + eps)
        return y, (y, scale)

    def backward(eps, residuals, cotangent):
        y, scale = residuals
        along = cotangent * y
        less = cotangent.mean(-1, keepdims=True) if with_mean else 0.0
        return (scale * (cotangent - less - y * along.mean(-1, keepdims=True)),)

    layer_norm.defvjp(forward, backward)
    return layer_norm


def cross_entropy_of(smallest):
    """log Σ exp - logit; a wrong rule leaves out small slopes."""

    @jax.custom_vjp
    def cross_entropy(logits, label):
        return jax.nn.logsumexp(logits) - logits[label]

    def forward(logits, label):
        return cross_entropy(logits, label), (jax.nn.softmax(logits), label)

    def backward(residuals, cotangent):
        probabilities, label = residuals
        slope = probabilities - jax.nn.one_hot(label, probabilities.size)
        slope = jnp.where(jnp.abs(slope) < smallest, 0, slope)
        return cotangent * slope, None

    cross_entropy.defvjp(forward, backward)
    return cross_entropy


X = jnp.array([[0.5, -1.25, 2.0], [0.25, 1.5, -0.75]])
RIGHT = {
    "softplus": (softplus, (X,)),
    "swish": (swish_of(1.0), (X,)),
    "layer_norm": (layer_norm_of(True), (X, 1e-3)),
    "cross_entropy": (cross_entropy_of(0.0), (X[0], 1)),
}
PLANTED = {
    "swish_scaled": (swish_of(1.01), (X,)),
    "layer_norm_without_mean": (layer_norm_of(False), (10 * X, 1e-3)),
    "cross_entropy_cut": (cross_entropy_of(0.1), (X[1], 1)),
}
