"""The book's check: central differences with h = 1e-4, and the mean difference by leaf.

It prints the means and leaves the verdict to the reader. The fairest reader here passes
a gradient if every leaf's mean lies below one threshold, the best in hindsight.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.checkers.checker import Answer, Checker, Settings
from experiments.checkers.question import LossTask, Question
from experiments.checkers.subject import NotApplicable, Subject

STEP = 1e-4
THRESHOLDS = tuple(float(f"{m}e{e}") for e in range(-14, 3) for m in (1, 3))


def book_in(dtype: str) -> Checker:
    """Every coordinate differenced; the mean of |differences - candidate| of a leaf."""
    return Checker(
        name={"float32": "book-f32", "float64": "book-f64"}[dtype],
        package="jax",
        dtype=dtype,
        answer=_means,
        default=None,
        grid=tuple({"threshold": threshold} for threshold in THRESHOLDS),
        cost=lambda size: 2 * size,
    )


def _means(question: Question, subject: Subject, settings: Settings) -> Answer:
    if not isinstance(question.task, LossTask):
        raise NotApplicable("the book checks losses only")
    subject.require_floats()
    candidate = subject.checked_gradient()
    slopes = _differences(subject)
    means = [
        float(np.mean(np.abs(slope - g)))
        for slope, g in zip(slopes, candidate, strict=True)
        if g.size
    ]
    note = "means " + ", ".join(f"{mean:.2g}" for mean in means)
    subject.evaluations = 2 * subject.size
    if "threshold" not in settings:
        return Answer(None, note, subject.evaluations)
    passed = all(mean <= settings["threshold"] for mean in means)
    return Answer(passed, note, subject.evaluations)


def _differences(subject: Subject) -> list[np.ndarray]:
    """(f(x + h eᵢ) - f(x - h eᵢ)) / 2h, in one compiled loop where JAX can."""
    task = subject.task
    assert isinstance(task, LossTask)
    compiled = task.traceable and task.repeatable
    differenced = _in_one_loop(subject) if compiled else partial(_one_by_one, subject)
    slopes = np.asarray(subject.recalled("book", differenced))
    ends = np.cumsum([leaf.size for leaf in subject.leaves])[:-1]
    pieces = zip(np.split(slopes, ends), subject.leaves, strict=True)
    return [piece.reshape(x.shape) for piece, x in pieces]


def _one_by_one(subject: Subject) -> np.ndarray:
    step, slopes = subject.dtype.type(STEP), []
    for number, leaf in enumerate(subject.leaves):
        for index in np.ndindex(leaf.shape):
            ends = []
            for move in (step, -step):
                leaves = [x.copy() for x in subject.leaves]
                leaves[number][index] += move
                ends.append(np.asarray(subject.value(leaves)))
            slopes.append((ends[0] - ends[1]) / (2 * step))
    return np.asarray(slopes)


def _in_one_loop(subject: Subject) -> Callable[[], np.ndarray]:
    """The loop, compiled and run once before anyone counts its seconds."""
    loop = jax.jit(_loop_of(subject))
    if subject.memory is None or "book" not in subject.memory.values:
        subject.untimed(lambda: jax.block_until_ready(loop(subject.leaves, 0, 1)))
    return lambda: np.asarray(loop(subject.leaves, 0, subject.size))


def _loop_of(subject: Subject) -> Any:
    sizes = [leaf.size for leaf in subject.leaves]

    def moved(flat: Any, i: Any, move: Any) -> Any:
        pieces = jnp.split(flat.at[i].add(move), np.cumsum(sizes)[:-1])
        shapes = [leaf.shape for leaf in subject.leaves]
        return subject.traced(
            [p.reshape(s) for p, s in zip(pieces, shapes, strict=True)]
        )

    def loop(leaves: Any, start: Any, stop: Any) -> Any:
        flat = jnp.concatenate([jnp.ravel(leaf) for leaf in leaves])
        step = jnp.asarray(STEP, flat.dtype)

        def at(i: Any, slopes: Any) -> Any:
            slope = (moved(flat, i, step) - moved(flat, i, -step)) / (2 * step)
            return slopes.at[i].set(slope.astype(flat.dtype))

        return jax.lax.fori_loop(start, stop, at, jnp.zeros_like(flat))

    return loop
