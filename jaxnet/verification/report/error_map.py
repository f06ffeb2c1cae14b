"""Where in an array a gradient is wrong, as far as it is known entry by entry."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

MOST = (24, 48)
"""Rows and columns that are kept: of more, the largest error in each block."""


@dataclass(frozen=True)
class ErrorMap:
    """|candidate - reference| of an array, seen as a matrix: rows × the last axis.

    shape: of that matrix. errors: row by row, in at most 24 × 48 blocks, the largest of
    each; 0.0 where no entry is further off than it may be.
    """

    shape: tuple[int, int]
    errors: tuple[tuple[float, ...], ...]

    @classmethod
    def of(
        cls, apart: Float[np.ndarray, "*shape"], bounds: Float[np.ndarray, "*shape"]
    ) -> "ErrorMap":
        """Of differences, and how large each may be."""
        beyond = np.where(apart > bounds, apart, 0.0)
        beyond = beyond.reshape(-1, beyond.shape[-1] if beyond.ndim else 1)
        starts = [
            np.unique(np.linspace(0, n, min(n, most), endpoint=False, dtype=int))
            for n, most in zip(beyond.shape, MOST, strict=True)
        ]
        rows = np.maximum.reduceat(beyond, starts[0], axis=0)
        blocks = np.maximum.reduceat(rows, starts[1], axis=1)
        rows_columns = int(beyond.shape[0]), int(beyond.shape[1])
        return cls(rows_columns, tuple(tuple(row) for row in blocks.tolist()))
