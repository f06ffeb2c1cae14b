"""Numbers as the report writes them, and the order of its rows."""

import math

from jaxnet.verification.report.verdict import Verdict

Severity = tuple[bool, int, float]


def short(value: float) -> str:
    """Two digits, or a dash for what was not measured."""
    return f"{value:.1e}" if math.isfinite(value) else "-"


def told_apart(one: float, other: float, digits: int) -> tuple[str, str]:
    """Both with at least so many digits, and more where they would read the same."""
    first, second = (f"{value + 0.0:.{digits}g}" for value in (one, other))  # no -0
    if first != second or digits == 17:
        return first, second
    return told_apart(one, other, digits + 1)


def severity(verdict: Verdict, passed: bool, error: float, bound: float) -> Severity:
    """Sorts the worst first: what failed before what passed, then by verdict."""
    excess = error / bound if bound else 0.0
    return passed, verdict.rank, -excess if excess == excess else 0.0
