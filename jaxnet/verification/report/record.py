"""What every record of a report has: its row, what stands below it, and its facts."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping

from jaxnet.verification.report.numbers import beyond
from jaxnet.verification.report.verdict import Verdict

Cells = tuple[str, ...]


class Record(ABC):
    """What was found of one thing: a leaf, a demand, a rule.

    error, bound: how far it is off, and how far it may be. cause: why, in words.
    """

    verdict: Verdict
    passed: bool
    error: float
    bound: float
    cause: str

    @property
    def severity(self) -> tuple[bool, int, float]:
        """Sorts the worst first; of what failed, what could not even be compared."""
        of_none = 0.0 if self.passed else math.inf
        excess = of_none if math.isnan(self.error) else beyond(self.error, self.bound)
        return self.passed, self.verdict.rank, -excess

    @property
    @abstractmethod
    def cells(self) -> Cells:
        """The row of the table: a name, whose it is, its shape, and more."""

    @property
    @abstractmethod
    def values(self) -> str:
        """Where it is worst, and both values there; empty if that is nowhere."""

    @property
    @abstractmethod
    def detail(self) -> str:
        """The line below the row; empty where there is nothing to add."""

    @property
    @abstractmethod
    def facts(self) -> Mapping[str, str]:
        """What a table has no room for, by name."""

    @property
    def pictures(self) -> tuple[str, ...]:
        """As SVG; none of most."""
        return ()
