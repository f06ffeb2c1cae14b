"""The whole of a check: its records, and what else a person should know."""

import math
from dataclasses import dataclass

from jaxnet.verification.report.demand_report import DemandReport
from jaxnet.verification.report.leaf_report import LeafReport
from jaxnet.verification.report.numbers import listed, seeded, short
from jaxnet.verification.report.shown import Shown
from jaxnet.verification.report.table import Table, alike
from jaxnet.verification.report.verdict import Verdict

COLUMNS = ("leaf", "candidate", "shape", "verdict", "error", "bound", "resolution")


LEGEND = "error, bound, resolution: in units of the leaf's gradient (its 2-norm)"
OF_DEMANDS = "; of a demand, of the array's"


@dataclass(frozen=True, repr=False)
class GradientReport(Shown):
    """The whole check. `str` gives the table, with one sentence on top.

    leaves: a record for each leaf and candidate.
    demands: a record for each demand on a rule; of gradients there are none.
    held: paths of integer, boolean and key leaves, which were not moved.
    notes: what was seen of the function, such as where it falls back to float32.
    blind_spots: mistakes that this point could not have shown.
    odd_one_out: of three or more routes, differences included, the one that stands
        alone.
    first_wrong: the path of the record to read first, where others follow from it.
    evaluations: of the loss, in all.
    seed: the words of the key that the random directions are drawn from.
    """

    title = "Is the gradient right?"

    leaves: tuple[LeafReport, ...]
    demands: tuple[DemandReport, ...] = ()
    held: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    blind_spots: tuple[str, ...] = ()
    odd_one_out: str | None = None
    first_wrong: str = ""
    evaluations: int = 0
    seed: tuple[int, ...] = ()

    @property
    def records(self) -> list[LeafReport | DemandReport]:
        """Leaves and demands, the worst first, but for what others follow from."""
        every: list[LeafReport | DemandReport] = [*self.leaves, *self.demands]
        every = sorted(every, key=lambda x: x.severity)
        if not self.first_wrong:
            return every
        return sorted(every, key=lambda x: getattr(x, "path", "") != self.first_wrong)

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all records."""
        return Verdict.worst(x.verdict for x in (*self.leaves, *self.demands))

    @property
    def passed(self) -> bool:
        """Whether something was checked, and every leaf and demand passed."""
        return not self._is_vacuous and all(record.passed for record in self.records)

    @property
    def _is_vacuous(self) -> bool:
        return not self.demands and all(0 in leaf.shape for leaf in self.leaves)

    @property
    def worst(self) -> LeafReport | DemandReport:
        """The record to read first: a failed one before any that passed."""
        return self.records[0]

    def _table(self, worst_first: bool = False) -> Table:
        worst = self.records
        runs = list(filter(None, map(self._run, self._names)))
        held = ["held fixed: " + ", ".join(self.held)] if self.held else []
        notes = ["note: " + note for note in self.notes]
        blind = ["not covered here: " + spot for spot in self.blind_spots]
        return Table(
            sentence=self._praise() if self.passed else self._complaint(),
            columns=COLUMNS,
            records=worst if worst_first else (*self.leaves, *self.demands),
            worst_first=worst,
            legend=LEGEND + OF_DEMANDS * bool(self.demands),
            remarks=(*runs, *held, *notes, *blind),
            last_line=f"{self.evaluations} evaluations of the loss{seeded(self.seed)}",
        )

    @property
    def _names(self) -> list[str]:
        return sorted({record.candidate for record in self.records})

    def _run(self, name: str) -> str:
        """How far off float64 a candidate is as its caller runs it."""
        leaves = [x for x in self.leaves if x.candidate == name]
        ran = [(x.as_run, x.path) for x in leaves if x.as_run is not None]
        if not ran:
            return ""
        share, path = max(ran)
        where = f", most in {path}" if len(ran) > 1 else ""
        if not math.isfinite(share):
            return f"as it is run, {name} is not finite{where}"
        if not share:
            return f"as it is run, {name} is exactly its float64 value"
        return (
            f"as it is run, {name} is within {short(share)} of its float64 value{where}"
        )

    def _praise(self) -> str:
        names = self._names
        right = f"{', '.join(names)} {'is' if len(names) == 1 else 'are'} right"
        nothing = dict.fromkeys(x.cells[0] for x in self.leaves if x.is_rounding)
        unused = dict.fromkeys(x.cells[0] for x in self.leaves if x.is_unused)
        told = [x.resolution for x in self.leaves if not x.is_rounding]
        least = max(filter(math.isfinite, told), default=0.0)
        digits = math.floor(-math.log10(least)) if least else 0
        to = (
            f", to {digits} {'digit' if digits == 1 else 'digits'}"
            if digits > 0
            else ""
        )
        seen = (
            f"; smallest detectable error: {least:.1g} of the array's norm"
            if least
            else ""
        )
        kinks = self.verdict is Verdict.NONDIFFERENTIABLE
        count = len({leaf.path for leaf in self.leaves if 0 not in leaf.shape})
        leaves = f"{count} leaf" if count == 1 else f"{count} leaves"
        zero = f"; zero but for rounding: {listed([*nothing])}" if nothing else ""
        path = f"; no path to the loss from {listed([*unused])}" if unused else ""
        said = f"{right} on {leaves}{to}{seen}{zero}{path}"
        return f"PASSED: {'kinks aside, ' * kinks}{said}."

    def _complaint(self) -> str:
        if self._is_vacuous:
            return "FAILED: nothing was checked: every leaf of params is empty."
        worst, failed = self.worst, [x for x in self.records if not x.passed]
        same = alike(failed)[0]
        sentence = worst.sentence
        if len(same) > 1:
            sentence = (
                f"{worst.candidate} is {worst.verdict.value} in {len(same)} leaves"
            )
        sentence += f": {worst.cause}" if worst.cause else ""
        rest = len(failed) - len(same)
        sentence += f"; {rest} more below" if rest else ""
        sentence += "" if sentence.endswith(("?", ".")) else "."
        alone = f" {self.odd_one_out} stands alone." if self.odd_one_out else ""
        return f"FAILED: {sentence}{alone}"
