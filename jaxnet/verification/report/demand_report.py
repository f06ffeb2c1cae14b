"""Whether a rule satisfies one demand, beside giving the right derivative."""

import math
from dataclasses import dataclass

from jaxnet.verification.report.numbers import (
    joined,
    share,
    short,
    told_apart,
)
from jaxnet.verification.report.record import Record
from jaxnet.verification.report.verdict import Verdict


@dataclass(frozen=True)
class DemandReport(Record):
    """One demand on one rule.

    name: the demand, such as "linear in cotangent".
    candidate: the mode of the rule, "vjp" or "jvp".
    worst_index: where in an argument or output the two differ most.
    got, expected: two ways to compute one number there.
    error, bound: the largest difference of the two, and the largest that rounding
        explains.
    norm: the 2-norm of the array that the expected number stands in, or the other if
        that is 0.
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
    norm: float = math.nan

    @property
    def scale(self) -> float:
        """What error and bound are shares of in a table."""
        return self.norm

    @property
    def place(self) -> str:
        """The demand, with the index of the worst difference where there is one."""
        return (
            f"{self.name} {list(self.worst_index)}" if self.worst_index else self.name
        )

    @property
    def sentence(self) -> str:
        """What is wrong, without the cause and without a full stop."""
        return f"{self.candidate} fails the demand '{self.name}'"

    @property
    def cells(self) -> tuple[str, ...]:
        """The row of the table: a demand has no shape and no resolution."""
        shares = (share(self.error, self.scale), share(self.bound, self.scale))
        numbers = map(short, shares)
        return (self.name, self.candidate, "-", self.verdict.value, *numbers, "-")

    @property
    def values(self) -> str:
        """Where the two differ most, and both there."""
        where = f"at {list(self.worst_index)}: " if self.worst_index else ""
        if not (math.isfinite(self.got) and math.isfinite(self.expected)):
            return where
        both = told_apart(self.got, self.expected, digits=6)
        return where + "{} instead of {}".format(*both)

    @property
    def detail(self) -> str:
        """The line below the row; empty where there is nothing to add."""
        return joined(self.values, self.cause)

    @property
    def facts(self) -> dict[str, str]:
        """What a table has no room for: nothing beside both numbers."""
        return {"where": self.values.rstrip(": ")}
