"""What an audit found: a record for each rule that a program calls, and what stops."""

import math
from dataclasses import dataclass

from jaxnet.verification.report.demand_report import DemandReport
from jaxnet.verification.report.leaf_report import LeafReport
from jaxnet.verification.report.numbers import (
    seeded,
    share,
    short,
)
from jaxnet.verification.report.record import Record
from jaxnet.verification.report.shown import Shown
from jaxnet.verification.report.table import Table
from jaxnet.verification.report.verdict import Verdict

COLUMNS = ("rule", "calls", "inputs", "verdict", "error", "bound", "share")


LEGEND = "error, bound: in units of the input's gradient; share: of the whole gradient"

MOST_LINES = 3
"""How many calling lines are named in a row."""


@dataclass(frozen=True)
class RuleReport(Record):
    """One custom rule, wherever a program calls it.

    name, rule: of the function, and the file and line of its rule.
    lines: where it is called. calls: how often, in all.
    verified: how many of the calls were verified: some of each form.
    forms: the shapes of its inputs, each combination once.
    is_intended: whether it is meant to be as it is, and so is not judged.
    share: of the gradient's 2-norm, what is lost if nothing flows back through it.
    error, bound, cause: of the worst input of the worst call.
    worst: the record of that.
    """

    name: str
    rule: str
    lines: tuple[str, ...]
    calls: int
    verified: int
    forms: tuple[str, ...]
    verdict: Verdict
    passed: bool
    is_intended: bool = False
    share: float = math.nan
    error: float = math.nan
    bound: float = math.nan
    cause: str = ""
    worst: LeafReport | DemandReport | None = None

    @property
    def is_wrong(self) -> bool:
        """Whether it failed, and not for want of an answer or of a derivative."""
        undecided = (Verdict.UNRESOLVED, Verdict.NONDIFFERENTIABLE)
        return not self.passed and self.verdict not in undecided

    @property
    def cells(self) -> tuple[str, ...]:
        """The row of the table."""
        forms = self.forms[0] if self.forms else "-"
        forms += f" +{len(self.forms) - 1}" if len(self.forms) > 1 else ""
        norm = self.worst.scale if self.worst else math.nan
        shares = share(self.error, norm), share(self.bound, norm), self.share
        rest = (self.verdict.value, *map(short, shares))
        return (self.name, str(self.calls), forms, *rest)

    @property
    def values(self) -> str:
        """Where it stands and is called."""
        some = ", ".join(self.lines[:MOST_LINES])
        more = f" and {len(self.lines) - MOST_LINES} more lines"
        called = f"called at {some}{more * (len(self.lines) > MOST_LINES)}"
        return "; ".join(filter(None, [self.rule, called * bool(some)]))

    @property
    def detail(self) -> str:
        """The line below the row: what is wrong, where it stands and is called."""
        return "; ".join(filter(None, [self.cause, self.values]))

    @property
    def facts(self) -> dict[str, str]:
        """All lines and forms, of which the table names the first."""
        return {
            "rule": self.rule,
            "called at": ", ".join(self.lines),
            "inputs": "; ".join(self.forms),
            "verified": f"{self.verified} of {self.calls} calls",
            **(self.worst.facts if self.worst else {}),
        }

    @property
    def pictures(self) -> tuple[str, ...]:
        """Those of the worst input."""
        return self.worst.pictures if self.worst else ()


@dataclass(frozen=True, repr=False)
class AuditReport(Shown):
    """The whole audit. `str` gives the table, with one sentence on top.

    rules: a record for each custom rule.
    stops: where a gradient ends without a word, each in words.
    seed: the words of the key that random directions are drawn from.
    """

    title = "Are the custom rules right?"

    rules: tuple[RuleReport, ...]
    stops: tuple[str, ...] = ()
    seed: tuple[int, ...] = ()

    @property
    def records(self) -> list[RuleReport]:
        """The rules, the worst first."""
        return sorted(self.rules, key=lambda x: x.severity)

    @property
    def passed(self) -> bool:
        """Whether every rule passed. Of none that was verified, nothing is proved."""
        return self._is_proof and all(rule.passed for rule in self.rules)

    @property
    def _is_proof(self) -> bool:
        return any(rule.verified or rule.is_intended for rule in self.rules)

    def _table(self, worst_first: bool = False) -> Table:
        calls = sum(rule.calls for rule in self.rules)
        verified = sum(rule.verified for rule in self.rules)
        return Table(
            sentence=self._sentence(),
            columns=COLUMNS,
            records=self.records if worst_first else self.rules,
            worst_first=self.records,
            legend=LEGEND,
            remarks=tuple(f"stops a gradient: {stop}" for stop in self.stops),
            last_line=f"{verified} of {calls} calls verified, some of each form"
            f"{seeded(self.seed)}",
        )

    def _sentence(self) -> str:
        count = len(self.rules)
        if not count:
            return (
                "FAILED: nothing is proved: no custom rule is left in the program. One "
                "under a jax.grad of its own is not seen. check_gradients verifies the "
                "rest."
            )
        if not self._is_proof and all(rule.passed for rule in self.rules):
            return "FAILED: nothing is proved, no gradient flows through a rule here."
        if self.passed:
            rules = [rule for rule in self.rules if rule.verified]
            judged, calls = len(rules), sum(rule.calls for rule in rules)
            verified = sum(rule.verified for rule in rules)
            them = "it" if judged == 1 else "them"
            where = f"where the program calls {them}"
            if verified < calls:
                where = f"in {verified} of {calls} calls, the others were not looked at"
            right = "1 rule is" if judged == 1 else f"{judged} rules are"
            right = f"{right} right {where}" if judged else "no rule was judged"
            rest = f"; {count - judged} not judged" * (judged < count)
            rest = rest if judged else f": {count} intended, or not used"
            return f"PASSED: {right}{rest}."
        worst, failed = self.records[0], sum(not rule.passed for rule in self.rules)
        cause = f": {worst.cause}" if worst.cause else ""
        more = f"; {failed - 1} more below" if failed > 1 else ""
        what = "wrong" if worst.is_wrong else worst.verdict.value
        sentence = f"the rule of `{worst.name}` is {what}{cause}{more}"
        return f"FAILED: {sentence}."
