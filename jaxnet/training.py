"""Training: a State, one compiled program an epoch, and a History of what came of it.

Which batch a step takes depends on (key, step) alone, so a run goes on from any State
as if it had never stopped. Many runs at once are one whose State has a leading axis.
Source: *Deep Learning from Scratch*, section 4.5.2.
"""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Float, Float32, Int, Int32

from jaxnet import gradients
from jaxnet.array_types import Array, PyTree, RandomKey
from jaxnet.input_checks import (
    check_count,
    check_labels,
    check_params,
    complaint,
    describe,
)
from jaxnet.minibatches import epoch_indices, steps_per_epoch
from jaxnet.mnist import Mnist
from jaxnet.network import (
    BOOK_NETWORK,
    Network,
    Params,
    accuracy,
    init_params,
    mean_loss,
)

SGD = optax.inject_hyperparams(optax.sgd)(learning_rate=0.1)
"""The book's optimiser; its learning rate lies in the State, so no rate recompiles."""


class State(NamedTuple):
    """All that a run is: with the data and the arguments of `train`, its whole future.

    A batch of runs has one leading axis on every leaf but `step`.
    """

    params: Params
    optimizer_state: PyTree
    step: Int32[Array, ""]
    key: RandomKey


_RUNS: Any = State._make((0, 0, None, 0))
"""The axis of the runs in each leaf of a batch of states."""


class History(NamedTuple):
    """What came of a run: accuracies at the start of every epoch and at the end.

    steps: the step of each row of accuracies, which are shares of all images.
    losses: the mean loss of every batch, before its step.
    """

    steps_per_epoch: int
    steps: Int[np.ndarray, " rows"]
    train_accuracy: Float32[np.ndarray, "*runs rows"]
    test_accuracy: Float32[np.ndarray, "*runs rows"]
    losses: Float32[np.ndarray, "*runs steps"]


Callback: TypeAlias = Callable[[State, History], None]


class Recipe(NamedTuple):
    """What the programs are compiled for, besides shapes: hashable."""

    network: Network = BOOK_NETWORK
    gradient: gradients.Gradient = gradients.backprop
    optimizer: optax.GradientTransformation = SGD
    batch_size: int = 100
    replacement: bool = True
    mesh: Mesh | None = None


class Programs(NamedTuple):
    """The two compiled programs of a run."""

    run_steps: Callable[..., tuple[State, Float[jax.Array, "*runs steps"]]]
    evaluate: Callable[..., tuple[Float[jax.Array, "*runs"], Float[jax.Array, "*runs"]]]


def init_state(
    key: RandomKey,
    layer_sizes: Sequence[int] = (784, 50, 10),
    optimizer: optax.GradientTransformation = SGD,
    scale: float = 0.01,
) -> State:
    """The state before the first step; an axis of keys gives a batch of runs.

    `key` is consumed: half of it draws the parameters, half the batches.
    """
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        key = jax.random.wrap_key_data(jnp.asarray(key))
    return _init_state(key, tuple(layer_sizes), optimizer, scale)


@partial(jax.jit, static_argnums=(1, 2, 3))
def _init_state(
    key: RandomKey,
    layer_sizes: tuple[int, ...],
    optimizer: optax.GradientTransformation,
    scale: float,
) -> State:
    def one(key: RandomKey) -> State:
        params_key, batches_key = jax.random.split(key)
        params = init_params(params_key, layer_sizes, scale)
        return State(params, optimizer.init(params), jnp.int32(0), batches_key)

    return jax.vmap(one, out_axes=_RUNS)(key) if key.ndim else one(key)


def with_learning_rate(state: State, learning_rate: Any) -> State:
    """The state with another learning rate: one number, or one a run.

    Raises:
        ValueError: the optimiser keeps none in its state.
    """
    old = getattr(state.optimizer_state, "hyperparams", {})
    if "learning_rate" not in old:
        expected = "a state that holds the learning rate"
        got = type(state.optimizer_state).__name__
        fix = "make the optimiser by optax.inject_hyperparams"
        raise ValueError(complaint("state.optimizer_state", expected, got, fix))
    rates = np.asarray(learning_rate, old["learning_rate"].dtype)
    new = dict(old, learning_rate=np.broadcast_to(rates, state.key.shape))
    changed = state.optimizer_state._replace(hyperparams=new)
    return state._replace(optimizer_state=changed)


def train(
    data: Mnist,
    state: State,
    history: History | None = None,
    *,
    network: Network = BOOK_NETWORK,
    gradient: gradients.Gradient = gradients.backprop,
    optimizer: optax.GradientTransformation = SGD,
    batch_size: int = 100,
    num_steps: int = 5000,
    replacement: bool = True,
    mesh: Mesh | None = None,
    steps_per_call: int | None = None,
    callback: Callback | None = None,
) -> tuple[State, History]:
    """The state after step `num_steps`, and the history of the way there.

    `state` and `history` are those of `init_state` (no history), or of an earlier call,
    which goes on bit for bit as if it had never ended. `gradient` is any traceable
    route; the numerical one is functools.partial(gradients.numerical,
    dtype=jnp.float32). `callback(state, history)` is called at the first step and
    after every `steps_per_call` steps, an epoch by default, while the device is busy
    with the next. `mesh` splits each batch over the devices of its one axis.

    Raises:
        FloatingPointError: the loss is no longer finite (in a batch of runs: in none).
        TypeError, ValueError: an argument does not fit the others.
    """
    recipe = Recipe(network, gradient, optimizer, batch_size, replacement, mesh)
    epoch_length = steps_per_epoch(len(data.train_labels), batch_size)
    for name, value in (("num_steps", num_steps), ("steps_per_call", steps_per_call)):
        check_count(name, epoch_length if value is None else value, minimum=0)
    _check_data(data, state)
    step, history = _start(state, history, epoch_length)
    programs = compile_programs(recipe, state, data)
    state, examples = place((state, data), mesh)
    while True:
        due = step % epoch_length == 0 or step >= num_steps
        row = programs.evaluate(state.params, examples) if due else None
        following, stop = None, _stop(step, num_steps, epoch_length, steps_per_call)
        if step < stop:
            epoch, begin = divmod(step, epoch_length)
            bounds = np.array([epoch, begin, begin + stop - step], np.int32)
            following = programs.run_steps(state, examples, bounds)
        history = history if row is None else _with_row(history, step, row)
        if callback is not None:
            callback(state, history)
        if following is None:
            return state, history
        state, losses = following
        history = _with_losses(history, losses, step, stop)
        step = stop


def _stop(step: int, num_steps: int, epoch_length: int, per_call: int | None) -> int:
    """Where the next call ends: with the epoch, at the latest."""
    epoch_end = (step // epoch_length + 1) * epoch_length
    return min(num_steps, epoch_end, step + (per_call or epoch_length))


def _start(
    state: State, history: History | None, epoch_length: int
) -> tuple[int, History]:
    """The step of the state, and its history without a row inside an epoch."""
    if np.shape(state.step):
        fix = "pass a batch of keys to init_state"
        raise ValueError(complaint("state.step", "shape ()", describe(state.step), fix))
    step, runs = int(state.step), state.key.shape
    if history is None:
        none = np.zeros((*runs, 0), np.float32)
        history = History(epoch_length, np.zeros(0, int), none, none, none)
    if history.losses.shape != (*runs, step) or history.steps_per_epoch != epoch_length:
        expected = f"{step} steps in epochs of {epoch_length}"
        got = f"{history.losses.shape[-1]} in epochs of {history.steps_per_epoch}"
        fix = "pass the history that came with the state, and the same batch size"
        raise ValueError(complaint("history", expected, got, fix))
    kept = (history.steps % epoch_length == 0) & (history.steps < step)
    return step, history._replace(
        steps=history.steps[kept],
        train_accuracy=history.train_accuracy[..., kept],
        test_accuracy=history.test_accuracy[..., kept],
    )


def _with_row(history: History, step: int, row: tuple[Array, Array]) -> History:
    train_accuracy, test_accuracy = (np.asarray(r)[..., None] for r in row)
    return history._replace(
        steps=np.append(history.steps, step),
        train_accuracy=np.append(history.train_accuracy, train_accuracy, axis=-1),
        test_accuracy=np.append(history.test_accuracy, test_accuracy, axis=-1),
    )


def _with_losses(history: History, losses: Array, first: int, stop: int) -> History:
    begin = first % history.steps_per_epoch
    new = np.asarray(losses)[..., begin : begin + stop - first]
    finite = np.isfinite(new).reshape(-1, stop - first).any(axis=0)
    if not finite.all():
        step = first + int(np.argmin(finite))
        got = f"{new[..., step - first].ravel()[0]} at step {step}"
        fix = "the learning rate is too large, as a rule: pass a tenth of it"
        raise FloatingPointError(complaint("loss", "a finite number", got, fix))
    return history._replace(losses=np.append(history.losses, new, axis=-1))


def _check_data(data: Mnist, state: State) -> None:
    """Images and labels that the network of the state takes, checked once, in NumPy."""
    runs = state.key.ndim
    params = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape[runs:], x.dtype), state.params
    )
    weights = check_params(params)
    num_inputs, num_classes = weights[0].shape[0], weights[-1].shape[1]
    for name in ("train", "test"):
        images, labels = (getattr(data, f"{name}_{x}") for x in ("images", "labels"))
        expected = f"floats of shape (examples, {num_inputs})"
        fix = "pass them as load_mnist does, or other layer_sizes to init_state"
        if images.dtype.kind != "f":
            got = describe(images)
            raise TypeError(complaint(f"{name}_images", expected, got, fix))
        if images.ndim != 2 or images.shape[1] != num_inputs or not len(images):
            got = describe(images)
            raise ValueError(complaint(f"{name}_images", expected, got, fix))
        check_labels(labels, len(images), num_classes, f"{name}_labels")


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
        return jax.make_array_from_process_local_data(_replicated(mesh), local)

    return jax.tree.map(put, tree)


def _replicated(mesh: Mesh | None) -> NamedSharding | None:
    return None if mesh is None else NamedSharding(mesh, PartitionSpec())


def compile_programs(recipe: Recipe, state: State, data: Mnist) -> Programs:
    """The programs for arrays of these shapes; the values are not looked at.

    Kept: `train` finds what another thread compiled for it while the data were read.
    """
    _check_mesh(recipe)
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(
            x.shape, x.dtype, sharding=_replicated(recipe.mesh)
        ),
        (state, data),
    )
    leaves, structure = jax.tree.flatten(shapes)
    return _compile(recipe, structure, tuple(leaves))


@cache
def _compile(
    recipe: Recipe, structure: Any, leaves: tuple[jax.ShapeDtypeStruct, ...]
) -> Programs:
    state, data = structure.unflatten(leaves)
    run_steps, evaluate = partial(_run_steps, recipe), partial(_evaluate, recipe)
    if state.key.ndim:
        run_steps = jax.vmap(
            run_steps, in_axes=(_RUNS, None, None), out_axes=(_RUNS, 0)
        )
        evaluate = jax.vmap(evaluate, in_axes=(0, None))
    bounds = jax.ShapeDtypeStruct((3,), np.int32, sharding=_replicated(recipe.mesh))
    jit = partial(jax.jit, out_shardings=_replicated(recipe.mesh))
    return Programs(
        _compiled(jit(run_steps).lower(state, data, bounds)),
        _compiled(jit(evaluate).lower(state.params, data)),
    )


def _compiled(lowered: jax.stages.Lowered) -> jax.stages.Compiled:
    """The program, its matrix products by Eigen on a CPU.

    XLA would take YNNPACK, which packs the weights anew in every step.
    """
    if jax.default_backend() == "cpu":
        try:
            return lowered.compile({"xla_cpu_experimental_ynn_fusion_type": ""})
        except jax.errors.JaxRuntimeError:  # an XLA without YNNPACK
            pass
    return lowered.compile()


def _run_steps(
    recipe: Recipe, state: State, data: Mnist, bounds: Int32[Array, "3"]
) -> tuple[State, Float[Array, " steps"]]:
    """Steps `begin` to `end` of one epoch, where bounds = (epoch, begin, end).

    The losses have a place for every step of the epoch. The bounds are values, so that
    the last, shorter epoch needs no program of its own.
    """
    epoch, begin, end = bounds
    num_examples = len(data.train_labels)
    batches = epoch_indices(
        state.key, epoch, num_examples, recipe.batch_size, recipe.replacement
    )
    batches = _split_batches(batches, recipe.mesh)

    def step(i: Any, carry: Any) -> Any:
        params, optimizer_state, losses = carry
        images = _rows(data.train_images, batches[i])
        labels = _rows(data.train_labels, batches[i])
        loss = mean_loss(params, images, labels, recipe.network)
        slopes = recipe.gradient(params, images, labels, network=recipe.network)
        updates, optimizer_state = recipe.optimizer.update(
            slopes, optimizer_state, params
        )
        params = optax.apply_updates(params, updates)
        return params, optimizer_state, losses.at[i].set(loss)

    dtype = state.params[0].weight.dtype
    start = state.params, state.optimizer_state, jnp.zeros(len(batches), dtype)
    params, optimizer_state, losses = jax.lax.fori_loop(begin, end, step, start)
    return State(params, optimizer_state, state.step + end - begin, state.key), losses


def _evaluate(
    recipe: Recipe, params: Params, data: Mnist
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The accuracies on all training and all test images."""
    return (
        accuracy(params, data.train_images, data.train_labels, recipe.network),
        accuracy(params, data.test_images, data.test_labels, recipe.network),
    )


def _rows(array: Any, indices: Int32[Array, " batch"]) -> Any:
    return array.at[indices].get(mode="promise_in_bounds")


def _split_batches(
    batches: Int32[jax.Array, "steps batch"], mesh: Mesh | None
) -> Int32[jax.Array, "steps batch"]:
    """The same numbers, each batch spread over the devices of the mesh."""
    if mesh is None:
        return batches
    sharding = NamedSharding(mesh, PartitionSpec(None, mesh.axis_names[0]))
    return jax.lax.with_sharding_constraint(batches, sharding)


def _check_mesh(recipe: Recipe) -> None:
    """One axis, whose size divides the batch."""
    if recipe.mesh is None:
        return
    if len(recipe.mesh.axis_names) != 1:
        fix = "make it by jax.make_mesh((devices,), ('batch',))"
        got = str(recipe.mesh.axis_names)
        raise ValueError(complaint("mesh", "one axis", got, fix))
    devices, size = recipe.mesh.size, recipe.batch_size
    if size % devices:
        below, above = size // devices * devices, -(-size // devices) * devices
        nearest = f"{below} or {above}" if below else str(above)
        expected = f"a multiple of the {devices} devices"
        fix = f"the nearest sizes that divide are {nearest}"
        raise ValueError(complaint("batch_size", expected, str(size), fix))
