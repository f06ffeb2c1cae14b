"""Which learning rate trains the book's network best, and what do 16 runs cost?

    python experiments/learning_rates.py [--compare]

784-50-10 on MNIST with 8 learning rates × 2 seeds, 5000 steps each, all 16 runs in one
compiled program. Prints the accuracies of every run after the last step and the time;
with --compare the runs are made once more, one after the other, and the ratio of the
times and the largest difference of the losses are printed too. Writes
learning_rates.json and learning_rates.png to `--out`. Takes about 40 seconds on two
cores, and as long again with --compare.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, TypeVar

import jax
import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.figure import Figure

from experiments.command import command
from experiments.patience import said_if_slow
from jaxnet import History, Mnist, State, load_mnist, train
from jaxnet.plots import save_figure
from jaxnet.training import init_state, with_learning_rate

RATES = (0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
BOOK_RATE = 0.1
NUM_SEEDS = 2
HIDDEN, NUM_CLASSES = 50, 10
QUICK_STEPS, QUICK_EXAMPLES, QUICK_PIXELS = 50, 1000, slice(350, 400)

Result = TypeVar("Result")


@dataclass(frozen=True)
class Flags:
    """Train with 8 learning rates × 2 seeds in one compiled program."""

    out: Path = Path("out")
    """Folder for the JSON file and the figure."""
    data: Path | None = None
    """Folder of four IDX files; MNIST by default."""
    compare: bool = False
    """Make the runs one after the other as well."""
    num_steps: int = 5000
    seed: int = 0
    quick: bool = False
    """A few steps on a few images of 50 pixels."""


def main() -> None:
    """Parse the flags, and run."""
    command(Flags, __doc__, run)


def run(flags: Flags) -> None:
    """Train, print and write."""
    data = quick_data(load_mnist(flags.data)) if flags.quick else load_mnist(flags.data)
    num_steps = min(flags.num_steps, QUICK_STEPS) if flags.quick else flags.num_steps
    start = all_runs(data, flags.seed)
    with said_if_slow("compiling and training all runs together …"):
        (_, history), seconds = timed(lambda: train(data, start, num_steps=num_steps))
    result = {**as_table(history), "seconds_together": seconds}
    print_table(result)
    count = len(RATES) * NUM_SEEDS
    print(f"{count} runs of {num_steps} steps in one program: {seconds:.1f} s")
    if flags.compare:
        result |= compare(data, start, history, num_steps)
        apart = result["seconds_apart"]
        print(f"one after the other:{apart:18.1f} s, {apart / seconds:.2f} × as long")
        print(f"largest difference of the losses: {result['largest_difference']:.1e}")
    path = flags.out / "learning_rates.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1))
    rates = np.array(RATES)
    figure = accuracy_by_learning_rate(
        rates, by_rate(history), flags.out / "learning_rates.png"
    )
    print("written:", path, figure)


def quick_data(data: Mnist) -> Mnist:
    """A few images, a few of their pixels."""
    few = Mnist(*(array[:QUICK_EXAMPLES] for array in data))
    return few._replace(
        train_images=few.train_images[:, QUICK_PIXELS],
        test_images=few.test_images[:, QUICK_PIXELS],
    )


def all_runs(data: Mnist, seed: int = 0) -> State:
    """The start of every run, rate by rate: a seed has the same start at every rate."""
    seeds = jax.random.split(jax.random.key(seed), NUM_SEEDS)
    keys = seeds[np.tile(np.arange(NUM_SEEDS), len(RATES))]
    state = init_state(keys, (data.train_images.shape[1], HIDDEN, NUM_CLASSES))
    return with_learning_rate(state, np.repeat(np.array(RATES, np.float32), NUM_SEEDS))


def single_run(runs: State, number: int) -> State:
    """One run of a batch of runs, as a state of its own."""

    def one(leaf: Any) -> Any:
        return leaf[number]

    return runs._replace(
        params=jax.tree.map(one, runs.params),
        optimizer_state=jax.tree.map(one, runs.optimizer_state),
        key=runs.key[number],
    )


def compare(
    data: Mnist, start: State, together: History, num_steps: int
) -> dict[str, Any]:
    """Every run by itself, all by one compiled program: how long, and how equal."""

    def all_apart() -> list[History]:
        runs = [single_run(start, i) for i in range(len(together.losses))]
        return [train(data, run, num_steps=num_steps)[1] for run in runs]

    apart, seconds = timed(all_apart)
    difference = together.losses - np.stack([history.losses for history in apart])
    return {
        "seconds_apart": seconds,
        "largest_difference": float(np.abs(difference).max()),
    }


def timed(work: Callable[[], Result]) -> tuple[Result, float]:
    """A result and the seconds it took, compilation included."""
    start = perf_counter()
    return work(), perf_counter() - start


def by_rate(history: History) -> History:
    """The history with its runs as two axes, rates × seeds."""

    def split(array: np.ndarray) -> np.ndarray:
        return array.reshape(len(RATES), NUM_SEEDS, -1)

    return history._replace(
        train_accuracy=split(history.train_accuracy),
        test_accuracy=split(history.test_accuracy),
        losses=split(history.losses),
    )


def as_table(history: History) -> dict[str, Any]:
    """The rates with the last accuracies of every seed."""
    history = by_rate(history)
    return {
        "learning_rates": RATES,
        "steps": int(history.steps[-1]),
        "train_accuracy": history.train_accuracy[..., -1].tolist(),
        "test_accuracy": history.test_accuracy[..., -1].tolist(),
    }


def print_table(table: dict[str, Any]) -> None:
    """A line a rate."""
    print("learning rate       train accuracy      test accuracy")
    rows = (table["learning_rates"], table["train_accuracy"], table["test_accuracy"])
    for rate, train_shares, test_shares in zip(*rows, strict=True):
        train_text, test_text = (
            "  ".join(f"{share:.4f}" for share in shares)
            for shares in (train_shares, test_shares)
        )
        note = "  the book's" if rate == BOOK_RATE else ""
        print(f"{rate:13g}       {train_text}      {test_text}{note}")


def accuracy_by_learning_rate(
    rates: Float[np.ndarray, " rates"], history: History, path: str | Path
) -> Path:
    """Test accuracies of runs, rates × seeds: on the way, and after the last step."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    way, end = figure.subplots(1, 2, sharey=True)
    epochs = history.steps / history.steps_per_epoch
    accuracies = np.asarray(history.test_accuracy)
    for number, (rate, runs) in enumerate(zip(rates, accuracies, strict=True)):
        color = colormaps["viridis"](0.95 * number / max(len(rates) - 1, 1))
        lines = way.plot(epochs, runs.T, color=color, linewidth=1)
        lines[0].set_label(f"{rate:g}")
        end.plot([rate] * len(runs), runs[:, -1], "o", color=color, fillstyle="none")
    end.plot(rates, accuracies[..., -1].mean(axis=1), color="gray", linewidth=0.8)
    way.set(xlabel="epochs", ylabel="test accuracy", ylim=(0, 1), title="each run")
    figure.legend(title="learning rate", fontsize=9, loc="outside right center")
    end.set(
        xscale="log", xlabel="learning rate", title="after the last step, each seed"
    )
    end.grid(axis="y", linewidth=0.3)
    return save_figure(figure, path)


if __name__ == "__main__":
    main()
