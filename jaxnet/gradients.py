"""Three routes to one gradient, with one signature.

gradient(params, images, labels, network) -> Params
"""

from collections.abc import Callable
from contextlib import nullcontext
from functools import cache, partial, wraps
from typing import Any, Protocol, runtime_checkable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxnet import backprop as by_hand
from jaxnet.array_types import Images, Labels
from jaxnet.devices import automatic
from jaxnet.differences.of_network import network_differences
from jaxnet.input_checks import check_batch, check_choice, check_untraced
from jaxnet.losses import in_range
from jaxnet.network import BOOK_NETWORK, Network, Params, mean_loss, with_static_network


@runtime_checkable
class Gradient(Protocol):
    """What every route is, and what the verifier and the training step take."""

    def __call__(
        self, params: Params, images: Images, labels: Labels, network: Network = ...
    ) -> Params:
        """The gradient of the mean loss by `params`, in their form."""


def backprop(
    params: Params, images: Images, labels: Labels, network: Network = BOOK_NETWORK
) -> Params:
    """The gradient by the chain rule derived by hand, in the dtype of `params`.

    >>> from jaxnet import init_params
    >>> batch = init_params(jax.random.key(0)), jnp.ones((1, 784)), jnp.array([2])
    >>> hand, tool = backprop(*batch), autodiff(*batch)
    >>> [float(jnp.abs(a - b).max()) < 1e-6 for a, b in zip(hand[0], tool[0])]
    [True, True]
    """
    params, images, labels = check_batch(params, images, labels, network)
    return _backprop(params, images, labels, network)


def autodiff(
    params: Params, images: Images, labels: Labels, network: Network = BOOK_NETWORK
) -> Params:
    """The gradient by `jax.grad`, in the dtype of `params`."""
    params, images, labels = check_batch(params, images, labels, network)
    return _autodiff(params, images, labels, network)


def numerical(
    params: Params,
    images: Images,
    labels: Labels,
    network: Network = BOOK_NETWORK,
    *,
    dtype: Any = np.float64,
    mesh: Mesh | None = None,
) -> Params:
    """The gradient by central differences of the loss, with h = ∛ε max(|w|, 1).

    In float64 by default, with NumPy float64 leaves, whatever the dtype of `params`.
    With dtype=jnp.float32 it computes in float32, returns JAX arrays and can be traced,
    as training needs; its error is then some 1e-4 of the loss instead of 1e-10.
    `mesh` spreads the differences over the devices of its one axis: every process
    passes the same arrays, and gets what one device gives, up to the rounding of sums.

    >>> from jaxnet import init_params
    >>> batch = init_params(jax.random.key(0)), jnp.ones((1, 784)), jnp.array([2])
    >>> [(layer.weight.shape, str(layer.bias.dtype)) for layer in numerical(*batch)]
    [((784, 50), 'float64'), ((50, 10), 'float64')]
    """
    mesh = automatic(mesh)
    if np.dtype(dtype) == np.float64:
        fix = "pass dtype=jnp.float32, or call numerical outside jit, grad and vmap"
        check_untraced("numerical in float64", (params, images, labels), fix)
    with jax.enable_x64(True) if np.dtype(dtype) == np.float64 else nullcontext():
        params, images, labels = check_batch(params, images, labels, network)
        gradient = _numerical(_cast(params, dtype), images, labels, network, mesh)
        if np.dtype(dtype) == np.float64:
            return jax.tree.map(np.asarray, gradient)
        return gradient


def _cast(params: Params, dtype: Any) -> Params:
    return jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)


def _marked(gradient: Callable[..., Params]) -> Callable[..., Params]:
    """The gradient, and NaN in every entry of it where a label is no class.

    The loss is NaN then. Alone, each route would leave out other entries: differences
    those of an input 0, derivatives those of a relu that is shut.
    """

    @wraps(gradient)
    def marked(
        params: Params, images: Images, labels: Labels, network: Network, *mesh: Any
    ) -> Params:
        bias = params[-1].bias
        mark = jnp.prod(in_range(labels, len(bias), bias.dtype))
        slopes = gradient(params, images, labels, network, *mesh)
        return jax.tree.map(lambda leaf: leaf * mark.astype(leaf.dtype), slopes)

    return marked


_backprop = with_static_network(_marked(by_hand.backprop))
_autodiff = with_static_network(_marked(jax.grad(mean_loss)))
_numerical = jax.jit(_marked(network_differences), static_argnums=(3, 4))

ROUTES: dict[str, Gradient] = {
    "backprop": backprop,
    "autodiff": autodiff,
    "numerical": numerical,
}


@cache
def traceable(name: str, mesh: Mesh | None = None) -> Gradient:
    """The route of a name as training takes it: the numerical one in float32.

    `mesh` is the numerical route's.
    """
    check_choice("gradient", name, ROUTES)
    if name == "numerical":
        return partial(numerical, dtype=jnp.float32, mesh=mesh)
    return ROUTES[name]
