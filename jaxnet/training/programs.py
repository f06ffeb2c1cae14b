"""The three programs of a run: draw an epoch's batches, take its steps, evaluate.

Each is compiled once, for arrays of one form, before or while the data are read.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Int32

from jaxnet import gradients
from jaxnet.array_types import Array, Images, Labels, PyTree, RandomKey
from jaxnet.devices import automatic, check_divides, check_one_axis, whole
from jaxnet.mnist import Mnist
from jaxnet.network import BOOK_NETWORK, Dense, Network, Params, logits, mean_loss
from jaxnet.training.minibatches import epoch_indices, steps_per_epoch
from jaxnet.training.state import RUNS_AXES, SGD, State
from jaxnet.xla_options import BY_EIGEN, IN_HASTE, Options, compiled

EVALUATED_AT_ONCE = 2000
"""How many images the evaluation looks at together."""

VECTOR = 16
"""float32 numbers in one register of AVX-512."""

_MOST_OF_1_255 = np.float32(int(2**24 / 255) / 2**24)
"""16 bits, so that its product with a byte is exact, and the sum is rounded once."""
_REST_OF_1_255 = np.float32(1 / 255 - float(_MOST_OF_1_255))

Batches = Int32[Array, "*runs steps batch"]


class Recipe(NamedTuple):
    """What the programs are compiled for, besides shapes: hashable."""

    network: Network = BOOK_NETWORK
    gradient: gradients.Gradient = gradients.backprop
    optimizer: optax.GradientTransformation = SGD
    batch_size: int = 100
    replacement: bool = True
    mesh: Mesh | None = None


class Programs(NamedTuple):
    """The compiled programs, as functions of arrays on the device."""

    draw: Callable[..., Batches]
    run_steps: Callable[..., tuple[State, Float[jax.Array, "*runs steps"]]]
    evaluate: Callable[..., tuple[Float[jax.Array, "*runs"], Float[jax.Array, "*runs"]]]


def compile_programs(recipe: Recipe, state: State, data: Mnist) -> Programs:
    """The programs for arrays of these forms; the values are not looked at.

    Kept: `train` finds what another thread compiled for it while the data were read.

    Raises:
        ValueError: the batch does not divide among the devices of the mesh.
    """
    check_mesh(recipe)
    recipe = recipe._replace(mesh=automatic(recipe.mesh))
    everywhere = _replicated(recipe.mesh)
    forms = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=everywhere),
        (state, data),
    )
    leaves, structure = jax.tree.flatten(forms)
    return _compile(recipe, structure, tuple(leaves))


@cache
def _compile(
    recipe: Recipe, structure: Any, leaves: tuple[jax.ShapeDtypeStruct, ...]
) -> Programs:
    state, data = structure.unflatten(leaves)
    count, runs = len(data.train_labels), state.key.shape
    draw, run_steps = partial(_draw, recipe, count), partial(_run_steps, recipe)
    evaluate = partial(_evaluate, recipe.network)
    if runs:
        draw = jax.vmap(draw, (0, None))
        run_steps = jax.vmap(run_steps, (RUNS_AXES, None, 0, None), (RUNS_AXES, 0))
        evaluate = jax.vmap(evaluate, (0, None))
    everywhere, split = _replicated(recipe.mesh), _split(recipe.mesh, runs)
    number, bounds = (
        jax.ShapeDtypeStruct(shape, np.int32, sharding=everywhere)
        for shape in ((), (2,))
    )
    shape = (*runs, steps_per_epoch(count, recipe.batch_size), recipe.batch_size)
    batches = jax.ShapeDtypeStruct(shape, np.int32, sharding=split)
    by_products = recipe.gradient in (gradients.backprop, gradients.autodiff)
    products = BY_EIGEN if by_products else {}
    jobs = [
        _Job(run_steps, (state, data, batches, bounds), everywhere, products),
        _Job(draw, (state.key, number), split, IN_HASTE),
        _Job(evaluate, (state.params, data), everywhere, {}),
    ]
    with ThreadPoolExecutor(len(jobs)) as threads:
        run_steps, draw, evaluate = threads.map(_compile_one, jobs)
    return Programs(draw, run_steps, evaluate)


class _Job(NamedTuple):
    """One program, the forms of its arguments, and how it is compiled on a CPU."""

    function: Callable[..., Any]
    forms: tuple[Any, ...]
    sharding: NamedSharding | None
    options: Options


def _compile_one(job: _Job) -> Any:
    return compiled(job.function, job.options, *job.forms, sharding=job.sharding)


def _draw(
    recipe: Recipe, num_examples: int, key: RandomKey, epoch: Int32[Array, ""]
) -> Int32[Array, "steps batch"]:
    size, replacement = recipe.batch_size, recipe.replacement
    return epoch_indices(key, epoch, num_examples, size, replacement)


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

    def step(i: Any, carry: Any) -> Any:
        params, optimizer_state, losses = carry
        images = _levels(_rows(data.train_images, batches[i]))
        labels = _rows(data.train_labels, batches[i])
        loss = mean_loss(params, images, labels, recipe.network)
        slopes = recipe.gradient(params, images, labels, network=recipe.network)
        with jax.numpy_dtype_promotion("standard"):  # as Optax's optimisers expect
            updates, optimizer_state = recipe.optimizer.update(
                slopes, optimizer_state, params
            )
        params = optax.apply_updates(params, updates)
        return params, optimizer_state, losses.at[i].set(loss)

    begin, end = bounds
    losses = jnp.zeros(len(batches), state.params[0].weight.dtype)
    params, optimizer_state, losses = jax.lax.fori_loop(
        begin, end, step, (state.params, state.optimizer_state, losses)
    )
    return State(params, optimizer_state, state.step + end - begin, state.key), losses


def _evaluate(
    network: Network, params: Params, data: Mnist
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The accuracies on all training and all test images."""
    return (
        _accuracy(params, data.train_images, data.train_labels, network),
        _accuracy(params, data.test_images, data.test_labels, network),
    )


def _accuracy(
    params: Params, images: Array, labels: Labels, network: Network
) -> Float[Array, ""]:
    """The share of right answers, counted piece by piece: a piece fits the cache.

    The last piece reaches back into the one before, and counts only what is new.
    """
    count, size = len(images), min(len(images), EVALUATED_AT_ONCE)
    params = _widened(params)

    def count_right(piece: Any, right: Any) -> Any:
        first = jnp.minimum(piece * size, count - size)
        some = jax.lax.dynamic_slice_in_dim(images, first, size)
        answers = jnp.argmax(logits(params, _levels(some), network), axis=-1)
        wanted = jax.lax.dynamic_slice_in_dim(labels, first, size)
        is_new = first + jnp.arange(size) >= piece * size
        return right + jnp.sum(is_new & (answers == wanted), dtype=jnp.int32)

    right = jax.lax.fori_loop(0, -(-count // size), count_right, jnp.int32(0))
    return right.astype(params[0].weight.dtype) / count


def _widened(params: Params) -> Params:
    """The same network, its hidden layers filled up to whole vectors of the CPU.

    The weights from the new units on are 0: they change no logit, and products of such
    matrices are faster.
    """
    wide = []
    for number, (weight, bias) in enumerate(params):
        inputs = -weight.shape[0] % VECTOR if number else 0
        outputs = -weight.shape[1] % VECTOR if number < len(params) - 1 else 0
        weight = jnp.pad(weight, ((0, inputs), (0, outputs)))
        wide.append(Dense(weight, jnp.pad(bias, (0, outputs))))
    return tuple(wide)


def _rows(array: Any, indices: Any) -> Any:
    return array.at[indices].get(mode="promise_in_bounds")


def _levels(images: Any) -> Images:
    """Grey levels in [0, 1], of bytes or as they are.

    A division by 255, XLA makes a product with 1/255, which is off in the last bit for
    every other byte; so 1/255 comes in two parts.
    """
    if images.dtype != np.uint8:
        return images
    images = images.astype(np.float32)
    return images * _MOST_OF_1_255 + images * _REST_OF_1_255


def place(tree: PyTree, mesh: Mesh | None) -> PyTree:
    """The arrays on the device, or whole on every device of the mesh.

    Every process of the mesh passes the same arrays.
    """
    if mesh is None:
        return jax.device_put(tree)

    def put(leaf: Any) -> jax.Array:
        if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
            words = put(jax.random.key_data(leaf))
            return jax.random.wrap_key_data(words, impl=jax.random.key_impl(leaf))
        local = np.asarray(leaf)
        return jax.make_array_from_process_local_data(whole(mesh), local)

    return jax.tree.map(put, tree)


def _replicated(mesh: Mesh | None) -> NamedSharding | None:
    return None if mesh is None else whole(mesh)


def _split(mesh: Mesh | None, runs: tuple[int, ...]) -> NamedSharding | None:
    """Every batch spread over the devices."""
    if mesh is None:
        return None
    spec = PartitionSpec(*(None for _ in runs), None, mesh.axis_names[0])
    return NamedSharding(mesh, spec)


def check_mesh(recipe: Recipe) -> None:
    """One axis, whose size divides the batch."""
    if recipe.mesh is None:
        return
    check_one_axis(recipe.mesh.axis_names)
    check_divides("batch_size", recipe.batch_size, recipe.mesh.size)
