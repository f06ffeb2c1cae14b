"""How far rounding alone may move a gradient: measured, entry by entry.

The same gradient in float32 and in float64, at a few points a hair apart, differs by
float32's ε times the size of the terms each entry is summed from. That size, times the
ε in which a candidate was computed, is what its rounding may do. In float64 this allows
2e-9 of what float32 got wrong, so it hides no mistake.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from jaxnet.precision import SINGLE
from jaxnet.verification.candidates.autodiff import Autodiff
from jaxnet.verification.candidates.candidate import Candidate
from jaxnet.verification.directions import AnyDirection, norm_along
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.point import Leaf, Reals

SAMPLES = 6
"""At how many points the two are compared: their root mean square is known to 30 %."""

JITTER = 1e-6
"""How far apart these points are, relative to each coordinate: some ulps of float32, so
that each rounds anew while the gradient stays what it is."""

OWN_ULPS = 2.0
"""How many ulps of itself an entry may be off, however it was computed…"""

TERM_ULPS = 6.0
"""…and how many ulps of the terms it is summed from: six standard deviations."""

ROUGH_ULPS = 8.0
"""Where the terms cannot be known: ulps of the leaf's largest entry."""

TOO_LARGE = 1e3
"""Terms above this many losses are no terms: float32 has lost the function."""

ZERO = 16.0
"""How many times what rounding may do to a gradient is still called zero."""

ZERO_COARSEST = 0.01
"""A gradient is not called zero where its rounding is above this share of its terms."""


@dataclass(frozen=True)
class Rounding:
    """What rounding may do to gradients of one objective."""

    objective: Objective
    autodiff: Autodiff

    def allowance(
        self,
        gradient: Reals,
        eps: float,
        direction: AnyDirection,
        loss_by_unit: float,
        needed: float,
        terms_wanted: bool,
    ) -> float:
        """What is allowed along a direction: the cheapest bound that decides.

        needed: how much it takes to agree. What an entry's own size allows costs
            nothing; its terms cost twelve gradients, so they are measured only where
            they could matter.
        loss_by_unit: the size of the loss in the smallest unit of the leaf.
        terms_wanted: measure them wherever the first bound does not do; else only
            where even the largest that they can be would.
        """
        first = self._own_along(gradient, eps, direction)
        if needed <= first:
            return first
        if not terms_wanted:
            most = TERM_ULPS * eps * TOO_LARGE * loss_by_unit
            everywhere = np.broadcast_to(most, gradient.shape)
            if not needed <= first + norm_along(everywhere, direction):
                return first
        terms = self.of_terms(direction.leaf, eps, loss_by_unit)
        return norm_along(np.asarray(self.own(gradient, eps) + terms), direction)

    def _own_along(self, gradient: Reals, eps: float, direction: AnyDirection) -> float:
        if self.objective.traceable:
            return OWN_ULPS * eps * norm_along(gradient, direction)
        return norm_along(self.own(gradient, eps), direction)

    def own(self, gradient: Reals, eps: float) -> Reals:
        """What its own size allows each entry."""
        size = np.abs(gradient.astype(np.float64))
        if not self.objective.traceable:
            return np.full(size.shape, ROUGH_ULPS * eps * np.max(size, initial=0.0))
        return np.asarray(OWN_ULPS * eps * size)

    def of_terms(self, leaf: Leaf, eps: float, loss_by_unit: float) -> Reals:
        """What the terms allow each entry of a leaf's gradient."""
        terms = self._terms_of(leaf)
        if terms is None:
            return np.zeros(leaf.values.shape)
        usable = np.where(terms <= TOO_LARGE * loss_by_unit, terms, 0.0)
        return np.asarray(TERM_ULPS * eps * usable)

    def is_zero(
        self, gradient: Reals, leaf: Leaf, eps: float, loss_by_unit: float
    ) -> bool:
        """Whether a gradient is no more than rounding makes of zero."""
        largest, terms = np.max(np.abs(gradient)), self._terms_of(leaf)
        if terms is None or not largest:
            return not largest
        own = self.of_terms(leaf, ZERO * eps, loss_by_unit)
        return bool(largest <= np.max(own) <= ZERO_COARSEST * np.max(terms))

    def eps_of(self, candidate: Candidate, leaf: Leaf) -> float:
        """ε of what computed the candidate, or of the loss if that is coarser."""
        return max(candidate.eps(leaf.number), self.objective.precision_of(leaf))

    def _terms_of(self, leaf: Leaf) -> Reals | None:
        return None if self._terms is None else self._terms[leaf.number]

    @cached_property
    def _terms(self) -> list[Reals] | None:
        """The size of the terms that each entry of the gradient is summed from.

        The root mean square, over points nearby, of what rounding changed. That is
        float32's difference from float64. A function that rounds to less has no
        float64: there it is the spread of the gradient over points an ulp apart.
        """
        random = np.random.default_rng(0)
        eps = max(SINGLE, self.objective.precision)
        coarse = eps > SINGLE
        squares = [np.zeros(x.values.shape) for x in self.objective.point.leaves]
        first: list[Reals] | None = None
        for _ in range(SAMPLES):
            values = self._beside(random, eps if coarse else JITTER)
            gradient = self.autodiff.computed(values, np.float32)
            first = first or gradient
            other = first if coarse else self.autodiff.computed(values, np.float64)
            if gradient is None or other is None:
                return None
            with np.errstate(all="ignore"):
                for total, a, b in zip(squares, gradient, other, strict=True):
                    total += (a - b) ** 2
        roots = [np.sqrt(total / SAMPLES) / eps for total in squares]
        return [np.where(np.isfinite(r), r, np.inf) for r in roots]

    def _beside(self, random: np.random.Generator, step: float) -> list[Reals]:
        with np.errstate(over="ignore"):
            return [
                np.asarray(
                    x.wide * (1 + step * random.standard_normal(x.values.shape)),
                    np.float32,
                )
                for x in self.objective.point.leaves
            ]
