"""What was found of one leaf of one candidate."""

import math
from dataclasses import dataclass

from jaxnet.verification.report.numbers import Severity, severity, short, told_apart
from jaxnet.verification.report.verdict import Verdict


@dataclass(frozen=True)
class LeafReport:
    """One leaf of one candidate.

    path: the leaf, as `jax.tree_util.keystr` writes it.
    worst_index: the coordinate where the error is largest by its bound; None where no
        single coordinate was probed (a large leaf that agrees).
    candidate_value, reference_value: the derivative with respect to that coordinate, or
        along the worst probe; the reference is the difference quotient.
    error, bound: |candidate - reference|, and the largest that would have agreed.
    as_run: how far off the caller's own run of the candidate is from what the same
        program gives in float64, relative to the leaf's norm; None if it was not run.
    resolution: the smallest error, relative to the leaf's norm, that is told from none.
    evaluations: of the loss, spent on this leaf and on those probed together with it
        (shared by all candidates).
    """

    path: str
    candidate: str
    shape: tuple[int, ...]
    verdict: Verdict
    passed: bool
    worst_index: tuple[int, ...] | None = None
    candidate_value: float = math.nan
    reference_value: float = math.nan
    error: float = math.nan
    bound: float = math.nan
    resolution: float = math.nan
    as_run: float | None = None
    cause: str = ""
    evaluations: int = 0

    @property
    def proves_nothing(self) -> bool:
        """Whether all was exactly 0, at the point and at one nearby."""
        return self.verdict is Verdict.UNINFORMATIVE and math.isnan(self.resolution)

    @property
    def place(self) -> str:
        """The path, with the index of the worst coordinate where there is one."""
        index = f"[{', '.join(map(str, self.worst_index))}]" if self.worst_index else ""
        return (self.path or "params") + index

    @property
    def severity(self) -> Severity:
        """Sorts the worst first."""
        return severity(self.verdict, self.passed, self.error, self.bound)

    @property
    def sentence(self) -> str:
        """What is wrong, without the cause and without a full stop."""
        what = self.verdict.value
        if self.verdict is Verdict.DISAGREE:
            values = told_apart(self.candidate_value, self.reference_value, digits=6)
            what = "{}, not {},".format(*values)
        return f"{self.candidate} is {what} at {self.place}"

    @property
    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        shape = "×".join(map(str, self.shape)) or "scalar"
        numbers = map(short, (self.error, self.bound, self.resolution))
        name = self.path or "params"
        return (name, self.candidate, shape, self.verdict.value, *numbers)

    @property
    def detail(self) -> str:
        """The line below the row; empty where there is nothing to add."""
        if self.verdict is Verdict.AGREE and not self.cause:
            return ""
        where = f"at {self.place}: " if self.worst_index else ""
        values = ""
        if self.verdict is Verdict.DISAGREE:
            both = told_apart(self.candidate_value, self.reference_value, digits=9)
            values = "{}, differences say {}".format(*both)
        return where + "; ".join(part for part in (values, self.cause) if part)
