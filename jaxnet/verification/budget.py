"""How much a check may take: evaluations of the loss, or time."""

import math
import operator
import time
from dataclasses import dataclass, replace
from datetime import timedelta

from jaxnet.input_checks import check_positive, complaint, describe


class BudgetSpent(Exception):
    """No more may be evaluated; the message says what was allowed."""


@dataclass(frozen=True)
class Budget:
    """evaluations: so many at most. until: no longer, by the monotonic clock."""

    evaluations: float = math.inf
    until: float = math.inf
    allowed: str = ""

    @classmethod
    def of(cls, given: "int | timedelta | Budget | None") -> "Budget":
        """From now on; None for no end, and what is left of another one as it is.

        Raises:
            TypeError, ValueError: it is none of these, or not positive.
        """
        if given is None:
            return UNLIMITED
        if isinstance(given, Budget):
            return given
        if isinstance(given, timedelta):
            seconds = given.total_seconds()
            check_positive("budget", seconds)
            return cls(until=time.monotonic() + seconds, allowed=f"{seconds:g} s")
        try:
            count = operator.index(given)
        except TypeError:
            expected = "an int of evaluations, or a timedelta"
            fix = "timedelta(minutes=1)"
            text = complaint("budget", expected, describe(given), fix)
            raise TypeError(text) from None
        check_positive("budget", count)
        return cls(evaluations=float(count), allowed=f"{count} evaluations")

    def after(self, evaluations: int) -> "Budget":
        """What is left after so many."""
        return replace(self, evaluations=self.evaluations - evaluations)

    def check(self, evaluations: int) -> None:
        """Nothing, if there may be so many evaluations in all, now.

        Raises:
            BudgetSpent: there may not.
        """
        if evaluations > self.evaluations or time.monotonic() > self.until:
            raise BudgetSpent(f"the budget of {self.allowed} is spent")


UNLIMITED = Budget()
