"""The book's way to a numeric gradient, in NumPy: the pace that others are held to.

Every number is nudged by ±1e-4 in its place, and the whole function computed anew.
Source: *Deep Learning from Scratch*, sections 4.4 and 4.5.
"""

from collections.abc import Callable

import numpy as np

BOOK_STEP = 1e-4


def numerical_gradient(
    function: Callable[[np.ndarray], float], x: np.ndarray
) -> np.ndarray:
    """The slopes by every entry of `x`, which is written to and put right again."""
    slopes = np.zeros_like(x)
    entries = np.nditer(x, flags=["multi_index"])
    for _ in entries:
        index = entries.multi_index
        kept = x[index]
        x[index] = kept + BOOK_STEP
        above = function(x)
        x[index] = kept - BOOK_STEP
        below = function(x)
        slopes[index] = (above - below) / (2 * BOOK_STEP)
        x[index] = kept
    return slopes


def network_gradient(
    params: list[np.ndarray], images: np.ndarray, labels: np.ndarray
) -> list[np.ndarray]:
    """The slopes of the loss by W1, b1, W2 and b2, one array after the other."""
    return [
        numerical_gradient(lambda _: loss(params, images, labels), array)
        for array in params
    ]


def loss(params: list[np.ndarray], images: np.ndarray, labels: np.ndarray) -> float:
    """The mean cross entropy of sigmoid and softmax layers.

    Without the book's + 1e-7 in the logarithm, so that it is the loss of the others.
    """
    first_weight, first_bias, weight, bias = params
    hidden = 1 / (1 + np.exp(-(images @ first_weight + first_bias)))
    logits = hidden @ weight + bias
    exp = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares = exp / exp.sum(axis=1, keepdims=True)
    return -np.log(shares[np.arange(len(labels)), labels]).sum() / len(labels)
