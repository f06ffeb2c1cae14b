"""The words behind a verdict: what the numbers confirm, then what the program shows."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from jaxnet.input_checks import first_line
from jaxnet.verification.candidates.candidate import Candidate, is_function
from jaxnet.verification.context import Context
from jaxnet.verification.explanation.causes import WrongLeaf, causes
from jaxnet.verification.explanation.culprits import Culprits
from jaxnet.verification.explanation.ends import only_ways, roundings
from jaxnet.verification.explanation.guards import Unguarded, forgotten_guard
from jaxnet.verification.explanation.nonfinite import MOST_NAMED, NonFinite
from jaxnet.verification.explanation.switches import switches_beside
from jaxnet.verification.function.once import once
from jaxnet.verification.function.program import Program
from jaxnet.verification.leaf.probes import LeafProbes
from jaxnet.verification.point import Leaf
from jaxnet.verification.report.leaf_report import LeafReport
from jaxnet.verification.report.verdict import Verdict


@dataclass(frozen=True)
class Explainer:
    """Finds words for reports about one objective; what serves several is kept."""

    context: Context

    def explained(
        self, report: LeafReport, candidate: Candidate, probes: LeafProbes
    ) -> LeafReport:
        """The report, with why its verdict is what it is among its words.

        A wrong leaf shows where it is wrong too, if that is known. An explanation runs
        the caller's program in ways of its own: where that fails, the words say so, and
        the verdict stands.
        """
        if report.verdict is not Verdict.DISAGREE:
            return saying(report, lambda: self._words(report, probes))
        rest = self._sizes, report.worst_index
        wrong = WrongLeaf.of(self.context, probes, candidate, *rest)
        said = saying(report, lambda: self._words_of_wrong(wrong))
        said = saying(said, lambda: [self._culprits.of_leaf(wrong)])
        try:
            return replace(said, error_map=wrong.error_map)
        except Exception as error:  # the caller's program
            return said.with_words(_failed(error))

    def of_zero(self, report: LeafReport, leaf: Leaf) -> LeafReport:
        """The same for a gradient that is 0, as the differences are."""
        return saying(report, lambda: self._words_of_zero(report, leaf))

    def of_fault(self, report: LeafReport, candidate: Candidate) -> LeafReport:
        """The same for a gradient that JAX does not give, or that is not finite."""
        is_called = is_function(candidate.source, self.context.point)
        if is_called and candidate.widened is None:
            return self._of_raised(report)
        ran = candidate.run.faults if candidate.run else ()
        faults = [f for f in (*candidate.faults, *ran) if f.worst_index is not None]
        is_not_finite = any(f.path == report.path for f in faults)
        if candidate.widened is None or not is_not_finite:
            return report
        return saying(report, lambda: [self._not_finite(candidate).of(report.path)])

    def _words(self, report: LeafReport, probes: LeafProbes) -> list[str]:
        objective, leaf = self.context.objective, probes.leaf
        if objective.program is None:
            return []
        if report.verdict is Verdict.UNRESOLVED and probes.show_two_slopes:
            return _named("rounded inside: {}", roundings(objective.program, leaf))
        if report.verdict is not Verdict.NONDIFFERENTIABLE:
            return []
        if report.worst_index is None:
            return []
        flat = leaf.flat_index(report.worst_index)
        return _named("switching: {}", switches_beside(objective, leaf, flat))

    def _words_of_zero(self, report: LeafReport, leaf: Leaf) -> list[str]:
        program = self.context.objective.program
        if program is None or not report.is_zero:
            return []
        return _named("it reaches the loss only through {}", only_ways(program, leaf))

    def _words_of_wrong(self, wrong: WrongLeaf) -> list[str]:
        guard = forgotten_guard(wrong, self._unguarded)
        return [guard or next(causes(wrong), "")]

    def _of_raised(self, report: LeafReport) -> LeafReport:
        """With the rules that raise by themselves in the place of what JAX says.

        Only where jax.grad of the loss raises, too.
        """
        if self.context.autodiff.widened is not None:
            return report
        try:
            raised = self._culprits.that_raise
        except Exception as error:  # the caller's rules
            return report.with_words(_failed(error))
        return replace(report, cause=raised) if raised else report

    @once
    def _not_finite(self, candidate: Candidate) -> NonFinite:
        """Who makes what a traced candidate gives not finite."""
        assert candidate.widened is not None
        return NonFinite(self.context.objective, candidate.widened)

    @cached_property
    def _culprits(self) -> Culprits:
        """The rules of the program, and what it gives without them."""
        return Culprits.of(self.context)

    @cached_property
    def _unguarded(self) -> list[Unguarded]:
        """The gradient without small constants that the loss adds, if it does."""
        return Unguarded.of(self.context.objective)

    @cached_property
    def _sizes(self) -> dict[int, str]:
        """Axis sizes of the data and the parameters, in words."""
        program, point = self.context.objective.program, self.context.point
        sizes = _axis_sizes(program) if program else {}
        for leaf in point.leaves:
            for axis, size in enumerate(leaf.shape):
                sizes.setdefault(size, f"{size} (axis {axis} of {leaf.name})")
        return {size: where for size, where in sizes.items() if size > 1}


def _named(words: str, found: list[str]) -> list[str]:
    return [words.format(", ".join(found[:MOST_NAMED]))] if found else []


def saying(report: LeafReport, words: Callable[[], Iterable[str]]) -> LeafReport:
    """The report with more words; that they could not be found, where that failed."""
    found = list[str]()
    try:
        found += words()
    except Exception as error:  # the caller's program
        found.append(_failed(error))
    return report.with_words(*found)


def _failed(error: Exception) -> str:
    return f"the explanation failed: {first_line(error)}"


def _axis_sizes(program: Program) -> dict[int, str]:
    """Axis sizes of the arrays that the function closes over."""
    sizes: dict[int, str] = {}
    for constant in program.closed.consts:
        shape = tuple(np.shape(constant))
        text = "×".join(map(str, shape))
        for axis, size in enumerate(shape):
            words = f"{size} (axis {axis} of the {text} data)"
            sizes.setdefault(size, words if axis else f"the batch size ({size})")
    return sizes
