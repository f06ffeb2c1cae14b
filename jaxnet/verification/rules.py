"""check_vjp and check_jvp: hand-written derivative rules of functions of any output."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import jax

from jaxnet.array_types import PyTree
from jaxnet.input_checks import check_choice
from jaxnet.verification.check import check_gradients
from jaxnet.verification.leaves import floating_leaves
from jaxnet.verification.report import GradientReport, LeafReport
from jaxnet.verification.rule import Rule, inner
from jaxnet.verification.rule_checks import consistency
from jaxnet.verification.verdict import Verdict


def check_vjp(
    function: Callable[..., PyTree],
    *args: Any,
    reference: Callable[..., PyTree] | None = None,
    key: Any = None,
    order: int = 1,
    nondiff_argnums: Sequence[int] = (),
    **options: Any,
) -> GradientReport:
    """Whether the reverse-mode rule of `function` is right at `args`, and why not.

    Along a random cotangent c, the rule's gradient of <c, function(args)> is held
    against differences of the function, as `check_gradients` does. The rule must also
    be linear in c, give the function's own value, repeat bit for bit, satisfy
    <c, J v> = <Jᵀ c, v> where there is a forward mode, and be the same without jit,
    with jit, under vmap, one example at a time, and with another forward pass between
    its forward and its backward.

    Args:
        function: of arrays or pytrees, to an array or pytree; with `jax.custom_vjp`,
            `jax.custom_jvp`, a Pallas kernel, a callback, or none of these.
        args: where. Integer leaves, and anything that is no array, are held fixed.
        reference: differences are taken of this function instead, if given; by default
            of the plain body of a custom rule, or of the function itself.
        key: as of `check_gradients`.
        order: 2 also checks the derivative of the rule itself.
        nondiff_argnums: positions of arguments not to differentiate by; those of the
            rule itself are known.
        options: `safety` and `every_coordinate` of `check_gradients`.

    Returns:
        The report; beside the leaves of `args` it has one row for each of the demands.

    Raises:
        TypeError, ValueError: the function cannot be called on `args`, or has no
            floating argument or output.
    """
    check_choice("order", order, (1, 2))
    rule = Rule.of(function, args, reference, nondiff_argnums, key)
    report = _held_against_differences(rule, rule.vjp, "vjp", key, options)
    rows: list[LeafReport] = consistency(rule, rule.vjp, "vjp")
    if order == 2 and report.verdict is not Verdict.MALFORMED:
        second = rule.derivative()
        found = _held_against_differences(
            second, second.vjp, "vjp order 2", key, options
        )
        rows += found.leaves
    return replace(report, leaves=(*report.leaves, *rows))


def check_jvp(
    function: Callable[..., PyTree],
    *args: Any,
    reference: Callable[..., PyTree] | None = None,
    key: Any = None,
    nondiff_argnums: Sequence[int] = (),
    **options: Any,
) -> GradientReport:
    """Whether the forward-mode rule of `function` is right at `args`, and why not.

    <c, J eᵢ> by every coordinate i, for a random c, is a gradient of <c, function>; it
    is held against differences of the function as in `check_vjp`, with the same
    arguments and the same further demands.
    """
    rule = Rule.of(function, args, reference, nondiff_argnums, key)
    report = _held_against_differences(rule, rule.gradient_by_jvp, "jvp", key, options)
    rows = consistency(rule, rule.jvp, "jvp")
    return replace(report, leaves=(*report.leaves, *rows))


def _held_against_differences(
    rule: Rule,
    gradient: Callable[[PyTree], PyTree],
    name: str,
    key: Any,
    options: dict[str, Any],
) -> GradientReport:
    """Differences of <cotangent, reference(args)> beside the rule's gradient of it."""

    def along(args: PyTree) -> jax.Array:
        return inner(rule.cotangent, floating_leaves(rule.reference(*args)))

    report = check_gradients(along, rule.args, {name: gradient}, key=key, **options)
    return report
