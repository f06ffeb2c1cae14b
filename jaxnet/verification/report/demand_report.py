"""Whether a rule satisfies one demand, beside giving the right derivative."""

import math
from dataclasses import dataclass

from jaxnet.verification.report.numbers import Severity, severity, short, told_apart
from jaxnet.verification.report.verdict import Verdict


@dataclass(frozen=True)
class DemandReport:
    """One demand on one rule.

    name: the demand, such as "linear in cotangent".
    candidate: the mode of the rule, "vjp" or "jvp".
    worst_index: where in an argument or output the two differ most.
    got, expected: two ways to compute one number there.
    error, bound: the largest difference of the two, and the largest that rounding
        explains.
    """

    name: str
    candidate: str
    verdict: Verdict
    passed: bool
    worst_index: tuple[int, ...] | None = None
    got: float = math.nan
    expected: float = math.nan
    error: float = math.nan
    bound: float = math.nan
    cause: str = ""

    @property
    def place(self) -> str:
        """The demand, with the index of the worst difference where there is one."""
        return (
            f"{self.name} {list(self.worst_index)}" if self.worst_index else self.name
        )

    @property
    def severity(self) -> Severity:
        """Sorts the worst first."""
        return severity(self.verdict, self.passed, self.error, self.bound)

    @property
    def sentence(self) -> str:
        """What is wrong, without the cause and without a full stop."""
        return f"{self.candidate} fails the demand '{self.name}'"

    @property
    def cells(self) -> tuple[str, ...]:
        """The row of the table: a demand has no shape and no resolution."""
        numbers = map(short, (self.error, self.bound))
        return (self.name, self.candidate, "-", self.verdict.value, *numbers, "-")

    @property
    def detail(self) -> str:
        """The line below the row; empty where there is nothing to add."""
        where = f"at {list(self.worst_index)}: " if self.worst_index else ""
        values = ""
        if math.isfinite(self.got) and math.isfinite(self.expected):
            values = "{} instead of {}".format(*told_apart(self.got, self.expected, 6))
        return where + "; ".join(part for part in (values, self.cause) if part)
