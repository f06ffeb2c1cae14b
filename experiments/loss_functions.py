"""Do the losses give the numbers that the book and the blog print?

    python experiments/loss_functions.py

Prints a table: loss, targets, the printed number, ours in float64 and in float32.
Writes loss_functions.json to `--out`. Takes a second or two.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.command import command
from jaxnet import cross_entropy_error, sum_squared_error


@dataclass(frozen=True)
class Flags:
    """The losses of the book's examples."""

    out: Path = Path("out")
    """Folder for the JSON file."""
    quick: bool = False
    """Nothing is left out: it is quick."""


class Example(NamedTuple):
    """One printed number, and what it is the loss of."""

    name: str
    error: Callable[..., Any]
    y: np.ndarray
    t: np.ndarray
    printed: float


SURE = np.array([0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0])
MISTAKEN = np.array([0.1, 0.05, 0.1, 0.0, 0.05, 0.1, 0.0, 0.6, 0.0, 0.0])
TWO = np.array(2)
ONE_HOT = np.eye(10)

EXAMPLES = (
    Example("squared error, 2 likeliest", sum_squared_error, SURE, TWO, 0.0975),
    Example("squared error, 7 likeliest", sum_squared_error, MISTAKEN, TWO, 0.5975),
    Example(
        "cross entropy, 2 likeliest", cross_entropy_error, SURE, TWO, 0.510825457099338
    ),
    Example(
        "cross entropy, 7 likeliest",
        cross_entropy_error,
        MISTAKEN,
        TWO,
        2.3025840929945454,
    ),
    Example(
        "batch of 1, quite wrong",
        cross_entropy_error,
        ONE_HOT[[7]],
        np.array([2]),
        16.118095650958317,
    ),
    Example(
        "batch of 2, one wrong, one right",
        cross_entropy_error,
        ONE_HOT[[7, 2]],
        np.array([2, 2]),
        8.059047775479161,
    ),
)


def main() -> None:
    """Parse the flags, and run."""
    command(Flags, __doc__, run)


def run(flags: Flags) -> None:
    """Compute, print and write."""
    rows = [compute(example) for example in EXAMPLES]
    print(f"{'loss':<32}{'printed':>18}{'ours, float64':>20}{'float32':>10}")
    for row in rows:
        numbers = (f"{row['printed']:>18}", f"{row['float64']:>20}")
        print(f"{row['name']:<32}{''.join(numbers)}{row['float32']:>10.6f}")
    print("A loss of 16.118 is -log(1e-7): what the book adds to a probability of 0.")
    print("The last digit of float64 depends on the order of the sums.")
    flags.out.mkdir(parents=True, exist_ok=True)
    path = flags.out / "loss_functions.json"
    path.write_text(json.dumps(rows, indent=1))
    print(f"written: {path}")


def compute(example: Example) -> dict[str, Any]:
    """One row of the table."""
    with jax.enable_x64(True):
        double = float(example.error(example.y, example.t))
    single = float(example.error(example.y, example.t))
    return {
        "name": example.name,
        "printed": example.printed,
        "float64": double,
        "float32": single,
    }


if __name__ == "__main__":
    main()
