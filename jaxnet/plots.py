"""Figures as PNG files, drawn without a window: the only matplotlib import."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxnet.training import History


def training_curves(history: History, path: str | Path) -> Path:
    """The accuracies against epochs as the blog draws them, beside the loss."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss_axes, axes = figure.subplots(1, 2)
    loss_axes.plot(range(1, 1 + len(history.losses)), history.losses, linewidth=0.5)
    loss_axes.set(xlabel="steps", ylabel="loss of the batch", ylim=(0, None))
    epochs = history.steps / history.steps_per_epoch
    axes.plot(epochs, history.train_accuracy, marker="o", label="train")
    axes.plot(epochs, history.test_accuracy, "--", marker="s", label="test")
    axes.set(xlabel="epochs", ylabel="accuracy", ylim=(0, 1))
    axes.legend(loc="lower right")
    return _save(figure, path)


def predicted_digits(
    images: Float[np.ndarray, "digits pixels"],
    probabilities: Float[np.ndarray, "digits classes"],
    path: str | Path,
) -> Path:
    """Each image above the probabilities of its classes."""
    count, side = len(images), math.isqrt(images.shape[1])
    figure = Figure(figsize=(1.8 * count, 3.6), layout="constrained")
    above, below = figure.subplots(2, count, squeeze=False)
    for image, shares, axes, bars in zip(
        images, probabilities, above, below, strict=True
    ):
        axes.imshow(image.reshape(side, side), cmap="gray", vmin=0, vmax=1)
        axes.set(title=str(shares.argmax()), xticks=[], yticks=[])
        bars.bar(range(len(shares)), shares)
        bars.set(ylim=(0, 1), xticks=range(len(shares)))
    return _save(figure, path)


def descent_on_contours(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray],
    descent: Float[np.ndarray, "points 2"],
    path: str | Path,
) -> Path:
    """The points of a descent on the contours of a function of two numbers."""
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    reach = 1.15 * np.abs(descent).max()
    line = np.linspace(-reach, reach, 201)
    values = function(*np.meshgrid(line, line))
    lines = axes.contour(line, line, values, levels=8, colors="silver", linewidths=0.8)
    axes.clabel(lines, fontsize=8)
    axes.plot(*descent.T, ".", markersize=4, label=f"{len(descent) - 1} steps")
    axes.plot(*descent[0], "o", color="C1", label=_point("start", descent[0]))
    axes.plot(
        *descent[-1], "*", color="C3", markersize=12, label=_point("end", descent[-1])
    )
    axes.set(xlabel="x0", ylabel="x1", aspect="equal")
    axes.legend(loc="lower left")
    return _save(figure, path)


def gradient_field(
    points: Float[np.ndarray, "points 2"],
    gradients: Float[np.ndarray, "points 2"],
    path: str | Path,
) -> Path:
    """The descent direction, minus the gradient, as an arrow at each point."""
    figure = Figure(figsize=(5.5, 5), layout="constrained")
    axes = figure.subplots()
    sizes = np.linalg.norm(gradients, axis=1)
    arrows = axes.quiver(*points.T, *-gradients.T, sizes, angles="xy", cmap="viridis")
    figure.colorbar(arrows, label="length of the gradient")
    axes.set(xlabel="x0", ylabel="x1", aspect="equal", title="minus the gradient")
    return _save(figure, path)


def gradient_images(
    routes: dict[str, Float[np.ndarray, "units pixels"]],
    units: Sequence[int],
    path: str | Path,
) -> Path:
    """A row a hidden unit, a column a route or a difference of routes, as images.

    Each column has a scale of its own, symmetric about 0 and written beneath it.
    """
    side = math.isqrt(next(iter(routes.values())).shape[1])
    size = (1.9 * len(routes), 1.6 * len(units) + 1.1)
    figure = Figure(figsize=size, layout="constrained")
    grid = figure.subplots(len(units), len(routes), squeeze=False)
    for column, (name, gradients) in enumerate(routes.items()):
        scale = float(np.abs(gradients).max()) or 1.0
        for row, unit in enumerate(units):
            axes = grid[row, column]
            image = axes.imshow(
                gradients[row].reshape(side, side), cmap="RdBu", vmin=-scale, vmax=scale
            )
            axes.set(xticks=[], yticks=[])
            if column == 0:
                axes.set_ylabel(f"hidden unit {unit}")
        grid[0, column].set_title(name, fontsize=10)
        bar = figure.colorbar(image, ax=grid[:, column], location="bottom", shrink=0.9)
        bar.set_ticks([-scale, 0, scale], labels=[f"{-scale:.0e}", "0", f"{scale:.0e}"])
        bar.ax.tick_params(labelsize=8)
    figure.supxlabel("slope of the loss by the weight of each pixel", fontsize=10)
    return _save(figure, path)


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
    return _save(figure, path)


def _point(name: str, point: np.ndarray) -> str:
    return f"{name} ({', '.join(f'{x:.3g}' for x in point)})"


def _save(figure: Figure, path: str | Path) -> Path:
    """Write the figure as a PNG file, in a folder made on the way; return its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_figure(path, dpi=100, format="png")
    return path
