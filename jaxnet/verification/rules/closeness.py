"""Two ways of computing one thing, held side by side: equal but for rounding."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import jax
import numpy as np
from jaxtyping import Inexact

from jaxnet.array_types import PyTree
from jaxnet.precision import eps
from jaxnet.verification.point import real_view, two_norm
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

    measure: gives the standard deviation of rounding in each of them. It is called
        where a few ulps of the largest entry do not explain a difference.
    """

    measure: Callable[[], Sequence[float]]

    @cached_property
    def rounding(self) -> Sequence[float]:
        """What was measured, once."""
        return self.measure()

    def demanded(
        self, name: str, expected: PyTree, got: PyTree, cause: str
    ) -> DemandReport:
        """Whether all entries are equal within rounding; `cause` is said if not."""
        largest = DemandReport(name, "", Verdict.AGREE, True, error=0.0, bound=0.0)
        for one, other, apart, bound in self._differences(expected, got):
            error = float(np.max(apart, initial=0.0))
            if one.shape != other.shape:
                return wrong(name, f"shape {other.shape} for {one.shape}")
            if error > bound or not error <= np.inf:
                place = np.unravel_index(int(np.argmax(apart)), one.shape)
                index = tuple(int(i) for i in place)
                return replace(
                    wrong(name, cause),
                    worst_index=index,
                    got=float(np.real(other[index])),
                    expected=float(np.real(one[index])),
                    error=error,
                    bound=bound,
                    norm=_size(one, other),
                )
            if error >= largest.error:
                norm = _size(one, other)
                largest = replace(largest, error=error, bound=bound, norm=norm)
        return largest

    def holds(self, one: PyTree, other: PyTree) -> bool:
        """Whether two lists are equal within rounding."""
        found = self._differences(one, other)
        return all((apart <= bound).all() for _, _, apart, bound in found)

    def times(self, factor: float) -> "Closeness":
        """The same of arrays that are so many times as large."""
        return Closeness(lambda: [factor * rounding for rounding in self.rounding])

    def _differences(
        self, one: PyTree, other: PyTree
    ) -> Iterator[tuple[Numbers, Numbers, Numbers, float]]:
        """Pairs of arrays, how far apart they are, and the largest that they may be.

        That is infinite of two shapes. What both ways leave without a value is equal.
        """
        pairs = zip(arrays(one), arrays(other), strict=True)
        for number, (a, b) in enumerate(pairs):
            if a.shape != b.shape:
                yield a, b, np.array(np.inf), 0.0
                continue
            largest = float(np.max(np.abs(a[np.isfinite(a)]), initial=0.0))
            bound = OWN_ULPS * max(eps(a.dtype), eps(b.dtype)) * largest
            wide = np.complex128 if np.iscomplexobj(a) else np.float64
            with np.errstate(invalid="ignore"):
                apart = np.abs(a.astype(wide) - b.astype(wide))
            apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, apart)
            if not (apart <= bound).all():
                bound += DEVIATIONS * self.rounding[number]
            yield a, b, apart, bound


def _size(one: Numbers, other: Numbers) -> float:
    """The 2-norm of what both ways should give; of the other where that is nothing."""
    return two_norm(real_view(one)) or two_norm(real_view(other))


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
