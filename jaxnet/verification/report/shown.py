"""What every report can do: be read, be written, and fail a test."""

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from jaxnet.verification.report.page import content, document, styled, written
from jaxnet.verification.report.table import Table
from jaxnet.verification.report.verdict import Verdict


class GradientMismatch(AssertionError):
    """A gradient did not pass; the message is the report's table."""

    __module__ = "jaxnet"


@dataclass(frozen=True)
class Shown:
    """A report: as text, as a page, below a cell of a notebook, as JSON."""

    title: ClassVar[str]

    @property
    def passed(self) -> bool:
        raise NotImplementedError

    def _table(self, worst_first: bool = False) -> Table:
        raise NotImplementedError

    def __bool__(self) -> bool:
        """`assert check_gradients(…)` means what it says."""
        return self.passed

    def raise_if_failed(self) -> None:
        """Do nothing if `passed`.

        Raises:
            GradientMismatch: otherwise, with the table as its message.
        """
        if not self.passed:
            raise GradientMismatch(str(self))

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._table().sentence}>"

    def __str__(self) -> str:
        return self.to_text()

    def to_text(self, worst_first: bool = False) -> str:
        """The table in 80 columns: records in their own order, or the worst first."""
        return self._table(worst_first).as_text()

    def to_json(self) -> str:
        """The report as JSON text: NaN is null, infinity a string."""
        return json.dumps(without_nan(asdict(self)), indent=1, allow_nan=False)

    def _repr_html_(self) -> str:
        return styled(self.as_html())

    def as_html(self, worst_first: bool = False) -> str:
        """What `to_html` writes, without the page around it."""
        return content(self._table(worst_first))

    def to_html(self, path: str | Path, worst_first: bool = False) -> Path:
        """Write all of it with its pictures as one HTML file; return its path.

        The file has no script and needs nothing else. Folders are made on the way.
        """
        page = document(self.title, [self.as_html(worst_first)])
        return written(page, path)


def without_nan(value: Any) -> Any:
    """JSON knows no NaN and no infinity: null, and a string."""
    if isinstance(value, dict):
        return {key: without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(item) for item in value]
    if isinstance(value, Verdict):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value
