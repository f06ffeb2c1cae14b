"""A checker: its name, its dtype, its settings, and how it is asked."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from experiments.checkers.question import Question
from experiments.checkers.subject import Subject

Settings = Mapping[str, Any]


@dataclass(frozen=True)
class Answer:
    """What a checker said: `passed`, or None for no verdict; and what it spent.

    undecided: it did not pass the gradient, but says that it cannot tell.
    """

    passed: bool | None
    note: str = ""
    evaluations: int = 0
    undecided: bool = False


@dataclass(frozen=True)
class Checker:
    """Someone who says whether a gradient is right.

    answer: question, its `Subject`, settings -> Answer. AssertionError means "wrong",
        NotApplicable that it cannot be asked.
    package: what must be installed.
    dtype: of the subject; None if it takes the question as it is.
    eager: it is given the loss uncompiled.
    default: the documented settings; None if it comes without a verdict.
    grid: more settings, among which the best is sought with hindsight.
    cost: evaluations it will need, by the number of parameters.
    """

    name: str
    package: str
    dtype: str | None
    answer: Callable[[Question, Any, Settings], Answer]
    default: Settings | None = field(default_factory=dict)
    grid: tuple[Settings, ...] = ()
    eager: bool = False
    cost: Callable[[int], float] = lambda size: 0

    def subject(self, question: Question) -> Subject | None:
        """The question in the form this checker takes."""
        return Subject(question, self.dtype, self.eager) if self.dtype else None
