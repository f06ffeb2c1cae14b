"""Two ways of computing one thing, held side by side: equal but for rounding."""

import math
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnet.array_types import PyTree
from jaxnet.verification.leaves import floating_leaves
from jaxnet.verification.report import LeafReport
from jaxnet.verification.verdict import Verdict

ROUNDING = 1e3
"""How many ulps of the largest entry two ways of computing one thing may differ by…"""

COARSEST = 0.25
"""…and never by more than this share of it."""


@dataclass(frozen=True)
class Comparison:
    """Compares pytrees by their floating leaves.

    eps: ε of the coarsest floating type that the two were computed in; that of their
        own dtype counts where it is larger.
    """

    eps: float

    def row(
        self, name: str, expected: PyTree, got: PyTree, cause: str, scale: float = 0.0
    ) -> LeafReport:
        """A row that agrees if all entries are equal within rounding."""
        worst = LeafReport(name, "", (), Verdict.AGREE, True, error=0.0, bound=0.0)
        for one, other in zip(arrays(expected), arrays(got), strict=True):
            if one.shape != other.shape:
                cause = f"shape {other.shape} for {one.shape}"
                return _wrong(name, other.shape, cause)
            error, bound = self._difference(one, other, scale)
            if error > bound or not error <= np.inf:
                index = np.unravel_index(int(np.argmax(np.abs(one - other))), one.shape)
                values = float(np.real(other[index])), float(np.real(one[index]))
                place = tuple(int(i) for i in index)
                numbers = (*values, error, bound)
                return _wrong(name, one.shape, cause, place, numbers)
            if error >= worst.error:
                worst = LeafReport(
                    name, "", one.shape, Verdict.AGREE, True, error=error, bound=bound
                )
        return worst

    def close(self, one: PyTree, other: PyTree) -> bool:
        """Whether two pytrees are equal within rounding."""
        return all(
            a.shape == b.shape and np.less_equal(*self._difference(a, b, 0.0))
            for a, b in zip(arrays(one), arrays(other), strict=True)
        )

    def _difference(
        self, one: np.ndarray, other: np.ndarray, scale: float
    ) -> tuple[float, float]:
        """The largest difference, and the largest that may be."""
        largest = max(float(np.max(np.abs(one), initial=0.0)), scale)
        own = max(float(jnp.finfo(x.dtype).eps) for x in (one, other))
        share = min(ROUNDING * max(own, self.eps), COARSEST)
        wide = np.complex128 if np.iscomplexobj(one) else np.float64
        gap = np.abs(one.astype(wide) - other.astype(wide))
        return float(np.max(gap, initial=0.0)), share * largest


def factor_between(expected: PyTree, got: PyTree) -> float | None:
    """The one factor by which two real pytrees differ; None for none."""
    one = np.concatenate([np.ravel(x) for x in arrays(expected)])
    other = np.concatenate([np.ravel(x) for x in arrays(got)])
    if one.shape != other.shape or not np.any(one) or np.iscomplexobj(one):
        return None
    one, other = one.astype(np.float64), other.astype(np.float64)
    factor = float(one @ other / (one @ one))
    if not factor or not np.allclose(other, factor * one, rtol=1e-2, atol=0):
        return None
    return factor


def arrays(tree: PyTree) -> list[np.ndarray]:
    """The floating leaves in NumPy."""
    return [np.asarray(x) for x in floating_leaves(tree)]


def coarsest_real(tree: list[np.ndarray]) -> Any:
    """The coarsest dtype of some arrays; of complex numbers, that of their parts."""
    widest = max((x.dtype for x in tree), key=lambda d: float(jnp.finfo(d).eps))
    return np.zeros(0, widest).real.dtype


def bits(tree: PyTree) -> list[bytes]:
    """What two pytrees share only if they are the same in every bit."""
    return [x.tobytes() for x in arrays(tree)]


def _wrong(
    name: str,
    shape: tuple[int, ...],
    cause: str,
    place: tuple[int, ...] | None = None,
    numbers: tuple[float, float, float, float] = (math.nan,) * 4,
) -> LeafReport:
    """numbers: the value got, the one expected, the error and its bound."""
    wrong = Verdict.DISAGREE, False
    return LeafReport(name, "", shape, *wrong, place, *numbers, cause=cause)
