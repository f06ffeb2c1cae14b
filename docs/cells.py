"""The Python cells of a page: run from top to bottom, and what they print.

A cell is a fence that begins with ```python, or with ```python says="…" where it must
print those words. The cells of a page share their names, and stand in a file "model.py"
of their own lines. A ```text fence right below one is what it printed when the page was
written; where there is none, the site has it all the same (`mkdocs_hooks.py`).

    python docs/cells.py README.md README.ja.md      # writes what they show anew
"""

import io
import linecache
import re
import sys
from collections.abc import Iterator
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FENCE = re.compile(
    r'^```python(?: says="(?P<says>[^"\n]*)")?\n(?P<code>.*?)^```\n'
    r"(?:\n```text\n(?P<shown>.*?)^```\n)?",
    re.MULTILINE | re.DOTALL,
)
TINY = r"\d(\.\d+)?e-(0[5-9]|[1-9]\d)"
"""Bounds and errors of rounding: another processor has others."""


@dataclass(frozen=True)
class Cell:
    """Code, what it must print at least, and what the page says it prints, if it does.

    span: where the fences stand in the page.
    """

    code: str
    says: str
    shown: str | None
    span: tuple[int, int]

    def output(self, names: dict[str, Any]) -> str:
        """What it prints, run among the names of the cells before it."""
        lines = self.code.splitlines(keepends=True)
        linecache.cache["model.py"] = (len(self.code), None, lines, "model.py")
        printed = io.StringIO()
        with redirect_stdout(printed):
            exec(compile(self.code, "model.py", "exec"), names)
        return printed.getvalue()


def cells(page: str) -> list[Cell]:
    """Those of a page, given as text."""
    return [
        Cell(x["code"], x["says"] or "", x["shown"], x.span())
        for x in FENCE.finditer(page)
    ]


def outputs(page: str) -> Iterator[tuple[Cell, str]]:
    """Each cell of a page, with what it prints."""
    names: dict[str, Any] = {"__name__": "cell"}
    for cell in cells(page):
        yield cell, cell.output(names)


def with_outputs(page: str, only_shown: bool = False) -> str:
    """The page, each cell followed by what it prints now.

    only_shown: as a source: those alone that have been, and `says` is kept.
    """
    parts, end = list[str](), 0
    for cell, printed in outputs(page):
        start = page[cell.span[0] : cell.span[1]].partition("\n")[0]
        parts += [page[end : cell.span[0]], start if only_shown else "```python"]
        parts += [f"\n{cell.code}```\n"]
        if printed and not (only_shown and cell.shown is None):
            parts += [f"\n```text\n{printed.rstrip()}\n```\n"]
        end = cell.span[1]
    return "".join([*parts, page[end:]])


def mistakes(page: str) -> list[str]:
    """What its cells print otherwise than the page says; numbers near 0 aside."""
    found = list[str]()
    for cell, printed in outputs(page):
        if _plain(cell.says) not in _plain(printed):
            found.append(f"expected {cell.says!r} in what it prints; got\n{printed}")
        if cell.shown is not None and _plain(cell.shown) != _plain(printed):
            found.append(f"the page shows\n{cell.shown}\nand it prints\n{printed}")
    return found


def _plain(text: str) -> str:
    return " ".join(re.sub(TINY, "tiny", text).split())


def main() -> None:
    """Write anew what the pages named as arguments show."""
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(with_outputs(path.read_text("utf-8"), only_shown=True), "utf-8")


if __name__ == "__main__":
    main()
