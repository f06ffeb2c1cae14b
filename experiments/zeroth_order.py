"""How far does training get without derivatives, in a time and in evaluations?

    python experiments/zeroth_order.py [--seconds 30]
    python experiments/zeroth_order.py --sweep      # how the learning rates were found

784-50-10 on MNIST, batches of 100, SGD. Each method has the same seconds, compilation
and evaluation apart: exact differences of every parameter; SPSA and MeZO, two
evaluations along one random direction; SPSA along 64; forward gradients, a directional
derivative by `jax.jvp`; an evolution strategy of rank-one perturbations (EGGROLL), and
evosax's Open_ES where that is installed; backprop as the limit. Prints a line a method,
and writes zeroth_order.json and zeroth_order.png to `--out`: test accuracy against
seconds and against evaluations of the loss of a batch. Takes about 5 minutes.
"""

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from time import perf_counter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float
from matplotlib.figure import Figure

from experiments.command import command
from jaxnet import Mnist, Params, gradients, init_params, load_mnist
from jaxnet.activations import sigmoid
from jaxnet.array_types import Array, Images, Labels, Losses, RandomKey, Scalar
from jaxnet.losses import softmax_cross_entropy
from jaxnet.network import BOOK_NETWORK, accuracy, mean_loss
from jaxnet.plots import save_figure

SIZES = (784, 50, 10)
NUM_PARAMETERS = sum((m + 1) * n for m, n in pairwise(SIZES))
BATCH_SIZE = 100
GROWTH = 1.3
"""How many times as many steps lie before each point of a curve as before the last."""

SHARE = 0.8
"""The test accuracy whose price is printed."""

STEP = 1e-3
"""h of the differences along a random direction, as MeZO's ε: in float32 their rounding
is some 1e-4 then, and a slope along a direction some tenths."""
SIGMA = 0.01
"""How far an evolution strategy perturbs each weight."""

OF_BACKPROP, OF_JVP = 3, 2
"""Evaluations that a derivative is counted as: a backward pass is some two more passes
as that forward, and a tangent that travels along is one more."""

Estimator = Callable[[RandomKey, Params, Images, Labels], Params]
"""A gradient of the mean loss, right in the mean over keys."""


def loss(params: Params, images: Images, labels: Labels) -> Scalar:
    """The book's."""
    return mean_loss(params, images, labels, BOOK_NETWORK)


def signs(key: RandomKey, params: Params) -> Params:
    """A direction whose entries are 1 or -1 (Spall 1992)."""
    return _drawn(lambda k, x: jax.random.rademacher(k, x.shape, x.dtype), key, params)


def normal(key: RandomKey, params: Params) -> Params:
    """A direction whose entries are of N(0, 1)."""
    return _drawn(lambda k, x: jax.random.normal(k, x.shape, x.dtype), key, params)


def _drawn(draw: Callable[[Any, Any], Any], key: RandomKey, params: Params) -> Params:
    leaves, structure = jax.tree.flatten(params)
    keys = jax.random.split(key, len(leaves))
    return jax.tree.unflatten(
        structure, [draw(k, x) for k, x in zip(keys, leaves, strict=True)]
    )


def along(params: Params, far: float, direction: Params) -> Params:
    """params + far × direction."""
    return jax.tree.map(lambda x, z: x + far * z, params, direction)


def by_difference(params: Params, z: Params, images: Images, labels: Labels) -> Scalar:
    """The slope along z from two values: (L(w + h z) - L(w - h z)) / 2h."""
    up, down = (loss(along(params, h, z), images, labels) for h in (STEP, -STEP))
    return (up - down) / (2 * STEP)


def by_jvp(params: Params, z: Params, images: Images, labels: Labels) -> Scalar:
    """The slope along z, a derivative: of a tangent that travels with the values."""
    return jax.jvp(lambda p: loss(p, images, labels), (params,), (z,))[1]


def projected(
    draw: Callable[[RandomKey, Params], Params],
    slope: Callable[..., Scalar],
    directions: int,
    key: RandomKey,
    params: Params,
    images: Images,
    labels: Labels,
) -> Params:
    """The mean of slope × z over random directions z: E[z zᵀ] = 1 makes it unbiased."""

    def one(key: RandomKey) -> Params:
        z = draw(key, params)
        s = slope(params, z, images, labels)
        return jax.tree.map(lambda leaf: s * leaf, z)

    each = jax.vmap(one)(jax.random.split(key, directions))
    return jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0), each)


def rank_one(
    pairs: int, key: RandomKey, params: Params, images: Images, labels: Labels
) -> Params:
    """The mean of slope × E over rank-one perturbations E = a bᵀ of each weight.

    x (W + σ a bᵀ) = x W + σ (x·a) bᵀ: the product x W is one for all, and a
    perturbation costs a column of it. Biases move along normal directions.
    """
    keys = jax.random.split(key, 3)
    a, b, c = (
        [
            jax.random.normal(k, (pairs, size), jnp.float32)
            for k, size in zip(jax.random.split(each, len(sizes)), sizes, strict=True)
        ]
        for each, sizes in zip(
            keys,
            (
                [len(layer.weight) for layer in params],
                [len(layer.bias) for layer in params],
                [len(layer.bias) for layer in params],
            ),
            strict=True,
        )
    )
    first, last = params
    shared = images @ first.weight + first.bias[None]

    def member(a: list[Array], b: list[Array], c: list[Array], sigma: float) -> Losses:
        moved = sigma * ((images @ a[0])[:, None] * b[0][None] + c[0][None])
        hidden = sigmoid(shared + moved)
        moved = sigma * ((hidden @ a[1])[:, None] * b[1][None] + c[1][None])
        logits = hidden @ last.weight + last.bias[None] + moved
        return softmax_cross_entropy(logits, labels)

    up, down = (
        jax.vmap(lambda a, b, c, s=s: jnp.mean(member(a, b, c, s)))(a, b, c)
        for s in (SIGMA, -SIGMA)
    )
    slopes = ((up - down) / (2 * SIGMA * pairs))[:, None]
    return tuple(
        layer._replace(weight=(slopes * a).T @ b, bias=jnp.sum(slopes * c, axis=0))
        for layer, a, b, c in zip(params, a, b, c, strict=True)
    )


def whole(gradient: gradients.Gradient) -> Estimator:
    """A route to the whole gradient, which needs no random key."""
    return lambda key, params, images, labels: gradient(params, images, labels)


class Method(NamedTuple):
    """A way to train: an estimator with its price, and a learning rate.

    source: where it is from.
    """

    name: str
    estimator: Estimator | None
    evaluations: int
    learning_rate: float
    source: str


PAIRS, MEMBERS = 512, 128
METHODS = (
    Method("backprop", whole(gradients.backprop), OF_BACKPROP, 3.0, "chapter 5"),
    Method(
        "exact differences",
        whole(gradients.traceable("numerical")),
        2 * NUM_PARAMETERS,
        3.0,
        "section 4.5",
    ),
    Method("SPSA", partial(projected, signs, by_difference, 1), 2, 1e-2, "Spall 1992"),
    Method(
        "SPSA, 64 pairs",
        partial(projected, signs, by_difference, 64),
        128,
        0.3,
        "Spall 1992",
    ),
    Method(
        "MeZO", partial(projected, normal, by_difference, 1), 2, 1e-2, "Malladi 2023"
    ),
    Method(
        "forward gradient",
        partial(projected, normal, by_jvp, 1),
        OF_JVP,
        1e-2,
        "Baydin 2022",
    ),
    Method(
        "rank-one ES (EGGROLL)",
        partial(rank_one, PAIRS),
        2 * PAIRS,
        1.0,
        "Sarkar 2025",
    ),
    Method("Open_ES of evosax", None, MEMBERS, 3e-3, "Salimans 2017"),
)
"""Learning rates are the best of a sweep of 5 seconds each."""

RATES = (1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0)


@dataclass(frozen=True)
class Flags:
    """Train without derivatives, by five ways, beside backprop."""

    out: Path = Path("out")
    """Folder for the JSON file and the figure."""
    seconds: float = 30.0
    """How long each method trains."""
    methods: tuple[str, ...] = ()
    """Names of methods; all by default."""
    sweep: bool = False
    """Train each method with each of a list of learning rates, and print the ends."""
    seed: int = 0
    quick: bool = False
    """A fraction of a second each, on a few images."""


class Training(NamedTuple):
    """A method on data: where it begins, how it goes on, and what it has learned."""

    start: Any
    steps: Callable[[Any, RandomKey, int, int], Any]
    """The carry after steps `begin` to `end`, whose keys come of one."""
    params: Callable[[Any], Params]


class Point(NamedTuple):
    """A point of a curve."""

    steps: int
    seconds: float
    evaluations: int
    test_accuracy: float


def main() -> None:
    """Parse the flags, and run."""
    command(Flags, __doc__, run)


def run(flags: Flags) -> None:
    """Train, print and write."""
    data = load_mnist()
    if flags.quick:
        data = Mnist(*(array[:1000] for array in data))
        flags = replace(flags, seconds=min(flags.seconds, 0.2))
    methods = [m for m in METHODS if is_wanted(m, flags)]
    if flags.sweep:
        for method in methods:
            sweep(method, data, flags)
        return
    print(HEADER)
    curves = dict[str, list[Point]]()
    for method in methods:
        curves[method.name] = list(trained(method, data, flags))
        print(as_row(method, curves[method.name]), flush=True)
    flags.out.mkdir(parents=True, exist_ok=True)
    path = flags.out / "zeroth_order.json"
    rows = {name: [p._asdict() for p in curve] for name, curve in curves.items()}
    path.write_text(json.dumps(rows, indent=1))
    figure = accuracy_curves(curves)
    print("written:", path, save_figure(figure, flags.out / "zeroth_order.png"))


HEADER = f"""\
{"":<22}{"learning":>9}{"ms":>7}{"":>8}{"test":>10}{f"to {SHARE}:":>11}
{"method":<22}{"rate":>9}{"a step":>7}{"steps":>8}{"accuracy":>10}{"seconds":>11}\
{"evaluations":>13}"""


def as_row(method: Method, curve: list[Point]) -> str:
    """A line of the table."""
    end = curve[-1]
    there = next((p for p in curve if p.test_accuracy >= SHARE), None)
    price = (f"{there.seconds:.2g}", f"{there.evaluations:,}") if there else ("–", "–")
    each = f"{1e3 * end.seconds / end.steps:.3g}"
    numbers = f"{each:>7}{end.steps:>8,}{end.test_accuracy:>10.4f}"
    name = f"{method.name:<22}{method.learning_rate:>9g}"
    return f"{name}{numbers}{price[0]:>11}{price[1]:>13}"


def is_wanted(method: Method, flags: Flags) -> bool:
    """Whether it was asked for, and its library is there."""
    if flags.methods and method.name not in flags.methods:
        return False
    if method.estimator is None:
        try:
            import evosax  # noqa: F401
        except ImportError:
            print(f"{method.name}: left out, evosax is not installed")
            return False
    return True


def trained(method: Method, data: Mnist, flags: Flags) -> Iterator[Point]:
    """The points of its curve, until its seconds are over.

    The clock stands while programs are compiled and accuracies taken.
    """
    batches, key = jax.random.split(jax.random.key(flags.seed))
    params = init_params(key, SIZES)
    training = begun(method, data, params)
    images, labels = data.test_images, data.test_labels
    jax.block_until_ready(training.steps(training.start, batches, 0, 1))
    carry, step, seconds = training.start, 0, 0.0
    while True:
        right = float(accuracy(training.params(carry), images, labels))
        yield Point(step, seconds, step * method.evaluations, right)
        if seconds >= flags.seconds:
            return
        end = max(step + 1, int(step * GROWTH))
        if step:  # no further than the time allows
            end = min(end, step + 1 + int(step * (flags.seconds / seconds - 1)))
        begin = perf_counter()
        carry = jax.block_until_ready(training.steps(carry, batches, step, end))
        seconds += perf_counter() - begin
        step = end


def begun(method: Method, data: Mnist, params: Params) -> Training:
    """The method as three functions of what it carries from step to step."""
    images, labels = jax.device_put((data.train_images, data.train_labels))

    def batch(key: RandomKey) -> tuple[Images, Labels]:
        rows = jax.random.randint(key, (BATCH_SIZE,), 0, len(images))
        return images[rows], labels[rows]

    if method.estimator is None:
        start, step, mean = of_evosax(method, params)
    else:
        estimator, start = method.estimator, params

        def step(key: RandomKey, params: Params, *batch: Array) -> Params:
            return along(params, -method.learning_rate, estimator(key, params, *batch))

        def mean(params: Params) -> Params:
            return params

    @jax.jit
    def steps(carry: Any, key: RandomKey, begin: int, end: int) -> Any:
        def one(number: Any, carry: Any) -> Any:
            of_batch, own = jax.random.split(jax.random.fold_in(key, number))
            return step(own, carry, *batch(of_batch))

        return jax.lax.fori_loop(begin, end, one, carry)

    return Training(start, steps, mean)


def of_evosax(method: Method, params: Params) -> tuple[Any, Any, Any]:
    """Its start, step and mean: OpenAI's evolution strategy, with ranks for losses."""
    import optax
    from evosax.algorithms import Open_ES

    strategy = Open_ES(
        MEMBERS,
        params,
        optimizer=optax.sgd(method.learning_rate),
        std_schedule=optax.constant_schedule(SIGMA),
    )
    settings = strategy.default_params
    start = strategy.init(jax.random.key(0), params, settings)

    def step(key: RandomKey, state: Any, images: Images, labels: Labels) -> Any:
        ask, tell = jax.random.split(key)
        with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
            population, state = strategy.ask(ask, state, settings)
            losses = jax.vmap(lambda p: loss(p, images, labels))(population)
            return strategy.tell(tell, population, losses, state, settings)[0]

    return start, step, strategy.get_mean


def sweep(method: Method, data: Mnist, flags: Flags) -> None:
    """Print the last accuracy of each learning rate."""
    ends = dict[float, float]()
    for rate in RATES[:: 4 if flags.quick else 1]:
        *_, end = trained(method._replace(learning_rate=rate), data, flags)
        ends[rate] = end.test_accuracy
    best = max(ends, key=lambda rate: ends[rate])
    listed = "  ".join(f"{rate:g}: {share:.3f}" for rate, share in ends.items())
    print(f"{method.name}: best {best:g}\n    {listed}", flush=True)


def accuracy_curves(curves: dict[str, list[Point]]) -> Figure:
    """Test accuracy against seconds, and against evaluations of the loss."""
    figure = Figure(figsize=(11, 4.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, field, what in zip(
        panels,
        ("seconds", "evaluations"),
        ("seconds of training", "evaluations of the loss of a batch"),
        strict=True,
    ):
        for name, curve in curves.items():
            shown: Float[np.ndarray, "points 2"] = np.array(
                [(getattr(p, field), p.test_accuracy) for p in curve[1:]]
            )
            style = "--" if name == "backprop" else "-"
            axes.plot(*shown.T, style, linewidth=1.8, label=name)
        axes.set(xscale="log", xlabel=what, ylim=(0, 1))
        axes.grid(linewidth=0.3)
    panels[0].set_ylabel("test accuracy")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center")
    return figure


if __name__ == "__main__":
    main()
