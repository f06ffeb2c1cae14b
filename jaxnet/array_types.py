"""The words for array axes, written once: every annotation of the package uses them.

batch: examples in one batch.  pixels: inputs of one example, 784 for MNIST.
inputs, outputs: sides of one dense layer.  classes: entries of one output.
"""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
import numpy as np
from jaxtyping import Float, Integer, Key, UInt32

Array: TypeAlias = jax.Array | np.ndarray

Images: TypeAlias = Float[Array, "batch pixels"]
"""One flattened image a row; MNIST's grey levels lie in [0, 1]."""

Labels: TypeAlias = Integer[Array, " batch"]
"""Class numbers, 0…9 for MNIST."""

Logits: TypeAlias = Float[Array, "batch classes"]
Probabilities: TypeAlias = Float[Array, "batch classes"]
Losses: TypeAlias = Float[Array, " batch"]
Scalar: TypeAlias = Float[Array, ""]

RandomKey: TypeAlias = Key[jax.Array, "*runs"] | UInt32[Array, "*runs 2"]
"""A key of `jax.random.key` (or `PRNGKey`); `runs` axes hold one key a run."""

PyTree: TypeAlias = Any
ScalarFunction: TypeAlias = Callable[[PyTree], Any]
