"""The three programs of a run: draw an epoch's batches, take its steps, evaluate.

Each is compiled at its first call, once for arrays of one form, and kept.
"""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Bool, Float, Int32, UInt8

from jaxnet import gradients
from jaxnet.array_types import Array, Images, Labels, PyTree
from jaxnet.devices import automatic, check_divides, whole
from jaxnet.mnist import GREY_LEVELS, Mnist
from jaxnet.network import BOOK_NETWORK, Network, Params, logits, mean_loss
from jaxnet.training.minibatches import epoch_indices
from jaxnet.training.state import RUNS_AXES, SGD, State

EVALUATED_AT_ONCE = 2000
"""How many images the evaluation looks at together: their layers fit the cache."""

RawImages: TypeAlias = Images | UInt8[Array, "batch pixels"]


class Recipe(NamedTuple):
    """What the programs are compiled for, besides shapes: hashable."""

    network: Network = BOOK_NETWORK
    gradient: gradients.Gradient = gradients.backprop
    optimizer: optax.GradientTransformation = SGD
    batch_size: int = 100
    replacement: bool = True
    mesh: Mesh | None = None


class Programs(NamedTuple):
    """The programs, as functions of arrays on the device."""

    draw: Callable[..., Int32[Array, "*runs steps batch"]]
    run_steps: Callable[..., tuple[State, Float[jax.Array, "*runs steps"]]]
    evaluate: Callable[..., tuple[Float[jax.Array, "*runs"], Float[jax.Array, "*runs"]]]


def compile_programs(recipe: Recipe, state: State, data: Mnist) -> Programs:
    """The programs of runs like this one, each compiled at its first call, and kept.

    Raises:
        ValueError: the batch does not divide among the devices of the mesh.
    """
    recipe = recipe._replace(mesh=automatic(recipe.mesh))
    if recipe.mesh is not None:
        check_divides("batch_size", recipe.batch_size, recipe.mesh.size)
    return _programs(recipe, len(data.train_labels), state.key.ndim)


@cache
def _programs(recipe: Recipe, num_examples: int, runs_axes: int) -> Programs:
    draw: Callable[..., Any] = partial(
        epoch_indices,
        num_examples=num_examples,
        batch_size=recipe.batch_size,
        replacement=recipe.replacement,
    )
    run_steps, evaluate = partial(_run_steps, recipe), partial(_evaluate, recipe)
    if runs_axes:
        draw = jax.vmap(draw, (0, None))
        run_steps = jax.vmap(run_steps, (RUNS_AXES, None, 0, None), (RUNS_AXES, 0))
        evaluate = jax.vmap(evaluate, (0, None))
    everywhere = split = None
    if recipe.mesh is not None:
        over_devices = (*(None,) * (runs_axes + 1), recipe.mesh.axis_names[0])
        split = NamedSharding(recipe.mesh, PartitionSpec(*over_devices))
        everywhere = whole(recipe.mesh)
    return Programs(
        jax.jit(draw, out_shardings=split),
        jax.jit(run_steps, out_shardings=everywhere),
        jax.jit(evaluate, out_shardings=everywhere),
    )


_Carry: TypeAlias = tuple[Params, PyTree, Float[Array, " steps"]]


def _run_steps(
    recipe: Recipe,
    state: State,
    data: Mnist,
    batches: Int32[Array, "steps batch"],
    bounds: Int32[Array, "2"],
) -> tuple[State, Float[Array, " steps"]]:
    """Steps bounds[0] to bounds[1] of one epoch, from 0 in every epoch.

    The losses have a place for every step of the epoch. The bounds are values, so that
    the last, shorter epoch needs no program of its own.
    """

    def step(i: Int32[Array, ""], carry: _Carry) -> _Carry:
        params, optimizer_state, losses = carry
        images = _levels(data.train_images[batches[i]])
        labels = data.train_labels[batches[i]]
        loss = mean_loss(params, images, labels, recipe.network)
        slopes = recipe.gradient(params, images, labels, network=recipe.network)
        with jax.numpy_dtype_promotion("standard"):  # as Optax's optimisers expect
            updates, optimizer_state = recipe.optimizer.update(
                slopes, optimizer_state, params
            )
        params = optax.apply_updates(params, updates)
        return params, optimizer_state, jnp.asarray(losses).at[i].set(loss)

    begin, end = bounds
    losses = jnp.zeros(len(batches), state.params[0].weight.dtype)
    params, optimizer_state, losses = jax.lax.fori_loop(
        begin, end, step, (state.params, state.optimizer_state, losses)
    )
    return State(params, optimizer_state, state.step + end - begin, state.key), losses


def _evaluate(
    recipe: Recipe, params: Params, data: Mnist
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The accuracies on all training and all test images."""
    return (
        _accuracy(params, data.train_images, data.train_labels, recipe.network),
        _accuracy(params, data.test_images, data.test_labels, recipe.network),
    )


def _accuracy(
    params: Params, images: RawImages, labels: Labels, network: Network
) -> Float[Array, ""]:
    """The share of right answers."""

    def is_right(example: tuple[Array, Array]) -> Bool[Array, ""]:
        image, label = example
        (scores,) = logits(params, _levels(image[None]), network)
        return jnp.argmax(scores) == label

    right = jax.lax.map(is_right, (images, labels), batch_size=EVALUATED_AT_ONCE)
    return jnp.mean(right, dtype=params[0].weight.dtype)


def _levels(images: RawImages) -> Images:
    """Grey levels in [0, 1], of bytes or as they are.

    They are looked up: XLA makes a division by 255 a product with 1/255, which is off
    in the last bit for every other byte.
    """
    return jnp.asarray(GREY_LEVELS)[images] if images.dtype == np.uint8 else images


def place(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """The arrays on the device, or whole on every device of the mesh.

    Every process of the mesh passes the same arrays.
    """
    if mesh is None:
        return jax.device_put(tree)

    def put(leaf: Array) -> Array:
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        local = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        placed: jax.Array = jax.make_array_from_process_local_data(whole(mesh), local)
        if not is_key:
            return placed
        key: Array = jax.random.wrap_key_data(placed, impl=jax.random.key_impl(leaf))
        return key

    return jax.tree.map(put, tree)
