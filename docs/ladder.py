"""The picture of docs/verifier.md: difference quotients of one function on its ladder.

python docs/ladder.py            writes docs/ladder.png
"""

from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from jaxnet.differences.step_ladder import LEVELS, STEPS, TIMES, from_ladder

TRUE = np.cos(0.7)
"""The derivative of sin at 0.7."""


def values(dtype: type) -> np.ndarray:
    """sin(0.7 + t) at the ladder's times, rounded to a dtype."""
    return np.sin(0.7 + TIMES).astype(dtype).astype(np.float64)


def main() -> None:
    """Errors of all estimates, their bounds, and the chosen one, for two dtypes."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, (dtype, noise) in zip(
        panels, [(np.float64, 2e-17), (np.float32, 1.5e-8)], strict=True
    ):
        phi = values(dtype)
        forward, backward = phi[2 : 2 + LEVELS], phi[2 + LEVELS :]
        central = (forward - backward) / (2 * STEPS)
        weight = (STEPS[:-1] / STEPS[1:]) ** 2
        better = (weight * central[1:] - central[:-1]) / (weight - 1)
        found = from_ladder(phi, noise).central
        chosen = int(np.argmin(np.abs(better - found.value)))
        smallest = 1e-17
        axes.loglog(
            STEPS, np.maximum(np.abs(central - TRUE), smallest), ".-", color="silver"
        )
        axes.loglog(
            STEPS[1:], np.maximum(np.abs(better - TRUE), smallest), "o-", color="C0"
        )
        axes.axhspan(smallest, found.bound, color="C2", alpha=0.2)
        axes.axvline(STEPS[1:][chosen], color="C3", linestyle=":")
        axes.set(title=f"values rounded to {dtype.__name__}", xlabel="step h")
        axes.text(0.97, 0.04, "truncation →", transform=axes.transAxes, ha="right")
        axes.text(0.03, 0.94, "← rounding, η / h", transform=axes.transAxes, va="top")
        axes.text(STEPS[0], found.bound, "bound ", ha="right", va="bottom", color="C2")
    panels[0].set(ylim=(3e-18, 1e3))
    panels[0].set_ylabel("error of the estimate")
    labels = ["central difference", "with one Richardson step"]
    figure.legend(panels[0].lines[:2], labels, loc="outside lower center", ncols=2)
    path = Path(__file__).with_name("ladder.png")
    FigureCanvasAgg(figure).print_png(path)
    print(f"written: {path}")


if __name__ == "__main__":
    main()
