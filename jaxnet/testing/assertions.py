"""The checks of the verifier as assertions."""

from collections.abc import Callable
from typing import Any

from jaxnet.array_types import PyTree, ScalarFunction
from jaxnet.testing.asserted import passed
from jaxnet.verification import (
    AuditReport,
    GradientReport,
    audit,
    check_gradients,
    check_jvp,
    check_vjp,
)


def assert_gradients(
    loss: ScalarFunction, params: PyTree, candidates: Any = None, **options: Any
) -> GradientReport:
    """The report of `check_gradients`, which takes the same arguments, if it passed.

    Raises:
        GradientMismatch: otherwise; an AssertionError whose message is the table.
    """
    return passed(check_gradients(loss, params, candidates, **options))


def assert_vjp(
    function: Callable[..., PyTree], *args: Any, **options: Any
) -> GradientReport:
    """The report of `check_vjp`, which takes the same arguments, if it passed.

    Raises:
        GradientMismatch: otherwise; an AssertionError whose message is the table.
    """
    return passed(check_vjp(function, *args, **options))


def assert_jvp(
    function: Callable[..., PyTree], *args: Any, **options: Any
) -> GradientReport:
    """The report of `check_jvp`, which takes the same arguments, if it passed.

    Raises:
        GradientMismatch: otherwise; an AssertionError whose message is the table.
    """
    return passed(check_jvp(function, *args, **options))


def assert_rules(
    function: Callable[..., PyTree], *args: Any, **options: Any
) -> AuditReport:
    """The report of `jaxnet.audit`, which takes the same arguments, if it passed.

    Raises:
        GradientMismatch: otherwise, or if the function calls no custom rule; an
            AssertionError whose message is the table.
    """
    return passed(audit(function, *args, **options))
