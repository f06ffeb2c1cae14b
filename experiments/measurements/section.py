"""What one part of the benchmark found, as text, Markdown and JSON; and the clock."""

from collections.abc import Callable
from dataclasses import dataclass, field
from statistics import median
from textwrap import wrap
from time import perf_counter
from typing import Any

import jax

WIDTH = 100


@dataclass
class Section:
    """A table: each row has the same columns; notes are whole sentences."""

    title: str
    rows: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    def cells(self) -> list[list[str]]:
        """The head and the rows, as text."""
        if not self.rows:
            return []
        return [list(self.rows[0])] + [
            [as_text(value) for value in row.values()] for row in self.rows
        ]

    def text(self) -> str:
        """The table in columns, and its notes, in at most WIDTH columns."""
        cells = self.cells()
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        lines = [self.title]
        for row in cells:
            first = row[0].ljust(widths[0])
            rest = (c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))
            lines.append("  ".join(["", first, *rest]).rstrip())
        for note in self.notes:
            lines += wrap(note, WIDTH, initial_indent="  ", subsequent_indent="  ")
        return "\n".join(lines)

    def markdown(self) -> str:
        """The table and its notes in Markdown."""
        lines = [f"## {self.title}", ""]
        for number, row in enumerate(self.cells()):
            lines.append(f"| {' | '.join(row)} |")
            if number == 0:
                lines.append("|---" + "|---:" * (len(row) - 1) + "|")
        paragraphs = [line for note in self.notes for line in ("", note)]
        return "\n".join(lines + (paragraphs if self.rows else paragraphs[1:]))


def as_text(value: Any) -> str:
    """A cell: three digits of a number, a dash for what was not measured."""
    if value is None:
        return "–"
    if not isinstance(value, float):
        return str(value)
    if value == 0 or 1e-4 <= abs(value) < 1000:
        return f"{value:#.3g}".rstrip(".")
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e6 else f"{value:.1e}"


def seconds(work: Callable[[], Any], repeats: int = 1, in_all: float = 0.0) -> float:
    """The median time of a call, its result being waited for.

    Of so many calls at least, and of more until they took so many seconds in all.
    """
    times: list[float] = []
    while len(times) < repeats or sum(times) < in_all:
        start = perf_counter()
        jax.block_until_ready(work())
        times.append(perf_counter() - start)
    return median(times)
