"""Random smooth functions with gradients from autodiff, and errors planted in them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gradient_cases.case import Loss, like

Family = Callable[[np.random.Generator, float], tuple[Loss, Any, Any]]
Unit = tuple[Loss, Any]  # a loss of order 1 and a point of order 1


def autodiff_gradient(loss: Loss, params: Any) -> Any:
    """The gradient by JAX in float64, as NumPy arrays."""
    with jax.enable_x64(True):
        point = jax.tree.map(jnp.asarray, params)
        return jax.tree.map(np.asarray, jax.grad(loss)(point))


def _scaled(build: Callable[[np.random.Generator], Unit]) -> Family:
    """The family of a unit problem in other units, chosen by the generator.

    loss(params) = out · unit_loss(params / inward): `scale` goes to the parameters,
    to the output, or to both. Conditioning is the unit problem's.
    """

    def family(rng: np.random.Generator, scale: float) -> tuple[Loss, Any, Any]:
        unit_loss, unit_point = build(rng)
        inward, out = ((scale, 1.0), (1.0, scale), (scale, scale))[rng.integers(3)]

        def loss(params: Any) -> jax.Array:
            return out * unit_loss(jax.tree.map(lambda leaf: leaf / inward, params))

        params = jax.tree.map(lambda leaf: leaf * inward, unit_point)
        return loss, params, autodiff_gradient(loss, params)

    return family


def _size(rng: np.random.Generator) -> int:
    return int(rng.choice([3, 5, 12, 60]))


def sines(rng: np.random.Generator) -> Unit:
    """Σ c sin(x + φ)."""
    n = _size(rng)
    c, phase = rng.standard_normal(n), rng.uniform(0, 6, n)
    return (
        lambda p: jnp.sum(like(c, p) * jnp.sin(p + like(phase, p))),
        rng.standard_normal(n),
    )


def cubics(rng: np.random.Generator) -> Unit:
    """Σ a x³ + b x² + c x."""
    n = _size(rng)
    a, b, c = rng.standard_normal((3, n))

    def loss(p: dict[str, jax.Array]) -> jax.Array:
        x = p["x"]
        return jnp.sum(((like(a, x) * x + like(b, x)) * x + like(c, x)) * x)

    return loss, {"x": rng.standard_normal(n)}


def quadratic(rng: np.random.Generator) -> Unit:
    """½ xᵀ A x - bᵀ x with A positive definite."""
    n = _size(rng)
    root, b = rng.standard_normal((n, n)) / n**0.5, rng.standard_normal(n)

    def loss(p: tuple[jax.Array]) -> jax.Array:
        (x,) = p
        mapped = like(root, x) @ x
        return 0.5 * jnp.sum(mapped**2) + 0.5 * jnp.sum(x**2) - jnp.sum(like(b, x) * x)

    return loss, (rng.standard_normal(n),)


def soft_max(rng: np.random.Generator) -> Unit:
    """Cross entropy of softmax regression."""
    inputs = rng.standard_normal((6, 4))
    targets = np.eye(3)[rng.integers(3, size=6)]

    def loss(p: dict[str, jax.Array]) -> jax.Array:
        z = like(inputs, p["w"]) @ p["w"] + p["b"][None, :]
        return -jnp.mean(jnp.sum(like(targets, z) * jax.nn.log_softmax(z), axis=1))

    return loss, {"w": rng.standard_normal((4, 3)), "b": rng.standard_normal(3)}


def sigmoid_network(rng: np.random.Generator) -> Unit:
    """Squared error of a sigmoid layer and a linear one."""
    inputs, targets = rng.standard_normal((6, 4)), rng.standard_normal((6, 3))

    def loss(p: dict[str, jax.Array]) -> jax.Array:
        h = jax.nn.sigmoid(like(inputs, p["w1"]) @ p["w1"] + p["b1"][None, :])
        return jnp.mean((h @ p["w2"] - like(targets, h)) ** 2)

    return loss, {
        "w1": rng.standard_normal((4, 5)),
        "b1": rng.standard_normal(5),
        "w2": rng.standard_normal((5, 3)),
    }


def rational(rng: np.random.Generator) -> Unit:
    """Σ (c + x) / (1 + x²)."""
    n = _size(rng)
    c = rng.standard_normal(n)
    return (
        lambda p: jnp.sum((like(c, p["x"]) + p["x"]) / (1 + p["x"] ** 2)),
        {"x": rng.standard_normal(n)},
    )


def bumps(rng: np.random.Generator) -> Unit:
    """log Σ_k exp(-½ ‖x - m_k‖²): a mixture of Gaussians."""
    centres = rng.standard_normal((4, 5))

    def loss(p: list[jax.Array]) -> jax.Array:
        distances = jnp.sum((p[0][None, :] - like(centres, p[0])) ** 2, axis=1)
        return jax.nn.logsumexp(-0.5 * distances)

    return loss, [rng.standard_normal(5)]


def decays(rng: np.random.Generator) -> Unit:
    """Least squares of a sum of two exponential decays."""
    times = np.linspace(0, 3, 20)
    observed = rng.standard_normal(20)

    def loss(p: dict[str, jax.Array]) -> jax.Array:
        rates = jnp.exp(p["log_rate"])
        curves = jnp.exp(-like(times, rates)[:, None] * rates[None, :])
        return jnp.mean((curves @ p["height"] - like(observed, rates)) ** 2)

    return loss, {
        "log_rate": 0.5 * rng.standard_normal(3),
        "height": rng.normal(size=3),
    }


def gaussian_likelihood(rng: np.random.Generator) -> Unit:
    """Negative log likelihood with covariance M Mᵀ + I, by Cholesky."""
    data = rng.standard_normal(4)

    def loss(p: dict[str, jax.Array]) -> jax.Array:
        m = p["m"]
        factor = jnp.linalg.cholesky(m @ m.T + jnp.eye(4, dtype=m.dtype))
        centred = like(data, m) - p["mean"]
        white = jax.scipy.linalg.solve_triangular(factor, centred, lower=True)
        return 0.5 * jnp.sum(white**2) + jnp.sum(jnp.log(jnp.diag(factor)))

    return loss, {"m": rng.standard_normal((4, 4)), "mean": rng.standard_normal(4)}


def recurrence(rng: np.random.Generator) -> Unit:
    """Σ c h_T, h_t = tanh(x_t U + h_{t-1} V)."""
    tokens, c = rng.standard_normal((5, 4)), rng.standard_normal(3)

    def loss(p: dict[str, jax.Array]) -> jax.Array:
        def step(h: jax.Array, token: jax.Array) -> tuple[jax.Array, None]:
            return jnp.tanh(token @ p["u"] + h @ p["v"]), None

        h, _ = jax.lax.scan(step, like(np.zeros(3), p["u"]), like(tokens, p["u"]))
        return jnp.sum(like(c, h) * h)

    return loss, {
        "u": 0.5 * rng.standard_normal((4, 3)),
        "v": 0.5 * rng.standard_normal((3, 3)),
    }


def self_attention(rng: np.random.Generator) -> Unit:
    """Σ c softmax(X W Xᵀ) X."""
    tokens, c = rng.standard_normal((5, 3)), rng.standard_normal((5, 3))

    def loss(p: dict[str, jax.Array]) -> jax.Array:
        x = like(tokens, p["w"])
        return jnp.sum(like(c, x) * (jax.nn.softmax(x @ p["w"] @ x.T, axis=1) @ x))

    return loss, {"w": 0.5 * rng.standard_normal((3, 3))}


def normalised_layer(rng: np.random.Generator) -> Unit:
    """Σ c tanh(γ ẑ + β) with z = X W normalised over its features."""
    inputs, c = rng.standard_normal((5, 3)), rng.standard_normal((5, 4))

    def loss(p: dict[str, jax.Array]) -> jax.Array:
        z = like(inputs, p["w"]) @ p["w"]
        centred = z - jnp.mean(z, axis=1, keepdims=True)
        unit = centred / jnp.sqrt(jnp.mean(centred**2, axis=1, keepdims=True) + 0.1)
        out = jnp.tanh(p["gamma"][None, :] * unit + p["beta"][None, :])
        return jnp.sum(like(c, out) * out)

    return loss, {
        "w": rng.standard_normal((3, 4)),
        "gamma": 1 + 0.1 * rng.standard_normal(4),
        "beta": rng.standard_normal(4),
    }


def barrier(rng: np.random.Generator) -> Unit:
    """cᵀx - Σ log x + Σ √x, x between 0.5 and 2."""
    n = _size(rng)
    c = rng.standard_normal(n)

    def loss(p: dict[str, jax.Array]) -> jax.Array:
        x = p["x"]
        return jnp.sum(like(c, x) * x - jnp.log(x) + jnp.sqrt(x))

    return loss, {"x": rng.uniform(0.5, 2, n)}


def convolution(rng: np.random.Generator) -> Unit:
    """Σ c tanh(signal * kernel + b), one-dimensional."""
    signal, c = rng.standard_normal(12), rng.standard_normal(8)

    def loss(p: dict[str, jax.Array]) -> jax.Array:
        features = jnp.convolve(like(signal, p["kernel"]), p["kernel"], mode="valid")
        return jnp.sum(like(c, features) * jnp.tanh(features + p["bias"]))

    return loss, {"kernel": 0.5 * rng.standard_normal(5), "bias": np.asarray(0.3)}


FAMILIES: dict[str, Family] = {
    build.__name__: _scaled(build)
    for build in (
        sines,
        cubics,
        quadratic,
        soft_max,
        sigmoid_network,
        rational,
        bumps,
        decays,
        gaussian_likelihood,
        recurrence,
        self_attention,
        normalised_layer,
        barrier,
        convolution,
    )
}


def plant(
    rng: np.random.Generator, gradient: Any, relative: float = 1e-3
) -> tuple[Any, str, tuple[int, ...]]:
    """The gradient with one coordinate off by `relative`, its leaf and its index.

    The coordinate is at least a tenth of its leaf's rms: an error that matters.
    """
    entries, tree = jax.tree_util.tree_flatten_with_path(gradient)
    leaves = [np.array(leaf) for _, leaf in entries]
    live = [i for i, leaf in enumerate(leaves) if np.any(leaf)]
    which = int(rng.choice(live))
    leaf = leaves[which]
    heavy = np.argwhere(np.abs(leaf) >= 0.1 * np.sqrt(np.mean(leaf**2)))
    index = tuple(int(i) for i in heavy[rng.integers(len(heavy))])
    leaf[index] *= 1 + relative * rng.choice([-1.0, 1.0])
    path = jax.tree_util.keystr(entries[which][0])
    return jax.tree.unflatten(tree, leaves), path, index
