"""What is the loss of the notebook's simplest net, and its gradient, three ways?

    python experiments/simple_net.py

One 2 × 3 matrix of NumPy's seed 42, x = (0.6, 0.9), label 2. Prints the loss beside the
notebook's, the gradient by each route and how far they are apart. Writes
simple_net.json to `--out`. Takes about 2 seconds.
"""

import json
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from experiments.command import command
from jaxnet import Dense, Params, cross_entropy_error, loss, predict
from jaxnet.gradients import ROUTES

NOTEBOOK_LOSS = 1.802525526
IMAGES, LABELS = np.array([[0.6, 0.9]]), np.array([2])


@dataclass(frozen=True)
class Flags:
    """The loss and the three gradients of a net of one 2 × 3 matrix."""

    out: Path = Path("out")
    """Folder for the JSON file."""
    quick: bool = False
    """Nothing is left out: it is quick."""


def main() -> None:
    """Parse the flags, and run."""
    command(Flags, __doc__, run)


def run(flags: Flags) -> None:
    """Compute, print and write."""
    params = notebook_params()
    with jax.enable_x64(True):
        probabilities = predict(params, IMAGES)
        book = float(cross_entropy_error(probabilities, LABELS))
        exact = float(loss(params, IMAGES, LABELS))
        weights = {
            name: np.asarray(route(params, IMAGES, LABELS)[0].weight)
            for name, route in ROUTES.items()
        }
    print(f"loss, the notebook:                 {NOTEBOOK_LOSS:.9f}")
    print(f"loss, ours with the book's + 1e-7:  {book:.9f}")
    print(f"loss, ours from the logits:         {exact:.9f}")
    apart = {}
    for name, gradient in weights.items():
        apart[name] = float(np.abs(gradient - weights["autodiff"]).max())
        print(f"d_weight by {name}, at most {apart[name]:.1e} from autodiff:")
        for row in gradient:
            print("    " + "".join(f"{entry:>20.15f}" for entry in row))
    flags.out.mkdir(parents=True, exist_ok=True)
    path = flags.out / "simple_net.json"
    result = {
        "loss": {"notebook": NOTEBOOK_LOSS, "book": book, "from_logits": exact},
        "d_weight": {name: gradient.tolist() for name, gradient in weights.items()},
        "largest_difference_from_autodiff": apart,
    }
    path.write_text(json.dumps(result, indent=1))
    print(f"written: {path}")


def notebook_params() -> Params:
    """The notebook's weights, those of np.random.seed(42), and no bias."""
    weight = np.random.RandomState(42).randn(2, 3)
    return (Dense(weight, np.zeros(3)),)


if __name__ == "__main__":
    main()
