"""Which step is right for a central difference, and why is 1e-4 noise in float32?

    python experiments/finite_difference_step.py

The loss of the book's network on a batch of MNIST, differenced by some parameters with
steps from 1e-12 to 1, in float32 and in float64; the truth is backprop in float64.
Prints a table of the largest error for each step, relative to the largest slope, and
why the book's step is too small in float32. Writes finite_difference_step.json and
error_against_step.png to `--out`. Takes about 15 seconds on two cores.
"""

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Float
from matplotlib.figure import Figure

from experiments.command import command
from jaxnet import Network, init_params, load_mnist
from jaxnet.array_types import Array, Scalar
from jaxnet.differences.central import relative_step
from jaxnet.gradients import backprop
from jaxnet.network import mean_loss
from jaxnet.plots import save_figure

BOOK_STEP = 1e-4


@dataclass(frozen=True)
class Flags:
    """The error of central differences against their step."""

    out: Path = Path("out")
    """Folder for the JSON file and the figure."""
    data: Path | None = None
    """Folder of four IDX files; MNIST by default."""
    batch_size: int = 100
    num_parameters: int = 50
    """How many parameters, drawn among those with a slope that is not 0."""
    seed: int = 0
    quick: bool = False
    """Ten images, ten parameters."""


def main() -> None:
    """Parse the flags, and run."""
    command(Flags, __doc__, run)


def run(flags: Flags) -> None:
    """Compute, print and write."""
    steps = np.sort([*10.0 ** np.arange(-12, 0.1, 0.5), *own_steps()])
    slope, errors = all_errors(flags, steps)
    print(f"{'step':>10}{'float32':>12}{'float64':>12}")
    for step, *pair in zip(steps, *errors.values(), strict=True):
        print(f"{step:>10.1e}{pair[0]:>12.1e}{pair[1]:>12.1e}  {remark(step)}".rstrip())
    print_reason(slope, steps, errors)
    marks = {"the book's step, 1e-4": BOOK_STEP} | {
        f"∛ε of {name}, {step:.1e}": step
        for name, step in zip(errors, own_steps(), strict=True)
    }
    figure = flags.out / "error_against_step.png"
    error_against_step(steps, errors, marks, figure)
    path = flags.out / "finite_difference_step.json"
    result = {"largest_slope": slope, "steps": steps.tolist()}
    path.write_text(
        json.dumps(result | {n: e.tolist() for n, e in errors.items()}, indent=1)
    )
    print(f"written: {figure} {path}")


def print_reason(
    slope: float, steps: np.ndarray, errors: dict[str, np.ndarray]
) -> None:
    """Rounding of the loss, divided by the step, beside the slope that is sought."""
    for name, error in errors.items():
        best, book = int(error.argmin()), int(np.argmin(np.abs(steps - BOOK_STEP)))
        print(f"{name}: the best step, {steps[best]:.1e}, errs by {error[best]:.1e}")
        print(f"{name}: the book's, {steps[book]:.1e}, errs by {error[book]:.1e}")
    spacing = float(np.spacing(np.float32(np.log(10))))
    noise = spacing / (2 * BOOK_STEP)
    print(f"In float32 losses near log 10 = 2.3 lie {spacing:.1e} apart: one such gap")
    print(f"over 2 × 1e-4 is {noise:.1e}, and the largest slope here is {slope:.1e}.")


def own_steps() -> list[float]:
    """∛ε of float32 and of float64."""
    return [relative_step(dtype) for dtype in (np.float32, np.float64)]


def remark(step: float) -> str:
    """Whose step it is."""
    names = ["∛ε of float32", "∛ε of float64", "the book's step"]
    whose = zip(names, [*own_steps(), BOOK_STEP], strict=True)
    return ", ".join(name for name, own in whose if np.isclose(step, own, rtol=1e-6))


def all_errors(flags: Flags, steps: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
    """The largest slope; by dtype, the largest error of each step relative to it."""
    data = load_mnist(flags.data)
    count = 10 if flags.quick else flags.batch_size
    batch = data.train_images[:count], data.train_labels[:count]
    sizes = (data.train_images.shape[1], 50, 10)
    params = jax.tree.map(np.asarray, init_params(jax.random.key(flags.seed), sizes))
    with jax.enable_x64(True):
        point = jax.tree.map(lambda leaf: leaf.astype(float), params)
        exact = np.asarray(ravel_pytree(backprop(point, *batch))[0])
    rng = np.random.default_rng(flags.seed)
    number = 10 if flags.quick else flags.num_parameters
    chosen = rng.choice(np.flatnonzero(exact), size=number, replace=False)
    largest, errors = float(np.abs(exact[chosen]).max()), {}
    for dtype in ("float32", "float64"):
        with jax.enable_x64(dtype == "float64"):
            point = jax.tree.map(lambda leaf, d=dtype: jnp.asarray(leaf, d), params)
            slopes = np.asarray(differences(point, *batch, chosen, steps.astype(dtype)))
        errors[dtype] = np.abs(slopes - exact[chosen]).max(axis=1) / largest
    return largest, errors


@jax.jit
def differences(
    params: Any, images: Any, labels: Any, chosen: Any, steps: Any
) -> Array:
    """(f(x + h eᵢ) - f(x - h eᵢ)) / 2h as the book has it, for steps × parameters."""
    x, unravel = ravel_pytree(params)

    def value(i: Any, move: Any) -> Scalar:
        return mean_loss(unravel(x.at[i].add(move)), images, labels, Network())

    def slope(h: Any, i: Any) -> Scalar:
        return (value(i, h) - value(i, -h)) / (2 * h)

    return jax.lax.map(lambda h: jax.lax.map(partial(slope, h), chosen), steps)


def error_against_step(
    steps: Float[np.ndarray, " steps"],
    errors: dict[str, Float[np.ndarray, " steps"]],
    marks: dict[str, float],
    path: str | Path,
) -> Path:
    """Errors of differences against their step, both logarithmic, with marked steps."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, values in errors.items():
        axes.loglog(steps, values, marker=".", label=name)
    for number, (name, step) in enumerate(marks.items()):
        axes.axvline(step, color="gray", linestyle=(0, (1 + 2 * number, 2)), label=name)
    axes.axhline(1, color="silver", linewidth=0.8, label="error as large as the slope")
    axes.set(xlabel="step h", ylabel="largest error / largest slope")
    axes.legend(fontsize=8, loc="lower left")
    return save_figure(figure, path)


if __name__ == "__main__":
    main()
