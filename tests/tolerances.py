"""Every tolerance of the tests, by dtype and by what is compared, with its reason.

An error is measured against the largest entry of the reference leaf, or against the
tolerance's floor where that is larger, and counted in units of the dtype's epsilon.
"""

from typing import Any, NamedTuple

import jax
import numpy as np


class Tolerance(NamedTuple):
    """How many epsilons two results may differ by, and why that many."""

    epsilons: float
    reason: str
    floor: float = 1.0


TOLERANCES = {
    ("float32", "rounding"): Tolerance(
        8, "two formulas for one number, each a few dozen operations that round"
    ),
    ("float64", "rounding"): Tolerance(
        64, "as in float32, where long sums over a net's units add up"
    ),
    ("float32", "gradient"): Tolerance(
        16,
        "as rounding, of the leaf's own largest entry: 12 where softmax saturates "
        "under a squared error, 5 elsewhere",
        floor=0.0,
    ),
    ("float64", "gradient"): Tolerance(32, "as in float32: 19, and 8", floor=0.0),
    ("float32", "difference"): Tolerance(
        5e4, "rounding 2ε / 2h of a loss of some units, with h = ∛ε ≈ 5e-3"
    ),
    ("float64", "difference"): Tolerance(
        4.5e7, "1e-8: rounding 2ε / 2h ≈ 4e-11 and truncation h² f''' / 6 at h = 6e-6"
    ),
    ("float64", "second difference"): Tolerance(
        4.5e6, "1e-9: two central differences with one h share their truncation"
    ),
}


def epsilons_apart(got: Any, want: Any, dtype: str, floor: float = 1.0) -> float:
    """The largest difference of two arrays, in epsilons of the reference's scale."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    assert got.shape == want.shape
    scale = max(floor, np.abs(want).max(initial=np.finfo(dtype).tiny))
    difference = np.abs(got - want).max(initial=0.0)
    return float(difference / scale / np.finfo(dtype).eps)


def close(got: Any, want: Any, dtype: str, kind: str = "rounding") -> bool:
    """Whether all leaves of two trees of one structure agree within the table."""
    most, _, floor = TOLERANCES[dtype, kind]
    apart = jax.tree.map(lambda g, w: epsilons_apart(g, w, dtype, floor), got, want)
    # `not (a <= b)`: a NaN is no agreement.
    return all(e <= most for e in jax.tree.leaves(apart))
