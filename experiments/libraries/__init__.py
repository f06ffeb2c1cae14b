"""The derivatives of other libraries: a catalogue, and a second method beside ours.

`catalogue()` are the functions and their points, `rows_of` checks one at a point by our
verifier and by mpmath, `as_markdown` writes the tables.
"""

from experiments.libraries.catalogue import catalogue
from experiments.libraries.entry import Entry, Point
from experiments.libraries.rows import STATUSES, Row, first_line, rows_of
from experiments.libraries.tables import as_markdown, counts

__all__ = [
    "STATUSES",
    "Entry",
    "Point",
    "Row",
    "as_markdown",
    "catalogue",
    "counts",
    "first_line",
    "rows_of",
]
