"""A residual net with three custom rules, of which one may be wrong."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

WIDTH = 16


def residual_net(blocks: int, factor: float) -> tuple[Callable[[Any], Any], Any]:
    """A loss, and parameters in float32; the rule of gelu is so many times too large.

    Each block normalises by a custom_vjp, has a gelu by another, and scales by a
    custom_jvp.
    """

    @jax.custom_vjp
    def normalised(x: Any) -> Any:
        return x * jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)

    def of_normalised(x: Any, g: Any) -> Any:
        r = jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)
        return (g * r - x * r**3 * jnp.mean(g * x, -1, keepdims=True),)

    normalised.defvjp(lambda x: (normalised(x), x), of_normalised)

    @jax.custom_vjp
    def gelu(x: Any) -> Any:
        return jax.nn.gelu(x)

    gelu.defvjp(
        lambda x: (gelu(x), x),
        lambda x, g: (factor * jax.vjp(jax.nn.gelu, x)[1](g)[0],),
    )

    @jax.custom_jvp
    def scaled(x: Any, w: Any) -> Any:
        return x * w

    scaled.defjvp(lambda p, t: (p[0] * p[1], t[0] * p[1] + p[0] * t[1]))
    random = np.random.default_rng(0)

    def matrix() -> np.ndarray:
        return (random.normal(size=(WIDTH, WIDTH)) / WIDTH).astype(np.float32)

    data = jnp.asarray(random.normal(size=(4, WIDTH)), np.float32)
    params = [
        {"in": matrix(), "out": matrix(), "scale": np.ones((1, WIDTH), np.float32)}
        for _ in range(blocks)
    ]

    def loss(params: Any) -> Any:
        x = data
        for block in params:
            h = gelu(normalised(x) @ block["in"])
            x = x + scaled(h, jnp.broadcast_to(block["scale"], h.shape)) @ block["out"]
        return jnp.mean(x**2)

    return loss, params
