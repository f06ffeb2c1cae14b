"""The settings with which each checker would have done best on the corpus."""

from collections.abc import Callable, Sequence

from experiments.checkers.asking import Setting, ask, cost, prepared
from experiments.checkers.checker import Checker, Settings
from experiments.checkers.question import LARGE, LossTask, Question
from experiments.checkers.subject import NotApplicable


def best_settings(
    checkers: Sequence[Checker],
    questions: Sequence[Question],
    every: int = 1,
    progress: Callable[[], None] = lambda: None,
) -> dict[str, Setting]:
    """By checker, the settings with the smallest share missed + share accused.

    Shares, as there are more wrong than right questions: counts would reward a setting
    that passes nothing. The default settings stand first, and win a tie. Every
    `every`th of the grid is tried. A question that takes over LARGE evaluations is
    left out.
    """
    found = {}
    right = sum(question.right for question in questions)
    for checker in checkers:
        tried = _tried(checker, every)
        errors = [0.0] * len(tried)
        for question in questions:
            weight = 1 / (right if question.right else len(questions) - right)
            for number, mistaken in enumerate(_mistakes(checker, question, tried)):
                errors[number] += mistaken * weight
            progress()
        if tried:
            best = errors.index(min(errors))
            found[checker.name] = Setting(checker.name, "best", tried[best])
    return found


def _tried(checker: Checker, every: int) -> list[Settings]:
    if not checker.grid:
        return []
    documented = [] if checker.default is None else [checker.default]
    return [*documented, *checker.grid[::every]]


def _mistakes(
    checker: Checker, question: Question, tried: Sequence[Settings]
) -> list[bool]:
    """For each of the settings, whether the question was missed or accused."""
    nothing = [False] * len(tried)
    if cost(checker, question) > LARGE or not tried:
        return nothing
    try:
        subject = prepared(checker, question)
    except NotApplicable:
        return nothing
    repeatable = not isinstance(question.task, LossTask) or question.task.repeatable
    if subject and repeatable:
        subject.remember()
    passed: dict[int, bool] = {}
    for number in _tightest_and_loosest_first(tried):
        known = _implied(tried, passed, number) if repeatable else None
        if known is None:
            setting = Setting(checker.name, "tried", tried[number])
            scored = ask(checker, question, setting, subject).score
            if scored not in ("caught", "missed", "cleared", "accused"):
                return nothing
            known = scored in ("missed", "cleared")
        passed[number] = known
    return [passed[number] != question.right for number in range(len(tried))]


def _tightest_and_loosest_first(tried: Sequence[Settings]) -> list[int]:
    """The order that leaves most to be implied."""
    ends = [
        number
        for number, settings in enumerate(tried)
        if all(_no_looser(settings, s) or _step(settings) != _step(s) for s in tried)
        or all(_no_looser(s, settings) or _step(settings) != _step(s) for s in tried)
    ]
    return list(dict.fromkeys([*ends, *range(len(tried))]))


def _implied(
    tried: Sequence[Settings], passed: dict[int, bool], number: int
) -> bool | None:
    """What a tighter setting passed, a looser one passes, and the other way round."""
    for other, answer in passed.items():
        tight, loose = (other, number) if answer else (number, other)
        if _no_looser(tried[tight], tried[loose]):
            return answer
    return None


def _step(settings: Settings) -> float | None:
    return settings.get("eps", settings.get("EPS"))


def _no_looser(one: Settings, other: Settings) -> bool:
    """Whether these settings have the same step, and no tolerance that is larger."""
    if not one or not other or _step(one) != _step(other):
        return False
    tolerances = one.keys() - {"eps", "EPS"}
    return all(one[name] <= other[name] for name in tolerances)
