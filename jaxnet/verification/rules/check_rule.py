"""check_vjp and check_jvp: hand-written derivative rules of functions of any output."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from jaxnet.array_types import PyTree
from jaxnet.devices import transfers_allowed
from jaxnet.input_checks import check_choice
from jaxnet.verification.check import check_gradients
from jaxnet.verification.point import is_inexact, not_finite
from jaxnet.verification.report.gradient_report import GradientReport
from jaxnet.verification.report.leaf_report import LeafReport
from jaxnet.verification.report.verdict import Verdict
from jaxnet.verification.rules.demands import DEMANDS, demanded
from jaxnet.verification.rules.rule import Rule


@transfers_allowed
def check_vjp(
    function: Callable[..., PyTree],
    *args: Any,
    reference: Callable[..., PyTree] | None = None,
    key: Any = None,
    order: int = 1,
    nondiff_argnums: Sequence[int] = (),
    kwargs: Mapping[str, Any] = MappingProxyType({}),
    demands: Collection[str] | None = None,
    **options: Any,
) -> GradientReport:
    """Whether the reverse-mode rule of `function` is right at `args`, and why not.

    Along a random cotangent c, the rule's gradient of <c, function(args)> is held
    against differences of the function, as `check_gradients` does. The rule must also
    be linear in c at every scale, give the function's own value, repeat bit for bit,
    satisfy <c, J t> = <Jᵀ c, t> where there is a forward mode, and be the same without
    jit, with jit, under vmap, one example, one argument and one output at a time, and
    with another forward pass between its forward and its backward.

    Args:
        function: of arrays or pytrees, to an array or pytree; with `jax.custom_vjp`,
            `jax.custom_jvp`, a Pallas kernel, a callback, or none of these.
        args: where. Integer leaves, and anything that is no array, are held fixed.
        reference: differences are taken of this function instead, if given; by default
            of the function itself, whose values no rule changes.
        key: as of `check_gradients`.
        order: 2 also checks the derivative of the rule itself, with respect to `args`
            and to the cotangent.
        nondiff_argnums: positions of arguments not to differentiate with respect to;
            those of the rule itself are known.
        kwargs: keyword arguments of `function`, held fixed.
        demands: names of those that are put to the rule, of `jaxnet.verification.rules
            .demands.DEMANDS`; all by default. With `()` the derivative alone is
            checked, which takes a fraction of the time.
        options: `safety`, `every_coordinate` and `budget` of `check_gradients`.

    Returns:
        The report; beside the leaves of `args` it has a record for each of the demands.

    Raises:
        TypeError, ValueError: the function cannot be called on `args`, or has no
            floating argument or output.
    """
    check_choice("order", order, (1, 2))
    if faults := _not_finite(args, "vjp"):
        return GradientReport(faults)
    own, other = _with_keywords(function, kwargs), _with_keywords(reference, kwargs)
    rule = Rule.of(own, other, args, nondiff_argnums, key)
    report = _report(rule, demands, key, options)
    if order == 2 and report.verdict is not Verdict.MALFORMED:
        second = _held_against_differences(
            rule.derivative(), "vjp order 2", key, options
        )
        report = replace(report, leaves=report.leaves + second.leaves)
    return report


@transfers_allowed
def check_jvp(
    function: Callable[..., PyTree],
    *args: Any,
    reference: Callable[..., PyTree] | None = None,
    key: Any = None,
    nondiff_argnums: Sequence[int] = (),
    kwargs: Mapping[str, Any] = MappingProxyType({}),
    demands: Collection[str] | None = None,
    **options: Any,
) -> GradientReport:
    """Whether the forward-mode rule of `function` is right at `args`, and why not.

    <c, J eᵢ> for every coordinate i and a random c is a gradient of <c, function>; it
    is held against differences of the function as in `check_vjp`, with the same
    arguments and the same further demands.
    """
    if faults := _not_finite(args, "jvp"):
        return GradientReport(faults)
    own, other = _with_keywords(function, kwargs), _with_keywords(reference, kwargs)
    rule = Rule.of(own, other, args, nondiff_argnums, key, mode="jvp")
    return _report(rule, demands, key, options)


def _with_cause(leaf: LeafReport, broken: str) -> LeafReport:
    """Of a wrong leaf, what a demand on the rule says of it too."""
    if leaf.verdict is not Verdict.DISAGREE or not broken:
        return leaf
    return replace(leaf, cause="; ".join(filter(None, [leaf.cause, broken])))


def _not_finite(args: tuple[Any, ...], name: str) -> tuple[LeafReport, ...]:
    """A MALFORMED record for each argument that is not finite: nothing can be said."""
    flat = jax.tree_util.tree_leaves_with_path(args)
    pairs = [(jax.tree_util.keystr(path), x) for path, x in flat if is_inexact(x)]
    return tuple(
        LeafReport(
            path,
            name,
            np.shape(x),
            Verdict.MALFORMED,
            False,
            cause=f"the argument is {fault}",
        )
        for path, x in pairs
        if (fault := not_finite(x))
    )


def _with_keywords(function: Any, kwargs: Mapping[str, Any]) -> Any:
    """The function with keyword arguments; None stays None."""
    return partial(function, **kwargs) if function and kwargs else function


def _report(
    rule: Rule, chosen: Collection[str] | None, key: Any, options: dict[str, Any]
) -> GradientReport:
    """The derivative and the demands, and what was not looked at."""
    for name in chosen or ():
        check_choice("demands", name, DEMANDS)
    report = _held_against_differences(rule, rule.mode, key, options)
    notes = [f"output {x} is left out: no argument reaches it" for x in rule.left_out]
    found = tuple(demanded(rule, DEMANDS if chosen is None else chosen))
    broken = next((x.cause for x in found if not x.passed), "")
    return replace(
        report,
        leaves=tuple(_with_cause(leaf, broken) for leaf in report.leaves),
        demands=found,
        held=(*rule.held, *report.held),
        notes=(*report.notes, *notes),
    )


def _held_against_differences(
    rule: Rule, name: str, key: Any, options: dict[str, Any]
) -> GradientReport:
    """Differences of <cotangent, reference(args)> beside the rule's gradient of it."""
    candidates = {name: rule.as_gradient}
    return check_gradients(rule.objective, rule.args, candidates, key=key, **options)
