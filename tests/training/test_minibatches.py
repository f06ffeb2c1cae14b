"""Batches are drawn as promised, and are functions of (key, epoch) alone."""

import math
from typing import Any

import jax
import numpy as np
import pytest

from jaxnet.training.minibatches import epoch_indices, steps_per_epoch

EXAMPLES, BATCH = 1000, 30
BOTH = pytest.mark.parametrize("replacement", [True, False])


def draw(key: jax.Array, epoch: Any = 0, replacement: bool = True) -> np.ndarray:
    """One epoch of 33 batches of 30 out of 1000."""
    return np.asarray(epoch_indices(key, epoch, EXAMPLES, BATCH, replacement))


def is_permutation(indices: np.ndarray) -> bool:
    """Whether no example comes twice."""
    return len(np.unique(indices)) == indices.size


@BOTH
def test_form(key: jax.Array, replacement: bool) -> None:
    """Whole batches of numbers of examples, in int32."""
    indices = draw(key, replacement=replacement)
    assert indices.shape == (33, 30)
    assert indices.dtype == np.int32
    assert indices.min() >= 0
    assert indices.max() < EXAMPLES


def test_permutation_is_exact(key: jax.Array) -> None:
    """Without replacement no example comes twice; with it, the check sees that some do.

    Where the batch divides the examples, all of them come.
    """
    assert is_permutation(draw(key, replacement=False))
    assert not is_permutation(draw(key, replacement=True))
    all_of_them = epoch_indices(key, 0, EXAMPLES, 50, replacement=False)
    assert sorted(np.ravel(all_of_them)) == list(range(EXAMPLES))


def test_the_last_examples_are_left_out_by_chance(key: jax.Array) -> None:
    """Those that an epoch of a permutation leaves out change from epoch to epoch."""
    left = [set(range(EXAMPLES)) - set(draw(key, e, False).ravel()) for e in (0, 1)]
    assert [len(examples) for examples in left] == [10, 10]
    assert left[0] != left[1]


def test_replacement_misses_one_in_e(key: jax.Array) -> None:
    """Of n examples drawn n times, n / e are missed, within five standard deviations.

    A permutation, missing none, would be seen.
    """
    n = 60_000

    def deviations(replacement: bool) -> float:
        indices = epoch_indices(key, 0, n, 100, replacement)
        missed = n - len(np.unique(np.asarray(indices)))
        return abs(missed - n / math.e) / math.sqrt(n * (1 - 2 / math.e) / math.e)

    assert deviations(True) < 5
    assert deviations(False) > 5


@BOTH
def test_a_function_of_key_and_epoch(key: jax.Array, replacement: bool) -> None:
    """The same for the same key and epoch, in any order and under jit; else another."""
    later = draw(key, 7, replacement)
    traced = jax.jit(
        lambda epoch: epoch_indices(key, epoch, EXAMPLES, BATCH, replacement)
    )
    assert np.array_equal(traced(np.int32(7)), later)
    assert np.array_equal(draw(key, 7, replacement), later)
    assert not np.array_equal(draw(key, 8, replacement), later)
    assert not np.array_equal(draw(jax.random.key(1), 7, replacement), later)


def test_steps_per_epoch_is_whole() -> None:
    """num_examples // batch_size, an int; 600 for the book's run."""
    assert steps_per_epoch(60_000, 100) == 600
    assert steps_per_epoch(1000, 30) == 33
    assert isinstance(steps_per_epoch(1000, 30), int)
    assert steps_per_epoch(5, 5) == 1


@pytest.mark.parametrize(
    ("examples", "batch", "kind", "words"),
    [
        (5, 6, ValueError, "`batch_size`: expected at most the 5 examples, got 6"),
        (5, 0, ValueError, "`batch_size`: expected a whole number ≥ 1"),
        (0, 1, ValueError, "`num_examples`"),
    ],
)
def test_batches_that_cannot_be(
    examples: Any, batch: Any, kind: type[Exception], words: str
) -> None:
    """A batch that is never full, or of no whole size, is refused by name."""
    with pytest.raises(kind, match=words):
        steps_per_epoch(examples, batch)
