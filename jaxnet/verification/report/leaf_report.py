"""What was found of one leaf of one candidate."""

import math
from dataclasses import dataclass, replace

from jaxnet.verification.report.error_map import ErrorMap
from jaxnet.verification.report.ladder import Ladder
from jaxnet.verification.report.numbers import (
    joined,
    share,
    short,
    told_apart,
)
from jaxnet.verification.report.pictures import of_errors, of_ladder
from jaxnet.verification.report.record import Record
from jaxnet.verification.report.verdict import Verdict

NO_NAME = "params"
"""What parameters are called that are one array."""


@dataclass(frozen=True)
class LeafReport(Record):
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
    is_rounding: whether the gradient is zero but for rounding: it has no digits.
    is_unused: whether there is no path from it to the loss.
    norm: the 2-norm of the leaf's gradient.
    unit: the size of the step that error and bound are derivatives along: 1 of a
        coordinate; of a random direction, the smallest by which a coordinate moves.
    ladder: of the worst probe, if it was one.
    error_map: of a wrong leaf, where each entry's derivative is known.
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
    is_rounding: bool = False
    is_unused: bool = False
    cause: str = ""
    evaluations: int = 0
    norm: float = math.nan
    unit: float = 1.0
    ladder: Ladder | None = None
    error_map: ErrorMap | None = None

    @property
    def scale(self) -> float:
        """What error and bound are shares of in a table, as the resolution is."""
        return self.norm * self.unit

    @property
    def is_zero(self) -> bool:
        """Whether it was exactly 0, as the differences were; also unseen nearby."""
        is_right = self.verdict in (Verdict.AGREE, Verdict.UNINFORMATIVE)
        return is_right and math.isnan(self.resolution)

    def with_words(self, *words: str) -> "LeafReport":
        """The same with more words on why its verdict is what it is."""
        return replace(self, cause="; ".join(filter(None, [self.cause, *words])))

    @property
    def place(self) -> str:
        """The path, with the index of the worst coordinate where there is one."""
        index = f"[{', '.join(map(str, self.worst_index))}]" if self.worst_index else ""
        return (self.path or NO_NAME) + index

    @property
    def sentence(self) -> str:
        """What is wrong, without the cause and without a full stop."""
        what = self.verdict.value
        if self.verdict is Verdict.DISAGREE:
            values = told_apart(self.candidate_value, self.reference_value, digits=6)
            what = "{}, not {}".format(*values)
        comma = "," * (self.verdict is Verdict.DISAGREE)
        where = f"{comma} at {self.place}" if self.place != NO_NAME else ""
        return f"{self.candidate} is {what}{where}"

    @property
    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        shape = "×".join(map(str, self.shape)) or "scalar"
        shares = (share(self.error, self.scale), share(self.bound, self.scale))
        numbers = map(short, (*shares, self.resolution))
        name = self.path or NO_NAME
        return (name, self.candidate, shape, self.verdict.value, *numbers)

    @property
    def values(self) -> str:
        """Where the error is largest, and both values there; empty if it is nowhere."""
        where = f"at {self.place}: " if self.worst_index else ""
        if self.verdict is not Verdict.DISAGREE:
            return where
        both = told_apart(self.candidate_value, self.reference_value, digits=9)
        return where + "{}, differences say {}".format(*both)

    @property
    def detail(self) -> str:
        """The line below the row; empty where there is nothing to add."""
        if self.verdict is Verdict.AGREE and not self.cause:
            return ""
        return joined(self.values, self.cause)

    @property
    def facts(self) -> dict[str, str]:
        """What a table has no room for."""
        both = told_apart(self.candidate_value, self.reference_value, digits=9)
        is_known = math.isfinite(self.candidate_value)
        along = "along a random direction" if self.worst_index is None else ""
        place = along if self.shape and is_known else ""
        return {
            "candidate": both[0] * is_known,
            "differences": both[1] * is_known,
            "where": self.place if self.worst_index else place,
            "as it is run, off by": "" if self.as_run is None else short(self.as_run),
            "norm of the gradient": short(self.norm) if self.norm == self.norm else "",
            "evaluations": str(self.evaluations or ""),
        }

    @property
    def pictures(self) -> tuple[str, ...]:
        """The ladder of the worst probe, and where an array is wrong, as SVG."""
        found = list[str]()
        if self.ladder:
            given = self.ladder, self.candidate_value, self.bound
            found.append(of_ladder(*given))
        if self.error_map:
            found.append(of_errors(self.error_map))
        return tuple(filter(None, found))
