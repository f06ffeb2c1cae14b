"""What a check found: one record a leaf and candidate, and the table of them."""

import json
import math
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from jaxnet.verification.verdict import Verdict


class GradientMismatch(AssertionError):
    """A gradient did not pass; the message is the report's table."""


_NUMBERS = ("candidate_value", "reference_value", "error", "bound", "resolution")


@dataclass(frozen=True)
class LeafReport:
    """One leaf of one candidate.

    path: the leaf, as `jax.tree_util.keystr` writes it.
    worst_index: the coordinate where the error is largest by its bound; None where no
        single coordinate was looked at (a large leaf that agrees).
    candidate_value, reference_value: the derivative by that coordinate, or along the
        worst probe; the reference is the difference quotient.
    error, bound: |candidate - reference|, and the largest that would have agreed.
    resolution: the smallest error, relative to the leaf's norm, that is told from none.
    evaluations: of the loss, spent on this leaf (shared by all candidates).
    """

    path: str
    candidate: str
    shape: tuple[int, ...]
    verdict: Verdict
    passed: bool
    worst_index: tuple[int, ...] | None = None
    candidate_value: float = math.nan
    reference_value: float = math.nan
    error: float = math.nan
    bound: float = math.nan
    resolution: float = math.nan
    cause: str = ""
    evaluations: int = 0

    @property
    def is_silent(self) -> bool:
        """Whether the leaf said nothing, neither at the point nor at one nearby."""
        return self.verdict is Verdict.UNINFORMATIVE and math.isnan(self.resolution)

    @property
    def place(self) -> str:
        """The path, with the index of the worst coordinate where there is one."""
        index = (
            "" if not self.worst_index else f"[{', '.join(map(str, self.worst_index))}]"
        )
        return (self.path or "params") + index

    @property
    def severity(self) -> tuple[int, float]:
        """Sorts the worst leaf first."""
        ratio = self.error / self.bound if self.bound else 0.0
        return list(Verdict).index(self.verdict), -ratio if ratio == ratio else 0.0


@dataclass(frozen=True)
class GradientReport:
    """The whole check. `str` gives the table, worst leaf first, one sentence on top.

    held: paths of integer, boolean and key leaves, which were not moved.
    notes: what was seen of the function, such as where it falls back to float32.
    survivors: mistakes that this point could not have shown.
    """

    leaves: tuple[LeafReport, ...]
    held: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    survivors: tuple[str, ...] = ()
    odd_one_out: str | None = None
    evaluations: int = 0
    seed: tuple[int, ...] = field(default=())

    @property
    def verdict(self) -> Verdict:
        """The worst verdict of all leaves."""
        return Verdict.worst(leaf.verdict for leaf in self.leaves)

    @property
    def passed(self) -> bool:
        """Whether every leaf of every candidate passed."""
        return all(leaf.passed for leaf in self.leaves)

    @property
    def worst(self) -> LeafReport:
        """The leaf to look at first: a failed one before any that passed."""
        return min(self.leaves, key=lambda leaf: (leaf.passed, leaf.severity))

    def raise_if_failed(self) -> None:
        """Do nothing if `passed`.

        Raises:
            GradientMismatch: otherwise, with the table as its message.
        """
        if not self.passed:
            raise GradientMismatch(str(self))

    def __str__(self) -> str:
        from jaxnet.verification.table import as_text

        return as_text(self)

    def _repr_html_(self) -> str:
        from jaxnet.verification.table import as_html

        return as_html(self)

    def to_json(self) -> str:
        """The report as JSON text; `from_json` gives an equal report."""
        return json.dumps(_without_nan(asdict(self)), indent=1, allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> "GradientReport":
        """The report that `to_json` wrote.

        Raises:
            ValueError: the text is not such a report.
        """
        try:
            fields = json.loads(text)
            leaves = tuple(_leaf_from_json(leaf) for leaf in fields.pop("leaves"))
            lists = {k: tuple(v) for k, v in fields.items() if isinstance(v, list)}
            return replace(cls(leaves), **{**fields, **lists})
        except (KeyError, TypeError, AttributeError, json.JSONDecodeError) as error:
            raise ValueError(
                f"`text`: expected GradientReport.to_json's, got {text[:40]!r}; {error}"
            ) from None


def _without_nan(value: Any) -> Any:
    """JSON knows no NaN and no infinity: null, and a string."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_without_nan(item) for item in value]
    if isinstance(value, Verdict):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return None if math.isnan(value) else str(value)
    return value


def _leaf_from_json(fields: dict[str, Any]) -> LeafReport:
    index = fields["worst_index"]
    for name in _NUMBERS:
        fields[name] = math.nan if fields[name] is None else float(fields[name])
    return LeafReport(
        **{
            **fields,
            "shape": tuple(fields["shape"]),
            "verdict": Verdict(fields["verdict"]),
            "worst_index": None if index is None else tuple(index),
        }
    )
