"""What becomes of a report in a test: it passes, or the test fails and shows it."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from jaxnet.verification import AuditReport, GradientMismatch, GradientReport

Report = TypeVar("Report", GradientReport, AuditReport)

listeners: list[Callable[[GradientReport | AuditReport], None]] = []
"""Are told of every report that a test asserts; the pytest plugin is one."""


def passed(report: Report, note: str = "", message: str = "") -> Report:
    """The report, if it passed.

    note: is added to those of the report. message: is put before a failure's.

    Raises:
        GradientMismatch: it did not.
    """
    if note and isinstance(report, GradientReport):
        report = replace(report, notes=(*report.notes, note))
    for listener in listeners:
        listener(report)
    if not report.passed:
        raise GradientMismatch("\n".join(filter(None, [message, str(report)])))
    return report
