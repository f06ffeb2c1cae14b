"""Where does descent by numerical gradients lead on x0² + x1²?

    python experiments/gradient_descent.py

Prints the gradients at the book's three points and the end of its descent, beside the
book's numbers. Writes gradient_descent.json, descent.png (the path on the contours) and
gradient_field.png to `--out`. Takes about 3 seconds.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from experiments.command import command
from jaxnet import gradient_descent, numerical_gradient
from jaxnet.plots import descent_on_contours, save_figure

BOOK_GRADIENTS = {
    (3.0, 4.0): (6.0, 8.0),
    (0.0, 2.0): (0.0, 4.0),
    (3.0, 0.0): (6.0, 0.0),
}
BOOK_END = (-5.0489e-09, 6.7319e-09)


@dataclass(frozen=True)
class Flags:
    """Descend on x0² + x1² by numerical gradients."""

    out: Path = Path("out")
    """Folder for the JSON file and the figures."""
    learning_rate: float = 0.01
    num_steps: int = 1000
    start: tuple[float, float] = (-3.0, 4.0)
    quick: bool = False
    """A coarse gradient field; the descent is as quick as it is."""


def main() -> None:
    """Parse the flags, and run."""
    command(Flags, __doc__, run)


def run(flags: Flags) -> None:
    """Compute, print and write."""
    print(f"{'gradient of x0² + x1² at':<25}{'book':>26}{'ours':>29}")
    gradients = {}
    for point, book in BOOK_GRADIENTS.items():
        gradients[point] = numerical_gradient(bowl, np.array(point))
        print(f"{numbers(point):<25}{numbers(book):>26}{exactly(gradients[point]):>29}")
    end, path = gradient_descent(
        bowl, np.array(flags.start), flags.learning_rate, flags.num_steps
    )
    settings = f"{flags.num_steps} steps from {numbers(flags.start)}"
    print(f"{settings:<25}{scientific(BOOK_END):>26}{scientific(end):>29}")
    line = np.arange(-2, 2.1, 1 if flags.quick else 0.25)
    points = np.stack(np.meshgrid(line, line), axis=-1).reshape(-1, 2)
    field = numerical_gradient(lambda x: bowl(x.T).sum(), points)
    contours = flags.out / "descent.png"
    descent_on_contours(lambda *x: bowl(x), path, contours)
    files = [
        contours,
        gradient_field(points, field, flags.out / "gradient_field.png"),
        flags.out / "gradient_descent.json",
    ]
    result = {
        "gradients": [{"at": p, "gradient": g.tolist()} for p, g in gradients.items()],
        "end": end.tolist(),
        "book_end": BOOK_END,
        "path": path.tolist(),
    }
    files[-1].write_text(json.dumps(result))
    print("written:", *files)


def bowl(x: Any) -> Any:
    """x0² + x1²."""
    return x[0] ** 2 + x[1] ** 2


def numbers(point: Any) -> str:
    """A point in as few digits as say it."""
    return f"({', '.join(f'{x:g}' for x in point)})"


def exactly(point: Any) -> str:
    """A point to 10 digits behind the point."""
    return f"({', '.join(f'{x:.10f}' for x in point)})"


def scientific(point: Any) -> str:
    """A point as the notebook prints it."""
    return f"({', '.join(f'{x:.4e}' for x in point)})"


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
    return save_figure(figure, path)


if __name__ == "__main__":
    main()
