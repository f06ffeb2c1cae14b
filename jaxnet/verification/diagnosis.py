"""Why a gradient is wrong: simple mistakes that, undone, agree with the differences.

A cause is named only if the numbers confirm it: the corrected gradient passes every
look at the leaf that the given one failed.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import combinations

import numpy as np

from jaxnet.verification.candidates import Candidate
from jaxnet.verification.leaf_check import LeafCheck
from jaxnet.verification.verdict import Verdict

NICE = 1e-3
"""How near a ratio must be to a whole number (or its inverse) to be called that."""

COARSE = 0.05
"""How near it must be where the differences are no more exact than this."""

LARGEST = 2**18
"""Arrays above this size are not rearranged."""

MOST_ROLLS = 64
"""How many shifts along each axis are tried."""


@dataclass(frozen=True)
class Diagnosis:
    """One leaf of one wrong candidate, with what other arrays may explain it."""

    check: LeafCheck
    candidate: Candidate
    sizes: dict[int, str]
    """Axis sizes of the parameters and the data, and where they are."""

    @property
    def gradient(self) -> np.ndarray:
        """The wrong gradient by this leaf, in float64."""
        gradient = self.candidate.gradient[self.check.number]
        assert gradient is not None
        return gradient.astype(np.float64)

    def cause(self) -> str:
        """The first mistake that the numbers confirm; empty for none."""
        return next(self._causes(), "")

    def _causes(self) -> Iterator[str]:
        if not self.gradient.any():
            yield "all zero"
            return
        yield from self._by_ratio(nice_only=True)
        yield from self._by_rearrangement()
        yield from self._by_other_leaf()
        reference = self.check.reference_array(self.candidate)
        if reference is not None:
            yield from self._by_part(*reference)
        yield from self._by_ratio(nice_only=False)
        if reference is not None:
            yield from self._by_factor(*reference)
            yield from self._by_offset(*reference)
            yield from self._by_penalty(*reference)

    def explains(self, corrected: np.ndarray) -> bool:
        """Whether every look agrees with the corrected gradient."""
        agrees = False
        for finding in self.check.findings(self.candidate, corrected):
            if finding.verdict not in (Verdict.AGREE, Verdict.NONDIFFERENTIABLE):
                return False
            agrees |= finding.verdict is Verdict.AGREE
        return agrees

    def _by_ratio(self, nice_only: bool) -> Iterator[str]:
        findings = list(self.check.findings(self.candidate, self.gradient))
        best = max(findings, key=lambda f: abs(f.reference) / max(f.bound, 1e-300))
        if not abs(best.reference) > best.bound:  # too near 0 for a ratio, or NaN
            return
        ratio = best.candidate / best.reference
        if not ratio or not np.isfinite(ratio):
            return
        nice = _nice(ratio, min(best.bound / abs(best.reference), COARSE))
        if nice_only and nice is None:
            return
        if self.explains(np.asarray(self.gradient / (float(nice) if nice else ratio))):
            yield self._ratio_text(ratio, nice)

    def _ratio_text(self, ratio: float, nice: Fraction | None) -> str:
        if nice is None:
            return f"{_times(ratio)} on every entry"
        if nice == -1:
            return "sign flipped, ×-1"
        whole = max(abs(nice.numerator), nice.denominator)
        inverse, text = nice.denominator > 1, _times(ratio, nice)
        where = self.sizes.get(whole)
        mean = "a mean taken twice" if inverse else "a mean not taken"
        return text + (f"; {whole} is {where}: {mean}?" if where else "")

    def _by_rearrangement(self) -> Iterator[str]:
        g = self.gradient
        if g.size > LARGEST:
            return
        for name, corrected in rearranged(g):
            if corrected.shape == g.shape and self.explains(corrected):
                yield name
        if self.check.leaf.is_complex:
            conjugate = g * np.array([1.0, -1.0])
            if self.explains(conjugate):
                yield "conjugated: JAX's gradient of a real loss is ∂/∂x - i ∂/∂y"

    def _by_other_leaf(self) -> Iterator[str]:
        parameters = self.check.looker.parameters
        for number, leaf in enumerate(() if parameters.are_many else parameters.leaves):
            other = self.candidate.gradient[number]
            if number == self.check.number or other is None:
                continue
            if other.shape == self.gradient.shape and self.explains(other):
                yield f"swapped: it is what the candidate gives {leaf.path}"

    def _by_part(self, reference: np.ndarray, tolerance: np.ndarray) -> Iterator[str]:
        wrong = np.abs(self.gradient - reference) > tolerance
        if self.check.leaf.is_complex:
            wrong = wrong.any(axis=-1)
        if not wrong.any():
            return
        where = [np.unique(i) for i in np.nonzero(np.atleast_1d(wrong))]
        count = int(wrong.sum())
        if count == 1 and wrong.size > 1:
            yield f"this coordinate alone{self._factor(reference, wrong)}"
        for axis, name in _axis_names(wrong.ndim) if wrong.ndim > 1 else []:
            if wrong.shape[axis] > 1 and len(where[axis]) == 1 and count > 1:
                place = name.format(f" {int(where[axis][0])}")
                yield f"{place} alone{self._factor(reference, wrong)}"
        if 1 < count <= wrong.size // 2:
            yield f"{count} of {wrong.size} entries"

    def _by_factor(self, reference: np.ndarray, _: np.ndarray) -> Iterator[str]:
        """One factor for each row or column."""
        if reference.ndim < 2:
            return
        for axis, name in _axis_names(reference.ndim):
            others = tuple(i for i in range(reference.ndim) if i != axis)
            weight = np.sum(reference**2, axis=others, keepdims=True)
            factor = np.sum(self.gradient * reference, axis=others, keepdims=True)
            factor = np.divide(
                factor, weight, out=np.ones_like(weight), where=weight > 0
            )
            if (factor != 0).all() and self.explains(self.gradient / factor):
                low, high = float(np.min(factor)), float(np.max(factor))
                yield f"one factor per {name.format('')}, {low:.6g} to {high:.6g}"

    def _factor(self, reference: np.ndarray, wrong: np.ndarray) -> str:
        given, true = self.gradient[wrong].ravel(), reference[wrong].ravel()
        if not given.any():
            return ": it is zero"
        usable = np.abs(true) > 0
        ratios = given[usable] / true[usable]
        if usable.all() and np.ptp(ratios) <= NICE * abs(ratios[0]):
            return f": {_times(float(ratios[0]), _nice(float(ratios[0])))}"
        return ""

    def _by_offset(self, reference: np.ndarray, tolerance: np.ndarray) -> Iterator[str]:
        if self.gradient.size < 3:
            return
        difference = self.gradient - reference
        offset = float(np.median(difference))
        if offset and self.explains(self.gradient - offset):
            yield f"offset: {offset:+.4g} on every entry"

    def _by_penalty(self, reference: np.ndarray, _: np.ndarray) -> Iterator[str]:
        """Off by a multiple of the leaf itself, as where ½λ|x|² is forgotten."""
        x = self.check.leaf.values.astype(np.float64)
        if x.size < 3 or not x.any():
            return
        share = float(np.sum((self.gradient - reference) * x) / np.sum(x * x))
        if share and self.explains(self.gradient - share * x):
            what = self.check.leaf.path or "params"
            yield f"off by {share:+.4g} × {what} itself: a wrong penalty?"


def rearranged(g: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
    """Each way in which an array may have been rearranged, undone."""
    for one, other in combinations(reversed(range(g.ndim)), 2):
        if g.shape[one] == g.shape[other] > 1:
            axes = "" if one == g.ndim - 1 == other + 1 else f": axes {other} and {one}"
            yield f"transposed{axes}", np.swapaxes(g, one, other)
    if g.ndim == 2 and g.shape[0] != g.shape[1]:
        yield "transposed before a reshape", g.reshape(g.shape[::-1]).T
    for axis in range(g.ndim):
        if g.shape[axis] > 1:
            yield f"reversed along axis {axis}", np.flip(g, axis)
    if g.ndim > 1:
        yield "reversed along every axis", np.flip(g)
        yield "reversed along the first two axes", np.flip(g, (0, 1))
        yield "reversed along the last two axes", np.flip(g, (-2, -1))
    for axis in range(g.ndim):
        size = g.shape[axis]
        for shift in range(1, min(size, MOST_ROLLS)):
            for way in {shift, -shift} if shift <= size // 2 else set():
                yield f"rolled by {way} along axis {axis}", np.roll(g, -way, axis)


def _times(ratio: float, nice: Fraction | None = None) -> str:
    """A factor as one reads it: ×3, ×-½, ×1.01, ×(1 + 2e-08)."""
    if nice is not None:
        half = "-½" if nice < 0 else "½"
        return f"×{half if abs(nice) == Fraction(1, 2) else nice}"
    if abs(ratio - 1) < 5e-6:  # six digits would read ×1
        return f"×(1 {'-' if ratio < 1 else '+'} {abs(ratio - 1):.1e})"
    return f"×{ratio:.6g}"


def _nice(ratio: float, doubt: float = 0.0) -> Fraction | None:
    """The whole number, or inverse of one, next to a ratio; None if neither is near.

    doubt: how wrong the ratio itself may be, relative to it.
    """
    if not ratio or abs(ratio - 1) < max(NICE, doubt):
        return None
    whole = round(abs(ratio)) if abs(ratio) > 0.75 else round(1 / abs(ratio))
    value = Fraction(whole) if abs(ratio) > 0.75 else Fraction(1, whole)
    near = abs(abs(ratio) / float(value) - 1) < max(NICE, doubt)
    return (value if ratio > 0 else -value) if near else None


def _axis_names(ndim: int) -> list[tuple[int, str]]:
    """What one index along each axis is called; a number goes where the braces are."""
    if ndim == 2:
        return [(0, "row{}"), (1, "column{}")]
    return [(axis, f"index{{}} of axis {axis}") for axis in range(ndim)]


Explain = Callable[[LeafCheck, Candidate], str]
