"""Training: from a State and the data to a later State and a History.

Which batch a step takes depends on (key, step) alone, so a run goes on from any State
as if it had never stopped. Source: *Deep Learning from Scratch*, section 4.5.2.
"""

import hashlib
from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np
import optax
from jax.sharding import Mesh

from jaxnet import gradients
from jaxnet.devices import automatic, check_same, code, digest
from jaxnet.input_checks import (
    check_callable,
    check_count,
    check_finite,
    check_is,
    check_labels,
    check_network,
    check_params,
    check_untraced,
    complaint,
    describe,
    without,
)
from jaxnet.mnist import Mnist
from jaxnet.network import BOOK_NETWORK, Network
from jaxnet.progress import progress as bar
from jaxnet.training.minibatches import steps_per_epoch
from jaxnet.training.programs import Programs, Recipe, compile_programs, place
from jaxnet.training.state import SGD, History, State, begun, with_losses, with_row

Callback: TypeAlias = Callable[[State, History], None]

OF_DATA = "pass load_mnist(), or Mnist(x_train, t_train, x_test, t_test), first"
OF_HISTORY = "pass what train returned; name all else, as num_steps=600"
OF_STATE = "pass init_state(key), which holds the parameters, after the data"


@without(
    iters_num="write num_steps",
    learning_rate="write optimizer=optax.sgd(0.1)",
    lr="write optimizer=optax.sgd(0.1)",
)
def train(
    data: Mnist,
    state: State,
    history: History | None = None,
    *,
    network: Network = BOOK_NETWORK,
    gradient: gradients.Gradient | str = "backprop",
    optimizer: optax.GradientTransformation = SGD,
    batch_size: int = 100,
    num_steps: int = 5000,
    replacement: bool = True,
    mesh: Mesh | None = None,
    steps_per_call: int | None = None,
    callback: Callback | None = None,
    progress: bool | None = None,
) -> tuple[State, History]:
    """The state after step `num_steps`, and the history of the way there.

    `state` and `history` are those of `init_state` (no history), or of an earlier call,
    which goes on bit for bit as if it had never ended. `gradient` is the name of a
    route or any traceable one; "numerical" is in float32. `callback(state, history)` is
    called at the first step and after every `steps_per_call` steps, an epoch by
    default, while the device is busy with the next. `mesh` splits each batch over the
    devices of its one axis; a numerical route of your own is to be given it too.
    `progress` is a bar of the steps, by tqdm where that is installed: on a terminal by
    default, anywhere if True, nowhere if False.

    Raises:
        ValueError: processes of the mesh differ in data, state or arguments; all of
            them say in which.
        FloatingPointError: the loss is no longer finite (in a batch of runs: in none).
        TypeError, ValueError: an argument does not fit the others.
    """
    check_is("data", data, Mnist, OF_DATA)
    check_is("state", state, State, OF_STATE)
    if history is not None:
        check_is("history", history, History, OF_HISTORY)
    check_network(network)
    mesh = automatic(mesh)
    if isinstance(gradient, str):
        gradient = gradients.traceable(gradient, mesh)
    check_callable("gradient", gradient, "pass gradients.backprop, or its name")
    check_untraced("state", state, "call train outside jit, grad and vmap")
    recipe = Recipe(network, gradient, optimizer, batch_size, replacement, mesh)
    check_count("num_steps", num_steps, minimum=0)
    check_count("steps_per_call", 1 if steps_per_call is None else steps_per_call)
    _check_data(data, state)
    epoch_length = steps_per_epoch(len(data.train_labels), batch_size)
    step, history = begun(state, history, epoch_length)
    programs = compile_programs(recipe, state, data)
    if mesh is not None and mesh.is_multi_process:
        facts = {"num_steps": num_steps, "steps_per_call": steps_per_call}
        check_same({**facts, **_facts(programs, state, data)}, mesh)
    state, examples = place((state, data), mesh)
    batches, drawn = None, -1
    with bar(num_steps, "train", "step", progress, done=step) as shown:
        while True:
            # The device is given the next steps before the host waits for these.
            is_due = step % epoch_length == 0 or step >= num_steps
            row = programs.evaluate(state.params, examples) if is_due else None
            following, stop = None, _stop(step, num_steps, epoch_length, steps_per_call)
            if step < stop:
                epoch, begin = divmod(step, epoch_length)
                if epoch != drawn:
                    batches, drawn = programs.draw(state.key, np.int32(epoch)), epoch
                bounds = np.array([begin, begin + stop - step], np.int32)
                following = programs.run_steps(state, examples, batches, bounds)
            history = history if row is None else with_row(history, step, row)
            if callback is not None:
                callback(state, history)
            if following is None:
                return state, history
            state, losses = following
            history = with_losses(history, losses, step, stop)
            shown.set_postfix_str(f"loss {np.mean(history.losses[..., -1]):.4f}")
            shown.update(stop - step)
            step = stop


def _facts(programs: Programs, state: State, data: Mnist) -> dict[str, Any]:
    """What all processes of a run have to begin with, by name; digests are SHA-256."""
    first = np.zeros(2, np.int32)
    batches = jax.eval_shape(programs.draw, state.key, first[0])
    run_steps = jax.jit(programs.run_steps)
    program = run_steps.lower(state, data, batches, first).as_text()
    return {
        "code": code(),
        "step": int(state.step),
        "state": digest(state),
        "data": digest(data),
        "program": hashlib.sha256(program.encode()).hexdigest(),
    }


def _stop(step: int, num_steps: int, epoch_length: int, per_call: int | None) -> int:
    """Where the next call ends: with the epoch, at the latest."""
    epoch_end = (step // epoch_length + 1) * epoch_length
    return min(num_steps, epoch_end, step + (per_call or epoch_length))


def _check_data(data: Mnist, state: State) -> None:
    """Images and labels that the network of the state takes, checked once, in NumPy."""
    runs = state.key.ndim
    one = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape[runs:], x.dtype), state.params
    )
    weights = check_params(one)
    num_inputs, num_classes = weights[0].shape[0], weights[-1].shape[1]
    expected = f"floats or bytes of shape (examples, {num_inputs})"
    fix = "pass them as load_mnist does, or other layer_sizes to init_state"
    for name in ("train", "test"):
        images, labels = (getattr(data, f"{name}_{x}") for x in ("images", "labels"))
        got = describe(images)
        dtype = np.dtype(getattr(images, "dtype", np.object_))
        if dtype.kind != "f" and dtype != np.uint8:
            raise TypeError(complaint(f"{name}_images", expected, got, fix))
        if images.ndim != 2 or images.shape[1] != num_inputs or not len(images):
            raise ValueError(complaint(f"{name}_images", expected, got, fix))
        if dtype != np.uint8:
            check_finite(f"{name}_images", images)
        check_labels(labels, len(images), num_classes, f"{name}_labels")
