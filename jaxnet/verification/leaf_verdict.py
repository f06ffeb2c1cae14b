"""What one candidate's gradient by one leaf gets: a verdict, a place, a resolution."""

from dataclasses import dataclass, replace

import numpy as np

from jaxnet.verification.candidates import Candidate
from jaxnet.verification.directions import (
    ONE,
    Chosen,
    Coordinate,
    norm,
)
from jaxnet.verification.judge import Finding
from jaxnet.verification.leaf_check import COARSEST, LeafCheck
from jaxnet.verification.leaf_looks import breaks
from jaxnet.verification.localisation import Localisation
from jaxnet.verification.looks import SINGLE, Look
from jaxnet.verification.report import LeafReport
from jaxnet.verification.rounding import eps_of
from jaxnet.verification.verdict import Verdict

COARSEST_ROUNDING = 0.3
"""As COARSEST, of a bound that is wide by rounding, of the candidate or the function,
to less than float32."""

Found = tuple[Look, Finding]


@dataclass(frozen=True)
class LeafVerdict:
    """One candidate held against the looks at one leaf."""

    check: LeafCheck
    candidate: Candidate

    @property
    def gradient(self) -> np.ndarray:
        """The candidate's gradient by this leaf."""
        return self.check.gradient(self.candidate)

    @property
    def autodiff(self) -> np.ndarray | None:
        """jax.grad by this leaf; None where it cannot be had."""
        every = self.check.rounding.gradient()
        return None if every is None else every[self.check.number]

    def finding(self, look: Look) -> Finding:
        """What one look says of the candidate."""
        return self.check.finding(look, self.candidate)

    def report(self) -> LeafReport:
        """The candidate's gradient by this leaf, held against the looks."""
        leaf, gradient = self.check.leaf, self.gradient
        blank = LeafReport(
            leaf.path, self.candidate.name, leaf.shape, Verdict.AGREE, True
        )
        if not self.check.looks:
            return replace(blank, cause="empty: nothing to check", resolution=0.0)
        if not np.any(gradient) and self.check.is_silent():
            return replace(blank, verdict=Verdict.UNINFORMATIVE, passed=False)
        found = [(look, self.finding(look)) for look in self.check.looks]
        found += self._jointly() + self._unlooked()
        found += self._directed(found)
        look, worst = min(found, key=_severity)
        if worst.verdict is Verdict.DISAGREE and not self.check.where.small:
            look, worst = self._located(look, worst)
        return self._record(blank, found, look, worst)

    def _record(
        self,
        blank: LeafReport,
        found: list[Found],
        look: Look,
        worst: Finding,
    ) -> LeafReport:
        unit = self.check.unit(look.direction)
        verdict, cause = worst.verdict, worst.explained(unit)
        resolution, by_differences = self._resolution(found)
        coarse = self.check.looker.function.precision_of(self.check.number) > SINGLE
        widest = COARSEST_ROUNDING if coarse else COARSEST
        seen = by_differences <= widest and resolution <= COARSEST_ROUNDING
        if verdict is Verdict.AGREE and not seen:
            if self.check.is_zero_but_for_rounding(self.candidate):
                cause = "zero but for rounding"
            else:
                verdict = Verdict.UNRESOLVED
                cause = f"only errors above {resolution:.1g} of the leaf would show"
        if verdict is Verdict.NONDIFFERENTIABLE:
            cause += self._other_breaks(look)
        index = None
        if isinstance(look.direction, Coordinate):
            index = self.check.leaf.index(look.direction.flat)
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
            for look in self.check.looks
            if isinstance(look.direction, Coordinate)
            and breaks(look)
            and look is not worst
        ]
        if isinstance(worst.direction, Coordinate):  # the other part of a complex entry
            own = self.check.leaf.index(worst.direction.flat)
            others = [i for i in others if self.check.leaf.index(i) != own]
        places = list(
            dict.fromkeys(str(list(self.check.leaf.index(i))) for i in others)
        )
        more = f" and {len(places) - 3} more" if len(places) > 3 else ""
        text = f"; also at {', '.join(places[:3])}{more}" if places else ""
        unlooked = len(self.check.where.unlooked)
        return text + (
            f"; {unlooked} more zeros or ties not looked at" * bool(unlooked)
        )

    def _resolution(self, found: list[Found]) -> tuple[float, float]:
        """The widest bound by the leaf's gradient: in all, and by the differences."""
        every = np.full(self.check.leaf.values.shape, ONE, np.int8)
        gradient = self.gradient
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

    def _jointly(self) -> list[Found]:
        """Kinked coordinates together: what each allows, their sum may not."""
        signed = self.check.where.signed(self.gradient)
        smooth = [look for look in signed if not look.slope.has_kink]
        found = []
        for look in self.check.where.joint + smooth:
            finding = self.finding(look)
            if finding.verdict is Verdict.DISAGREE and look.slope.has_kink:
                verdict, reason = Verdict.NONDIFFERENTIABLE, "along several kinks: "
                reason += finding.reason
                finding = finding._replace(verdict=verdict, reason=reason)
            elif finding.verdict is Verdict.DISAGREE:
                reason = "each value is allowed at its kink, their sum is not"
                finding = finding._replace(reason=reason)
            found.append((look, finding))
        return found

    def _unlooked(self) -> list[Found]:
        """Kinks too many to look at: there the candidate must be as autodiff is."""
        if self.check.where.entangled:
            look = next(x for x in self.check.looks if breaks(x))
            reason = "the probes cross kinks that could not be told apart"
            return [(look, self._unresolved(look, reason))]
        where = np.array(self.check.where.unlooked, int)
        if not len(where):
            return []
        other = self.autodiff
        if other is None and self.candidate.is_autodiff:
            return []
        given = self.gradient.reshape(-1)[where]
        if other is not None and np.allclose(
            given, other.reshape(-1)[where], rtol=1e-6
        ):
            return []
        reason = f"{len(where)} zeros or ties are too many to be looked at"
        return [(self.check.looks[0], self._unresolved(self.check.looks[0], reason))]

    def _unresolved(self, look: Look, reason: str) -> Finding:
        finding = self.finding(look)
        return finding._replace(
            verdict=Verdict.UNRESOLVED, passed=False, reason=reason, sides=()
        )

    def _directed(self, found: list[Found]) -> list[Found]:
        """One more probe of a large leaf, along all that autodiff has otherwise."""
        if self.check.where.small or self.candidate.is_autodiff:
            return []
        other = self.autodiff
        if other is None or any(f.verdict is Verdict.DISAGREE for _, f in found):
            return []
        eps = eps_of(self.candidate, self.check.number, self.check.looker.function)
        difference = self.gradient - other
        floor = (16 * eps + 1e-10) * np.abs(other)
        if not (np.abs(difference) > floor).any():
            return []
        floor = floor + 4 * self.check.rounding.of_terms(
            self.check.number, eps, self.check.largest()
        )
        signs = np.where(np.abs(difference) > floor, np.sign(difference), 0)
        signs.reshape(-1)[list(self.check.where.kinked)] = 0
        if not signs.any():
            return []
        look = self.check.looker.look(
            self.check.number, Chosen(self.check.leaf, (ONE * signs).astype(np.int8))
        )
        return [(look, self.finding(look))]

    def _located(self, look: Look, worst: Finding) -> tuple[Look, Finding]:
        if isinstance(look.direction, Coordinate):
            return look, worst
        wrong = Localisation(self.check, self.candidate).wrong_coordinate()
        return (look, worst) if wrong is None else (wrong, self.finding(wrong))


def _severity(pair: Found) -> tuple[int, bool, bool, float]:
    """Sorts the worst first; of kinks that passed, one with a place."""
    look, finding = pair
    excess = finding.excess
    order = list(Verdict).index(finding.verdict)
    is_kink = finding.passed and finding.verdict is Verdict.NONDIFFERENTIABLE
    placeless = is_kink and not isinstance(look.direction, Coordinate)
    return order, finding.passed, placeless, -excess if excess == excess else 0.0
