"""One leaf of the parameters, and every candidate's gradient by it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from jaxnet.verification.candidates import Candidate
from jaxnet.verification.directions import (
    ONE,
    AnyDirection,
    Chosen,
    Coordinate,
    along,
    norm,
    norm_along,
    power_below,
)
from jaxnet.verification.judge import Finding, judge
from jaxnet.verification.leaf_looks import LeafLooks, breaks
from jaxnet.verification.leaves import Leaf
from jaxnet.verification.looks import SINGLE, Look, Looker
from jaxnet.verification.report import LeafReport
from jaxnet.verification.rounding import Rounding, eps_of
from jaxnet.verification.verdict import Verdict

COARSEST = 0.01
"""A bound wider than this share of the leaf's gradient says nothing: UNRESOLVED."""

COARSEST_ROUNDING = 0.3
"""The same for a bound that is wide by rounding, of the candidate or the function, to
less than float32."""

ZERO = 16.0
"""How many times what rounding may do to a gradient is still called zero."""

Found = tuple[Look, Finding]


@dataclass
class LeafCheck:
    """What was looked at in one leaf; `report` holds a candidate against it."""

    looker: Looker
    rounding: Rounding
    number: int
    safety: float
    where: LeafLooks

    @property
    def leaf(self) -> Leaf:
        """The leaf that is looked at."""
        return self.looker.parameters.leaves[self.number]

    @property
    def looks(self) -> list[Look]:
        """All looks that a right gradient must pass, whatever the candidate."""
        return self.where.looks

    def report(self, candidate: Candidate) -> LeafReport:
        """The candidate's gradient by this leaf, held against the looks."""
        leaf, gradient = self.leaf, self._gradient(candidate)
        blank = LeafReport(leaf.path, candidate.name, leaf.shape, Verdict.AGREE, True)
        if not self.looks:
            return replace(blank, cause="empty: nothing to check", resolution=0.0)
        if not np.any(gradient) and self.is_silent():
            return replace(blank, verdict=Verdict.UNINFORMATIVE, passed=False)
        found = [(look, self.finding(look, candidate)) for look in self.looks]
        found += self._jointly(candidate) + self._unlooked(candidate)
        found += self._directed(candidate, found)
        look, worst = min(found, key=_severity)
        if worst.verdict is Verdict.DISAGREE and not self.where.small:
            look, worst = self._located(candidate, look, worst)
        return self._record(blank, candidate, found, look, worst)

    def is_silent(self) -> bool:
        """Whether the function's slopes along all looks are 0 but for rounding."""
        if any(breaks(look) for look in self.looks):
            return False
        return all(
            slope.central.value == 0
            or (
                slope.central.bound <= COARSEST * slope.size
                and abs(slope.central.value) <= self.safety * slope.central.bound
            )
            for slope in (look.slope for look in self.looks)
        )

    def findings(self, candidate: Candidate, gradient: np.ndarray) -> Iterator[Finding]:
        """What the looks say of another gradient, computed as the candidate's was."""
        return (self.finding(look, candidate, gradient) for look in self.looks)

    def finding(
        self, look: Look, candidate: Candidate, gradient: np.ndarray | None = None
    ) -> Finding:
        """What one look says of the candidate, or of another gradient like it."""
        if gradient is None:
            gradient = self._gradient(candidate)
        eps = eps_of(candidate, self.number, self.looker.function)
        value = along(gradient, look.direction)
        own = self.rounding.own(gradient, eps)
        allowed = norm_along(own, look.direction)
        scale = self._scale(look)
        found = judge(look.slope, value, allowed, self.safety, scale)
        if found.verdict is not Verdict.DISAGREE:
            return found
        own = np.asarray(
            own + self.rounding.of_terms(self.number, eps, self._largest())
        )
        allowed = norm_along(own, look.direction)
        return judge(look.slope, value, allowed, self.safety, scale)

    def _scale(self, look: Look) -> float:
        """The largest derivative that settled, in the unit of an unsettled look."""
        if look.slope.central.settled:
            return 0.0
        settled = [
            abs(x.slope.central.value) / x.direction.leaf.floor
            for x in self.looks
            if x.slope.central.settled
        ]
        return look.direction.leaf.floor * max(settled, default=0.0)

    def reference_array(
        self, candidate: Candidate
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """The leaf's gradient entry by entry, and how exact; None if it is not known.

        A small leaf's are the differences themselves; a large leaf's are autodiff's, if
        they pass every look.
        """
        eps = eps_of(candidate, self.number, self.looker.function)
        terms = self.rounding.of_terms(self.number, eps, self._largest())
        if not self.where.small:
            other = self.rounding.gradient()
            if other is None or candidate.name == "autodiff":
                return None
            array = other[self.number]
            if not all(f.passed for f in self.findings(candidate, array)):
                return None
            return array, (16 * eps + 1e-10) * np.abs(array) + 4 * terms
        units = np.array([self._unit(look.direction) for look in self.looks])
        slopes = [look.slope.central for look in self.looks]
        values = np.array([s.value for s in slopes]) / units
        bounds = self.safety * np.array([s.bound for s in slopes]) / units
        if not np.isfinite(values + bounds).all():
            return None
        values = values.reshape(self.leaf.values.shape)
        own = self.rounding.own(values, eps) + terms
        return values, np.asarray(bounds.reshape(values.shape) + own)

    def flat_index(self, index: tuple[int, ...]) -> int:
        """The coordinate of the caller's index (of a complex entry, the real part)."""
        shape = self.leaf.shape
        flat = int(np.ravel_multi_index(index, shape)) if shape else 0
        return 2 * flat if self.leaf.is_complex else flat

    def _gradient(self, candidate: Candidate) -> np.ndarray:
        gradient = candidate.gradient[self.number]
        assert gradient is not None
        return gradient

    def _record(
        self,
        blank: LeafReport,
        candidate: Candidate,
        found: list[Found],
        look: Look,
        worst: Finding,
    ) -> LeafReport:
        unit = self._unit(look.direction)
        verdict, cause = worst.verdict, worst.explained(unit)
        resolution, by_differences = self._resolution(candidate, found)
        coarse = self.looker.function.precision_of(self.number) > SINGLE
        widest = COARSEST_ROUNDING if coarse else COARSEST
        seen = by_differences <= widest and resolution <= COARSEST_ROUNDING
        if verdict is Verdict.AGREE and not seen:
            if self._is_zero_but_for_rounding(candidate):
                cause = "zero but for rounding"
            else:
                verdict = Verdict.UNRESOLVED
                cause = f"only errors above {resolution:.1g} of the leaf would show"
        if verdict is Verdict.NONDIFFERENTIABLE:
            cause += self._other_breaks(look)
        index = None
        if isinstance(look.direction, Coordinate):
            index = self.leaf.index(look.direction.flat)
        return replace(
            blank,
            verdict=verdict,
            passed=worst.passed and verdict is not Verdict.UNRESOLVED,
            worst_index=index,
            candidate_value=worst.candidate / unit,
            reference_value=worst.reference / unit,
            error=worst.error / unit,
            bound=worst.bound / unit,
            resolution=resolution,
            cause=cause,
        )

    def _other_breaks(self, worst: Look) -> str:
        """Where else the leaf is not differentiable."""
        others = [
            look.direction.flat
            for look in self.looks
            if isinstance(look.direction, Coordinate)
            and breaks(look)
            and look is not worst
        ]
        if isinstance(worst.direction, Coordinate):  # the other part of a complex entry
            own = self.leaf.index(worst.direction.flat)
            others = [i for i in others if self.leaf.index(i) != own]
        places = list(dict.fromkeys(str(list(self.leaf.index(i))) for i in others))
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        text = f"; also at {', '.join(places[:3])}{more}" if places else ""
        unlooked = len(self.where.unlooked)
        return text + (
            f"; {unlooked} more zeros or ties not looked at" * bool(unlooked)
        )

    def _unit(self, direction: AnyDirection) -> float:
        """Size of a coordinate's step, so that derivatives are by the coordinate."""
        if not isinstance(direction, Coordinate):
            return 1.0
        return direction.leaf.size(direction.flat)

    def _largest(self) -> float:
        """The loss by the smallest unit of the leaf."""
        return max(look.slope.size for look in self.looks) / self.leaf.floor

    def _resolution(
        self, candidate: Candidate, found: list[Found]
    ) -> tuple[float, float]:
        """The widest bound by the leaf's gradient: in all, and by the differences."""
        every = np.full(self.leaf.values.shape, ONE, np.int8)
        gradient = self._gradient(candidate)
        widest, by_differences = 0.0, 0.0
        for floor in {look.direction.leaf.floor for look, _ in found}:
            # some looks have moved each coordinate by its own size: another unit
            alike = [x for x in found if x[0].direction.leaf.floor == floor]
            size = norm(gradient, every, alike[0][0].direction.leaf)
            size = max(size, *(abs(f.reference) for _, f in alike))
            if not size:
                return float("inf"), float("inf")
            widest = max(widest, *(f.bound / size for _, f in alike))
            parts = (max(f.bound - f.rounding, 0.0) / size for _, f in alike)
            by_differences = max(by_differences, *parts)
        return widest, by_differences

    def _is_zero_but_for_rounding(self, candidate: Candidate) -> bool:
        """Whether the candidate and autodiff are both no more than rounding.

        Not of a function so coarse that its rounding could be the whole gradient.
        """
        other = self.rounding.gradient()
        if other is None:
            return False
        eps = eps_of(candidate, self.number, self.looker.function)
        both = self._gradient(candidate), other[self.number]
        return all(self.is_rounding(gradient, eps) for gradient in both)

    def is_rounding(self, gradient: np.ndarray, eps: float) -> bool:
        """Whether a gradient by this leaf is no more than rounding makes of zero."""
        largest, terms = np.max(np.abs(gradient)), self.rounding.terms(self.number)
        if terms is None or not largest:
            return not largest
        own = self.rounding.of_terms(self.number, ZERO * eps, self._largest())
        return bool(largest <= np.max(own) <= COARSEST * np.max(terms))

    def _jointly(self, candidate: Candidate) -> list[Found]:
        """Kinked coordinates together: what each allows, their sum may not."""
        signed = self.where.signed(self._gradient(candidate))
        smooth = [look for look in signed if not look.slope.has_kink]
        found = []
        for look in self.where.joint + smooth:
            finding = self.finding(look, candidate)
            if finding.verdict is Verdict.DISAGREE and look.slope.has_kink:
                verdict, reason = Verdict.NONDIFFERENTIABLE, "along several kinks: "
                reason += finding.reason
                finding = finding._replace(verdict=verdict, reason=reason)
            elif finding.verdict is Verdict.DISAGREE:
                reason = "each value is allowed at its kink, their sum is not"
                finding = finding._replace(reason=reason)
            found.append((look, finding))
        return found

    def _unlooked(self, candidate: Candidate) -> list[Found]:
        """Kinks too many to look at: there the candidate must be as autodiff is."""
        if self.where.entangled:
            look = next(x for x in self.looks if breaks(x))
            reason = "the probes cross kinks that could not be told apart"
            return [(look, self._unresolved(look, candidate, reason))]
        where = np.array(self.where.unlooked, int)
        other = self.rounding.gradient()
        if not len(where) or (other is None and candidate.name == "autodiff"):
            return []
        given = self._gradient(candidate).reshape(-1)[where]
        if other is not None and np.allclose(
            given, other[self.number].reshape(-1)[where], rtol=1e-6
        ):
            return []
        reason = f"{len(where)} zeros or ties are too many to be looked at"
        return [(self.looks[0], self._unresolved(self.looks[0], candidate, reason))]

    def _unresolved(self, look: Look, candidate: Candidate, reason: str) -> Finding:
        finding = self.finding(look, candidate)
        return finding._replace(
            verdict=Verdict.UNRESOLVED, passed=False, reason=reason, sides=()
        )

    def _directed(self, candidate: Candidate, found: list[Found]) -> list[Found]:
        """One more probe of a large leaf, along all that autodiff has otherwise."""
        if self.where.small or candidate.name == "autodiff":
            return []
        other = self.rounding.gradient()
        if other is None or any(f.verdict is Verdict.DISAGREE for _, f in found):
            return []
        eps = eps_of(candidate, self.number, self.looker.function)
        array = other[self.number]
        difference = self._gradient(candidate) - array
        floor = (16 * eps + 1e-10) * np.abs(array)
        if not (np.abs(difference) > floor).any():
            return []
        floor = floor + 4 * self.rounding.of_terms(self.number, eps, self._largest())
        signs = np.where(np.abs(difference) > floor, np.sign(difference), 0)
        signs.reshape(-1)[list(self.where.kinked)] = 0
        if not signs.any():
            return []
        look = self.looker.look(
            self.number, Chosen(self.leaf, (ONE * signs).astype(np.int8))
        )
        return [(look, self.finding(look, candidate))]

    def _located(
        self, candidate: Candidate, look: Look, worst: Finding
    ) -> tuple[Look, Finding]:
        """The wrong coordinate: where autodiff differs most, else by halving."""
        if isinstance(look.direction, Coordinate):
            return look, worst
        is_wrong = self._is_wrong(candidate)
        flat = self._largest_difference(candidate)
        if flat is None or not is_wrong(self._coordinate(flat)):
            found = self.looker.search(self.number, is_wrong, limit=1)
            flat = found[0] if found else None
        if flat is None:
            return look, worst
        coordinate = self._coordinate(flat)
        return coordinate, self.finding(coordinate, candidate)

    def _coordinate(self, flat: int) -> Look:
        return self.looker.look(self.number, Coordinate(self.leaf, flat))

    def _is_wrong(self, candidate: Candidate) -> Callable[[Look], bool]:
        return lambda look: self.finding(look, candidate).verdict is Verdict.DISAGREE

    def _largest_difference(self, candidate: Candidate) -> int | None:
        other = self.rounding.gradient()
        if other is None or candidate.name == "autodiff":
            return None
        size = power_below(np.maximum(np.abs(self.leaf.values), self.leaf.floor))
        difference = np.abs(self._gradient(candidate) - other[self.number]) * size
        return int(np.argmax(difference)) if difference.any() else None


def _severity(pair: Found) -> tuple[int, bool, bool, float]:
    """Sorts the worst first; of kinks that passed, one with a place."""
    look, finding = pair
    excess = finding.excess
    order = list(Verdict).index(finding.verdict)
    is_kink = finding.passed and finding.verdict is Verdict.NONDIFFERENTIABLE
    placeless = is_kink and not isinstance(look.direction, Coordinate)
    return order, finding.passed, placeless, -excess if excess == excess else 0.0
