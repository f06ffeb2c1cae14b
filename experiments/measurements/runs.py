"""Training by numeric gradient, many runs at once, and the same on an accelerator."""

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from statistics import median
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp

from experiments.learning_rates import (
    NUM_SEEDS,
    RATES,
    all_runs,
    compare,
    quick_data,
    timed,
)
from experiments.measurements.gradients import REPEATS, Batch, batch_of_digits
from experiments.measurements.processes import whole_numerical_run
from experiments.measurements.section import Section, seconds
from jaxnet import Mnist, check_gradients, gradients, load_mnist, train
from jaxnet.network import BOOK_NETWORK, mean_loss
from jaxnet.training import init_state

NOTEBOOK_SECONDS = 87.43
"""What the notebook printed for one gradient by the book's loop."""

STEPS = 5000
CALL = 10


def digits(quick: bool) -> Mnist:
    """MNIST, or a few pixels of a few images."""
    return quick_data(load_mnist()) if quick else load_mnist()


def step_seconds(data: Mnist, gradient: Any, calls: int, call: int = CALL) -> float:
    """The median time of a training step, after compilation, by calls of `call`."""
    start = init_state(jax.random.key(0), (data.train_images.shape[1], 50, 10))
    go = partial(train, data, start, gradient=gradient, steps_per_call=call)
    go(num_steps=1)
    times: list[float] = []
    go(num_steps=call * calls, callback=lambda *_: times.append(perf_counter()))
    # The first call begins with an evaluation, and the last callback waits for one.
    return median(b - a for a, b in pairwise(times[1:-1])) / call


def numeric_training(quick: bool, full: bool) -> Section:
    """The pace of training by differences, and with `full` the whole of it."""
    numerical = partial(gradients.numerical, dtype=jnp.float32)
    data = digits(quick)
    step = step_seconds(data, numerical, calls=5 if quick else 30)
    section = Section("Training by numeric gradient, batch 100")

    def add(name: str, each: float) -> None:
        section.rows.append(
            {
                "run": name,
                "seconds a step": each,
                f"{STEPS} steps, minutes": each * STEPS / 60,
                "times as fast": NOTEBOOK_SECONDS / each,
            }
        )

    add("the notebook's NumPy loop, as it printed", NOTEBOOK_SECONDS)
    add(f"ours, steps × {STEPS}", step)
    if full:
        wall, accuracy = whole_numerical_run()
        add("ours, the whole process", wall / STEPS)
        section.notes.append(f"The whole process ended at test accuracy {accuracy}.")
    return section


def many_runs(quick: bool) -> Section:
    """8 rates × 2 seeds in one program, against one run after the other."""
    data, num_steps = digits(quick), 100 if quick else STEPS
    start = all_runs(data)
    (_, history), together = timed(lambda: train(data, start, num_steps=num_steps))
    found = compare(data, start, history, num_steps)
    count = len(RATES) * NUM_SEEDS
    section = Section(f"{len(RATES)} learning rates × {NUM_SEEDS} seeds")
    ways = {
        f"{count} runs in one program": together,
        f"{count} runs, one after the other": found["seconds_apart"],
    }
    for name, taken in ways.items():
        section.rows.append(
            {
                "way": name,
                "seconds": taken,
                "runs a minute": 60 * count / taken,
                "times as long": taken / together,
            }
        )
    section.notes.append(f"{num_steps} steps each; each way compiles once, counted.")
    return section


def accelerator(quick: bool) -> Section:
    """Step, numeric gradient and verifier, where there is more than a CPU."""
    device = jax.devices()[0]
    if device.platform == "cpu":
        return Section("Accelerator", notes=["Not measured: there is none."])
    section = Section(f"Accelerator: {device.device_kind}")
    batch = batch_of_digits(quick)
    single = jax.device_put(jax.tree.map(jnp.float32, batch[:2]))

    def add(name: str, taken: float, finding: str | None = None) -> None:
        row = {"what": name, "ms": 1e3 * taken, "finding": finding}
        section.rows.append(row)

    add("training step", step_seconds(digits(quick), gradients.backprop, 5, 100))
    for name, arguments in (
        ("float64", batch),
        ("float32", (*single, batch.labels)),
    ):
        work = partial(gradients.numerical, *arguments, dtype=jnp.dtype(name))
        work()
        add(f"gradients.numerical, {name}", seconds(work, REPEATS))
    for name, precision, dtype in (
        ("verifier, float64", "highest", "float64"),
        ("verifier, a loss in float32", "highest", "float32"),
        ("verifier, a loss in TF32", "tensorfloat32", "float32"),
    ):
        verify = partial(check_gradients, loss_in(dtype, batch), batch.params)
        with jax.default_matmul_precision(precision):
            verify()
            report, taken = timed(verify)
        worst = max(leaf.resolution for leaf in report.leaves)
        add(name, taken, f"{report.verdict.value}, tells errors of {worst:.0e}")
    return section


def loss_in(dtype: str, batch: Batch) -> Callable[[Any], Any]:
    """The loss of the parameters, computed in another dtype."""

    def loss(params: Any) -> Any:
        cast = jax.tree.map(lambda leaf: jnp.asarray(leaf, dtype), params)
        return mean_loss(cast, *batch[1:], BOOK_NETWORK)

    return loss
