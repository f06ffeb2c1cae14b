"""check_gradients: gradients of any loss, against differences with derived bounds."""

from dataclasses import replace
from typing import Any

import numpy as np

from jaxnet.array_types import PyTree, ScalarFunction
from jaxnet.input_checks import check_positive, complaint
from jaxnet.verification.candidates import Candidate, Conditioning, named
from jaxnet.verification.directions import power_below
from jaxnet.verification.evaluation import Function
from jaxnet.verification.explanation import Explanation
from jaxnet.verification.leaf_check import LeafCheck
from jaxnet.verification.leaves import Parameters
from jaxnet.verification.looks import Looker
from jaxnet.verification.report import GradientReport, LeafReport
from jaxnet.verification.seeds import seed_of
from jaxnet.verification.survivors import survivors
from jaxnet.verification.verdict import Verdict


def check_gradients(
    loss: ScalarFunction,
    params: PyTree,
    candidates: Any = None,
    *,
    key: Any = None,
    safety: float = 4.0,
    every_coordinate: bool | None = None,
) -> GradientReport:
    """Whether gradients of `loss` at `params` are right, and if not, where and why.

    Each leaf is held against finite differences whose step is chosen and whose error is
    bounded from the values of the loss themselves: its curvature and its measured
    noise. A gradient agrees if it is within `safety` bounds; there is no tolerance.

    Args:
        loss: params -> real scalar. Best if JAX can trace it: it is then compiled once,
            in float64 whatever the dtype of `params`. Any other function (NumPy, an
            external program) is called on NumPy arrays.
        params: any pytree. Integer, boolean and key leaves are held fixed.
        candidates: name -> gradient, each a pytree like `params` or a callable of
            them; or one of these without a name. By default jax.grad of the loss.
        key: seed of the random directions, a JAX key or an integer; 0 by default.
        safety: how many bounds an agreeing gradient may be off.
        every_coordinate: look at every coordinate of every leaf (True), at random
            directions only (False), or at every coordinate of leaves up to 64 entries.

    Returns:
        The report: `print` it, ask it for `passed`, or call `raise_if_failed()`.

    Raises:
        TypeError, ValueError: the loss gives no finite real scalar at `params`, or
            `params` has no floating leaf.
    """
    check_positive("safety", safety)
    parameters = Parameters.of(params)
    function = Function(loss, parameters)
    seed = seed_of(key)
    looker = Looker(function, seed)
    sources = named(candidates, function)
    broken = _value_fault(function, looker)
    fitted = [Candidate.of(name, source, function) for name, source in sources.items()]
    if broken:
        leaves = [
            _unrepeatable(c.name, x, broken) for c in fitted for x in parameters.leaves
        ]
        leaves += [fault for c in fitted for fault in c.faults]
        checks = []
    else:
        examination = _Examination(looker, fitted, safety, every_coordinate)
        leaves, checks = examination.reports(), examination.checks
    good = [c for c in fitted if all(x.passed for x in leaves if x.candidate == c.name)]
    return GradientReport(
        leaves=tuple(leaves),
        survivors=survivors(checks, good[0], function.program) if good else (),
        held=parameters.held,
        notes=_notes(function),
        odd_one_out=odd_one_out(fitted, leaves),
        evaluations=function.evaluations,
        seed=seed,
    )


class _Examination:
    """Every leaf looked at, and every candidate held against it."""

    def __init__(
        self,
        looker: Looker,
        candidates: list[Candidate],
        safety: float,
        every_coordinate: bool | None,
    ) -> None:
        self.looker, self.candidates = looker, candidates
        self.safety, self.every_coordinate = safety, every_coordinate
        self.function = looker.function
        self.conditioning = Conditioning(self.function)
        self.nearby = _Nearby(self.function, looker.seed, self.conditioning, safety)
        self.explanation = Explanation(self.function, self.conditioning)
        self.checks: list[LeafCheck] = []

    def reports(self) -> list[LeafReport]:
        """A record for each leaf and candidate, and one for each malformed place."""
        self.looker.start(0)
        found = [
            report
            for number in range(len(self.function.parameters.leaves))
            for report in self._of_leaf(number)
        ]
        return found + [fault for c in self.candidates for fault in c.faults]

    def _of_leaf(self, number: int) -> list[LeafReport]:
        before = self.function.evaluations
        leaf = self.function.parameters.leaves[number]
        fitting = [c for c in self.candidates if c.gradient[number] is not None]
        cause = "the candidate gives two values for one input"
        found = [_unrepeatable(c.name, leaf, cause) for c in fitting if not c.repeats]
        repeating = [c for c in fitting if c.repeats]
        if repeating:
            check = LeafCheck.of(
                self.looker,
                self.conditioning,
                number,
                self.safety,
                self.every_coordinate,
            )
            self.checks.append(check)
            found += [self._of_candidate(check, c) for c in repeating]
        spent = self.function.evaluations - before
        return [replace(report, evaluations=spent) for report in found]

    def _of_candidate(self, check: LeafCheck, candidate: Candidate) -> LeafReport:
        report = check.report(candidate)
        if report.verdict is Verdict.UNINFORMATIVE:
            return self.nearby.settle(report, candidate, check.number)
        return self.explanation.of(report, check, candidate)


class _Nearby:
    """A random point near the given one, for leaves that say nothing where they are."""

    def __init__(
        self,
        function: Function,
        seed: tuple[int, ...],
        conditioning: Conditioning,
        safety: float,
    ) -> None:
        self.function, self.seed = function, seed
        self.conditioning, self.safety = conditioning, safety
        self._parameters: Parameters | None = None

    @property
    def parameters(self) -> Parameters:
        """Every coordinate moved by a normal number of half its size."""
        if self._parameters is None:
            random = np.random.default_rng([*self.seed, 1])
            leaves = []
            for leaf in self.function.parameters.leaves:
                x = leaf.values.astype(np.float64)
                size = power_below(np.maximum(np.abs(x), leaf.floor))
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
        check = LeafCheck.of(looker, self.conditioning, number, self.safety, None)
        there = candidate.at(self.parameters, self.function)
        silent = not any(look.slope.central.value for look in check.looks)
        if there is None:
            if silent:
                return replace(
                    report, passed=True, cause=f"{zero}, and at a nearby point"
                )
            cause = f"{zero}; not at a nearby point: pass a callable to check it there"
            return replace(report, cause=cause)
        if there.gradient[number] is None:
            return replace(report, cause=f"{zero}; malformed at a nearby point")
        nearby = check.report(there)
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


def odd_one_out(candidates: list[Candidate], leaves: list[LeafReport]) -> str | None:
    """Of three or more routes, differences included, the one that stands alone."""
    if len(candidates) < 2:
        return None
    wrong = {
        report.candidate
        for report in leaves
        if report.verdict in (Verdict.DISAGREE, Verdict.MALFORMED)
    }
    if len(wrong) == 1:
        return next(iter(wrong))
    same = all(_same(candidates[0], other) for other in candidates[1:])
    return "finite differences" if len(wrong) == len(candidates) and same else None


def _same(one: Candidate, other: Candidate) -> bool:
    """Whether two gradients differ by rounding only."""
    for number, (a, b) in enumerate(zip(one.gradient, other.gradient, strict=True)):
        if a is None or b is None:
            return False
        eps = max(one.eps(number), other.eps(number))
        largest = np.max(np.abs(a), initial=0.0)
        if np.max(np.abs(a - b), initial=0.0) > 1e4 * eps * largest:
            return False
    return True


def _value_fault(function: Function, looker: Looker) -> str:
    """Why the function's values cannot be differenced; empty if they can.

    Raises:
        ValueError: the value at the point is not finite.
    """
    values = [function.value(), function.value()]
    if not np.isfinite(values).all():
        got, fix = str(values[0]), "move the point into the loss's domain"
        raise ValueError(complaint("loss(params)", "a finite value", got, fix))
    if values[0] != values[1]:
        return f"the loss gives {values[0]!r} and {values[1]!r} for one input"
    if not function.traceable:
        return ""
    start = looker.start(0)
    noise = looker.noise(0)
    beyond = 100 * noise + 1e3 * function.precision * abs(values[0])
    if looker.spread > beyond:
        return f"the compiled loss gives values {looker.spread:.3g} apart for one input"
    if not abs(start - values[0]) <= beyond:
        return f"the loss is {values[0]!r} without jit and {start!r} with it"
    return ""


def _unrepeatable(name: str, leaf: Any, cause: str) -> LeafReport:
    return LeafReport(
        leaf.path, name, leaf.shape, Verdict.NONDETERMINISTIC, False, cause=cause
    )


def _notes(function: Function) -> tuple[str, ...]:
    notes = []
    if not function.traceable:
        notes.append("JAX cannot trace the loss: it was called point by point")
    if function.own_dtype:
        notes.append("the loss takes the parameters in their own dtype only")
    elif function.program and function.program.coarsest() is not None:
        notes.append(function.program.describe_coarsest())
    return tuple(notes)
