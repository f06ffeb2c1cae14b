"""Batches as a function of (key, epoch), and so of (key, step): nothing is kept.

Any epoch can be drawn without those before it, in one process or in many.
Source: *Deep Learning from Scratch*, section 4.5.2, draws with replacement.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Int32, Integer

from jaxnet.array_types import Array, RandomKey
from jaxnet.input_checks import check_count, complaint


def steps_per_epoch(num_examples: int, batch_size: int) -> int:
    """num_examples // batch_size: whole batches only.

    Raises:
        TypeError, ValueError: not whole numbers ≥ 1, or a batch that is never full.
    """
    check_count("num_examples", num_examples)
    check_count("batch_size", batch_size)
    if batch_size > num_examples:
        expected = f"at most the {num_examples} examples"
        fix = "pass a smaller batch"
        raise ValueError(complaint("batch_size", expected, str(batch_size), fix))
    return num_examples // batch_size


def epoch_indices(
    key: RandomKey,
    epoch: int | Integer[Array, ""],
    num_examples: int,
    batch_size: int,
    replacement: bool = True,
) -> Int32[jax.Array, "steps batch"]:
    """The examples of every batch of one epoch.

    With `replacement` each is drawn from all, as the book does, so that an epoch misses
    1/e of them; without, an epoch is a permutation, less the last num_examples modulo
    batch_size. `key` is folded with `epoch` (which may be traced), not consumed.
    """
    shape = (steps_per_epoch(num_examples, batch_size), batch_size)
    key = jax.random.fold_in(key, epoch)
    if replacement:
        return jax.random.randint(key, shape, 0, num_examples, jnp.int32)
    order = jax.random.permutation(key, jnp.arange(num_examples, dtype=jnp.int32))
    return order[: shape[0] * shape[1]].reshape(shape)
