"""check_gradients: gradients of any loss, against differences with derived bounds."""

from dataclasses import replace
from typing import Any

import numpy as np
from jax.sharding import Mesh

from jaxnet.array_types import PyTree, ScalarFunction
from jaxnet.devices import automatic
from jaxnet.input_checks import check_positive, complaint
from jaxnet.verification.candidates import Candidate, named
from jaxnet.verification.evaluation import Function
from jaxnet.verification.explanation import Explanation
from jaxnet.verification.leaf_check import LeafCheck
from jaxnet.verification.leaf_looks import LeafLooks
from jaxnet.verification.leaf_verdict import LeafVerdict
from jaxnet.verification.leaves import Parameters
from jaxnet.verification.looks import Looker
from jaxnet.verification.nearby import Nearby
from jaxnet.verification.report import GradientReport, LeafReport
from jaxnet.verification.rounding import Autodiff, Rounding
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
    mesh: Mesh | None = None,
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
        mesh: spreads the 32 points of each line over the devices of its one axis, if
            JAX can trace the loss. Every process passes the same, and gets the report
            of one device, up to the rounding of the loss.

    Returns:
        The report: `print` it, ask it for `passed`, or call `raise_if_failed()`.

    Raises:
        TypeError, ValueError: the loss gives no finite real scalar at `params`, or
            `params` has no floating leaf.
    """
    check_positive("safety", safety)
    parameters = Parameters.of(params)
    function, seed = Function(loss, parameters, automatic(mesh)), seed_of(key)
    looker = Looker(function, seed)
    rounding = Rounding(function)
    sources = named(candidates, Autodiff(rounding), parameters)
    broken = _value_fault(function, looker)
    fitted = [Candidate.of(name, source, function) for name, source in sources.items()]
    for candidate in fitted:
        candidate.is_autodiff = candidates is None
    if broken:
        leaves = [
            _unrepeatable(c.name, x, broken) for c in fitted for x in parameters.leaves
        ]
        leaves += [fault for c in fitted for fault in c.faults]
        checks = []
    else:
        examination = _Examination(looker, rounding, fitted, safety, every_coordinate)
        leaves, checks = examination.reports(), examination.checks
    good = [c for c in fitted if all(x.passed for x in leaves if x.candidate == c.name)]
    return GradientReport(
        leaves=tuple(leaves),
        survivors=survivors(checks, good[0], function.program) if good else (),
        held=parameters.held,
        notes=_notes(function, fitted),
        odd_one_out=odd_one_out(fitted, leaves),
        evaluations=function.evaluations,
        seed=seed,
    )


class _Examination:
    """Every leaf looked at, and every candidate held against it."""

    def __init__(
        self,
        looker: Looker,
        rounding: Rounding,
        candidates: list[Candidate],
        safety: float,
        every_coordinate: bool | None,
    ) -> None:
        self.looker, self.candidates = looker, candidates
        self.safety, self.every_coordinate = safety, every_coordinate
        self.function = looker.function
        self.rounding = rounding
        self.nearby = Nearby(self.function, looker.seed, rounding, safety)
        self.explanation = Explanation(self.function, rounding)
        self.checks: list[LeafCheck] = []

    def reports(self) -> list[LeafReport]:
        """A record for each leaf and candidate, and one for each malformed place."""
        self.looker.start(0)
        found = [
            report
            for number in range(len(self.function.parameters.leaves))
            for report in self._of_leaf(number)
        ]
        if all(report.is_silent for report in found):
            cause = "exactly 0 by every leaf, here and nearby: is the loss a constant?"
            found = [replace(x, passed=False, cause=cause) for x in found]
        return found + [fault for c in self.candidates for fault in c.faults]

    def _of_leaf(self, number: int) -> list[LeafReport]:
        before = self.function.evaluations
        leaf = self.function.parameters.leaves[number]
        fitting = [
            c for c in self.candidates if all(f.path != leaf.path for f in c.faults)
        ]
        repeating = [c for c in fitting if c.gradient[number] is not None and c.repeats]
        names = {c.name for c in repeating}
        cause = "the candidate gives two values for one input"
        found = [
            _unrepeatable(c.name, leaf, cause) for c in fitting if c.name not in names
        ]
        if repeating:
            looks = LeafLooks.of(self.looker, number, self.every_coordinate)
            check = LeafCheck(self.looker, self.rounding, number, self.safety, looks)
            self.checks.append(check)
            found += [self._of_candidate(check, c) for c in repeating]
        spent = self.function.evaluations - before
        return [replace(report, evaluations=spent) for report in found]

    def _of_candidate(self, check: LeafCheck, candidate: Candidate) -> LeafReport:
        report = LeafVerdict(check, candidate).report()
        if report.verdict is Verdict.UNINFORMATIVE:
            return self.nearby.settle(report, candidate, check.number)
        return self.explanation.of(report, check, candidate)


def odd_one_out(candidates: list[Candidate], leaves: list[LeafReport]) -> str | None:
    """Of three or more routes, differences included, the one that stands alone."""
    if len(candidates) < 2:
        return None
    wrong = {
        report.candidate
        for report in leaves
        if report.verdict
        in (Verdict.DISAGREE, Verdict.MALFORMED, Verdict.NONDETERMINISTIC)
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
    given = function.given
    if repr(given[0]) != repr(given[1]):
        return f"the loss gives {given[0]!r} and {given[1]!r} for one input"
    if not function.traceable:
        return _plain_fault(function)
    start = looker.start(0)
    _check_finite(start)
    if not function.traces_alike():
        return "the loss is another program each time it is traced"
    rounding = 1e3 * function.precision * abs(start)
    beyond = 100 * looker.noise(0) + rounding
    if looker.spread > beyond or looker.change > rounding:
        apart = max(looker.spread, looker.change)
        return f"the compiled loss gives values {apart:.3g} apart for one input"
    eager = function.eager_value()
    if function.program is not None:
        beyond += 1e3 * function.program.precision_anywhere * abs(start)
    if eager is None or abs(start - eager) <= beyond:
        return ""
    if abs(start - eager) <= beyond + 100 * function.rounding_spread():
        return ""
    return f"the loss is {eager!r} as it is called and {start!r} with jit"


def _plain_fault(function: Function) -> str:
    values = [function.plain_value(), function.plain_value()]
    _check_finite(values[0])
    same = values[0] == values[1]
    return "" if same else f"the loss gives {values[0]!r} and {values[1]!r}"


def _check_finite(value: float) -> None:
    if not np.isfinite(value):
        fix = "move the point into the loss's domain"
        raise ValueError(complaint("loss(params)", "a finite value", str(value), fix))


def _unrepeatable(name: str, leaf: Any, cause: str) -> LeafReport:
    return LeafReport(
        leaf.path, name, leaf.shape, Verdict.NONDETERMINISTIC, False, cause=cause
    )


def _notes(function: Function, candidates: list[Candidate]) -> tuple[str, ...]:
    notes = []
    if not function.traceable:
        why = "JAX cannot trace the loss"
        if function.as_given:
            why = "the loss draws other random numbers in float64"
        notes.append(f"{why}: it was called point by point")
    if function.own_dtype:
        notes.append("the loss takes the parameters in their own dtype only")
    elif function.program and function.program.coarsest() is not None:
        notes.append(function.program.describe_coarsest())
    for candidate in candidates:
        program = candidate.program
        if program and program.precision > function.precision:
            notes.append(f"{candidate.name} {program.describe_coarsest()}")
    return tuple(notes)
