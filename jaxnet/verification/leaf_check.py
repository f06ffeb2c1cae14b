"""One leaf of the parameters, and every candidate's gradient by it."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from jaxnet.verification.candidates import Candidate, Conditioning
from jaxnet.verification.directions import (
    ONE,
    Chosen,
    Coordinate,
    along,
    norm_along,
    power_below,
)
from jaxnet.verification.judge import Finding, judge
from jaxnet.verification.leaves import Leaf
from jaxnet.verification.looks import Look, Looker, is_small
from jaxnet.verification.report import LeafReport
from jaxnet.verification.verdict import Verdict

COARSEST = 0.03
"""A bound wider than this share of the leaf's gradient says nothing: UNRESOLVED."""

MANY_KINKS = 8
"""How many kinks of a large leaf are looked for before it is given up."""

OWN_ROUNDING = 8.0
"""How many ulps of its largest entry a gradient may be off by its own rounding."""

TERMS_ROUNDING = 4.0
"""How many ulps of the terms it is summed from."""


@dataclass
class LeafCheck:
    """What was looked at in one leaf; `report` holds a candidate against it."""

    looker: Looker
    conditioning: Conditioning
    number: int
    safety: float
    looks: list[Look]
    kinks: list[int]
    small: bool

    @classmethod
    def of(
        cls,
        looker: Looker,
        conditioning: Conditioning,
        number: int,
        safety: float,
        every_coordinate: bool | None,
    ) -> "LeafCheck":
        """Look at a leaf: every coordinate if it is small, else random probes."""
        leaf = looker.parameters.leaves[number]
        small = is_small(leaf, every_coordinate)
        size, kinks = leaf.values.size, []
        if not size:
            looks = []
        elif small:
            looks = looker.coordinates(number, range(size))
        else:
            looks = looker.probes(number)
            if any(_breaks(look) for look in looks):
                kinks = looker.search(number, _breaks, MANY_KINKS)
            if 0 < len(kinks) < MANY_KINKS:
                looks = looker.probes(number, tuple(kinks))
                looks += looker.coordinates(number, kinks)
        return cls(looker, conditioning, number, safety, looks, kinks, small)

    @property
    def leaf(self) -> Leaf:
        """The leaf that is looked at."""
        return self.looker.parameters.leaves[self.number]

    def report(self, candidate: Candidate) -> LeafReport:
        """The candidate's gradient by this leaf, held against the looks."""
        leaf = self.leaf
        gradient = candidate.gradient[self.number]
        assert gradient is not None
        blank = LeafReport(leaf.path, candidate.name, leaf.shape, Verdict.AGREE, True)
        if not self.looks:
            return replace(blank, cause="empty: nothing to check", resolution=0.0)
        if _is_silent(self.looks) and not np.any(gradient):
            return replace(blank, verdict=Verdict.UNINFORMATIVE, passed=False)
        findings = [(look, self._finding(look, candidate)) for look in self.looks]
        findings += self._directed(candidate, findings)
        look, worst = min(findings, key=_severity)
        if worst.verdict is Verdict.DISAGREE and not self.small:
            look, worst = self._located(candidate, look, worst)
        return self._record(blank, candidate, findings, look, worst)

    def _record(
        self,
        blank: LeafReport,
        candidate: Candidate,
        findings: list[tuple[Look, Finding]],
        look: Look,
        worst: Finding,
    ) -> LeafReport:
        resolution = self._resolution(candidate, findings)
        verdict, cause = worst.verdict, worst.explained(self._unit(look))
        if verdict is Verdict.AGREE and not resolution <= COARSEST:
            if self._is_zero_but_for_rounding(candidate):
                cause = "zero but for rounding"
            else:
                verdict = Verdict.UNRESOLVED
                cause = f"only errors above {resolution:.1g} of the leaf would show"
        if verdict is Verdict.NONDIFFERENTIABLE:
            cause += self._other_breaks(look)
        passed = worst.passed and verdict is not Verdict.UNRESOLVED
        index = None
        if isinstance(look.direction, Coordinate):
            index = self.leaf.index(look.direction.flat)
        return replace(
            blank,
            verdict=verdict,
            passed=passed,
            worst_index=index,
            candidate_value=worst.candidate / self._unit(look),
            reference_value=worst.reference / self._unit(look),
            error=worst.error / self._unit(look),
            bound=worst.bound / self._unit(look),
            resolution=resolution,
            cause=cause,
        )

    def _other_breaks(self, worst: Look) -> str:
        """Where else the leaf is not differentiable."""
        places = [
            str(list(self.leaf.index(look.direction.flat)))
            for look in self.looks
            if isinstance(look.direction, Coordinate)
            and _breaks(look)
            and look is not worst
        ]
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        return f"; also at {', '.join(places[:3])}{more}" if places else ""

    def _unit(self, look: Look) -> float:
        """Size of a coordinate's step, so that derivatives are by the coordinate."""
        if not isinstance(look.direction, Coordinate):
            return 1.0
        return look.direction.leaf.size(look.direction.flat)

    def flat_index(self, index: tuple[int, ...]) -> int:
        """The coordinate of the caller's index (of a complex entry, the real part)."""
        shape = self.leaf.shape
        flat = int(np.ravel_multi_index(index, shape)) if shape else 0
        return 2 * flat if self.leaf.is_complex else flat

    def findings(self, candidate: Candidate, gradient: np.ndarray) -> list[Finding]:
        """What the looks say of another gradient, computed as the candidate's was."""
        return [self._finding(look, candidate, gradient) for look in self.looks]

    def reference_array(
        self, candidate: Candidate
    ) -> tuple[np.ndarray, np.ndarray] | None:
        """The leaf's gradient entry by entry, and how exact; None if it is not known.

        A small leaf's are the differences themselves; a large leaf's are autodiff's, if
        they pass every look.
        """
        if self.small:
            shape, looks = self.leaf.values.shape, self.looks
            units = np.array([self._unit(look) for look in looks])
            values = np.array([look.slope.central.value for look in looks]) / units
            bounds = np.array([look.slope.central.bound for look in looks]) / units
            if not np.isfinite(values + bounds).all():
                return None
            largest = float(np.max(np.abs(values)))
            bounds = (
                self.safety * bounds + OWN_ROUNDING * self._eps(candidate) * largest
            )
            return values.reshape(shape), bounds.reshape(shape)
        other = self.conditioning.gradient()
        if other is None or candidate.name == "autodiff":
            return None
        array = other[self.number]
        if any(not f.passed for f in self.findings(candidate, array)):
            return None
        largest = float(np.max(np.abs(array)))
        exact = 32 * self._eps(candidate) * (largest + self._terms()) + 1e-10 * largest
        return array, np.full(array.shape, exact)

    def _finding(
        self, look: Look, candidate: Candidate, gradient: np.ndarray | None = None
    ) -> Finding:
        if gradient is None:
            gradient = candidate.gradient[self.number]
        assert gradient is not None
        multipliers = look.direction.multipliers()
        value = along(gradient, multipliers, look.direction.leaf)
        length = norm_along(np.ones_like(gradient), multipliers, look.direction.leaf)
        rounding = OWN_ROUNDING * self._eps(candidate) * float(np.max(np.abs(gradient)))
        finding = judge(look.slope, value, rounding * length, self.safety)
        if finding.verdict is Verdict.DISAGREE:
            terms = self._terms()
            rounding += TERMS_ROUNDING * self._eps(candidate) * terms
            finding = judge(look.slope, value, rounding * length, self.safety)
        if len(self.kinks) == MANY_KINKS and look.slope.has_kink:
            return _among_many_kinks(finding)
        return finding

    def _eps(self, candidate: Candidate) -> float:
        return max(candidate.eps(self.number), self.looker.function.precision)

    def _resolution(
        self, candidate: Candidate, findings: list[tuple[Look, Finding]]
    ) -> float:
        gradient = candidate.gradient[self.number]
        assert gradient is not None
        every = np.full(self.leaf.values.shape, ONE, np.int8)
        norm = norm_along(gradient, every, self.leaf)
        norm = max(norm, *(abs(f.reference) for _, f in findings))
        widest = max(finding.bound for _, finding in findings)
        return widest / norm if norm else float("inf")

    def _is_zero_but_for_rounding(self, candidate: Candidate) -> bool:
        gradient = candidate.gradient[self.number]
        assert gradient is not None
        largest = float(np.max(np.abs(gradient)))
        return largest <= 16 * self._eps(candidate) * self._terms()

    def _terms(self) -> float:
        """The size of what the gradient is summed from, if it is worth the name.

        Where float32 gives no sense at all, terms seem larger than the loss can hold.
        """
        terms = self.conditioning.terms(self.number)
        largest = max(look.slope.size for look in self.looks) / self.leaf.floor
        return terms if terms <= 1e3 * largest else 0.0

    def _directed(
        self, candidate: Candidate, findings: list[tuple[Look, Finding]]
    ) -> list[tuple[Look, Finding]]:
        """One more probe of a large leaf, along all that autodiff has otherwise."""
        gradient = candidate.gradient[self.number]
        if self.small or self.kinks or candidate.name == "autodiff":
            return []
        other = self.conditioning.gradient()
        if other is None or any(f.verdict is Verdict.DISAGREE for _, f in findings):
            return []
        difference = gradient - other[self.number]
        largest = float(np.max(np.abs(other[self.number])))
        floor = 32 * self._eps(candidate) * largest + 1e-10 * largest
        signs = np.where(np.abs(difference) > floor, np.sign(difference), 0)
        if not signs.any():
            return []
        chosen = Chosen(self.leaf, (ONE * signs).astype(np.int8))
        look = self.looker.look(self.number, chosen)
        return [(look, self._finding(look, candidate))]

    def _located(
        self, candidate: Candidate, look: Look, worst: Finding
    ) -> tuple[Look, Finding]:
        """The wrong coordinate: where autodiff differs most, else by halving."""
        flat = self._largest_difference(candidate)
        if flat is None or not self._is_wrong(candidate)(self._coordinate(flat)):
            found = self.looker.search(self.number, self._is_wrong(candidate), limit=1)
            flat = found[0] if found else None
        if flat is None:
            return look, worst
        coordinate = self._coordinate(flat)
        return coordinate, self._finding(coordinate, candidate)

    def _coordinate(self, flat: int) -> Look:
        return self.looker.look(self.number, Coordinate(self.leaf, flat))

    def _is_wrong(self, candidate: Candidate) -> Callable[[Look], bool]:
        return lambda look: self._finding(look, candidate).verdict is Verdict.DISAGREE

    def _largest_difference(self, candidate: Candidate) -> int | None:
        other = self.conditioning.gradient()
        gradient = candidate.gradient[self.number]
        if other is None or candidate.name == "autodiff":
            return None
        size = power_below(np.maximum(np.abs(self.leaf.values), self.leaf.floor))
        difference = np.abs(gradient - other[self.number]) * size
        return int(np.argmax(difference)) if difference.any() else None


def _breaks(look: Look) -> bool:
    return look.slope.has_kink or bool(look.slope.jump)


def _is_silent(looks: list[Look]) -> bool:
    """Whether the function does not change at all along any direction."""
    return all(
        look.slope.central.value == 0
        and not _breaks(look)
        and look.slope.gap.value == 0
        for look in looks
    )


def _among_many_kinks(finding: Finding) -> Finding:
    """Along a probe through many kinks, slopes bound no right gradient strictly."""
    if finding.verdict is not Verdict.DISAGREE:
        return finding
    reason = f"more than {MANY_KINKS - 1} kinks, {finding.reason}"
    return finding._replace(verdict=Verdict.NONDIFFERENTIABLE, reason=reason)


def _severity(pair: tuple[Look, Finding]) -> tuple[int, float]:
    _, finding = pair
    excess = finding.excess
    return list(Verdict).index(finding.verdict), -excess if excess == excess else 0.0
