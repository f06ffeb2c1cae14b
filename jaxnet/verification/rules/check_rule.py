"""check_vjp and check_jvp: hand-written derivative rules of functions of any output."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from jaxnet.array_types import PyTree
from jaxnet.devices import transfers_allowed
from jaxnet.input_checks import (
    check_choice,
    check_no_more,
    check_untraced,
    complaint,
    describe,
)
from jaxnet.verification.budget import Budget
from jaxnet.verification.check import check_gradients, first_of_pair
from jaxnet.verification.leaf.second_point import UNUSED
from jaxnet.verification.point import is_inexact, not_finite
from jaxnet.verification.report.gradient_report import GradientReport
from jaxnet.verification.report.leaf_report import LeafReport
from jaxnet.verification.report.verdict import Verdict
from jaxnet.verification.rules.arguments import Arguments, signature_of
from jaxnet.verification.rules.demands import DEMANDS, demanded
from jaxnet.verification.rules.rule import Mode, Rule

ORDERS = (1, 2, 3, 4)
"""Of derivatives that are checked."""


def check_vjp(
    function: Callable[..., PyTree],
    *args: Any,
    reference: Callable[..., PyTree] | None = None,
    key: Any = None,
    order: int = 1,
    nondiff_argnums: Sequence[int] = (),
    kwargs: Mapping[str, Any] = MappingProxyType({}),
    has_aux: bool = False,
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
        order: up to 4. From 2 on the derivative of the rule itself is checked too, with
            respect to `args` and to the cotangent, and so on.
        nondiff_argnums: positions of arguments not to differentiate with respect to;
            those of the rule itself are known.
        kwargs: keyword arguments of `function`, held fixed.
        has_aux: `function` returns a pair, of which the first alone is differentiated.
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
    return check_modes(
        function,
        *args,
        modes=("vjp",),
        reference=reference,
        key=key,
        order=order,
        nondiff_argnums=nondiff_argnums,
        kwargs=kwargs,
        has_aux=has_aux,
        demands=demands,
        **options,
    )


def check_jvp(
    function: Callable[..., PyTree],
    *args: Any,
    reference: Callable[..., PyTree] | None = None,
    key: Any = None,
    order: int = 1,
    nondiff_argnums: Sequence[int] = (),
    kwargs: Mapping[str, Any] = MappingProxyType({}),
    has_aux: bool = False,
    demands: Collection[str] | None = None,
    **options: Any,
) -> GradientReport:
    """Whether the forward-mode rule of `function` is right at `args`, and why not.

    <c, J eᵢ> for every coordinate i and a random c is a gradient of <c, function>; it
    is held against differences of the function as in `check_vjp`, with the same
    arguments and the same further demands.
    """
    return check_modes(
        function,
        *args,
        modes=("jvp",),
        reference=reference,
        key=key,
        order=order,
        nondiff_argnums=nondiff_argnums,
        kwargs=kwargs,
        has_aux=has_aux,
        demands=demands,
        **options,
    )


@transfers_allowed
def check_modes(
    function: Callable[..., PyTree],
    *args: Any,
    modes: Sequence[Mode] = ("jvp", "vjp"),
    reference: Callable[..., PyTree] | None = None,
    key: Any = None,
    order: int = 1,
    nondiff_argnums: Sequence[int] = (),
    kwargs: Mapping[str, Any] = MappingProxyType({}),
    has_aux: bool = False,
    demands: Collection[str] | None = None,
    safety: float = 4.0,
    every_coordinate: bool | None = None,
    budget: int | timedelta | Budget | None = None,
    **unknown: Any,
) -> GradientReport:
    """Whether the derivatives of `function` are right by several modes.

    From order 2 on, each mode's derivative is differentiated by each of the modes.
    Arguments otherwise as of `check_vjp`.
    """
    check_no_more(unknown, check_modes, but="modes")
    check_choice("order", order, ORDERS)
    put = DEMANDS if demands is None else demands
    put = [put] if isinstance(put, str) else put
    for name in put:
        check_choice("demands", name, DEMANDS)
    if isinstance(nondiff_argnums, int):
        nondiff_argnums = (nondiff_argnums,)
    if not isinstance(kwargs, Mapping):
        got, fix = describe(kwargs), "write kwargs={'name': value}"
        raise TypeError(complaint("kwargs", "keyword arguments", got, fix))
    check_untraced("args", args, "check outside jit, grad and vmap")
    named = Arguments.of(function, args)
    if faults := [x for mode in modes for x in _not_finite(named, mode)]:
        return GradientReport(tuple(faults))
    own, other = (_plain(f, kwargs, has_aux) for f in (function, reference))
    asked = _Held(modes, key, Budget.of(budget), safety, every_coordinate)
    found = list[GradientReport]()
    for mode in modes:
        rule = Rule.of(own, other, args, nondiff_argnums, key, mode)
        if put:
            rule.call_first()
        found.append(_with_demands(rule, put, asked.held(rule, mode, found)))
        asked.add_higher_orders(rule, mode, order, found)
    return together(found)


@dataclass(frozen=True)
class _Held:
    """How rules are held against differences: what `check_gradients` is told."""

    modes: Sequence[Mode]
    key: Any
    budget: Budget
    safety: float
    every_coordinate: bool | None

    def held(
        self, rule: Rule, name: str, before: list[GradientReport]
    ) -> GradientReport:
        """<cotangent, reference(args)>'s differences beside the rule's gradient."""
        report = check_gradients(
            rule.objective,
            rule.args,
            {name: rule.as_gradient},
            key=self.key,
            safety=self.safety,
            every_coordinate=self.every_coordinate,
            budget=self.budget.after(sum(report.evaluations for report in before)),
        )
        return replace(report, leaves=tuple(map(_of_constant, report.leaves)))

    def add_higher_orders(
        self, rule: Rule, name: str, order: int, found: list[GradientReport]
    ) -> None:
        """The derivatives of a rule by each of the modes, and theirs, to the order.

        What is malformed has none.
        """
        if order == 1 or found[-1].verdict is Verdict.MALFORMED:
            return
        for mode in self.modes:
            derivative, whole = rule.derivative(mode), f"{mode} of {name}"
            found.append(self.held(derivative, whole, found))
            self.add_higher_orders(derivative, whole, order - 1, found)


def _of_constant(leaf: LeafReport) -> LeafReport:
    """A loss that no leaf reaches is a slip, and no other function is: 0 is right."""
    if not leaf.is_unused:
        return leaf
    return replace(leaf, verdict=Verdict.AGREE, passed=True, cause=UNUSED)


def together(found: list[GradientReport]) -> GradientReport:
    """One report of several of one function; what they say alike, once."""
    return replace(
        found[0],
        leaves=tuple(x for report in found for x in report.leaves),
        demands=tuple(x for report in found for x in report.demands),
        held=tuple(dict.fromkeys(x for report in found for x in report.held)),
        notes=tuple(dict.fromkeys(x for report in found for x in report.notes)),
        blind_spots=tuple(
            dict.fromkeys(x for report in found for x in report.blind_spots)
        ),
        evaluations=sum(report.evaluations for report in found),
    )


def _not_finite(args: Arguments, name: str) -> tuple[LeafReport, ...]:
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


def _plain(function: Any, kwargs: Mapping[str, Any], has_aux: bool) -> Any:
    """The function of positions alone, to what is differentiated; None stays None."""
    if function is None or not (kwargs or has_aux):
        return function
    whole = partial(function, **kwargs)
    if not has_aux:
        return whole
    first = partial(first_of_pair, "function(*args)", whole)
    vars(first)["__signature__"] = signature_of(whole)  # has the arguments' names
    return first


def _with_demands(
    rule: Rule, chosen: Collection[str], report: GradientReport
) -> GradientReport:
    """The report, with the demands on the rule and with what was not looked at."""
    notes = [f"output {x} is left out: no argument reaches it" for x in rule.left_out]
    found = tuple(demanded(rule, chosen))
    broken = next((x.cause for x in found if not x.passed), "")
    return replace(
        report,
        leaves=tuple(
            leaf.with_words(broken) if leaf.verdict is Verdict.DISAGREE else leaf
            for leaf in report.leaves
        ),
        demands=found,
        held=(*rule.held, *report.held),
        notes=(*report.notes, *notes),
    )
