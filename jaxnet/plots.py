"""Figures as PNG files, drawn without a window: the only matplotlib import."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from jaxnet.training.state import History
from jaxnet.verification import GradientReport


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


def verified_leaves(reports: dict[str, GradientReport], path: str | Path) -> Path:
    """Error, bound and resolution of every leaf and candidate, a panel a report.

    The error of a wrong leaf is red; one of exactly 0 stands at 1e-16.
    """
    heights = [len(report.leaves) for report in reports.values()]
    figure = Figure(figsize=(8, 1.7 + 0.25 * sum(heights)), layout="constrained")
    panels = figure.subplots(
        len(reports), sharex=True, squeeze=False, height_ratios=heights
    )
    marks: dict[str, dict[str, Any]] = {
        "error": {"marker": "o", "color": "C0"},
        "error of a wrong leaf": {"marker": "o", "color": "C3"},
        "bound": {"marker": "|", "color": "black", "markersize": 12},
        "resolution, relative": {"marker": "D", "color": "gray", "fillstyle": "none"},
    }
    for axes, (title, report) in zip(panels[:, 0], reports.items(), strict=True):
        leaves = sorted(report.leaves, key=lambda leaf: (leaf.path, leaf.candidate))
        errors = np.maximum([leaf.error for leaf in leaves], 1e-16)
        passed = np.array([leaf.passed for leaf in leaves])
        columns = [
            np.where(passed, errors, np.nan),
            np.where(passed, np.nan, errors),
            [leaf.bound for leaf in leaves],
            [leaf.resolution for leaf in leaves],
        ]
        for values, mark in zip(columns, marks.values(), strict=True):
            axes.plot(values, range(len(leaves)), ls="", **mark)
        labels = [f"{leaf.path or 'params'}  {leaf.candidate}" for leaf in leaves]
        axes.set_yticks(range(len(leaves)), labels, fontsize=8)
        axes.set(xscale="log", title=title, ylim=(len(leaves) - 0.5, -0.5))
        axes.grid(axis="x", linewidth=0.3)
    axes.set_xlabel("slope of the loss; resolution: share of the leaf's gradient")
    handles = [Line2D([], [], ls="", label=name, **m) for name, m in marks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
    return _save(figure, path)


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
    return _save(figure, path)


def missed_against_accused(
    rates: dict[tuple[str, str], tuple[float, float]], path: str | Path
) -> Path:
    """A pair of bars for each checker and setting: to the left what it missed, to
    the right what it accused, as shares; the darker bar is the default setting.
    """
    figure = Figure(figsize=(8, 0.8 + 0.28 * len(rates)), layout="constrained")
    axes = figure.subplots()
    for row, ((_, setting), (missed, accused)) in enumerate(rates.items()):
        alpha = 1.0 if setting == "default" else 0.5
        axes.barh(row, -missed, color="C3", alpha=alpha)
        axes.barh(row, accused, color="C0", alpha=alpha)
        axes.text(-missed, row, f"{missed:.0%} ", ha="right", va="center", fontsize=8)
        axes.text(accused, row, f" {accused:.0%}", ha="left", va="center", fontsize=8)
    names = [f"{checker}, {setting}" for checker, setting in rates]
    axes.set_yticks(range(len(rates)), names)
    axes.set(xlim=(-1.15, 1.15), ylim=(len(rates) - 0.5, -0.5), xticks=[])
    axes.axvline(0, color="black", linewidth=0.8)
    axes.text(-0.02, -0.7, "wrong gradients missed", ha="right", color="C3")
    axes.text(0.02, -0.7, "right gradients accused", ha="left", color="C0")
    axes.spines[["top", "right", "bottom", "left"]].set_visible(False)
    axes.tick_params(left=False)
    return _save(figure, path)


def _point(name: str, point: np.ndarray) -> str:
    return f"{name} ({', '.join(f'{x:.3g}' for x in point)})"


def _save(figure: Figure, path: str | Path) -> Path:
    """Write the figure as a PNG file, in a folder made on the way; return its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_figure(path, dpi=100, format="png")
    return path
