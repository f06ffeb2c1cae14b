"""check_gradients: gradients of any loss, against differences with derived bounds.

The whole algorithm, from top to bottom; each step is a function of frozen data.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from inspect import signature
from typing import Any

import jax
from jax.sharding import Mesh

from jaxnet.array_types import PyTree, ScalarFunction
from jaxnet.devices import automatic, transfers_allowed
from jaxnet.input_checks import (
    NoPair,
    check_callable,
    check_choice,
    check_no_more,
    check_positive,
    complaint,
    describe,
)
from jaxnet.progress import progress
from jaxnet.verification.budget import Budget, BudgetSpent
from jaxnet.verification.candidates.autodiff import Autodiff
from jaxnet.verification.candidates.candidate import Candidate, claims
from jaxnet.verification.chain import BY_HAND, Chain
from jaxnet.verification.context import Context
from jaxnet.verification.explanation.blind_spots import blind_spots
from jaxnet.verification.explanation.explain import Explainer
from jaxnet.verification.explanation.nonfinite import of_value
from jaxnet.verification.explanation.remarks import notes, odd_one_out
from jaxnet.verification.function.intended import Intended, without_intended
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.leaf.probes import LeafProbes, probe_leaf
from jaxnet.verification.leaf.run import held_against_run
from jaxnet.verification.leaf.second_point import SecondPoint
from jaxnet.verification.leaf.together import probed_together
from jaxnet.verification.leaf.verdict import judge_leaf, not_looked_at
from jaxnet.verification.point import Point, floating_leaves
from jaxnet.verification.report.gradient_report import GradientReport
from jaxnet.verification.report.leaf_report import LeafReport
from jaxnet.verification.report.verdict import Verdict
from jaxnet.verification.reproducibility import check_finite, irreproducibility
from jaxnet.verification.seeds import seed_of

CONSTANT = "so is every other leaf: a constant loss?"

ON_DEVICE = "a kernel exists on the device only: differenced there, at its own noise"


@transfers_allowed
def check_gradients(
    loss: ScalarFunction,
    params: PyTree,
    candidates: Any = None,
    *,
    reference: ScalarFunction | None = None,
    intended: Intended = (),
    intermediates: Any = None,
    key: Any = None,
    safety: float = 4.0,
    every_coordinate: bool | None = None,
    mesh: Mesh | None = None,
    budget: int | timedelta | Budget | None = None,
    has_aux: bool = False,
    **unknown: Any,
) -> GradientReport:
    """Whether gradients of `loss` at `params` are right, and if not, where and why.

    Each leaf is held against finite differences whose step is chosen and whose error is
    bounded from the values of the loss themselves: its curvature and its measured
    noise. A gradient agrees if it is within `safety` bounds; there is no tolerance.

    Args:
        loss: params -> real scalar. Best if JAX can trace it: the program that you run
            is then compiled once, with what depends on `params` in float64. Any other
            function (NumPy, an external program) is called on NumPy arrays.
        params: any pytree. Integer, boolean and key leaves are held fixed.
        candidates: name -> gradient, each a pytree like `params` or a callable of
            them; or one of these without a name. By default jax.grad of the loss.
        reference: differences are taken of this function instead, if given: what the
            candidate is meant to be the gradient of.
        intended: rules of the loss, and lines of a `stop_gradient` ("file.py:12") or
            the function it stands in, that are meant to be as they are: in the default
            candidate, the derivative of what they compute stands in their place. The
            report names them.
        intermediates: name -> derivative of the loss with respect to the value that
            `jaxnet.tap(name, value)` names in it, each an array like that value. They
            are judged from the loss on, and the first wrong one is named.
        key: seed of the random directions, a JAX key or an integer; 0 by default.
        safety: how many bounds an agreeing gradient may be off.
        every_coordinate: probe every coordinate of every leaf (True), random
            directions only (False), or every coordinate of leaves up to 64 entries,
            unless they are too many: then leaves of a deep model are probed together.
        mesh: spreads the 32 points of each line over the devices of its one axis, if
            JAX can trace the loss. Every process passes the same, and gets the report
            of one device, up to the rounding of the loss.
        budget: evaluations of the loss that the check may take in all, or how long. A
            leaf that was not looked at for it is UNRESOLVED, and says so; what is
            needed to begin, some hundred evaluations and a gradient, is always done.
        has_aux: the loss returns a pair, of which the first alone is differentiated.
        unknown: a tolerance, or another option that there is not, is a TypeError.

    Returns:
        The report: `print` it, ask it for `passed`, or call `raise_if_failed()`.

    Raises:
        TypeError, ValueError: the loss gives no finite real scalar at `params`, or
            `params` has no floating leaf.
    """
    check_no_more(unknown, check_gradients)
    check_positive("safety", safety)
    check_choice("every_coordinate", every_coordinate, (None, True, False))
    check_choice("has_aux", has_aux, (True, False))
    _check_loss(loss, params)
    allowed, point, meant = Budget.of(budget), Point.of(params), tuple[str, ...]()
    if has_aux:
        loss = partial(first_of_pair, "loss(params)", loss)
    if intended:
        if candidates is not None:
            got = "candidates beside intended="
            fix = "leave one of the two out"
            raise ValueError(complaint("candidates", "none", got, fix))
        loss, meant = without_intended(loss, params, intended)
    if reference is not None:
        check_callable("reference", reference, "pass a function, not its gradient")
        if candidates is None:
            candidates = {"autodiff": Autodiff(Objective(loss, point))}
        loss = reference
    objective, seed = Objective(loss, point, automatic(mesh)), seed_of(key)
    how = Asked(candidates, intermediates, safety, seed, every_coordinate, allowed)
    if objective.is_of_device_only:
        meant = ON_DEVICE, *meant
        with jax.default_device(jax.local_devices()[0]):
            report = _answered(Objective(loss, point, automatic(mesh)), how)
    else:
        report = _answered(objective, how)
    return replace(report, notes=(*meant, *report.notes))


@dataclass(frozen=True)
class Asked:
    """What is asked of an objective: the arguments of the check."""

    candidates: Any
    intermediates: Any
    safety: float
    seed: tuple[int, ...]
    every_coordinate: bool | None
    budget: Budget


def _answered(objective: Objective, asked: Asked) -> GradientReport:
    """Of the gradients, and of the derivatives on their way, if they are given."""
    is_chain = asked.intermediates is not None and asked.intermediates != {}
    chain = Chain.of(objective, asked.intermediates) if is_chain else None
    whole, judged = _checked(objective, asked)
    if chain is None or not judged:
        return whole
    by_hand = replace(
        asked,
        candidates={BY_HAND: chain.given},
        every_coordinate=bool(asked.every_coordinate),
        budget=asked.budget.after(whole.evaluations),
    )
    tapped, _ = _checked(Objective(chain.loss, Point.of(chain.values)), by_hand)
    return chain.followed(whole, tapped, judged)


def _checked(
    objective: Objective, asked: Asked
) -> tuple[GradientReport, list[Candidate]]:
    """The algorithm: evaluate the candidates, judge each leaf, say what was seen.

    With the candidates that were judged; none where the loss is not one value.
    """
    with progress(len(objective.point.leaves), "check_gradients", "leaf") as bar:
        bar.set_postfix_str("the value")
        context = Context.of(
            objective, asked.safety, asked.seed, asked.every_coordinate
        )
        check_finite(context.start.value, partial(of_value, objective))
        bar.set_postfix_str("the gradient")
        claimed = claims(asked.candidates, objective, context.autodiff)
        if fault := irreproducibility(context):
            return _report(context, claimed, [_of_loss(fault)]), []
        leaves, probed = _judged(replace(context, budget=asked.budget), claimed, bar)
        report = _report(context, claimed, leaves)
        return _with_remarks(report, context, claimed, probed), claimed


def _judged(
    context: Context, claimed: list[Candidate], bar: Any
) -> tuple[list[LeafReport], list[LeafProbes]]:
    """Each leaf: probed once, and every candidate held against what was found."""
    bar.set_postfix_str("leaves together")
    together = probed_together(context, claimed)
    second_point, explainer = SecondPoint(context), Explainer(context)
    leaves = [explainer.of_fault(x, c) for c in claimed for x in c.faults]
    objective, probed = context.objective, list[LeafProbes]()
    for leaf in context.point.leaves:
        bar.set_postfix_str(leaf.name)
        before = objective.evaluations
        found = [report for c in claimed for report in c.changing(leaf)]
        comparable = [c for c in claimed if c.gives(leaf)]
        try:
            if comparable:
                probes = together.get(leaf.number) or probe_leaf(context, leaf)
                before -= probes.shared
                probed.append(probes)
            for candidate in comparable:
                report = judge_leaf(context, probes, candidate)
                if report.verdict is Verdict.UNINFORMATIVE:
                    report = second_point.judged(report, candidate, leaf)
                    report = explainer.of_zero(report, leaf)
                else:
                    report = explainer.explained(report, candidate, probes)
                ran = held_against_run(context, report, candidate, probes)
                is_lost = ran.cause != report.cause
                found.append(explainer.of_fault(ran, candidate) if is_lost else ran)
        except BudgetSpent as spent:
            judged = {report.candidate for report in found}
            rest = [c for c in comparable if c.name not in judged]
            found += [not_looked_at(leaf, c, str(spent)) for c in rest]
        evaluations = objective.evaluations - before
        leaves += [replace(report, evaluations=evaluations) for report in found]
        bar.update()
    return _in_order(context.point, _failed_if_constant(leaves)), probed


def _report(
    context: Context, claimed: list[Candidate], leaves: list[LeafReport]
) -> GradientReport:
    return GradientReport(
        leaves=tuple(leaves),
        held=context.point.held,
        notes=notes(context, claimed),
        evaluations=context.objective.evaluations,
        seed=context.seed,
    )


def _with_remarks(
    report: GradientReport,
    context: Context,
    claimed: list[Candidate],
    probed: list[LeafProbes],
) -> GradientReport:
    """With what is said of all leaves together."""
    failed = {leaf.candidate for leaf in report.leaves if not leaf.passed}
    right = [c for c in claimed if c.name not in failed]
    nothing = {leaf.path for leaf in report.leaves if leaf.is_rounding}
    told = [probes for probes in probed if probes.leaf.path not in nothing]
    return replace(
        report,
        blind_spots=blind_spots(context, told, right[0]) if right else (),
        odd_one_out=odd_one_out(claimed, list(report.leaves)),
        evaluations=context.objective.evaluations,
    )


def first_of_pair(call: str, function: Callable[..., PyTree], *args: Any) -> PyTree:
    """What a function gives beside auxiliary output.

    Raises:
        NoPair: it has none, as is said of the call.
    """
    pair = function(*args)
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        fix = "leave has_aux out where there is no auxiliary output"
        raise NoPair(complaint(call, "a pair", describe(pair), fix))
    return pair[0]


def _of_loss(fault: str) -> LeafReport:
    """Of a loss whose values cannot be compared, whatever the candidates are."""
    what = "", "the loss", (), Verdict.NONDETERMINISTIC, False
    return LeafReport(*what, cause=fault)


def _check_loss(loss: Any, params: Any) -> None:
    """A function of the parameters alone, in its place.

    Raises:
        TypeError: it is another thing, or takes more.
    """
    call = "check_gradients(loss, params, candidates)"
    check_callable("loss", loss, f"write {call}")
    if callable(params) and not floating_leaves(params):
        got = describe(params)
        raise TypeError(complaint("params", "a pytree of arrays", got, f"write {call}"))
    try:
        taken = signature(loss)
    except (TypeError, ValueError):  # one that is written in C
        return
    try:
        taken.bind(params)
    except TypeError:
        fix = "bind the rest: lambda params: loss(params, data)"
        got = f"one of {taken}"
        raise TypeError(complaint("loss", "a function of params", got, fix)) from None


def _in_order(point: Point, leaves: list[LeafReport]) -> list[LeafReport]:
    """As the parameters are; first what they do not have."""
    numbers = {leaf.path: leaf.number for leaf in point.leaves}
    return sorted(leaves, key=lambda report: numbers.get(report.path, -1))


def _failed_if_constant(leaves: list[LeafReport]) -> list[LeafReport]:
    """Nothing is proved where nothing but zeros was seen, or nothing is used."""
    unknown = Verdict.UNINFORMATIVE
    is_zero = all(x.is_zero and x.passed and x.verdict is unknown for x in leaves)
    if not is_zero and not all(x.passed and x.is_unused for x in leaves):
        return leaves
    nothing = [replace(x, passed=False, verdict=unknown) for x in leaves]
    return [x.with_words(CONSTANT) for x in nothing]
