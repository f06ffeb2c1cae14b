"""Central differences of the network's loss for every parameter, at little cost.

Nudging one weight by ±h moves one column of one layer's output x W + b by ±h x, and
nothing before it. So only that column is recomputed; its activation's change goes on
as a rank-one update of the next layer's output, and from there the network is run as
it is. An input that is exactly zero moves nothing: its difference is exactly zero and
is left out. These are the differences of the true loss that a loop over all parameters
would take, up to rounding; no derivative is used. A bias is the weight of an input 1.
"""

from typing import NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Float, Integer

from jaxnet.array_types import Array, Images, Labels
from jaxnet.devices import summed
from jaxnet.differences.central import relative_step
from jaxnet.network import Dense, Network, Params, affine, forward

CHUNK_ENTRIES = 2**18
"""How many outputs of the layer after the nudged one are recomputed at once."""

Matrix: TypeAlias = Float[Array, "rows columns"]
Nudges: TypeAlias = Float[Array, "pairs outputs"]
Number: TypeAlias = int | Integer[Array, ""]


class _Site(NamedTuple):
    """One layer, with what its nudge needs and the layers after it."""

    x: Float[Array, "batch inputs_and_one"]
    weight: Float[Array, "inputs_and_one outputs"]
    above: Params


def network_differences(
    params: Params,
    images: Images,
    labels: Labels,
    network: Network,
    mesh: Mesh | None = None,
) -> Params:
    """(loss(w + h) - loss(w - h)) / 2h for every parameter w, traceable.

    h = ∛ε max(|w|, 1) in the dtype of the parameters. Of n devices each takes every
    n-th chunk of the nudges, and their sums are added up.
    """
    if mesh is None:
        return _share(params, images, labels, network, (0, 1))

    def of_device(
        number: Number, params: Params, images: Images, labels: Labels
    ) -> Params:
        return _share(params, images, labels, network, (number, mesh.size))

    differences: Params = summed(of_device, mesh)(params, images, labels)
    return differences


def _share(
    params: Params,
    images: Images,
    labels: Labels,
    network: Network,
    share: tuple[Number, int],
) -> Params:
    """What every n-th chunk of the nudges gives, from the k-th on; share: (k, n)."""
    inputs, _ = forward(params, images, network)
    gradient = []
    for number, (layer, x) in enumerate(zip(params, inputs, strict=True)):
        site = _Site(
            x=jnp.concatenate([x, jnp.ones_like(x[:, :1])], axis=1),
            weight=jnp.concatenate([layer.weight, layer.bias[None, :]]),
            above=params[number + 1 :],
        )
        slopes = _layer_slopes(site, labels, network, share)
        gradient.append(Dense(slopes[:-1], slopes[-1]))
    return tuple(gradient)


def _layer_slopes(
    site: _Site, labels: Labels, network: Network, share: tuple[Number, int]
) -> Matrix:
    """The slopes of the mean loss of one layer's weights; the bias is their last row.

    The sum over examples runs in chunks over the (example, input) pairs that are not
    zero; how many there are is known only at run time.
    """
    x = jnp.asarray(site.x)
    batch, rows = x.shape
    width = site.weight.shape[1]
    next_width = site.above[0].weight.shape[1] if site.above else width
    chunk = max(1, min(CHUNK_ENTRIES // (width * next_width), batch * rows))
    outputs = site.x @ site.weight
    steps = relative_step(site.weight.dtype) * jnp.maximum(jnp.abs(site.weight), 1)
    count = jnp.count_nonzero(site.x)
    example, row = jnp.nonzero(site.x, size=batch * rows + chunk, fill_value=rows)
    nudged = _Nudged.of(site, outputs, labels, network)

    first, stride = jnp.asarray(share[0], count.dtype), share[1]
    rounds = ((count + chunk - 1) // chunk - first + stride - 1) // stride

    def add_chunk(turn: Integer[Array, ""], slopes: Matrix) -> Matrix:
        number = first + turn * stride
        n = jax.lax.dynamic_slice_in_dim(example, number * chunk, chunk)
        i = jax.lax.dynamic_slice_in_dim(row, number * chunk, chunk)
        n, h = jnp.minimum(n, batch - 1), steps.at[i].get(mode="clip")
        nudge = h * x.at[n, i].get(mode="clip")[:, None]
        difference = nudged.losses(n, nudge) - nudged.losses(n, -nudge)
        return jnp.asarray(slopes).at[i].add(difference / (2 * h), mode="drop")

    slopes = jax.lax.fori_loop(0, rounds, add_chunk, jnp.zeros_like(site.weight))
    return jnp.asarray(slopes / batch)


class _Nudged(NamedTuple):
    """The network from one layer's output on, for one output at a time nudged."""

    outputs: Nudges
    above: Float[Array, "batch next_outputs"]
    weight: Matrix
    labels: Labels
    rest: Params
    network: Network
    is_last: bool

    @classmethod
    def of(
        cls, site: _Site, outputs: Nudges, labels: Labels, network: Network
    ) -> "_Nudged":
        """From the outputs of the layer, unmoved."""
        if not site.above:
            eye = jnp.eye(outputs.shape[1], dtype=outputs.dtype)
            return cls(outputs, outputs, eye, labels, (), network, True)
        above = affine(network.activation.value(outputs), site.above[0])
        weight, rest = site.above[0].weight, site.above[1:]
        return cls(outputs, above, weight, labels, rest, network, False)

    def losses(self, example: Integer[Array, " pairs"], nudge: Nudges) -> Nudges:
        """The loss of each pair's example with output j moved by nudge[:, j], each j.

        The change of one unit goes on as a rank-one update of the next layer's outputs.
        """
        pairs, width = nudge.shape
        change = nudge
        if not self.is_last:
            activate = self.network.activation.value
            outputs = jnp.asarray(self.outputs)[example]
            change = activate(outputs + nudge) - activate(outputs)
        above = jnp.asarray(self.above)[example]
        moved = above[:, None, :] + change[:, :, None] * self.weight[None, :, :]
        rows: Matrix = moved.reshape(pairs * width, -1)
        for layer in self.rest:
            rows = affine(self.network.activation.value(rows), layer)
        labels = jnp.repeat(jnp.asarray(self.labels)[example], width)
        return self.network.output_loss.losses(rows, labels).reshape(pairs, width)
