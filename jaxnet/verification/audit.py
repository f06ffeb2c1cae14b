"""audit: every custom rule of a program, verified where the program calls it."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.array_types import PyTree
from jaxnet.devices import transfers_allowed
from jaxnet.input_checks import check_no_more, check_positive, complaint
from jaxnet.jaxpr.evaluate import Hook, bind
from jaxnet.jaxpr.lines import described_once
from jaxnet.verification.context import Context
from jaxnet.verification.explanation.by_design import straight_through
from jaxnet.verification.explanation.calls import Call, Calls, Observed, some
from jaxnet.verification.explanation.culprits import CHANGES, with_switch, within
from jaxnet.verification.explanation.switched import gradient_by_switches
from jaxnet.verification.function.intended import (
    NOT_JUDGED,
    Intended,
    check_called,
    several,
)
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.function.sites import Site, backward, outermost, sites
from jaxnet.verification.function.steps import has_no_slope
from jaxnet.verification.point import Point, is_inexact, two_norm
from jaxnet.verification.report.audit_report import AuditReport, RuleReport
from jaxnet.verification.report.verdict import Verdict
from jaxnet.verification.rules.rule import Rule

NOT_SEEN = (
    "not verified where it is called: in a shard_map, a linear solve, a loop's test"
)

UNUSED = "no gradient flows through it here"


@transfers_allowed
def audit(
    function: Callable[..., PyTree],
    *args: Any,
    intended: Intended = (),
    key: Any = None,
    safety: float = 4.0,
    **unknown: Any,
) -> AuditReport:
    """Whether every custom rule that `function` calls at `args` is right there.

    No gradient is suspected yet. Each `jax.custom_vjp` and `jax.custom_jvp`, own or of
    a library, is verified as `check_gradients` would: with the inputs that the program
    gives it, and the cotangent that comes back to it. Of many calls of one form, some.
    A rule that is called within another rule is the other's affair. One that
    `function` differentiates itself, by a jax.grad within it, leaves no call behind and
    is not seen: audit what is differentiated. Nor is the transpose of a `linear_call`
    or of a linear solve.

    Args:
        function: of arrays or pytrees, to an array or pytree; JAX can trace it.
        args: where.
        intended: rules that are meant to be as they are, by name or themselves, or by
            their lines ("file.py:12"): they are listed, and not judged.
        key: seed of the random directions, and of a cotangent if the output is no
            scalar; 0 by default.
        safety: how many bounds an agreeing derivative may be off.
        unknown: a tolerance, or another option that there is not, is a TypeError.

    Returns:
        A report with one record a rule, and what silently stops a gradient: leaves
        without a path to the output, a `stop_gradient` that changes something, casts to
        integers, argmax, rounding. `print` it, or call `raise_if_failed()`.

    Raises:
        TypeError, ValueError: the function cannot be called on `args` or traced, or
            has no floating argument or output.
    """
    check_no_more(unknown, audit)
    check_positive("safety", safety)
    rule = Rule.of(function, None, args, (), key)
    if [np.shape(c) for c in rule.cotangent] == [()]:
        rule = replace(rule, cotangent=[np.ones(())])
    objective = Objective(rule.objective, Point.of(rule.args))
    if objective.program is None:
        fix = "an audit reads the program: see why jax.make_jaxpr(function) fails"
        got = "one that it cannot"
        raise ValueError(complaint("function", "one that JAX can trace", got, fix))
    context = Context.of(objective, safety, rule.seed, None)
    program = objective.program
    every = sites(program.closed, outermost(program.equations))
    meant = [s for one in several(intended) for s in check_called(one, every)]
    groups = dict[tuple[str, int], list[Site]]()
    for site in every:
        if site.name:
            same = site.function, id(backward(site.equations[0]))
            groups.setdefault(same, []).append(site)
    lost = _lost(objective, list(groups.values()), _stopped)
    observed = Observed(context, tuple(s for group in groups.values() for s in group))
    each = iter(observed.calls())
    return AuditReport(
        tuple(
            _report(observed, group, [next(each) for _ in group], share, meant)
            for group, share in zip(groups.values(), lost, strict=True)
        ),
        tuple(_stops(objective, [s for s in every if not s.name and s not in meant])),
        rule.seed,
    )


def _report(
    observed: Observed,
    group: list[Site],
    found: list[Calls],
    share: float,
    meant: list[Site],
) -> RuleReport:
    """One rule, by some of its calls of each form."""
    forms = dict[str, list[Call]]()
    for call in (call for each in found for call in each.some):
        forms.setdefault(_form(call), []).append(call)
    chosen = [call for each in forms.values() for call in some(each)]
    is_meant = all(site in meant for site in group)
    chosen = [] if is_meant else chosen
    reports = [report for call in chosen for report in observed.verified(call)]
    row = RuleReport(
        name=group[0].name,
        rule=group[0].rule,
        lines=tuple(site.line for site in group if site.line),
        calls=sum(
            max(f.count, len(s.equations)) for s, f in zip(group, found, strict=True)
        ),
        verified=len(chosen),
        forms=tuple(forms),
        verdict=Verdict.UNRESOLVED,
        passed=False,
        share=share,
        cause=NOT_SEEN,
    )
    if is_meant or (not reports and share == 0):
        cause = NOT_JUDGED if is_meant else UNUSED
        row = replace(row, is_intended=is_meant, cause=cause)
        return replace(row, verdict=Verdict.UNINFORMATIVE, passed=True)
    if not reports:
        return row
    worst = min(reports, key=lambda report: report.severity)
    said = list[str]()
    if not worst.passed:
        context = observed.context
        kind = straight_through(context.objective, group[0])
        said = [*within(context, group[0]), kind]
    return replace(
        row,
        verdict=worst.verdict,
        passed=all(report.passed for report in reports),
        error=worst.error,
        bound=worst.bound,
        cause=worst.cause
        if worst.passed
        else "; ".join(filter(None, [worst.detail, *said])),
        worst=worst,
    )


def _form(call: Call) -> str:
    """The shapes of its inputs."""
    texts = ["×".join(map(str, np.shape(x))) or "scalar" for x in call.inputs]
    return ", ".join(texts)


def _stopped(equation: Any, switch: Any, inputs: list[Any], within: Hook) -> list[Any]:
    """With nothing that flows back through it where the switch is off."""
    return [
        jnp.where(switch > 0, y, jax.lax.stop_gradient(y)) if is_inexact(y) else y
        for y in bind(equation, inputs)
    ]


def _lost(objective: Objective, groups: list[list[Site]], how: Any) -> list[float]:
    """How much the gradient changes, in its own 2-norm, with one group switched off.

    NaN if there is no gradient.
    """
    if not groups:
        return []
    parts = [[e for site in group for e in site.equations] for group in groups]
    count = len(parts)

    def flat(switches: Any) -> Any:
        return np.concatenate([g.reshape(-1) for g in gradient(switches)])

    try:
        gradient = gradient_by_switches(objective, parts, how)
        own = flat(np.ones(count))
        without = [flat(np.ones(count) - one) for one in np.eye(count)]
    except Exception:  # the caller's rules, or a loop that has no reverse mode
        return [math.nan] * count
    size = two_norm(own) or 1.0
    return [two_norm(own - other) / size for other in without]


def _stops(objective: Objective, stop_gradients: list[Site]) -> Iterator[str]:
    """Where a gradient ends, in words."""
    for leaf in objective.point.leaves:
        if not objective.depends_on(leaf):
            yield f"{leaf.name} has no path to the output"
    changes = _lost(objective, [[site] for site in stop_gradients], with_switch)
    for site, change in zip(stop_gradients, changes, strict=True):
        if change > CHANGES:
            yield f"{site.described} changes it by {change:.2g} of its norm"
    program = objective.traced.own.needed
    steps = filter(has_no_slope, outermost(program.equations))
    yield from described_once(program.closed, steps)
