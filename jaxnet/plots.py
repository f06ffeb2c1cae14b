"""Figures as PNG files, drawn without a window: the only matplotlib import."""

from pathlib import Path

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


def _save(figure: Figure, path: str | Path) -> Path:
    """Write the figure as a PNG file, in a folder made on the way; return its path."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    FigureCanvasAgg(figure).print_figure(path, dpi=100, format="png")
    return path
