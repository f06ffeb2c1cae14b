"""All questions: the corpus, programs, rules, the book's network on MNIST, a stress."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.checkers.question import (
    LARGE,
    TOO_LARGE,
    LossTask,
    Question,
    of_case,
)
from experiments.checkers.rule_tasks import rule_questions
from experiments.gradient_cases import FAMILIES, all_cases, plant, program_cases
from jaxnet import Dense, init_params, load_mnist
from jaxnet.gradients import backprop
from jaxnet.network import BOOK_NETWORK, mean_loss

PUBLIC = 27


def groups(
    seeds: int = 20, functions: int = 28, quick: bool = False
) -> dict[str, list[Question]]:
    """Questions by group; `quick` gives the public cases alone."""
    cases = all_cases()
    public = [of_case(case, "public") for case in cases[:PUBLIC]]
    if quick:
        return {"public": public}
    return {
        "public": public,
        "more": [of_case(case, "more") for case in cases[PUBLIC:]],
        "programs": [of_case(case, "programs") for case in program_cases()],
        "rules": rule_questions(),
        "mnist": [q for seed in range(seeds) for q in mnist_questions(seed)],
        "stress": [q for n in range(functions) for q in stress_questions(n)],
    }


def named(name: str) -> Question:
    """The question of this name.

    Raises:
        ValueError: there is none.
    """
    for found in _candidates(name):
        if found.name == name:
            return found
    raise ValueError(f"no case {name!r}; the JSON of a run lists their names")


def _candidates(name: str) -> list[Question]:
    group, _, rest = name.partition("_")
    number = rest.split("_")[0]
    if group == "mnist" and number.isdigit():
        return mnist_questions(int(number))
    if group == "stress" and number.isdigit():
        return stress_questions(int(number))
    return [question for group in groups(0, 0).values() for question in group]


def mnist_questions(seed: int) -> list[Question]:
    """Backprop of the book's 784-50-10 network on 100 images: right, and mistakes.

    They share one loss. The network, the images, the pixel and the unit are the seed's.
    """
    data = load_mnist()
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(data.train_labels), 100, replace=False)
    images, labels = data.train_images[chosen], data.train_labels[chosen]
    params = jax.tree.map(np.asarray, init_params(jax.random.key(seed)))
    right = backprop(params, images, labels)
    sizes = np.linalg.norm(np.asarray(right[0].weight), axis=1)
    heavy = np.flatnonzero(sizes >= 0.1 * np.sqrt(np.mean(sizes**2)))
    mistakes = _mistakes(int(rng.choice(heavy)), int(rng.integers(50)))

    def loss(params: Any) -> Any:
        return mean_loss(params, images, labels, BOOK_NETWORK)

    def question(name: str, change: Callable[..., Any]) -> Question:
        def candidate(params: Any) -> Any:
            params = jax.tree.map(jnp.asarray, params)
            (w1, b1), (w2, b2) = backprop(params, images, labels)
            w1, b1, w2, b2 = change(w1, b1, w2, b2)
            return Dense(w1, b1), Dense(w2, b2)

        kind = "right" if name == "right" else "wrong"
        patience = TOO_LARGE if seed == 0 else LARGE
        task = LossTask(loss, params, candidate)
        return Question(f"mnist_{seed}_{name}", "mnist", kind, task, patience)

    return [question(*mistake) for mistake in mistakes.items()]


def _mistakes(pixel: int, unit: int) -> dict[str, Callable[..., Any]]:
    """Name -> a change of the four leaves."""
    return {
        "right": lambda w1, b1, w2, b2: (w1, b1, w2, b2),
        "b1_zero": lambda w1, b1, w2, b2: (w1, 0 * b1, w2, b2),
        "W2_1pct": lambda w1, b1, w2, b2: (w1, b1, 1.01 * w2, b2),
        "all_1pct": lambda w1, b1, w2, b2: (1.01 * w1, 1.01 * b1, 1.01 * w2, 1.01 * b2),
        "pixel_dropped": lambda w1, b1, w2, b2: (w1.at[pixel].set(0), b1, w2, b2),
        "unit_zero": lambda w1, b1, w2, b2: (w1.at[:, unit].set(0), b1, w2, b2),
        "W1_sign": lambda w1, b1, w2, b2: (-w1, b1, w2, b2),
        "W1_0.001pct": lambda w1, b1, w2, b2: (1.00001 * w1, b1, w2, b2),
    }


def stress_questions(number: int, relative: float = 1e-3) -> list[Question]:
    """A random function: its gradient, and the same with one coordinate off."""
    rng = np.random.default_rng([0, number])
    family = list(FAMILIES)[number % len(FAMILIES)]
    scale = 10.0 ** rng.uniform(-3, 3)
    loss, params, gradient = FAMILIES[family](rng, scale)
    planted, _, _ = plant(rng, gradient, relative)
    return [
        Question(
            f"stress_{number}_{family}_{kind}",
            "stress",
            kind,
            LossTask(loss, params, candidate),
        )
        for kind, candidate in (("right", gradient), ("wrong", planted))
    ]
