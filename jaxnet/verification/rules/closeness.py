"""Two ways of computing one thing, held side by side: equal but for rounding."""

from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np
from jaxtyping import Inexact

from jaxnet.array_types import PyTree
from jaxnet.precision import eps
from jaxnet.verification.report.demand_report import DemandReport
from jaxnet.verification.report.verdict import Verdict

ROUNDING = 1e3
"""How many ulps of the largest entry two ways of computing one thing may differ by…"""

COARSEST = 0.25
"""…and never by more than this share of it."""

ONE_FACTOR = 1e-2
"""Two arrays differ by one factor if that leaves no more than this share."""

Numbers = Inexact[np.ndarray, "..."]


@dataclass(frozen=True)
class Closeness:
    """What may be called equal, of lists of floating arrays.

    eps: ε of the coarsest floating type that the two were computed in; that of their
        own dtype counts where it is larger.
    """

    eps: float

    def demanded(
        self, name: str, expected: PyTree, got: PyTree, cause: str, scale: float = 0.0
    ) -> DemandReport:
        """Whether all entries are equal within rounding; `cause` is said if not.

        scale: of the numbers that the two were summed from, if it is larger than they.
        """
        largest = DemandReport(name, "", Verdict.AGREE, True, error=0.0, bound=0.0)
        for one, other in zip(arrays(expected), arrays(got), strict=True):
            if one.shape != other.shape:
                return wrong(name, f"shape {other.shape} for {one.shape}")
            error, bound = self._difference(one, other, scale)
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
            a.shape == b.shape and np.less_equal(*self._difference(a, b, 0.0))
            for a, b in zip(arrays(one), arrays(other), strict=True)
        )

    def _difference(
        self, one: Numbers, other: Numbers, scale: float
    ) -> tuple[float, float]:
        """The largest difference, and the largest that may be."""
        largest = max(float(np.max(np.abs(one), initial=0.0)), scale)
        own = max(eps(x.dtype) for x in (one, other))
        share = min(ROUNDING * max(own, self.eps), COARSEST)
        wide = np.complex128 if np.iscomplexobj(one) else np.float64
        apart = np.abs(one.astype(wide) - other.astype(wide))
        return float(np.max(apart, initial=0.0)), share * largest


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


def coarsest_real(tree: list[Numbers]) -> Any:
    """The coarsest dtype of some arrays; of complex numbers, that of their parts."""
    widest = max((x.dtype for x in tree), key=eps)
    return np.zeros(0, widest).real.dtype
