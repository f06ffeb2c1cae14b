"""Which derivatives of JAX, flax, equinox and optax are wrong, and at which points?

    python experiments/library_audit.py

The atlas of what is installed: functions of jax.numpy, jax.scipy, jax.nn, jax.lax, the
losses of optax, layers of flax and equinox, and Pallas kernels, at regular points and
at edges, forward and reverse, first and second order. Each derivative is checked by
our verifier; what does not agree, and all that has a definition, by mpmath as well.

Rows are written to --out as they come, so that the command goes on where it was
stopped; with other versions installed, or with --again, it begins anew. Some again,
without the rest: `--only spence`. Prints the counts and writes LIBRARIES.md to --out.
Takes twelve minutes on two cores. Needs `pip install -e '.[test]'`.
"""

import json
import re
import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from tqdm import tqdm

from experiments.command import parsed
from jaxnet import DISTRIBUTION

try:
    from experiments.libraries import (
        Entry,
        Row,
        as_markdown,
        catalogue,
        counts,
        first_line,
        rows_of,
    )
    from experiments.libraries.workers import answers
except ModuleNotFoundError as absent:
    sys.exit(f"error: {absent.name} is not installed; pip install -e '.[test]'")

PACKAGES = (
    *("jax", "jaxlib", "numpy", "mpmath", "optax", "flax", "equinox"),
    DISTRIBUTION,
)
"""Whose versions stand in the header."""


@dataclass(frozen=True)
class Flags:
    """The derivative atlas of what is installed."""

    out: Path = Path("out")
    """Folder for LIBRARIES.md and the file of rows."""
    only: str | None = None
    """Run these functions again, whose names this regular expression finds."""
    again: bool = False
    """Run all again."""
    processes: int = 2
    """That work side by side."""
    patience: int = 600
    """Seconds that one function may take at all its points."""


def main() -> None:
    """Parse the flags, and run."""
    run(parsed(Flags, __doc__))


def run(flags: Flags) -> list[Row]:
    """Ask for what is not known yet; print and write."""
    flags.out.mkdir(parents=True, exist_ok=True)
    path = flags.out / "library_audit.jsonl"
    names = list(catalogue())
    if flags.only and not any(re.search(flags.only, name) for name in names):
        near = ", ".join(get_close_matches(flags.only, names)) or "see catalogue.py"
        sys.exit(f"error: --only: no function's name matches {flags.only!r}: {near}")
    known = {} if flags.again else read(path, versions())
    wanted = [n for n in names if is_wanted(n, flags.only, known)]
    known = {n: rows for n, rows in known.items() if n in names and n not in wanted}
    write(path, versions(), known)
    with path.open("a") as file:
        for name, rows in audited(wanted, flags):
            known[name] = rows
            file.write(line(name, rows))
            file.flush()
    rows = [row for name in names for row in known.get(name, [])]
    (flags.out / "LIBRARIES.md").write_text(as_markdown(rows, versions()))
    print(counts(rows))
    print(f"written: {path} {flags.out / 'LIBRARIES.md'}")
    return rows


def is_wanted(name: str, pattern: str | None, known: Collection[str]) -> bool:
    """Whether a function is asked for: by the pattern, else if it is not known yet."""
    return name not in known if pattern is None else bool(re.search(pattern, name))


def audited(names: Sequence[str], flags: Flags) -> Iterator[tuple[str, list[Row]]]:
    """Each function's rows as they come; one row where there is no answer."""
    asked = answers(rows_of_function, names, flags.processes, flags.patience)
    for name, rows in tqdm(asked, total=len(names), disable=not sys.stderr.isatty()):
        note = f"no answer within {flags.patience} s"
        silent = Row(name, "all points", True, 0, "value", status="silent", note=note)
        yield name, [silent] if rows is None else rows


def rows_of_function(name: str) -> list[Row]:
    """At all its points; an error of the second method is a row of its own."""
    entry, rows = entries()[name], list[Row]()
    for point in entry.points:
        try:
            rows += rows_of(entry, point)
        except Exception as error:  # of mpmath
            row = Row(name, point.label, point.is_edge, 0, "value")
            rows.append(replace(row, status="undecided", note=first_line(error)))
    return rows


@cache
def entries() -> dict[str, Entry]:
    """The catalogue, made once in each process."""
    return catalogue()


def versions() -> dict[str, str]:
    """Of the packages that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def line(name: str, rows: Sequence[Row]) -> str:
    """One function in the file of rows."""
    return json.dumps({"function": name, "rows": [asdict(row) for row in rows]}) + "\n"


def write(path: Path, header: dict[str, str], known: dict[str, list[Row]]) -> None:
    """The file of rows with these in it."""
    lines = [line(name, rows) for name, rows in known.items()]
    path.write_text("".join([json.dumps({"versions": header}) + "\n", *lines]))


def read(path: Path, header: dict[str, str]) -> dict[str, list[Row]]:
    """What the file of rows holds of these versions; a line cut short is left out."""
    known: dict[str, list[Row]] = {}
    for number, text in enumerate(
        path.read_text().splitlines() if path.exists() else []
    ):
        try:
            found = json.loads(text)
        except json.JSONDecodeError:
            continue
        if number == 0:
            if found.get("versions") != header:
                return {}
            continue
        known[found["function"]] = [Row(**row) for row in found["rows"]]
    return known


if __name__ == "__main__":
    main()
