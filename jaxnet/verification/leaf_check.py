"""One leaf of the parameters: what the looks at it say of a gradient by it."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from jaxnet.verification.candidates import Candidate
from jaxnet.verification.directions import (
    AnyDirection,
    Coordinate,
    along,
    norm_along,
)
from jaxnet.verification.judge import Finding, judge
from jaxnet.verification.leaf_looks import LeafLooks, breaks
from jaxnet.verification.leaves import Leaf
from jaxnet.verification.looks import Look, Looker
from jaxnet.verification.rounding import Rounding, eps_of
from jaxnet.verification.verdict import Verdict

COARSEST = 0.01
"""A bound wider than this share of the leaf's gradient says nothing: UNRESOLVED."""

ZERO = 16.0
"""How many times what rounding may do to a gradient is still called zero."""


@dataclass
class LeafCheck:
    """What was looked at in one leaf, and what it says of any gradient."""

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
        hypothetical = gradient is not None
        gradient = self.gradient(candidate) if gradient is None else gradient
        eps = eps_of(candidate, self.number, self.looker.function)
        value = along(gradient, look.direction)
        allowed = self.rounding.own_along(gradient, eps, look.direction)
        scale = self._scale(look)
        found = judge(look.slope, value, allowed, self.safety, scale)
        if found.verdict is not Verdict.DISAGREE:
            return found
        if hypothetical or self.looker.parameters.are_many:
            # terms cost two gradients; whatever they are, this may be wrong anyway
            terms = self.rounding.most_of_terms(eps, self.largest())
            everywhere = np.broadcast_to(terms, gradient.shape)
            most = allowed + norm_along(everywhere, look.direction)
            wider = judge(look.slope, value, most, self.safety, scale)
            if wider.verdict is Verdict.DISAGREE:
                return found
        of_terms = self.rounding.of_terms(self.number, eps, self.largest())
        own = np.asarray(self.rounding.own(gradient, eps) + of_terms)
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
        terms = self.rounding.of_terms(self.number, eps, self.largest())
        if not self.where.small:
            other = self.rounding.gradient()
            if other is None or candidate.is_autodiff:
                return None
            array = other[self.number]
            if not all(f.passed for f in self.findings(candidate, array)):
                return None
            return array, (16 * eps + 1e-10) * np.abs(array) + 4 * terms
        units = np.array([self.unit(look.direction) for look in self.looks])
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

    def gradient(self, candidate: Candidate) -> np.ndarray:
        """The candidate's gradient by this leaf."""
        gradient = candidate.gradient[self.number]
        assert gradient is not None
        return gradient

    def unit(self, direction: AnyDirection) -> float:
        """Size of a coordinate's step, so that derivatives are by the coordinate."""
        if not isinstance(direction, Coordinate):
            return 1.0
        return direction.leaf.size(direction.flat)

    def largest(self) -> float:
        """The loss by the smallest unit of the leaf."""
        return max(look.slope.size for look in self.looks) / self.leaf.floor

    def is_zero_but_for_rounding(self, candidate: Candidate) -> bool:
        """Whether the candidate and autodiff are both no more than rounding.

        Not of a function so coarse that its rounding could be the whole gradient.
        """
        other = self.rounding.gradient()
        if other is None:
            return False
        eps = eps_of(candidate, self.number, self.looker.function)
        both = self.gradient(candidate), other[self.number]
        return all(self.is_rounding(gradient, eps) for gradient in both)

    def is_rounding(self, gradient: np.ndarray, eps: float) -> bool:
        """Whether a gradient by this leaf is no more than rounding makes of zero."""
        largest, terms = np.max(np.abs(gradient)), self.rounding.terms(self.number)
        if terms is None or not largest:
            return not largest
        own = self.rounding.of_terms(self.number, ZERO * eps, self.largest())
        return bool(largest <= np.max(own) <= COARSEST * np.max(terms))
