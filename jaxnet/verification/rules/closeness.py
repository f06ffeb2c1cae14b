"""Two ways of computing one thing, held side by side: equal but for rounding."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import jax
import numpy as np
from jaxtyping import Inexact

from jaxnet.array_types import PyTree
from jaxnet.precision import eps
from jaxnet.verification.report.demand_report import DemandReport
from jaxnet.verification.report.verdict import Verdict

DEVIATIONS = 8.0
"""How many standard deviations of their measured rounding two ways may differ by…"""

OWN_ULPS = 8.0
"""…and how many ulps of their largest entry: exp and its like are off by a few."""

ONE_FACTOR = 1e-2
"""Two arrays differ by one factor if that leaves no more than this share."""

Numbers = Inexact[np.ndarray, "..."]


@dataclass(frozen=True)
class Closeness:
    """What may be called equal, of lists of floating arrays.

    rounding: the standard deviation of rounding in each of them.
    """

    rounding: Sequence[float]

    def demanded(
        self, name: str, expected: PyTree, got: PyTree, cause: str
    ) -> DemandReport:
        """Whether all entries are equal within rounding; `cause` is said if not."""
        largest = DemandReport(name, "", Verdict.AGREE, True, error=0.0, bound=0.0)
        pairs = zip(arrays(expected), arrays(got), self.rounding, strict=True)
        for one, other, rounding in pairs:
            if one.shape != other.shape:
                return wrong(name, f"shape {other.shape} for {one.shape}")
            error, bound = _difference(one, other, rounding)
            if error > bound or not error <= np.inf:
                place = np.unravel_index(int(np.argmax(np.abs(one - other))), one.shape)
                index = tuple(int(i) for i in place)
                return replace(
                    wrong(name, cause),
                    worst_index=index,
                    got=float(np.real(other[index])),
                    expected=float(np.real(one[index])),
                    error=error,
                    bound=bound,
                )
            if error >= largest.error:
                largest = DemandReport(
                    name, "", Verdict.AGREE, True, error=error, bound=bound
                )
        return largest

    def holds(self, one: PyTree, other: PyTree) -> bool:
        """Whether two lists are equal within rounding."""
        return all(
            a.shape == b.shape and np.less_equal(*_difference(a, b, rounding))
            for a, b, rounding in zip(
                arrays(one), arrays(other), self.rounding, strict=True
            )
        )

    def times(self, factor: float) -> "Closeness":
        """The same of arrays that are so many times as large."""
        return Closeness([factor * rounding for rounding in self.rounding])


def _difference(one: Numbers, other: Numbers, rounding: float) -> tuple[float, float]:
    """The largest difference, and the largest that may be."""
    largest = float(np.max(np.abs(one), initial=0.0))
    own = max(eps(x.dtype) for x in (one, other))
    wide = np.complex128 if np.iscomplexobj(one) else np.float64
    apart = np.abs(one.astype(wide) - other.astype(wide))
    bound = DEVIATIONS * rounding + OWN_ULPS * own * largest
    return float(np.max(apart, initial=0.0)), bound


def wrong(
    name: str,
    cause: str,
    verdict: Verdict = Verdict.DISAGREE,
) -> DemandReport:
    """A demand that is not met."""
    return DemandReport(name, "", verdict, False, cause=cause)


def factor_between(expected: PyTree, got: PyTree) -> float | None:
    """The one factor by which two lists of reals differ; None for none."""
    one = np.concatenate([np.ravel(x) for x in arrays(expected)])
    other = np.concatenate([np.ravel(x) for x in arrays(got)])
    if one.shape != other.shape or not np.any(one) or np.iscomplexobj(one):
        return None
    one, other = one.astype(np.float64), other.astype(np.float64)
    factor = float(one @ other / (one @ one))
    if not factor or not np.allclose(other, factor * one, rtol=ONE_FACTOR, atol=0):
        return None
    return factor


def arrays(tree: PyTree) -> list[Numbers]:
    """The leaves in NumPy."""
    return [np.asarray(x) for x in jax.tree.leaves(tree)]
