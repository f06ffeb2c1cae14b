"""Are all three gradients of the book's network right, untrained and trained?

    python experiments/verify_gradients.py
    python experiments/verify_gradients.py --break zero-b1      # a planted mistake
    python experiments/verify_gradients.py --seeds 20           # each mistake, 20 times

The verifier checks backprop, autodiff and the numerical gradient of 784-50-10 on a
batch of 100 digits, before training and after 300 steps (or at `--checkpoint`), and
prints the table of each point. The numerical route is differences itself, with one
step for all: it is off by thousands of times more than the verifier's are along a
direction, and is held to bounds 10,000 times wider. Writes verify_gradients.json and
verify_gradients.png to `--out`, and exits 1 if any gradient is wrong. Takes about 30
seconds on two cores; `--seeds 20` about 4 minutes.

`--break NAME` plants a mistake beside the right routes: those of a backward pass by
hand, mean-forgotten (1/N), slope-missing (σ'), transposed and bias-not-summed; zero-b1,
w2-percent, all-percent, pixel-row, hidden-column, w1-sign, w1-tiny (a factor 1.00001);
or book-log-eps, which is the book's own pair: the loss adds 1e-7 to the probability,
the gradient y - t does not.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.command import command
from experiments.patience import said_if_slow
from jaxnet import Dense, Mnist, Params, init_params, load_mnist
from jaxnet.activations import d_sigmoid
from jaxnet.array_types import Scalar
from jaxnet.backprop import backprop
from jaxnet.gradients import autodiff, numerical
from jaxnet.input_checks import check_batch, check_count
from jaxnet.losses import BOOK_EPSILON, softmax
from jaxnet.mnist import NUM_CLASSES
from jaxnet.network import BOOK_NETWORK, forward, mean_loss
from jaxnet.plots import verified_leaves
from jaxnet.training import init_state, train
from jaxnet.training.checkpoint import load_params
from jaxnet.verification import GradientReport, Verdict, check_gradients

HIDDEN = 50
WRONG = (Verdict.DISAGREE, Verdict.MALFORMED)
"""What a mistake is called: another number, or another shape."""
WIDE = 40_000.0
"""How many bounds the numerical route may be off; 4 are allowed to the others."""


@dataclass(frozen=True)
class Problem:
    """A point: parameters of the book's network, and a batch."""

    params: Params
    images: np.ndarray
    labels: np.ndarray
    seed: int = 0

    def loss(self, params: Params) -> Scalar:
        """The mean loss of the batch."""
        return mean_loss(params, self.images, self.labels, BOOK_NETWORK)

    def book_loss(self, params: Params) -> Scalar:
        """The book's: it adds 1e-7 to the probability of the label."""
        y = softmax(forward(params, self.images, BOOK_NETWORK)[1])
        of_label = jnp.take_along_axis(y, jnp.asarray(self.labels)[:, None], axis=1)
        return jnp.mean(-jnp.log(of_label + BOOK_EPSILON))

    def by_hand(self, params: Params) -> Params:
        """Backprop: y - t at the logits."""
        return backprop(params, self.images, jnp.asarray(self.labels), BOOK_NETWORK)

    @cached_property
    def gradient(self) -> Params:
        """Backprop at the point, in float64."""
        with jax.enable_x64(True):
            params = jax.tree.map(lambda x: jnp.asarray(x, np.float64), self.params)
            return jax.tree.map(np.asarray, self.by_hand(params))

    @cached_property
    def links(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The images x, the hidden outputs z1, and d_z1 = dy W2ᵀ, in float64."""
        with jax.enable_x64(True):
            params = jax.tree.map(lambda x: jnp.asarray(x, np.float64), self.params)
            (x, z1), logits = forward(params, self.images, BOOK_NETWORK)
            d_logits = BOOK_NETWORK.output_loss.d_logits(logits, self.labels)
            d_z1 = d_logits / len(self.images) @ params[1].weight.T
            return np.asarray(x), np.asarray(z1), np.asarray(d_z1)


def draw_problem(data: Mnist, seed: int, batch_size: int = 100) -> Problem:
    """An untrained network and random training images."""
    rows = np.random.default_rng(seed).choice(len(data.train_labels), batch_size)
    sizes = (data.train_images.shape[1], HIDDEN, NUM_CLASSES)
    params = jax.tree.map(np.asarray, init_params(jax.random.key(seed), sizes))
    return Problem(params, data.train_images[rows], data.train_labels[rows], seed)


def _scaled(factors: dict[int, float], gradient: Params, problem: Problem) -> Params:
    leaves, structure = jax.tree.flatten(gradient)
    scaled = [factors.get(i, 1.0) * leaf for i, leaf in enumerate(leaves)]
    return jax.tree.unflatten(structure, scaled)


def _without_row(gradient: Params, problem: Problem) -> Params:
    """The slopes by one pixel's weights are zero, which they were not."""
    weight = gradient[0].weight.copy()
    alive = np.flatnonzero(weight.any(axis=1))
    weight[np.random.default_rng(problem.seed).choice(alive)] = 0
    return (gradient[0]._replace(weight=weight), *gradient[1:])


def _without_column(gradient: Params, problem: Problem) -> Params:
    """The slopes by one hidden unit's weights are zero."""
    weight = gradient[0].weight.copy()
    weight[:, 7] = 0
    return (gradient[0]._replace(weight=weight), *gradient[1:])


def _mean_forgotten(gradient: Params, problem: Problem) -> Params:
    """The sum over the examples, not their mean: 1/N is forgotten."""
    size = float(len(problem.images))
    return _scaled(dict.fromkeys(range(4), size), gradient, problem)


def _transposed(gradient: Params, problem: Problem) -> Params:
    """W2's gradient is dyᵀ z1, not z1ᵀ dy."""
    first, last = gradient
    return first, last._replace(weight=last.weight.T)


def _slope_missing(gradient: Params, problem: Problem) -> Params:
    """The first layer's gradient is made of dy W2ᵀ, without σ'."""
    x, _, d_z1 = problem.links
    return Dense(x.T @ d_z1, d_z1.sum(axis=0)), gradient[1]


def _bias_not_summed(gradient: Params, problem: Problem) -> Params:
    """b1's gradient has a row an example."""
    _, z1, d_z1 = problem.links
    first, last = gradient
    return first._replace(bias=d_z1 * np.asarray(d_sigmoid(z1))), last


MISTAKES: dict[str, Callable[[Params, Problem], Params]] = {
    "mean-forgotten": _mean_forgotten,
    "slope-missing": _slope_missing,
    "transposed": _transposed,
    "bias-not-summed": _bias_not_summed,
    "zero-b1": partial(_scaled, {1: 0.0}),
    "w2-percent": partial(_scaled, {2: 1.01}),
    "all-percent": partial(_scaled, dict.fromkeys(range(4), 1.01)),
    "pixel-row": _without_row,
    "hidden-column": _without_column,
    "w1-sign": partial(_scaled, {0: -1.0}),
    "w1-tiny": partial(_scaled, {0: 1.00001}),
}
Break = Literal[
    "mean-forgotten",
    "slope-missing",
    "transposed",
    "bias-not-summed",
    "zero-b1",
    "w2-percent",
    "all-percent",
    "pixel-row",
    "hidden-column",
    "w1-sign",
    "w1-tiny",
    "book-log-eps",
]


def planted(problem: Problem, mistake: str) -> Params:
    """The gradient with a mistake, in float64."""
    return MISTAKES[mistake](problem.gradient, problem)


@dataclass(frozen=True)
class Flags:
    """Verify the gradients of the book's network on MNIST."""

    out: Path = Path("out")
    """Folder for the JSON file and the figure."""
    data: Path | None = None
    """Folder of four IDX files; MNIST by default."""
    checkpoint: Path | None = None
    """Trained parameters, of train_mnist.py; trained here by default."""
    num_steps: int = 300
    """How many steps to train."""
    batch_size: int = 100
    seed: int = 0
    mistake: Annotated[Break | None, tyro.conf.arg(name="break")] = None
    """Plant this mistake."""
    seeds: int = 0
    """Plant every mistake at so many random points, and count."""
    quick: bool = False
    """Fewer images."""


def main() -> None:
    """Parse the flags, run, and exit 1 if a gradient is wrong."""
    sys.exit(0 if command(Flags, __doc__, run) else 1)


def run(flags: Flags) -> bool:
    """Verify or count; whether all is as it should be."""
    check_count("batch_size", flags.batch_size)
    check_count("seeds", flags.seeds, minimum=0)
    check_count("num_steps", flags.num_steps, minimum=0)
    if flags.quick:
        flags = replace(flags, batch_size=20)
    data = load_mnist(flags.data)
    if flags.quick:
        data = Mnist(*(array[:1000] for array in data))
    return count(data, flags) if flags.seeds else verify(data, flags)


def verify(data: Mnist, flags: Flags) -> bool:
    """Print and write the report of both points; whether both passed."""
    reports = {}
    for name, problem in points(data, flags).items():
        with said_if_slow(f"compiling and checking the loss, {name} …"):
            reports[name] = check(problem, flags.mistake)
        print(f"{name}\n\n{reports[name]}\n")
    flags.out.mkdir(parents=True, exist_ok=True)
    path = flags.out / "verify_gradients.json"
    values = {name: json.loads(report.to_json()) for name, report in reports.items()}
    path.write_text(json.dumps(values, indent=1))
    figure = flags.out / "verify_gradients.png"
    verified_leaves(reports, figure)
    print("written:", path, figure)
    return all(report.passed for report in reports.values())


def points(data: Mnist, flags: Flags) -> dict[str, Problem]:
    """The untrained and the trained network, on one batch."""
    untrained = draw_problem(data, flags.seed, flags.batch_size)
    if flags.checkpoint is not None:
        params, _, path = load_params(flags.checkpoint)
        check_batch(params, untrained.images, untrained.labels, BOOK_NETWORK)
        name = f"trained, {path}"
    else:
        sizes = [len(untrained.params[0].weight)]
        sizes += [layer.bias.size for layer in untrained.params]
        state = init_state(jax.random.key(flags.seed), sizes)
        state, history = train(data, state, num_steps=flags.num_steps)
        params = state.params
        accuracy = float(history.test_accuracy[-1])
        name = f"trained, {flags.num_steps} steps, test accuracy {accuracy:.3f}"
    trained = replace(untrained, params=jax.tree.map(np.asarray, params))
    return {"untrained": untrained, name: trained}


def check(problem: Problem, mistake: str | None) -> GradientReport:
    """The report of all routes, or of the right ones beside a mistake."""
    if mistake == "book-log-eps":
        book = {"y - t": problem.by_hand, "autodiff": jax.grad(problem.book_loss)}
        return check_gradients(problem.book_loss, problem.params, book)
    images, labels = problem.images, problem.labels
    routes: dict[str, Any] = {
        "backprop": problem.by_hand,
        "autodiff": lambda params: autodiff(params, images, labels),
    }
    if mistake is not None:
        routes[mistake] = planted(problem, mistake)
    report = check_gradients(problem.loss, problem.params, routes)
    if mistake is not None:
        return report
    slopes = {"numerical": numerical(problem.params, images, labels)}
    other = check_gradients(problem.loss, problem.params, slopes, safety=WIDE)
    evaluations = report.evaluations + other.evaluations
    return replace(report, leaves=report.leaves + other.leaves, evaluations=evaluations)


def count(data: Mnist, flags: Flags) -> bool:
    """Print how often each mistake was caught, and backprop was accused."""
    caught: Counter[str] = Counter()
    for seed in range(flags.seeds):
        problem = draw_problem(data, seed, flags.batch_size)
        candidates: dict[str, Any] = {n: planted(problem, n) for n in MISTAKES}
        candidates["backprop"] = problem.by_hand
        report = check_gradients(problem.loss, problem.params, candidates, key=seed)
        wrong = {x.candidate for x in report.leaves if x.verdict in WRONG}
        caught.update(wrong)
    for name in MISTAKES:
        print(f"{name:<14} caught {caught[name]} of {flags.seeds}")
    print(f"{'none':<14} accused {caught['backprop']} of {flags.seeds}")
    return caught == Counter(dict.fromkeys(MISTAKES, flags.seeds))


if __name__ == "__main__":
    main()
