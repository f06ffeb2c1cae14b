"""How far apart are the three gradients of the book's network on real MNIST?

    python experiments/compare_gradients.py

784-50-10 with both of the source's output layers: softmax, and sigmoid under the cross
entropy with + 1e-7. Prints a table: for every leaf its shape, the largest difference of
backprop and of the numerical gradient from autodiff, the same relative to the leaf's
largest entry, and where it is; in float64, and backprop in float32 as well. Writes
compare_gradients.json and, for each output, gradients_OUTPUT.png to `--out`: W1's
gradient of a few hidden units as images. Takes about 15 seconds on two cores.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments.command import command
from experiments.patience import said_if_slow
from jaxnet import Network, Params, init_params, load_mnist
from jaxnet.gradients import autodiff, backprop, numerical
from jaxnet.plots import gradient_images

OUTPUTS = ("softmax_cross_entropy", "sigmoid_cross_entropy")


@dataclass(frozen=True)
class Flags:
    """Compare backprop, autodiff and differences on a batch of MNIST."""

    out: Path = Path("out")
    """Folder for the JSON file and the figures."""
    data: Path | None = None
    """Folder of four IDX files; MNIST by default."""
    batch_size: int = 100
    seed: int = 0
    units: int = 4
    """Hidden units to draw: those with the largest gradients."""
    quick: bool = False
    """Ten images only."""


def main() -> None:
    """Parse the flags, and run."""
    command(Flags, __doc__, run)


def run(flags: Flags) -> None:
    """Compute, print and write."""
    data = load_mnist(flags.data)
    count = 10 if flags.quick else flags.batch_size
    batch = data.train_images[:count], data.train_labels[:count]
    sizes = (data.train_images.shape[1], 50, 10)
    params = jax.tree.map(np.asarray, init_params(jax.random.key(flags.seed), sizes))
    results, files = {}, []
    for output in OUTPUTS:
        with said_if_slow(f"compiling the three routes of {output} …"):
            routes = all_routes(params, *batch, Network(output=output))
        rows = list(compare(routes))
        print_table(f"{output}, {count} images", rows)
        results[output] = rows
        files.append(draw(routes, flags, flags.out / f"gradients_{output}.png"))
    files.append(flags.out / "compare_gradients.json")
    files[-1].write_text(json.dumps(results, indent=1))
    print("written:", *files)


def all_routes(
    params: Params, images: np.ndarray, labels: np.ndarray, network: Network
) -> dict[str, Params]:
    """The gradient by each route in float64, and by the analytic two in float32."""
    arguments = (params, images, labels, network)
    routes = {"autodiff32": autodiff(*arguments), "backprop32": backprop(*arguments)}
    routes["numerical"] = numerical(*arguments)
    with jax.enable_x64(True):
        double = jax.tree.map(lambda leaf: leaf.astype(float), (params, images))
        arguments = (*double, labels, network)
        routes |= {"autodiff": autodiff(*arguments), "backprop": backprop(*arguments)}
    return {name: jax.tree.map(np.asarray, g) for name, g in routes.items()}


def compare(routes: dict[str, Params]) -> Iterator[dict[str, Any]]:
    """The rows of the table: for each leaf and pair, the largest difference."""
    pairs = (("backprop", "autodiff"), ("numerical", "autodiff"))
    for pair in (*pairs, ("backprop32", "autodiff32")):
        for number, layers in enumerate(
            zip(*(routes[name] for name in pair), strict=True)
        ):
            for leaf, (got, want) in zip(
                ("W", "b"), zip(*layers, strict=True), strict=True
            ):
                difference = np.abs(got - want)
                where = np.unravel_index(difference.argmax(), difference.shape)
                yield {
                    "pair": pair,
                    "leaf": f"{leaf}{number + 1}",
                    "shape": got.shape,
                    "largest": float(difference.max()),
                    "relative": float(difference.max() / np.abs(want).max()),
                    "where": [int(i) for i in where],
                }


def print_table(title: str, rows: list[dict[str, Any]]) -> None:
    """One line a leaf and pair, in 100 columns."""
    print(f"\n{title}")
    print(
        f"{'leaf':<6}{'shape':<12}{'difference':<28}{'largest':>10}{'relative':>10}  at"
    )
    for row in rows:
        name = " - ".join(row["pair"])
        shape = "×".join(map(str, row["shape"]))
        numbers = f"{row['largest']:>10.1e}{row['relative']:>10.1e}"
        print(f"{row['leaf']:<6}{shape:<12}{name:<28}{numbers}  {row['where']}")


def draw(routes: dict[str, Params], flags: Flags, path: Path) -> Path:
    """W1's gradient of the hidden units with the largest gradients, by each route."""
    first = {name: np.asarray(g[0].weight).T for name, g in routes.items()}
    order = np.argsort(-np.abs(first["autodiff"]).max(axis=1))
    units = sorted(order[: flags.units].tolist())
    chosen = {name: gradient[units] for name, gradient in first.items()}
    columns = {name: chosen[name] for name in ("backprop", "autodiff", "numerical")}
    columns["backprop\n- autodiff"] = chosen["backprop"] - chosen["autodiff"]
    columns["numerical\n- autodiff"] = chosen["numerical"] - chosen["autodiff"]
    gradient_images(columns, units, path)
    return path


if __name__ == "__main__":
    main()
