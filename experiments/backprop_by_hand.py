"""Which line of a backward pass by hand is wrong? The book's chain, link by link.

    python experiments/backprop_by_hand.py
    python experiments/backprop_by_hand.py --output sigmoid        # the notebook's
    python experiments/backprop_by_hand.py --break slope-missing   # a classic mistake
    python experiments/backprop_by_hand.py --break all             # each in turn

The backward pass of 784-50-10 in seven lines, named as in the book: dy, dW2, db2, da1,
dz1, dW1, db1. Each is held against differences of the loss: dy, da1 and dz1 with
respect to the values that `jaxnet.tap` names (a2, z1 and a1; the book calls da1 what is
with respect to z1, and dz1 what is with respect to a1). Prints a line a link, from the
loss on, with the sentence that finds a mistake, and writes backprop_by_hand.json and a
figure of the chain to `--out`. Exits 1 if a link is wrong. Takes some 10 seconds.
"""

import json
import sys
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure

from experiments.command import command
from jaxnet import (
    GradientReport,
    LeafReport,
    Mnist,
    check_gradients,
    init_params,
    load_mnist,
    tap,
)
from jaxnet.activations import d_sigmoid, sigmoid
from jaxnet.losses import BOOK_EPSILON

LINKS = {
    "dy": ("d_a2", "∂L/∂a2"),
    "dW2": ("['W2']", "z1ᵀ dy"),
    "db2": ("['b2']", "sum of dy over the examples"),
    "da1": ("d_z1", "∂L/∂z1 = dy W2ᵀ"),
    "dz1": ("d_a1", "∂L/∂a1 = σ'(a1) da1"),
    "dW1": ("['W1']", "xᵀ dz1"),
    "db1": ("['b1']", "sum of dz1 over the examples"),
}
"""The book's names, what the report calls them, and what they are."""

Output = Literal["softmax", "sigmoid"]
Mistake = Literal[
    "mean-forgotten",
    "sign",
    "log-epsilon",
    "y-minus-t",
    "transposed",
    "weights-not-transposed",
    "slope-missing",
    "slope-of-z1",
    "bias-not-summed",
    "bias-mean",
    "bias-other-axis",
    "dw1-of-da1",
]
MISTAKES: tuple[str, ...] = Mistake.__args__  # type: ignore[attr-defined]
SAID = {
    "mean-forgotten": "1/N is forgotten: dy = y - t",
    "sign": "dy = (t - y) / N",
    "log-epsilon": "dy = (y - t) / N, but the loss is -log(y + 1e-7)",
    "y-minus-t": "dy = (y - t) / N, which is of softmax, after a sigmoid",
    "transposed": "dW2 = dyᵀ z1",
    "weights-not-transposed": "da1 = dy W2, with as many hidden units as classes",
    "slope-missing": "dz1 = da1, without σ'(a1)",
    "slope-of-z1": "dz1 = σ'(z1) da1",
    "bias-not-summed": "db1 = dz1",
    "bias-mean": "db2 is the mean over the examples",
    "bias-other-axis": "db2 is summed over the classes",
    "dw1-of-da1": "dW1 = xᵀ da1",
}
"""What each mistake writes."""

AFTER = {
    "dW2": "dy",
    "db2": "dy",
    "da1": "dy",
    "dz1": "da1",
    "dW1": "dz1",
    "db1": "dz1",
}
"""Which link each is computed from."""

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Flags:
    """The book's backward pass by hand, link by link."""

    output: Output = "softmax"
    """The last layer, and the loss that goes with it."""
    mistake: Annotated[Mistake | Literal["all"] | None, tyro.conf.arg(name="break")] = (
        None
    )
    """A mistake to make, or all of them in turn."""
    out: Path = Path("out")
    """Folder for the JSON file and the figure."""
    quick: bool = False
    """12 images instead of 100."""


@dataclass(frozen=True)
class Problem:
    """A batch, the parameters, and the net's last layer."""

    x: np.ndarray
    t: np.ndarray
    params: Arrays
    output: Output
    epsilon: float

    def loss(self, params: Any) -> Any:
        """The mean cross entropy, with its intermediate values tapped."""
        a1 = tap("a1", self.x @ params["W1"] + params["b1"][None])
        z1 = tap("z1", sigmoid(a1))
        a2 = tap("a2", z1 @ params["W2"] + params["b2"][None])
        if self.output == "softmax" and not self.epsilon:
            log_y = jax.nn.log_softmax(a2)
        else:
            y = jax.nn.softmax(a2) if self.output == "softmax" else sigmoid(a2)
            log_y = jnp.log(y + self.epsilon)
        return -jnp.mean(jnp.sum(self.t * log_y, axis=1))

    def backward(self, mistake: str | None) -> Arrays:
        """The seven links by hand, in NumPy, one of them with a mistake."""
        x, t, p, size = self.x, self.t, self.params, len(self.x)
        a1 = x @ p["W1"] + p["b1"]
        z1 = _sigmoid(a1)
        a2 = z1 @ p["W2"] + p["b2"]
        y = _sigmoid(a2) if self.output == "sigmoid" else _softmax(a2)
        d = Arrays()
        d["dy"] = (y - t) / size
        if self.output == "sigmoid" and mistake != "y-minus-t":
            d["dy"] = -t * (1 - y) / size
        if mistake == "mean-forgotten":
            d["dy"] = d["dy"] * size
        if mistake == "sign":
            d["dy"] = -d["dy"]
        d["dW2"] = d["dy"].T @ z1 if mistake == "transposed" else z1.T @ d["dy"]
        d["db2"] = {
            "bias-mean": d["dy"].mean(axis=0),
            "bias-other-axis": d["dy"].sum(axis=1),
        }.get(str(mistake), d["dy"].sum(axis=0))
        is_turned = mistake == "weights-not-transposed"
        d["da1"] = d["dy"] @ (p["W2"] if is_turned else p["W2"].T)
        slope = {
            "slope-missing": np.ones_like(a1),
            "slope-of-z1": np.asarray(d_sigmoid(_sigmoid(z1))),
        }.get(str(mistake), np.asarray(d_sigmoid(z1)))
        d["dz1"] = slope * d["da1"]
        d["dW1"] = x.T @ (d["da1"] if mistake == "dw1-of-da1" else d["dz1"])
        d["db1"] = d["dz1"] if mistake == "bias-not-summed" else d["dz1"].sum(axis=0)
        return d

    def checked(self, d: Arrays) -> GradientReport:
        """What the verifier says of the seven links."""
        gradient = {name: d[f"d{name}"] for name in self.params}
        taps = {"a2": d["dy"], "z1": d["da1"], "a1": d["dz1"]}
        return check_gradients(
            self.loss, self.params, {"by hand": gradient}, intermediates=taps
        )


def main() -> None:
    """Parse the flags, and run."""
    sys.exit(command(Flags, __doc__, run))


def run(flags: Flags) -> int:
    """Check, print, write; the exit code."""
    asked = MISTAKES if flags.mistake == "all" else (flags.mistake,)
    found, data = dict[str, dict[str, LeafReport]](), load_mnist()
    with jax.enable_x64(True):
        for mistake in asked:
            problem = draw(flags, mistake, data)
            report = problem.checked(problem.backward(mistake))
            by_path = {leaf.path: leaf for leaf in report.leaves}
            links = {
                name: in_the_books_names(by_path[path])
                for name, (path, _) in LINKS.items()
            }
            found[mistake or "none"] = links
            print(as_text(problem.output, mistake, links) + "\n", flush=True)
    flags.out.mkdir(parents=True, exist_ok=True)
    result = {
        mistake: {
            name: {"verdict": link.verdict.value, "cause": link.cause}
            for name, link in links.items()
        }
        for mistake, links in found.items()
    }
    path = flags.out / "backprop_by_hand.json"
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False))
    figure = flags.out / "backprop_by_hand.png"
    drawn(found).savefig(figure, dpi=150)
    print(f"written: {path}, {figure}")
    return int(any(first_wrong(links) for links in found.values()))


def draw(flags: Flags, mistake: str | None, data: Mnist) -> Problem:
    """A batch of digits, an untrained net with weights that matter, its loss."""
    size = 12 if flags.quick else 100
    hidden = 10 if mistake == "weights-not-transposed" else 50
    output: Output = "sigmoid" if mistake == "y-minus-t" else flags.output
    layers = init_params(jax.random.key(0), (784, hidden, 10), 0.1)
    params = Arrays()
    for number, layer in enumerate(layers, 1):
        random = np.random.default_rng(number)
        params[f"W{number}"] = np.asarray(layer.weight, np.float64)
        params[f"b{number}"] = 0.1 * random.standard_normal(layer.bias.shape)
    x = np.asarray(data.train_images[:size], np.float64)
    t = np.eye(10)[data.train_labels[:size]]
    return Problem(x, t, params, output, BOOK_EPSILON * (mistake == "log-epsilon"))


def in_the_books_names(link: LeafReport) -> LeafReport:
    """The record, with dy for d_a2 and so on."""
    cause = link.cause
    for name, (path, _) in LINKS.items():
        if path.startswith("d_"):
            cause = cause.replace(path, name)
    return replace(link, cause=cause)


def first_wrong(links: dict[str, LeafReport]) -> str | None:
    """The link where the mistake entered, from the loss on."""
    wrong = [name for name, link in links.items() if not link.passed]
    return wrong[0] if wrong else None


def as_text(output: Output, mistake: str | None, links: dict[str, LeafReport]) -> str:
    """A line a link, and below a wrong one the sentence that finds it."""
    first = first_wrong(links)
    title = f"{mistake}: {SAID[mistake]}" if mistake else "no mistake"
    lines = [f"{title} ({output} output)"]
    for name, link in links.items():
        _, formula = LINKS[name]
        state = "right" if link.passed else "WRONG" if name == first else "wrong"
        lines.append(f"  {name:<4} {state:<6} {formula}")
        if not link.passed:
            lines += textwrap.wrap(
                link.cause or link.detail,
                78,
                initial_indent=" " * 14,
                subsequent_indent=" " * 14,
            )
    end = f"the mistake enters at {first}" if first else "each link is right"
    return "\n".join([*lines, f"  {end}"])


def drawn(found: dict[str, dict[str, LeafReport]]) -> Figure:
    """A row of boxes for each mistake: right green, the first wrong one red."""
    figure = Figure(figsize=(8, 0.9 + 0.55 * len(found)), layout="constrained")
    axes = figure.subplots()
    for row, links in enumerate(found.values()):
        first = first_wrong(links)
        for column, (name, link) in enumerate(links.items()):
            colour = "#b7dfb4" if link.passed else "#f5d9a8"
            colour = "#e0524d" if name == first else colour
            mark = "" if link.passed else "✗ "
            axes.text(
                column,
                row,
                mark + name,
                ha="center",
                va="center",
                bbox={"boxstyle": "round,pad=0.4", "facecolor": colour},
            )
            if name in AFTER:
                before = list(links).index(AFTER[name])
                axes.annotate(
                    "",
                    (column, row - 0.24),
                    (before, row - 0.24),
                    arrowprops={
                        "arrowstyle": "->",
                        "color": "gray",
                        "connectionstyle": f"arc3,rad={-0.22 / (column - before)}",
                    },
                )
    axes.set_yticks(range(len(found)), list(found), fontsize=9)
    axes.set(xlim=(-0.6, len(LINKS) - 0.4), ylim=(len(found) - 0.4, -0.6), xticks=[])
    axes.set_title(
        "From the loss on: right green, wrong ✗, the first wrong link red",
        fontsize=10,
    )
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def _sigmoid(a: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-a))


def _softmax(a: np.ndarray) -> np.ndarray:
    e = np.exp(a - a.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


if __name__ == "__main__":
    main()
