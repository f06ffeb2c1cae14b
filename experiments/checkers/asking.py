"""One checker asked one question, and the answer scored."""

import importlib
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from experiments.checkers.checker import Answer, Checker, Settings
from experiments.checkers.question import LARGE, LossTask, Question
from experiments.checkers.subject import Memory, NotApplicable, Subject


@dataclass(frozen=True)
class Setting:
    """A checker's settings: "default" or "best", and what they are."""

    checker: str
    label: str
    values: Settings


@dataclass(frozen=True)
class Outcome:
    """One cell: the score, why, and what it cost.

    score: caught, missed, cleared, accused, crashed or not asked.
    undecided: the checker did not pass the gradient because it could not tell.
    """

    question: str
    checker: str
    label: str
    score: str
    note: str
    evaluations: int = 0
    seconds: float = 0.0
    undecided: bool = False


def ask(
    checker: Checker,
    question: Question,
    setting: Setting,
    subject: Subject | None = None,
) -> Outcome:
    """The answer of a checker, scored; `subject` is made if it is not given.

    "missed": it passed what is wrong. "accused": it did not pass what is right. An
    error that is no verdict is "crashed"; but a malformed gradient that it refuses with
    an error is "caught".
    """
    began = time.perf_counter()
    where = (question.name, checker.name, setting.label)
    with _surroundings(checker):
        try:
            _be_patient(checker, question)
            subject = subject or prepared(checker, question)
            if subject:
                subject.evaluations, subject.seconds_saved = 0, 0.0
            began = time.perf_counter()
            answer = checker.answer(question, subject, setting.values)
        except NotApplicable as reason:
            return Outcome(*where, "not asked", str(reason))
        except Exception as error:
            if not _is_refusal(error, question):
                return Outcome(*where, "crashed", _first_line(error))
            spent = subject.evaluations if subject else 0
            answer = Answer(False, _first_line(error), spent)
    seconds = time.perf_counter() - began
    seconds += subject.seconds_saved if subject else 0.0
    if answer.passed is None:
        return Outcome(*where, "not asked", f"it gives no verdict: {answer.note}")
    return Outcome(
        *where,
        score(question, answer.passed),
        " ".join(answer.note.split())[:200],
        answer.evaluations,
        seconds,
        answer.undecided,
    )


def score(question: Question, passed: bool) -> str:
    """What it is to pass this question, or not to."""
    if question.right:
        return "cleared" if passed else "accused"
    return "missed" if passed else "caught"


def cost(checker: Checker, question: Question) -> float:
    """How many evaluations it will take, about."""
    given: Any = getattr(question.task, "params", ())
    return checker.cost(sum(np.size(leaf) for leaf in jax.tree.leaves(given)))


def _be_patient(checker: Checker, question: Question) -> None:
    needed = cost(checker, question)
    if needed > question.patience:
        raise NotApplicable(f"it needs {needed:,.0f} evaluations")


def prepared(checker: Checker, question: Question) -> Subject | None:
    """The question in the form this checker takes; the same for all its settings."""
    importlib.import_module(checker.package)
    with _surroundings(checker):
        subject = checker.subject(question)
    if subject and cost(checker, question) > LARGE:
        assert isinstance(question.task, LossTask)
        subject.memory = Memory.of(question.task.loss, subject.dtype)
    return subject


@contextmanager
def _surroundings(checker: Checker) -> Iterator[None]:
    """JAX as it comes, in the checker's precision, and no warnings."""
    with (
        warnings.catch_warnings(),
        np.errstate(all="ignore"),
        jax.enable_x64(checker.dtype == "float64"),
        jax.numpy_dtype_promotion("standard"),
        jax.numpy_rank_promotion("allow"),
    ):
        warnings.simplefilter("ignore")
        yield


def _is_refusal(error: Exception, question: Question) -> bool:
    """Whether an error says that the gradient is wrong."""
    return isinstance(error, AssertionError) or question.kind == "malformed"


def _first_line(error: Exception) -> str:
    text = " ".join(str(error).split())
    return f"{type(error).__name__}: {text}"[:160]
