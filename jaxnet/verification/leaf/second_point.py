"""A leaf that says nothing where it is, seen from a random point nearby."""

from dataclasses import dataclass, replace
from functools import cached_property

from jaxnet.verification.candidates.candidate import Candidate
from jaxnet.verification.context import Context
from jaxnet.verification.directions import nearby
from jaxnet.verification.function.once import once
from jaxnet.verification.leaf.probes import LeafProbes, probe_leaf
from jaxnet.verification.leaf.verdict import judge_leaf
from jaxnet.verification.point import Leaf
from jaxnet.verification.report.leaf_report import LeafReport
from jaxnet.verification.report.verdict import Verdict

UNUSED = "unused: no path to the loss, so its gradient is 0"

HERE = "exactly 0 here, as the differences are"

ZERO = f"{HERE}, and at a nearby point"


@dataclass(frozen=True)
class SecondPoint:
    """A random point near that of a context; what is found there is found once."""

    here: Context

    @cached_property
    def there(self) -> Context:
        """The context of that point."""
        return self.here.at(nearby(self.here.point, self.here.seed))

    def judged(
        self, report: LeafReport, candidate: Candidate, leaf: Leaf
    ) -> LeafReport:
        """An UNINFORMATIVE report of a leaf, with what this point says.

        It passes if the candidate agrees here, or if all is 0 here too, for autodiff
        as for differences: then the gradient is 0, and that is right.
        """
        number = leaf.number
        if not self.here.objective.depends_on(leaf):
            right = replace(report, verdict=Verdict.AGREE, passed=True)
            return replace(right, is_unused=True, cause=UNUSED)
        probes, moved = self._probes(number), self._moved(candidate)
        if _is_masked(self.here, probes):
            cause = f"{HERE}, but not for jax.grad: the loss's rounding hides it"
            return replace(report, verdict=Verdict.UNRESOLVED, cause=cause)
        if moved is None:
            if probes.are_zero(self.there.safety):
                return self._zero(report, leaf)
            cause = f"{HERE}; not at a nearby point: pass a callable to check it there"
            return replace(report, cause=cause)
        if moved.gradient[number] is None:
            return replace(report, cause=f"{HERE}; malformed at a nearby point")
        nearby = judge_leaf(self.there, probes, moved)
        if nearby.verdict is Verdict.UNINFORMATIVE:
            return self._zero(report, leaf)
        return _combined(report, nearby)

    def _zero(self, report: LeafReport, leaf: Leaf) -> LeafReport:
        """All is 0 at both points; autodiff, if there is any, was seen to be."""
        is_known = self.here.autodiff.array(leaf) is not None
        verdict = Verdict.AGREE if is_known else Verdict.UNINFORMATIVE
        return replace(report, verdict=verdict, passed=True, cause=ZERO)

    @once
    def _probes(self, number: int) -> LeafProbes:
        return probe_leaf(self.there, self.there.point.leaves[number])

    @once
    def _moved(self, candidate: Candidate) -> Candidate | None:
        return candidate.at(self.there.point, self.there.objective)


def _combined(report: LeafReport, nearby: LeafReport) -> LeafReport:
    """What is said of a leaf by the reports of both points."""
    if nearby.verdict is Verdict.AGREE:
        cause = f"{HERE}; agrees at a random nearby point"
        resolution = nearby.resolution
        return replace(report, passed=True, resolution=resolution, cause=cause)
    if nearby.verdict is Verdict.DISAGREE:
        cause = f"{HERE}; at a random nearby point: {nearby.cause or 'it differs'}"
        return replace(nearby, cause=cause)
    return replace(report, cause=f"{HERE}; {nearby.verdict.value} at a nearby point")


def _is_masked(context: Context, probes: LeafProbes) -> bool:
    """Whether autodiff sees a gradient that the function's values do not show."""
    leaf, autodiff = probes.leaf, context.autodiff.array(probes.leaf)
    if autodiff is None:
        return False
    eps = context.objective.precision_of(leaf)
    return not context.rounding.is_zero(autodiff, leaf, eps, probes.loss_by_unit)
