"""A report as the table a person reads, in 100 columns, and as HTML."""

import html
import math

from jaxnet.verification.report import GradientReport, LeafReport
from jaxnet.verification.verdict import Verdict

COLUMNS = ("leaf", "candidate", "shape", "verdict", "error", "bound", "resolution")
WIDTHS = (24, 12, 14, 17, 8, 8, 10)


def headline(report: GradientReport) -> str:
    """The whole report in one sentence."""
    names = sorted({leaf.candidate for leaf in report.leaves})
    worst = report.worst
    if report.passed:
        resolution = max(
            (x.resolution for x in report.leaves if math.isfinite(x.resolution)),
            default=0.0,
        )
        seen = f"errors above {resolution:.1g} of a leaf would have shown"
        count = len({leaf.path for leaf in report.leaves if leaf.evaluations})
        what = "kinks aside, " if report.verdict is Verdict.NONDIFFERENTIABLE else ""
        leaves = f"{count} leaf" if count == 1 else f"{count} leaves"
        return f"PASSED: {what}{_listed(names)} right on {leaves}; {seen}."
    failed = sum(not leaf.passed for leaf in report.leaves)
    more = f"; {failed - 1} more below" if failed > 1 else ""
    alone = f" {report.odd_one_out} stands alone." if report.odd_one_out else ""
    reason = f": {worst.cause}" if worst.cause else ""
    what = f"{worst.candidate} is {_said(worst)} at {worst.place}"
    end = "" if (reason + more).endswith("?") else "."
    return f"FAILED: {what}{reason}{more}{end}{alone}"


def rows(report: GradientReport) -> list[tuple[str, ...]]:
    """One row a leaf and candidate, worst first."""
    ordered = sorted(report.leaves, key=lambda leaf: (leaf.passed, leaf.severity))
    return [_row(leaf) for leaf in ordered]


def as_text(report: GradientReport) -> str:
    """The table, at most 100 columns wide, without colour."""
    lines = [*_wrapped(headline(report), ""), ""]
    lines.append(_line(COLUMNS))
    ordered = sorted(report.leaves, key=lambda leaf: (leaf.passed, leaf.severity))
    for leaf in ordered:
        lines.append(_line(_row(leaf)))
        lines += _details(leaf)
    lines += [""] if report.held or report.notes or report.survivors else []
    if report.held:
        lines += _wrapped("held fixed: " + ", ".join(report.held), "")
    for note in report.notes:
        lines += _wrapped("note: " + note, "")
    for survivor in report.survivors:
        lines += _wrapped("this point cannot show: " + survivor, "")
    lines.append(f"{report.evaluations} evaluations of the loss")
    return "\n".join(line.rstrip() for line in lines)


def as_html(report: GradientReport) -> str:
    """The table for a notebook."""
    cells = "".join(
        "<tr>" + "".join(f"<td>{html.escape(c)}</td>" for c in row) + "</tr>"
        for row in rows(report)
    )
    head = "".join(f"<th>{name}</th>" for name in COLUMNS)
    sentence = html.escape(headline(report))
    return f"<p>{sentence}</p><table><tr>{head}</tr>{cells}</table>"


def _said(leaf: LeafReport) -> str:
    if leaf.verdict is Verdict.DISAGREE:
        return "{}, not {},".format(*_told_apart(leaf, digits=6))
    return leaf.verdict.value


def _told_apart(leaf: LeafReport, digits: int) -> tuple[str, str]:
    """The candidate's and the reference's value, with the digits that differ."""
    values = leaf.candidate_value + 0.0, leaf.reference_value + 0.0  # no -0
    candidate, reference = (f"{value:.{digits}g}" for value in values)
    if candidate != reference or digits == 17:
        return candidate, reference
    return _told_apart(leaf, digits + 1)


def _listed(names: list[str]) -> str:
    return f"{names[0]} is" if len(names) == 1 else f"{', '.join(names)} are"


def _row(leaf: LeafReport) -> tuple[str, ...]:
    return (
        leaf.path or "params",
        leaf.candidate,
        "×".join(map(str, leaf.shape)) or "scalar",
        leaf.verdict.value,
        _number(leaf.error),
        _number(leaf.bound),
        _number(leaf.resolution),
    )


def _details(leaf: LeafReport) -> list[str]:
    if leaf.verdict is Verdict.AGREE and not leaf.cause:
        return []
    where = f"at {leaf.place}: " if leaf.worst_index else ""
    values = ""
    if leaf.verdict is Verdict.DISAGREE:
        values = "{}, differences say {}".format(*_told_apart(leaf, digits=9))
    parts = [part for part in (values, leaf.cause) if part]
    return (
        _wrapped("    " + where + "; ".join(parts), "      ") if parts or where else []
    )


def _number(value: float) -> str:
    return f"{value:.1e}" if math.isfinite(value) else "-"


def _line(cells: tuple[str, ...]) -> str:
    fitted = [_fit(c, w).ljust(w) for c, w in zip(cells, WIDTHS, strict=True)]
    return " ".join(fitted)


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def _wrapped(text: str, indent: str, width: int = 100) -> list[str]:
    import textwrap

    return textwrap.wrap(
        text, width, subsequent_indent=indent, drop_whitespace=True
    ) or [""]
