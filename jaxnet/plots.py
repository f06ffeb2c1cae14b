"""Figures of runs, gradients and reports, drawn without a window.

Each is a `Figure` of matplotlib that a notebook shows as a picture, and a PNG file as
well where a `path` is given.
"""

import math
from collections.abc import Callable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Integer

from jaxnet import DISTRIBUTION
from jaxnet.training.state import History
from jaxnet.verification import GradientReport, LeafReport

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as PlainFigure
    from matplotlib.lines import Line2D
except ImportError as error:
    fix = f"pip install '{DISTRIBUTION}[experiments]'"
    raise ImportError(f"jaxnet.plots needs matplotlib: {fix}") from error


class Figure(PlainFigure):
    """A figure that is shown where a notebook's cell ends with it, without pyplot."""

    def _repr_png_(self) -> bytes:
        picture = BytesIO()
        FigureCanvasAgg(self).print_figure(picture, dpi=100, format="png")
        return picture.getvalue()


def training_curves(
    history: History,
    path: str | Path | None = None,
    *,
    blog: Float[np.ndarray, "epochs 2"] | None = None,
) -> Figure:
    """The accuracies against epochs as the blog draws them, beside the loss.

    blog: another run's accuracies at the start of each epoch, training and test, drawn
        as broad lines behind them.
    """
    figure = Figure(figsize=(10, 4), layout="constrained")
    loss_axes, axes = figure.subplots(1, 2)
    loss_axes.plot(range(1, 1 + len(history.losses)), history.losses, linewidth=0.5)
    loss_axes.set(xlabel="steps", ylabel="loss of the batch", ylim=(0, None))
    epochs = history.steps / history.steps_per_epoch
    axes.plot(epochs, history.train_accuracy, marker="o", label="train")
    axes.plot(epochs, history.test_accuracy, "--", marker="s", label="test")
    if blog is not None:
        wide = {"linewidth": 7, "alpha": 0.3, "zorder": 0}
        for number, name in enumerate(("train", "test")):
            label = f"the blog, {name}"
            axes.plot(blog[:, number], color=f"C{number}", label=label, **wide)
    axes.set(xlabel="epochs", ylabel="accuracy", ylim=(0, 1))
    axes.legend(loc="lower right")
    return _saved(figure, path)


def gradient_images(
    routes: dict[str, Float[np.ndarray, "units pixels"]],
    units: Sequence[int],
    path: str | Path | None = None,
) -> Figure:
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
    figure.supxlabel(
        "∂L/∂W1: slope of the loss with respect to each pixel's weight", fontsize=10
    )
    return _saved(figure, path)


def predicted_digits(
    images: Float[np.ndarray, "digits pixels"],
    probabilities: Float[np.ndarray, "digits classes"],
    labels: Integer[np.ndarray, " digits"] | None = None,
    path: str | Path | None = None,
) -> Figure:
    """Each image above the probabilities of its classes.

    The true class, where `labels` tell it, is green; a wrong answer is red.
    """
    count, side = len(images), math.isqrt(images.shape[1])
    figure = Figure(figsize=(1.9 * count, 3.8), layout="constrained")
    above, below = figure.subplots(2, count, squeeze=False)
    for number, (image, shares) in enumerate(zip(images, probabilities, strict=True)):
        answer, axes, bars = int(shares.argmax()), above[number], below[number]
        colours = ["C0"] * len(shares)
        title = f"{answer}: {shares[answer]:.1%}"
        if labels is not None:
            label = int(labels[number])
            colours[answer], colours[label] = "C3", "C2"
            title += f"\nlabel {label}"
            axes.title.set_color("black" if answer == label else "C3")
        axes.imshow(image.reshape(side, side), cmap="gray", vmin=0, vmax=1)
        axes.set(title=title, xticks=[], yticks=[])
        bars.bar(range(len(shares)), shares, color=colours)
        bars.set(ylim=(0, 1), xticks=range(len(shares)))
        bars.tick_params(labelsize=8)
        if number == 0:
            bars.set_ylabel("probability")
    return _saved(figure, path)


def descent_on_contours(
    function: Callable[[np.ndarray, np.ndarray], np.ndarray],
    descent: Float[np.ndarray, "points 2"],
    path: str | Path | None = None,
) -> Figure:
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
    return _saved(figure, path)


def _point(name: str, point: np.ndarray) -> str:
    return f"{name} ({', '.join(f'{x:.3g}' for x in point)})"


NETWORK_LEAVES = {
    "[0].weight": "W1",
    "[0].bias": "b1",
    "[1].weight": "W2",
    "[1].bias": "b2",
}
"""The book's names of the leaves of a network of two layers."""


def verified_leaves(
    reports: dict[str, GradientReport], path: str | Path | None = None
) -> Figure:
    """Error, bound and resolution of every leaf and candidate, a row a report.

    Two panels, as there are two units: of the loss a unit of the parameter, and of the
    leaf's gradient. The error of a wrong leaf is red; one of exactly 0 stands at 1e-16,
    and where there is none stands the verdict.
    """
    heights = [len(report.leaves) for report in reports.values()]
    figure = Figure(figsize=(10, 1.7 + 0.25 * sum(heights)), layout="constrained")
    rows = figure.subplots(
        len(reports), 2, sharex="col", squeeze=False, height_ratios=heights
    )
    marks: dict[str, dict[str, Any]] = {
        "error": {"marker": "o", "color": "C0"},
        "error of a wrong leaf": {"marker": "o", "color": "C3"},
        "bound of the error": {"marker": "|", "color": "black", "markersize": 12},
        "smallest detectable error": {
            "marker": "D",
            "color": "gray",
            "fillstyle": "none",
        },
    }
    for (left, right), (title, report) in zip(rows, reports.items(), strict=True):
        leaves = sorted(report.leaves, key=_in_order)
        errors = np.maximum([leaf.error for leaf in leaves], 1e-16)
        passed = np.array([leaf.passed for leaf in leaves])
        columns = [
            np.where(passed, errors, np.nan),
            np.where(passed, np.nan, errors),
            [leaf.bound for leaf in leaves],
            [leaf.resolution for leaf in leaves],
        ]
        panels = (left, left, left, right)
        for axes, values, mark in zip(panels, columns, marks.values(), strict=True):
            axes.plot(values, range(len(leaves)), ls="", **mark)
        labels = [
            f"{NETWORK_LEAVES.get(leaf.path, leaf.path) or 'params'}  {leaf.candidate}"
            for leaf in leaves
        ]
        left.set_yticks(range(len(leaves)), labels, fontsize=8)
        left.set_title(title, loc="left")
        right.set_yticks(range(len(leaves)), [""] * len(leaves))
        for row, leaf in enumerate(leaves):
            if not np.isfinite(leaf.error):
                word = {"color": "black" if leaf.passed else "C3", "va": "center"}
                across = left.get_yaxis_transform()
                left.text(0.02, row, leaf.verdict.value, transform=across, **word)
        for axes in (left, right):
            axes.set(xscale="log", ylim=(len(leaves) - 0.5, -0.5))
            axes.grid(axis="x", linewidth=0.3)
    rows[-1, 0].set_xlabel("slope of the loss")
    rows[-1, 1].set_xlabel("share of the leaf's gradient")
    handles = [Line2D([], [], ls="", label=name, **m) for name, m in marks.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=4, fontsize=9)
    return _saved(figure, path)


def _in_order(leaf: LeafReport) -> tuple[int, str, str]:
    """From the first layer to the last, each with its candidates."""
    known = list(NETWORK_LEAVES)
    place = known.index(leaf.path) if leaf.path in known else len(known)
    return place, leaf.path, leaf.candidate


def _saved(figure: Figure, path: str | Path | None) -> Figure:
    if path is not None:
        save_figure(figure, path)
    return figure


def save_figure(figure: PlainFigure, path: str | Path) -> Path:
    """Write the figure as a PNG file, in a folder made on the way; return its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_figure(path, dpi=100, format="png")
    return path
