"""Leaves that say nothing where they are, looked at at a random point nearby."""

from dataclasses import replace

import numpy as np

from jaxnet.verification.candidates import Candidate
from jaxnet.verification.evaluation import Function
from jaxnet.verification.leaf_check import LeafCheck
from jaxnet.verification.leaf_looks import LeafLooks
from jaxnet.verification.leaf_verdict import LeafVerdict
from jaxnet.verification.leaves import Parameters, units
from jaxnet.verification.looks import Looker
from jaxnet.verification.report import LeafReport
from jaxnet.verification.rounding import Rounding
from jaxnet.verification.verdict import Verdict


class Nearby:
    """A random point near the given one, for leaves that say nothing where they are."""

    def __init__(
        self,
        function: Function,
        seed: tuple[int, ...],
        rounding: Rounding,
        safety: float,
    ) -> None:
        self.function, self.seed = function, seed
        self.rounding, self.safety = rounding, safety
        self._parameters: Parameters | None = None

    @property
    def parameters(self) -> Parameters:
        """Every coordinate moved by a normal number of half its size."""
        if self._parameters is None:
            random = np.random.default_rng([*self.seed, 1])
            leaves = []
            for leaf in self.function.parameters.leaves:
                x = leaf.values.astype(np.float64)
                size = units(x, leaf.floor)
                moved = x + 0.5 * size * random.standard_normal(x.shape)
                leaves.append(replace(leaf, values=moved))
            self._parameters = replace(self.function.parameters, leaves=tuple(leaves))
        return self._parameters

    def settle(
        self, report: LeafReport, candidate: Candidate, number: int
    ) -> LeafReport:
        """An UNINFORMATIVE report, with what the nearby point says."""
        if report.verdict is not Verdict.UNINFORMATIVE:
            return report
        zero = "exactly 0 here, as the differences are"
        looker = Looker(self.function, self.seed, self.parameters)
        looks = LeafLooks.of(looker, number, None)
        check = LeafCheck(looker, self.rounding, number, self.safety, looks)
        there = candidate.at(self.parameters, self.function)
        silent = check.is_silent()
        if self._is_masked(check):
            cause = f"{zero}, but not for jax.grad: the loss's rounding hides it"
            return replace(report, verdict=Verdict.UNRESOLVED, cause=cause)
        if silent and there is None:
            return replace(report, passed=True, cause=f"{zero}, and at a nearby point")
        if there is None:
            cause = f"{zero}; not at a nearby point: pass a callable to check it there"
            return replace(report, cause=cause)
        if there.gradient[number] is None:
            return replace(report, cause=f"{zero}; malformed at a nearby point")
        nearby = LeafVerdict(check, there).report()
        if nearby.verdict is Verdict.UNINFORMATIVE:
            return replace(report, passed=True, cause=f"{zero}, and at a nearby point")
        if nearby.verdict is Verdict.AGREE:
            return replace(
                report,
                passed=True,
                resolution=nearby.resolution,
                cause=f"{zero}; agrees at a random nearby point",
            )
        cause = f"{zero}; at a random nearby point: {nearby.cause or 'it differs'}"
        if nearby.verdict is Verdict.DISAGREE:
            return replace(nearby, cause=cause)
        return replace(
            report, cause=f"{zero}; {nearby.verdict.value} at a nearby point"
        )

    def _is_masked(self, check: LeafCheck) -> bool:
        """Whether autodiff sees a gradient that the function's values do not show."""
        gradient = self.rounding.gradient()
        if gradient is None:
            return False
        eps = self.function.precision_of(check.number)
        return not check.is_rounding(gradient[check.number], eps)
