"""Records with a sentence, a legend and remarks, as text in 80 columns."""

import textwrap
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from jaxnet.verification.report.numbers import from_here, listed
from jaxnet.verification.report.record import Cells, Record

LINE = 80
"""How many columns a line takes at most."""

GIVE_WAY = (1, 2, 2)
"""The first columns, which are shortened where a line would be longer, and how soon:
a leaf's name tells more than a candidate's and a shape."""

MOST_NAMED = 3
"""How many leaves are named where one row stands for many."""


@dataclass(frozen=True)
class Table:
    """What a person reads.

    records: in the order of the rows. worst_first: the same, the worst first.
    """

    sentence: str
    columns: Cells
    records: Sequence[Record]
    worst_first: Sequence[Record]
    legend: str
    remarks: tuple[str, ...]
    last_line: str

    def as_text(self) -> str:
        """Text without colour, no line longer than `LINE`; equal causes once."""
        rows = _rows(self.records)
        widths = _widths([self.columns, *(cells for cells, _ in rows)])
        lines = [*_wrapped(self.sentence, ""), "", _line(self.columns, widths)]
        names = {cells[0] for cells, _ in rows}
        seen = Counter(shortened(name, widths[0]) for name in names)
        for cells, detail in rows:
            if seen[shortened(cells[0], widths[0])] > 1:  # else two read the same
                lines += _wrapped(cells[0], "  ")
                cells = ("", *cells[1:])
            lines.append(_line(cells, widths))
            lines += _wrapped("    " + detail, "      ") if detail else []
        lines += _wrapped(self.legend, "")
        lines += [""] if self.remarks else []
        for remark in self.remarks:
            lines += _wrapped(remark, "  ")
        return "\n".join(line.rstrip() for line in [*lines, self.last_line])


def alike(records: Sequence[Record]) -> list[list[Record]]:
    """Records of which all is the same but the leaf, and nothing was measured."""
    groups = dict[object, list[Record]]()
    for number, record in enumerate(records):
        _, candidate, _, *rest = record.cells
        is_alone = record.values or not record.detail
        key = number if is_alone else (candidate, *rest, record.detail)
        groups.setdefault(key, []).append(record)
    return list(groups.values())


def names_of(records: Sequence[Record], most: int = MOST_NAMED) -> str:
    """The leaves of records, in words."""
    return listed(list(dict.fromkeys(record.cells[0] for record in records)), most)


def shortened(text: str, width: int) -> str:
    """Text of at most so many columns; the end, which tells more, keeps two thirds."""
    if len(text) <= width:
        return text
    last = (width - 1) * 2 // 3
    return f"{text[: width - 1 - last]}…{text[len(text) - last :]}"


def _rows(records: Sequence[Record]) -> list[tuple[Cells, str]]:
    """Cells and what stands below them; a cause that was said is not said again."""
    rows, said = list[tuple[Cells, str]](), dict[str, str]()
    for group in alike(records):
        first, *others = group
        cells, detail, cause = first.cells, first.detail, first.cause
        if others:
            cells = (f"{len(group)} leaves", cells[1], "-", *cells[3:])
            detail += f"; in {names_of(group)}"
        elif cause in said and len(said[cause]) < len(cause):
            detail = detail.replace(cause, said[cause])
        elif cause:
            said[cause] = f"the same as {cells[0]}"
        rows.append((cells, detail))
    return rows


def _widths(rows: Sequence[Cells]) -> list[int]:
    """Of the columns; the first give way, the longest first, until a row fits."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    while sum(widths) + len(widths) - 1 > LINE:
        longest = max(range(len(GIVE_WAY)), key=lambda i: GIVE_WAY[i] * widths[i])
        widths[longest] -= 1
    return widths


def _line(cells: Cells, widths: Sequence[int]) -> str:
    fitted = [shortened(c, w).ljust(w) for c, w in zip(cells, widths, strict=True)]
    return " ".join(fitted)


def _wrapped(text: str, indent: str) -> list[str]:
    text = from_here(text)
    wrapped = textwrap.wrap(
        text, LINE, subsequent_indent=indent, break_on_hyphens=False
    )
    return wrapped or [""]
