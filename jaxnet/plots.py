"""Figures of runs and reports as PNG files, drawn without a window."""

from pathlib import Path
from typing import Any

import numpy as np

from jaxnet import DISTRIBUTION
from jaxnet.training.state import History
from jaxnet.verification import GradientReport

try:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
except ImportError as error:
    fix = f"pip install '{DISTRIBUTION}[experiments]'"
    raise ImportError(f"jaxnet.plots needs matplotlib: {fix}") from error


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
    return save_figure(figure, path)


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
    return save_figure(figure, path)


def save_figure(figure: Figure, path: str | Path) -> Path:
    """Write the figure as a PNG file, in a folder made on the way; return its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_figure(path, dpi=100, format="png")
    return path
