"""Assertions for test suites: a failed one shows the whole table.

from jaxnet.testing import assert_vjp

def test_my_kernel():
    assert_vjp(my_kernel, x, y)
"""

from collections.abc import Callable
from typing import Any, TypeVar

from jaxnet.array_types import PyTree, ScalarFunction
from jaxnet.verification import (
    AuditReport,
    GradientMismatch,
    GradientReport,
    audit,
    check_gradients,
    check_jvp,
    check_vjp,
)

__all__ = [
    "GradientMismatch",
    "assert_gradients",
    "assert_jvp",
    "assert_rules",
    "assert_vjp",
]

Report = TypeVar("Report", GradientReport, AuditReport)


def assert_gradients(
    loss: ScalarFunction, params: PyTree, candidates: Any = None, **options: Any
) -> GradientReport:
    """The report of `check_gradients`, which takes the same arguments, if it passed.

    Raises:
        GradientMismatch: otherwise; an AssertionError whose message is the table.
    """
    return _passed(check_gradients(loss, params, candidates, **options))


def assert_vjp(
    function: Callable[..., PyTree], *args: Any, **options: Any
) -> GradientReport:
    """The report of `check_vjp`, which takes the same arguments, if it passed.

    Raises:
        GradientMismatch: otherwise; an AssertionError whose message is the table.
    """
    return _passed(check_vjp(function, *args, **options))


def assert_jvp(
    function: Callable[..., PyTree], *args: Any, **options: Any
) -> GradientReport:
    """The report of `check_jvp`, which takes the same arguments, if it passed.

    Raises:
        GradientMismatch: otherwise; an AssertionError whose message is the table.
    """
    return _passed(check_jvp(function, *args, **options))


def assert_rules(
    function: Callable[..., PyTree], *args: Any, **options: Any
) -> AuditReport:
    """The report of `jaxnet.audit`, which takes the same arguments, if it passed.

    Raises:
        GradientMismatch: otherwise, or if the function calls no custom rule; an
            AssertionError whose message is the table.
    """
    return _passed(audit(function, *args, **options))


def _passed(report: Report) -> Report:
    __tracebackhide__ = True
    report.raise_if_failed()
    return report
