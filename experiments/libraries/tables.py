"""The rows as Markdown of at most 100 columns."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from textwrap import fill

from experiments.libraries.known_issues import issue_of
from experiments.libraries.rows import STATUSES, WRONG_OF_OURS, Row

WIDEST = 100
"""Columns of a line."""

TITLES = {
    "fault": "Wrong, and our verifier says so",
    "follows": "Second derivatives where the first is wrong",
    "unseen fault": "Wrong, and our verifier cannot tell: UNRESOLVED",
    "end": "Ends of a domain: finite slope from within, JAX gives another",
    "kink": "Kinks: no slope between both sides'",
    "value": "Wrong values",
    "approximation": "Right, where what approximates the value has another slope",
    "digits": "Right formulas whose digits are lost in float64",
    "accused": "Our verifier is wrong: it accuses what is right",
    "false kink": "Our verifier is wrong: it sees a kink where there is none",
    "missed": "Our verifier is wrong: it passes what is wrong",
    "convention": "Kinks where JAX gives a slope between both sides': conventions",
}
"""Of the tables that hold numbers, in their order."""

LISTS = {
    "crash": "Our verifier is wrong: it raises an error",
    "unresolved": "Right by the second method, and UNRESOLVED by our verifier",
    "undecided": "Neither method can tell",
    "none": "No derivative: poles, jumps, infinite slopes",
    "one-sided": "Ends of a domain where JAX gives the slope from within",
    "silent": "No answer: a loop without end, or a process that died",
    "raises": "JAX says that it has no such derivative",
}
"""Of what is only listed."""

SAID = ("crash", "silent", "raises")
"""Of which the error is told."""

HEAD = """\
# The derivatives of JAX and its libraries, checked

Written by `python experiments/library_audit.py`, which runs all of it again.
{versions}

{functions} functions ({variants} with their variants), {points} points, {rows} rows: a
row is the value, or one derivative of one order by one mode, in float64. Of an array of
outputs the derivative of a sum with fixed weights is asked.

Each derivative is checked by `check_gradients`, both modes against one ladder of
differences; the second order against differences of the first. What does not agree, and
every row of a function that has a definition by mpmath, is held against a second
method, which uses no derivative of JAX and nothing of our verifier: differences from
every side of the point, with steps of 1e-40 and 200 digits, of the definition or of
JAX's own program with its primitives evaluated by mpmath; where neither can be had, of
the float64 values, extrapolated. Whether the sides agree says whether there is a
derivative at all.
"""


def as_markdown(rows: Sequence[Row], versions: Mapping[str, str]) -> str:
    """Counts, then the tables, then the lists."""
    functions = {row.function for row in rows}
    parts = [
        HEAD.format(
            versions=fill(", ".join(f"{n} {v}" for n, v in versions.items()), WIDEST),
            functions=len({name.split("(")[0] for name in functions}),
            variants=len(functions),
            points=len({(row.function, row.point) for row in rows}),
            rows=len(rows),
        ).rstrip(),
        counts(rows),
    ]
    for status, title in TITLES.items():
        chosen = [row for row in rows if row.status == status]
        if chosen:
            parts += [f"## {title}", _table(chosen)]
    for status, title in LISTS.items():
        chosen = [row for row in rows if row.status == status]
        if chosen:
            written = _by_note if status in SAID else _list
            parts += [f"## {title}", written(chosen)]
    return "\n\n".join(parts) + "\n"


def counts(rows: Iterable[Row]) -> str:
    """How many rows came to what."""
    found = Counter(row.status for row in rows)
    wrong = sum(found[status] for status in WRONG_OF_OURS)
    lines = ["| rows | status | which means |", "| ---: | --- | --- |"]
    lines += [
        f"| {found[status]} | {status} | {meaning} |"
        for status, meaning in STATUSES.items()
        if found[status]
    ]
    return "\n".join([*lines, "", f"verifier wrong: {wrong}"])


def _table(rows: Sequence[Row]) -> str:
    """A line for the function, then one for each point, order and pair of modes."""
    lines = []
    for name, own in groupby(rows, key=lambda row: row.function):
        lines.append([f"`{name}`", *[""] * 5, issue_of(name)])
        lines += _merged(list(own))
    head = ["function, point", "order", "mode", "entry", "JAX gives", "true", "issue"]
    if not any(line[3] for line in lines):
        head, lines = [*head[:3], *head[4:]], [[*x[:3], *x[4:]] for x in lines]
    return _aligned([head, ["---"] * len(head), *lines])


def _merged(rows: Sequence[Row]) -> list[list[str]]:
    """One line for both modes where they give the same."""
    modes: dict[tuple[str, ...], list[str]] = {}
    for row in rows:
        order = str(row.order) if row.order else ""
        shown = row.point, order, row.place, row.given, row.true
        modes.setdefault(shown, []).append(row.mode)
    return [
        [point, order, "both" if len(own) > 1 else own[0], *rest, ""]
        for (point, order, *rest), own in modes.items()
    ]


def _aligned(lines: Sequence[Sequence[str]]) -> str:
    """Padded to the widest cell of each column, but for a function's line."""
    full = [line for line in lines if any(line[1:-1])]
    widths = [max(map(len, column)) for column in zip(*full, strict=True)]
    return "\n".join(
        f"| {' | '.join(c.ljust(w) for c, w in zip(line, widths, strict=True))} |"
        if any(line[1:-1])
        else f"| {' | '.join(line)} |"
        for line in lines
    )


def _list(rows: Sequence[Row]) -> str:
    """Of each function the points, orders and modes."""
    return "\n".join(
        _item(f"`{name}`: {'; '.join(_places(list(own)))}")
        for name, own in groupby(rows, key=lambda row: row.function)
    )


def _by_note(rows: Sequence[Row]) -> str:
    """Of each thing that is said the functions of which it is."""
    functions: dict[str, list[str]] = {}
    for row in rows:
        functions.setdefault(row.note, []).append(f"`{row.function}`")
    return "\n".join(
        _item(f"{note}: {', '.join(dict.fromkeys(names))}")
        for note, names in functions.items()
    )


def _item(text: str) -> str:
    return fill(text, WIDEST, initial_indent="- ", subsequent_indent="  ")


def _places(rows: Sequence[Row]) -> list[str]:
    """Each point with what it is about, where that is not all of the first order."""
    found: dict[str, list[str]] = {}
    for row in rows:
        found.setdefault(row.point, []).append(_which(row))
    return [f"{point} ({', '.join(own)})" for point, own in found.items()]


def _which(row: Row) -> str:
    return f"{row.mode} {row.order}" if row.order else "value"
