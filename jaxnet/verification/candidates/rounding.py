"""How far rounding alone may move a gradient: measured, entry by entry.

The same gradient in float32 and in float64, at a few points a hair apart, differs by
float32's ε times the size of the terms each entry is summed from. That size, times the
ε in which a candidate was computed, is what its rounding may do. In float64 this allows
2e-9 of what float32 got wrong, so it hides no mistake.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.float64 import in_float64
from jaxnet.precision import DOUBLE, SINGLE, eps
from jaxnet.verification.candidates.autodiff import Autodiff
from jaxnet.verification.candidates.candidate import Candidate
from jaxnet.verification.candidates.fitted import Gradient, fitted
from jaxnet.verification.directions import AnyDirection, along, norm, norm_along
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.function.once import once
from jaxnet.verification.function.rounding_noise import (
    rounded_runs,
    solvers,
)
from jaxnet.verification.function.widen import redrawn
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

UNSEEN = 1e-6
"""A share of the gradient: what is off by more is not off by rounding in float64 that
no run in float32 shows…"""

UNSEEN_RUNS = 16
"""…which is known to 18 % from so many runs that are rounded anew."""

LOST = 0.5
"""A run that is off by more than this share of the leaf's gradient does not give it:
less than that, descent still goes down, as bfloat16 shows every day."""

ROUGH_ULPS = 8.0
"""Where the terms cannot be known: ulps of the leaf's largest entry."""

TOO_LARGE = 1e6
"""Terms above this many losses are no terms: float32 has lost the function…"""

TOO_LARGE_IN_DOUBLE = 1e9
"""…if the candidate was computed in float64. A matrix of rank 1 in float32 has a
determinant 1e8 times smaller than what it is summed from."""

DEVIATIONS = 3.0
"""How many standard deviations of what inexact constants do are allowed."""

ROUNDS = 16.0
"""How many times what one more round changes an iterated gradient may be off: rounds
that each leave nine tenths of the error."""

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
        candidate: Candidate,
        gradient: Reals,
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
        terms_wanted: measure them wherever the first bound does not do, and what no
            point nearby shows where they do not; else, as of a hypothesis, only where
            even the largest that they can be would.
        """
        eps = self.eps_of(candidate, direction.leaf)
        fixed = self._fixed_along(candidate, direction)
        first = fixed + self._own_along(gradient, eps, direction)
        if needed <= first:
            return first
        first += self._draws_along(direction)
        if needed <= first:
            return first
        if not terms_wanted:
            most = TERM_ULPS * eps * _too_large(eps) * loss_by_unit
            everywhere = np.broadcast_to(most, gradient.shape)
            if not needed <= first + norm_along(everywhere, direction):
                return first
        found = self.in_all(candidate, gradient, direction, loss_by_unit)
        if not terms_wanted:
            return found
        if found < needed <= UNSEEN * norm_along(gradient, direction) and eps <= DOUBLE:
            found = max(found, first + self._unseen_along(candidate, direction))
        if found < needed and candidate.widened is None and eps > DOUBLE:
            found += self._run_along(gradient, direction)
        return found

    def in_all(
        self,
        candidate: Candidate,
        gradient: Reals,
        direction: AnyDirection,
        loss_by_unit: float,
    ) -> float:
        """What is allowed along a direction at most: with the terms of each entry."""
        eps = self.eps_of(candidate, direction.leaf)
        terms = self.of_terms(direction.leaf, eps, loss_by_unit)
        entries = np.asarray(self.own(gradient, eps) + terms)
        fixed = self._fixed_along(candidate, direction)
        return fixed + norm_along(entries, direction)

    @once
    def _fixed_along(self, candidate: Candidate, direction: AnyDirection) -> float:
        """What inexact constants and the candidate's own iterations may do to it."""
        number = direction.leaf.number
        found = self._deviation(candidate, number, lambda x: along(x, direction))
        rounds = self._another_round(candidate)
        return float(found + abs(along(rounds[number], direction)) if rounds else found)

    def _draws_along(self, direction: AnyDirection) -> float:
        """What random numbers that are drawn an ulp apart may do to it.

        The loss and its gradient are two programs, and draw in their loops by
        themselves.
        """
        number = direction.leaf.number
        moved = [along(each[number], direction) for each in self._redrawn]
        return DEVIATIONS * float(np.sqrt(np.mean(np.square(moved)))) if moved else 0.0

    def _unseen_along(self, candidate: Candidate, direction: AnyDirection) -> float:
        """What rounding in float64 may do to it, by runs that are rounded anew.

        Float32 does not show all of it: what is within rounding of 0 before a root is
        of another size there.
        """
        found = [g[direction.leaf.number] for g in self._rounded_anew(candidate)]
        moved = [along(x, direction) for x in found if x is not None]
        return TERM_ULPS * float(np.std(moved)) if moved else 0.0

    def _run_along(self, gradient: Reals, direction: AnyDirection) -> float:
        """How far the caller's own run of jax.grad is off, if these are its numbers.

        What is off alike at all points nearby, as a series that is cut is, is not
        seen as rounding.
        """
        leaf, meant = direction.leaf, self.autodiff.array(direction.leaf)
        if meant is None:
            return 0.0
        for run in self._runs:
            ran = run[leaf.number]
            is_it = np.abs(gradient - ran) <= OWN_ULPS * SINGLE * np.abs(ran)
            if is_it.all() and norm(ran - meant, leaf) <= LOST * norm(meant, leaf):
                return abs(along(ran - meant, direction))
        return 0.0

    @cached_property
    def _runs(self) -> list[list[Reals]]:
        """What the caller gets of jax.grad: called, and within jit."""
        autodiff, point = self.autodiff, self.objective.point
        try:
            called = autodiff.reals(autodiff(point.as_given()))
            jitted = autodiff.as_run(point.as_traced())
        except Exception:  # the caller's function
            return []
        return [run for run in (called, jitted) if run is not None]

    @once
    def _rounded_anew(self, candidate: Candidate) -> list[Gradient]:
        """What it gives in each of these runs; of arrays, as JAX computes them."""
        point = self.objective.point
        widened = candidate.widened or self.autodiff.widened
        if widened is None or point.are_many:
            return []
        with in_float64():
            values = [jnp.asarray(leaf.wide) for leaf in point.leaves]
            closed = jax.make_jaxpr(widened)(values)
            runs = rounded_runs(closed, values, UNSEEN_RUNS)
        trees = (jax.tree.unflatten(widened.out_tree, run) for run in runs)
        return [fitted(candidate.name, tree, point).gradient for tree in trees]

    @cached_property
    def _redrawn(self) -> list[list[Reals]]:
        """How the gradient changes with other last digits of what is drawn in loops."""
        objective, loss = self.objective, self.objective.widened
        widened = self.autodiff.widened if loss and loss.draws_in_loops else None
        if widened is None:
            return []
        args, values = objective.point.as_traced(), objective.point.wide()
        others = [widened.rerun(redrawn(seed), args) for seed in range(SAMPLES)]
        with in_float64():
            before = self.autodiff.reals(widened.compiled(values))
            every = [self.autodiff.reals(other.compiled(values)) for other in others]
        pairs = [zip(after, before, strict=True) for after in every]
        return [[a - b for a, b in pair] for pair in pairs]

    def fixed(self, candidate: Candidate, leaf: Leaf) -> Reals:
        """What inexact constants and its own iterations may do to each entry."""
        found = self._deviation(candidate, leaf.number, np.asarray)
        found = np.broadcast_to(found, leaf.values.shape)
        rounds = self._another_round(candidate)
        return np.asarray(found + np.abs(rounds[leaf.number]) if rounds else found)

    def _deviation(
        self, candidate: Candidate, number: int, of: Callable[[Reals], Any]
    ) -> Any:
        """What constants that are not exact may do to something `of` a leaf's gradient.

        Those of the loss, and those of the candidate alone. One that JAX derived from
        the same trace has the same constants as the loss: only its rules' own count.
        """
        programs = self.objective.widened, candidate.widened
        if all(program and not program.inexact for program in programs):
            return 0.0
        is_derived = candidate.is_derived(self.autodiff)
        of_loss = () if is_derived else self.autodiff.shifts
        both = of_loss, candidate.shifts(self.objective)
        leaf = [[s[number] for s in each if s[number] is not None] for each in both]
        squares = [np.mean([of(x) ** 2 for x in each], axis=0) for each in leaf if each]
        return DEVIATIONS * np.sqrt(sum(squares))

    @once
    def _another_round(self, candidate: Candidate) -> Sequence[Reals]:
        """What is left of a gradient that is iterated to a tolerance, in ROUNDS."""
        if not (candidate.widened and solvers(candidate.widened.own)):
            return []
        after = candidate.after_another_round(self.objective)
        leaves = self.objective.point.leaves
        return [
            np.zeros(leaf.values.shape)
            if a is None or b is None
            else ROUNDS * np.asarray(a - b)
            for leaf, a, b in zip(leaves, after, candidate.gradient, strict=True)
        ]

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
        usable = np.where(terms <= _too_large(eps) * loss_by_unit, terms, 0.0)
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
        """ε of what computed the candidate, or of the loss if that is coarser.

        Arrays that the caller's own program may have given are as coarse as that is.
        """
        given, own = candidate.eps(leaf.number), self.objective.own_precision_of(leaf)
        dtype = jax.dtypes.canonicalize_dtype(leaf.dtype)
        may_be_run = candidate.widened is None and given >= eps(dtype)
        coarsest = max(given, own) if may_be_run else given
        return max(coarsest, self.objective.precision_of(leaf))

    def _terms_of(self, leaf: Leaf) -> Reals | None:
        point = self.objective.point
        known = self._terms(leaf.number if point.are_many else None)
        return None if known is None else known[leaf.number]

    @once
    def _terms(self, number: int | None) -> dict[int, Reals] | None:
        """The size of the terms that each entry of the gradient is summed from.

        By leaf; of one leaf alone, where all of them would be felt in memory.

        The root mean square, over points nearby, of what rounding changed: of the
        caller's run beside float64. What cannot be widened has no float64: there it is
        the spread of the gradient over points an ulp apart. Unknown where the loss
        iterates to a tolerance: a run in float32 takes other steps.
        """
        objective, autodiff = self.objective, self.autodiff
        if objective.widened is None or autodiff.widened is None:
            return None
        if objective.solver_noise:
            return None
        own, coarsest = objective.widened.own.precision(), objective.precision
        leaves = objective.point.leaves
        given = max(eps(leaf.dtype) for leaf in leaves)
        in_single, coarse = own <= DOUBLE or own <= SINGLE < given, coarsest > SINGLE
        run = autodiff.in_single if in_single else autodiff.as_run
        rounded_to = SINGLE if in_single else max(own, coarsest)
        wanted = range(len(leaves)) if number is None else [number]
        squares = {i: np.zeros(leaves[i].values.shape) for i in wanted}
        first, random = None, np.random.default_rng(0)
        for _ in range(SAMPLES):
            step = rounded_to if coarse else JITTER
            values = self._beside(random, step, in_single)
            gradient = run(values, wanted)
            first = first or gradient
            other = first if coarse else autodiff.in_double(values, wanted)
            if gradient is None or other is None:
                return None
            with np.errstate(all="ignore"):
                for i, a, b in zip(wanted, gradient, other, strict=True):
                    squares[i] += (a - b) ** 2
        roots = {i: np.sqrt(t / SAMPLES) / rounded_to for i, t in squares.items()}
        return {i: np.where(np.isfinite(r), r, np.inf) for i, r in roots.items()}

    def _beside(
        self, random: np.random.Generator, step: float, in_single: bool
    ) -> list[Reals]:
        """A point nearby that every run can hold: of no more digits than it has."""
        values = []
        for leaf in self.objective.point.leaves:
            moved = leaf.wide * (1 + step * random.standard_normal(leaf.values.shape))
            is_half = leaf.values.itemsize < 4 and not in_single
            dtype = leaf.dtype if is_half else np.float32
            with np.errstate(over="ignore"):
                values.append(np.asarray(moved, dtype))
        return values


def _too_large(eps: float) -> float:
    return TOO_LARGE_IN_DOUBLE if eps <= DOUBLE else TOO_LARGE
