"""A sentence, a table and remarks: as text in 100 columns, and as HTML."""

import html
import textwrap
from dataclasses import dataclass

WIDTHS = (24, 12, 14, 17, 8, 8, 10)
"""Of the columns of the text; one space stands between two."""

LINE = 100
"""How many columns a line of text takes at most."""


@dataclass(frozen=True)
class Table:
    """What a person reads; a row is its cells and the line below them."""

    sentence: str
    columns: tuple[str, ...]
    rows: tuple[tuple[tuple[str, ...], str], ...]
    remarks: tuple[str, ...]
    last_line: str

    def as_text(self) -> str:
        """Text without colour, no line longer than `LINE`."""
        lines = [*_wrapped(self.sentence, ""), "", _line(self.columns)]
        for cells, detail in self.rows:
            lines.append(_line(cells))
            lines += _wrapped("    " + detail, "      ") if detail else []
        lines += [""] if self.remarks else []
        for remark in self.remarks:
            lines += _wrapped(remark, "")
        return "\n".join(line.rstrip() for line in [*lines, self.last_line])

    def as_html(self) -> str:
        """The same as HTML: the line below a row spans the table."""
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns)
        body = "".join(self._row(cells, detail) for cells, detail in self.rows)
        rest = [*self.remarks, self.last_line]
        remarks = "".join(f"<li>{html.escape(remark)}</li>" for remark in rest)
        return (
            f"<p>{html.escape(self.sentence)}</p>"
            f"<table><tr>{head}</tr>{body}</table><ul>{remarks}</ul>"
        )

    def _row(self, cells: tuple[str, ...], detail: str) -> str:
        row = "".join(f"<td>{html.escape(cell)}</td>" for cell in cells)
        below = f"<tr><td colspan={len(cells)}>{html.escape(detail)}</td></tr>"
        return f"<tr>{row}</tr>{below * bool(detail)}"


def _line(cells: tuple[str, ...]) -> str:
    fitted = [_fit(c, w).ljust(w) for c, w in zip(cells, WIDTHS, strict=True)]
    return " ".join(fitted)


def _fit(text: str, width: int) -> str:
    return text if len(text) <= width else "…" + text[len(text) - width + 1 :]


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, LINE, subsequent_indent=indent) or [""]
