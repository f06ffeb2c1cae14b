"""What a check can find, from the worst to the best."""

import enum
from collections.abc import Iterable


class Verdict(enum.Enum):
    """The answer about one leaf, or about a whole report: then its worst leaf's."""

    MALFORMED = "MALFORMED"
    """Structure, shape, dtype or a non-finite value of the candidate."""
    DISAGREE = "DISAGREE"
    """Outside the bound: the candidate is not the gradient."""
    NONDETERMINISTIC = "NONDETERMINISTIC"
    """The function or the candidate gives two values for one input."""
    NONDIFFERENTIABLE = "NONDIFFERENTIABLE"
    """A kink or a jump at the point; passes where the candidate is a subgradient."""
    UNRESOLVED = "UNRESOLVED"
    """The bound is too wide to say: noise, the domain's edge, chaos."""
    UNINFORMATIVE = "UNINFORMATIVE"
    """Both are exactly 0 here; passes where a random nearby point agrees."""
    AGREE = "AGREE"
    """Within the bound, along every probe."""

    @property
    def rank(self) -> int:
        """0 for the worst."""
        return list(type(self)).index(self)

    @classmethod
    def worst(cls, verdicts: Iterable["Verdict"]) -> "Verdict":
        """The first of this list that occurs; AGREE if none does."""
        return min(verdicts, key=lambda verdict: verdict.rank, default=cls.AGREE)
