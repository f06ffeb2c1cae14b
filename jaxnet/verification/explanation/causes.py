"""Why a gradient is wrong: simple mistakes that, undone, agree with the differences.

A cause is named only if the numbers confirm it: the corrected gradient passes every
probe of the leaf that the given one failed, and of a large leaf also fresh ones. What
takes fewer numbers to undo comes first. Where an array is wrong, in one part of it
alone, say, is what its entries show beside the differences.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float

from jaxnet.verification.candidates.candidate import Candidate
from jaxnet.verification.context import Context
from jaxnet.verification.directions import AnyDirection, Coordinate, Direction, along
from jaxnet.verification.leaf.compare import compare, hypothetical
from jaxnet.verification.leaf.finding import Finding
from jaxnet.verification.leaf.probe import PROBES, Probe, probe
from jaxnet.verification.leaf.probes import LeafProbes
from jaxnet.verification.leaf.reference import Reference, reference_of
from jaxnet.verification.report.error_map import ErrorMap
from jaxnet.verification.report.verdict import Verdict

NICE = 1e-3
"""How near a ratio must be to a whole number (or its inverse) to be called that: one
part in a thousand is no accident, and a mean over 1000 is still told from 1001."""

COARSE = 0.05
"""How near it must be where the differences are no more exact than this."""

ACCIDENT = 0.1
"""How near any number is to a whole one, one time in five: what is not nearer than
this, in units of 1, or not known as exactly, is no whole number."""

SHARP = 0.01
"""Differences less exact than this share of the gradient do not tell how an array was
rearranged: some order of it always fits."""

FRESH = 2
"""How many more random probes of a large leaf a corrected gradient must pass."""

READS_AS_ONE = 5e-6
"""A factor so near 1 would read ×1 with six digits."""

LARGEST = 2**18
"""Arrays above this size are not rearranged: it would take seconds."""

MOST_ROLLS = 64
"""How many shifts along each axis are tried."""

Wide = Float[np.ndarray, "*shape"]


@dataclass(frozen=True, eq=False)
class WrongLeaf:
    """One leaf of one wrong candidate, with what other arrays may explain it.

    gradient: the candidate's, in float64.
    worst: the index of the entry that was found wrong, if one was.
    sizes: axis sizes of the parameters and the data, in words.
    """

    context: Context
    probes: LeafProbes
    candidate: Candidate
    gradient: Wide
    sizes: dict[int, str]
    worst: tuple[int, ...] | None

    @classmethod
    def of(
        cls,
        context: Context,
        probes: LeafProbes,
        candidate: Candidate,
        sizes: dict[int, str],
        worst: tuple[int, ...] | None,
    ) -> "WrongLeaf":
        """The leaf that was probed."""
        gradient = candidate.array(probes.leaf).astype(np.float64)
        return cls(context, probes, candidate, gradient, sizes, worst)

    def is_mended_by(self, corrected: Wide | np.float64) -> bool:
        """Whether every probe agrees with the corrected gradient."""
        agrees, rest = False, (self.probes, self.candidate)
        for one in itertools.chain(self.probes.probes, self._fresh()):
            finding = compare(self.context, *rest, one, np.asarray(corrected))
            if finding.verdict not in (Verdict.AGREE, Verdict.NONDIFFERENTIABLE):
                return False
            agrees |= finding.verdict is Verdict.AGREE
        return agrees

    def largest_error(self) -> tuple[float, AnyDirection]:
        """What the gradient lacks along the line where it lacks most, and that line."""
        found = [
            (one.derivative.central.value - along(self.gradient, one.direction), one)
            for one in self.probes.probes
        ]
        missing, probe = max(found, key=lambda pair: abs(pair[0]))
        return missing, probe.direction

    @property
    def is_sharp(self) -> bool:
        """Whether the differences are exact enough to tell arrangements apart."""
        found = list(self.findings())
        size = max((abs(f.candidate) for f in found), default=0.0)
        return all(f.bound <= SHARP * size for f in found)

    @cached_property
    def reference(self) -> Reference | None:
        """Every derivative of the leaf, where they can be known."""
        return reference_of(self.context, self.probes, self.candidate)

    @property
    def error_map(self) -> ErrorMap | None:
        """Where the gradient is wrong; of one entry alone, or unknown ones, none."""
        if self.reference is None or self.gradient.size == 1:
            return None
        apart = np.abs(self.gradient - self.reference.values)
        return ErrorMap.of(apart, self.reference.bounds)

    def findings(self) -> Iterator[Finding]:
        """What the leaf's own probes say of the gradient as it is."""
        rest = self.probes, self.candidate, self.gradient
        return hypothetical(self.context, *rest)

    def _fresh(self) -> Iterator[Probe]:
        """Probes that a correction has not seen, made when they are asked for."""
        if not self.probes.by_coordinates:
            yield from self._more_probes

    @cached_property
    def _more_probes(self) -> list[Probe]:
        leaf, noise, context = self.probes.leaf, self.probes.noise, self.context
        out = self.probes.kinks.left_out
        numbers = range(PROBES + 1, PROBES + 1 + FRESH)
        more: list[AnyDirection] = [
            Direction(leaf, context.seed, i, left_out=out) for i in numbers
        ]
        if self.worst is not None:
            more.append(Coordinate(leaf, leaf.flat_index(self.worst)))
        return [probe(context, noise, direction) for direction in more]


def causes(wrong: WrongLeaf) -> Iterator[str]:
    """The mistakes that the numbers confirm, the most telling first.

    A factor for each row fits much that one number for all rows explains.
    """
    if not wrong.gradient.any():
        yield "all zero"
        return
    yield from _by_ratio(wrong, nice_only=True)
    yield from _by_rearrangement(wrong)
    yield from _by_other_leaf(wrong)
    reference = wrong.reference
    if reference is not None:
        yield from _by_part(wrong, reference)
    yield from _by_ratio(wrong, nice_only=False)
    if reference is not None:
        yield from _by_offset(wrong, reference)
        yield from _by_penalty(wrong, reference)
        yield from _by_factor(wrong, reference)


def _by_ratio(wrong: WrongLeaf, nice_only: bool) -> Iterator[str]:
    tiny = np.finfo(np.float64).tiny
    best = max(wrong.findings(), key=lambda f: abs(f.reference) / max(f.bound, tiny))
    if not abs(best.reference) > best.bound:  # too near 0 for a ratio, or NaN
        return
    ratio, doubt = best.candidate / best.reference, best.bound / abs(best.reference)
    if not ratio or not np.isfinite(ratio) or abs(ratio - 1) <= doubt:
        return
    nice = _nice(ratio, min(doubt, COARSE))
    if nice_only and nice is None:
        return
    if wrong.is_mended_by(wrong.gradient / (float(nice) if nice else ratio)):
        yield _ratio_text(wrong, ratio, nice)


def _ratio_text(wrong: WrongLeaf, ratio: float, nice: Fraction | None) -> str:
    if nice is None:
        return f"{times(ratio)} on every entry"
    if nice == -1:
        return "sign flipped, ×-1"
    whole = max(abs(nice.numerator), nice.denominator)
    where = wrong.sizes.get(whole)
    if where is None:
        return times(ratio, nice)
    forgot = f"did you forget to divide by {where}?"
    twice = f"did you divide twice by {where}?"
    return f"{times(ratio, nice)}; {twice if nice.denominator > 1 else forgot}"


def _by_rearrangement(wrong: WrongLeaf) -> Iterator[str]:
    g = wrong.gradient
    if g.size > LARGEST or not wrong.is_sharp:
        return
    for name, corrected in rearranged(g):
        if corrected.shape == g.shape and wrong.is_mended_by(corrected):
            yield name
    conjugate = g * np.array([1.0, -1.0]) if wrong.probes.leaf.is_complex else None
    if conjugate is not None and wrong.is_mended_by(conjugate):
        yield "conjugated: JAX's gradient of a real loss is ∂/∂x - i ∂/∂y"


def _by_other_leaf(wrong: WrongLeaf) -> Iterator[str]:
    point = wrong.context.point
    for leaf in () if point.are_many else point.leaves:
        other = wrong.candidate.gradient[leaf.number]
        if leaf.number == wrong.probes.leaf.number or other is None:
            continue
        wide = other.astype(np.float64)
        if wide.shape == wrong.gradient.shape and wrong.is_mended_by(wide):
            yield f"swapped: it is what the candidate gives {leaf.path}"


def _by_part(wrong: WrongLeaf, reference: Reference) -> Iterator[str]:
    apart = np.abs(wrong.gradient - reference.values)
    where_wrong: Bool[np.ndarray, ...] = np.asarray(apart > reference.bounds)
    if wrong.probes.leaf.is_complex:
        where_wrong = np.asarray(where_wrong.any(axis=-1))
    if not where_wrong.any():
        return
    where = [np.unique(i) for i in np.nonzero(np.atleast_1d(where_wrong))]
    count, shape = int(where_wrong.sum()), where_wrong.shape
    factor = _factor(wrong.gradient, reference.values, where_wrong)
    if count == 1 and where_wrong.size > 1:
        yield f"this coordinate alone{factor}"
    for axis, name in _axis_names(len(shape)) if len(shape) > 1 else []:
        if shape[axis] > 1 and len(where[axis]) == 1 and count > 1:
            yield f"{name.format(f' {int(where[axis][0])}')} alone{factor}"
    is_zero = (wrong.gradient == 0) & (np.abs(reference.values) <= reference.bounds)
    if 1 < count <= np.count_nonzero(~is_zero) // 2:
        yield f"{count:,} of {where_wrong.size:,} entries{factor}"


def _factor(gradient: Wide, reference: Wide, wrong: Bool[np.ndarray, "*part"]) -> str:
    """The one factor by which the wrong entries are off, in words."""
    given, true = gradient[wrong].ravel(), reference[wrong].ravel()
    if not given.any():
        return ": it is zero"
    usable = np.abs(true) > 0
    ratios = given[usable] / true[usable]
    if usable.all() and np.ptp(ratios) <= NICE * abs(ratios[0]):
        return f": {times(float(ratios[0]), _nice(float(ratios[0])))}"
    return ""


def _by_factor(wrong: WrongLeaf, reference: Reference) -> Iterator[str]:
    """One factor for each row or column."""
    g, true = wrong.gradient, reference.values
    for axis, name in _axis_names(g.ndim) if g.ndim > 1 else []:
        others = tuple(i for i in range(g.ndim) if i != axis)
        weight = np.sum(true**2, axis=others, keepdims=True)
        factor = np.sum(g * true, axis=others, keepdims=True)
        factor = np.divide(factor, weight, out=np.ones_like(weight), where=weight > 0)
        if factor.size > 1 and (factor != 0).all() and wrong.is_mended_by(g / factor):
            low, high = float(np.min(factor)), float(np.max(factor))
            yield f"one factor per {name.format('')}, {low:.6g} to {high:.6g}"


def _by_offset(wrong: WrongLeaf, reference: Reference) -> Iterator[str]:
    if wrong.gradient.size < 3:
        return
    offset = float(np.median(wrong.gradient - reference.values))
    if offset and wrong.is_mended_by(wrong.gradient - offset):
        yield f"offset: {offset:+.4g} on every entry"


def _by_penalty(wrong: WrongLeaf, reference: Reference) -> Iterator[str]:
    """Off by a multiple of the leaf itself, as where ½λ|x|² is forgotten."""
    leaf, x = wrong.probes.leaf, wrong.probes.leaf.wide
    if x.size < 3 or not x.any():
        return
    share = float(np.sum((wrong.gradient - reference.values) * x) / np.sum(x * x))
    if share and wrong.is_mended_by(wrong.gradient - share * x):
        yield f"off by {share:+.4g} × {leaf.name} itself: a wrong penalty?"


def rearranged(g: Wide) -> Iterator[tuple[str, Float[np.ndarray, "..."]]]:
    """Each way in which an array may have been rearranged, undone."""
    for one, other in combinations(reversed(range(g.ndim)), 2):
        if g.shape[one] == g.shape[other] > 1:
            axes = "" if one == g.ndim - 1 == other + 1 else f": axes {other} and {one}"
            yield f"transposed{axes}", np.swapaxes(g, one, other)
    if g.ndim > 1 and g.shape[-1] == g.shape[-2] > 1:
        both = g + np.swapaxes(g, -1, -2) - g * np.eye(g.shape[-1])
        for which, part in (("lower", np.tril(both)), ("upper", np.triu(both))):
            yield f"spread over both triangles: the function reads the {which}", part
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


def times(ratio: float, nice: Fraction | None = None) -> str:
    """A factor as one reads it: ×3, ×-½, ×1.01, ×(1 + 2e-08)."""
    if nice is not None:
        half = "-½" if nice < 0 else "½"
        return f"×{half if abs(nice) == Fraction(1, 2) else nice}"
    if abs(ratio - 1) < READS_AS_ONE:
        return f"×(1 {'-' if ratio < 1 else '+'} {abs(ratio - 1):.1e})"
    return f"×{ratio:.6g}"


def _nice(ratio: float, doubt: float = 0.0) -> Fraction | None:
    """The whole number, or inverse of one, next to a ratio; None if neither is near.

    doubt: how wrong the ratio itself may be, relative to it.
    """
    if not ratio or abs(ratio - 1) < max(NICE, doubt):
        return None
    is_whole = abs(ratio) > 0.75  # halfway between 1 and ½
    whole = round(abs(ratio)) if is_whole else round(1 / abs(ratio))
    value = Fraction(whole) if is_whole else Fraction(1, whole)
    enough = min(max(NICE, doubt), ACCIDENT / whole)
    near = abs(abs(ratio) / float(value) - 1) < enough and doubt <= ACCIDENT / whole
    return (value if ratio > 0 else -value) if near else None


def _axis_names(ndim: int) -> list[tuple[int, str]]:
    """What one index along each axis is called; a number goes where the braces are."""
    if ndim == 2:
        return [(0, "row{}"), (1, "column{}")]
    return [(axis, f"index{{}} of axis {axis}") for axis in range(ndim)]
