"""What a run is, and what came of it: State and History.

Many runs at once are one whose State has a leading axis.
"""

from collections.abc import Callable, Sequence
from functools import cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike
from jaxtyping import Float32, Int, Int32

from jaxnet.array_types import Array, PyTree, RandomKey
from jaxnet.float64 import platform
from jaxnet.input_checks import complaint, describe
from jaxnet.network import Params, as_key, init_params
from jaxnet.xla_options import in_haste

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


RUNS_AXES: PyTree = State._make((0, 0, None, 0))
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

    def __repr__(self) -> str:
        """Three lines: how long, from where to where, at what losses."""
        length = f"{self.losses.shape[-1]} steps, {self.steps_per_epoch} an epoch"
        runs = "".join(f"{count} runs of " for count in self.losses.shape[:-1])
        lines = [f"History of {runs}{length}"]
        rows = self.test_accuracy, self.train_accuracy
        test, train = (_from_to(np.moveaxis(row, -1, 0), ".4f") for row in rows)
        lines.append(f"  test accuracy      {test}    (training images {train})")
        losses = _from_to(np.moveaxis(self.losses, -1, 0), ".4f")
        lines.append(f"  loss of the batch  {losses}")
        return "\n".join(lines)


def _from_to(values: Float32[np.ndarray, "times *runs"], form: str) -> str:
    """The first and the last value; of many runs, the medians of those."""
    if not len(values):
        return "none yet"
    first, last = (f"{np.median(values[i]):{form}}" for i in (0, -1))
    return f"{first} → {last}"


def init_state(
    key: RandomKey | int,
    layer_sizes: Sequence[int] = (784, 50, 10),
    optimizer: optax.GradientTransformation = SGD,
    scale: float = 0.01,
) -> State:
    """The state before the first step; an axis of keys gives a batch of runs.

    `key` is consumed: half of it draws the parameters, half the batches. A whole number
    is the seed of a key.
    """
    key = as_key(key)
    is_traced = isinstance(key, jax.core.Tracer)
    initial = _initial if is_traced else _compiled(platform())
    return initial(key, tuple(layer_sizes), optimizer, scale)


def _initial(
    key: RandomKey,
    layer_sizes: tuple[int, ...],
    optimizer: optax.GradientTransformation,
    scale: float,
) -> State:
    def one(key: RandomKey) -> State:
        params_key, batches_key = jax.random.split(key)
        params = init_params(params_key, layer_sizes, scale)
        return State(params, optimizer.init(params), jnp.int32(0), batches_key)

    return jax.vmap(one, out_axes=RUNS_AXES)(key) if key.ndim else one(key)


@cache
def _compiled(platform: str) -> Callable[..., State]:
    """`_initial` where it is not traced itself: only there jax.jit takes options."""
    return in_haste(_initial, platform, static_argnums=(1, 2, 3))


def with_learning_rate(state: State, learning_rate: ArrayLike) -> State:
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


def begun(
    state: State, history: History | None, epoch_length: int
) -> tuple[int, History]:
    """The step of the state, and its history without a row inside an epoch.

    Raises:
        ValueError: the history is not that of the state.
    """
    if np.shape(state.step):
        fix = "pass a batch of keys to init_state"
        raise ValueError(complaint("state.step", "shape ()", describe(state.step), fix))
    step, runs = int(state.step), state.key.shape
    if history is None:
        none = np.zeros((*runs, 0), np.float32)
        history = History(epoch_length, np.zeros(0, np.int64), none, none, none)
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


def with_row(history: History, step: int, row: tuple[Array, Array]) -> History:
    """The history with the accuracies at one more step."""
    train_accuracy, test_accuracy = (np.asarray(r)[..., None] for r in row)
    return history._replace(
        steps=np.append(history.steps, step),
        train_accuracy=np.append(history.train_accuracy, train_accuracy, axis=-1),
        test_accuracy=np.append(history.test_accuracy, test_accuracy, axis=-1),
    )


def with_losses(history: History, losses: Array, first: int, stop: int) -> History:
    """The history with the losses of steps `first` to `stop`, from those of an epoch.

    Raises:
        FloatingPointError: at some step no run is left with a finite loss.
    """
    begin = first % history.steps_per_epoch
    new = np.asarray(losses)[..., begin : begin + stop - first]
    finite = np.isfinite(new).reshape(-1, stop - first).any(axis=0)
    if not finite.all():
        step = first + int(np.argmin(finite))
        got = f"{new[..., step - first].ravel()[0]} at step {step}"
        fix = "the learning rate is too large, as a rule: pass a tenth of it"
        raise FloatingPointError(complaint("loss", "a finite number", got, fix))
    return history._replace(losses=np.append(history.losses, new, axis=-1))
