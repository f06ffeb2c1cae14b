"""Small problems for the tests: random parameters, images and labels in NumPy."""

from itertools import pairwise

import numpy as np

from jaxnet.network import Dense, Network, Params

SIZES = {1: (5, 4), 2: (5, 6, 4), 3: (5, 6, 3, 4), 4: (5, 6, 3, 5, 4)}
"""Layer sizes by the number of layers; no two neighbours are equal."""

Problem = tuple[Params, np.ndarray, np.ndarray]


def problem(num_layers: int = 2, dtype: str = "float64", seed: int = 0) -> Problem:
    """Biases are random and not zero, so that no relu sits exactly at its kink."""
    rng = np.random.default_rng(seed)
    sizes = SIZES[num_layers]
    params = tuple(
        Dense(
            rng.normal(size=shape).astype(dtype),
            rng.normal(size=shape[1]).astype(dtype),
        )
        for shape in pairwise(sizes)
    )
    images = rng.uniform(size=(7, sizes[0])).astype(dtype)
    images[rng.uniform(size=images.shape) < 0.4] = 0
    return params, images, rng.integers(sizes[-1], size=7)


def every_network() -> list[Network]:
    """Three activations with four outputs."""
    outputs = (
        "softmax_cross_entropy",
        "sigmoid_cross_entropy",
        "identity_squared_error",
        "softmax_squared_error",
    )
    return [Network(h, o) for h in ("sigmoid", "relu", "tanh") for o in outputs]


def name(network: Network) -> str:
    """A short name for a test's identifier."""
    return f"{network.hidden}-{network.output}"
