"""Counts of missed, accused, undecided, as Markdown tables of at most 100 columns."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import NamedTuple

from experiments.checkers.asking import Outcome, Setting
from experiments.checkers.question import WRONG_KINDS, Question

Questions = Mapping[str, Sequence[Question]]

EXPLANATION = """\
missed: wrong gradients passed, of those judged. accused: right ones called wrong.
undecided: right ones of which the checker says that it cannot tell; only jaxnet can.
crashed: an error that is no verdict. not asked: it cannot be put to this checker.
evals, seconds: evaluations of the loss, and the time of one check; the medians.
Compilation is counted for jaxnet, and not for the others. default: as documented. best:
chosen with hindsight from a grid, for the smallest share missed + share not passed of
the cases (public, more).
"""


AMONG = {
    "missed": ("missed", "caught"),
    "accused": ("accused", "undecided", "cleared"),
    "undecided": ("accused", "undecided", "cleared"),
}
"""What each is a share of."""


class Rates(NamedTuple):
    """Shares of the wrong gradients that were missed, of the right ones that were
    called wrong, and of those of which the checker cannot tell."""

    missed: float
    accused: float
    undecided: float


def as_markdown(
    questions: Questions,
    settings: Sequence[Setting],
    outcomes: Sequence[Outcome],
    versions: Mapping[str, str],
    absent: Sequence[str],
) -> str:
    """All tables, what they mean, and who was asked."""
    parts = [
        ", ".join(f"{package} {version}" for package, version in versions.items()),
        _sizes(questions),
        _totals(questions, settings, outcomes),
        EXPLANATION.rstrip(),
        "missed, by group",
        _by_group(questions, settings, outcomes, "missed"),
        "accused, by group",
        _by_group(questions, settings, outcomes, "accused"),
        "missed, by what is wrong",
        _by_kind(questions, settings, outcomes),
    ]
    if best := list(_settings(settings)):
        parts.append(_lines("best settings", best))
    own = _lines("jaxnet missed, accused or left undecided", _own_mistakes(outcomes))
    parts.append(own)
    if absent:
        parts.append(f"left out, not installed: {', '.join(dict.fromkeys(absent))}")
    return "\n\n".join(parts) + "\n"


def rates(
    questions: Questions, settings: Sequence[Setting], outcomes: Sequence[Outcome]
) -> dict[tuple[str, str], Rates]:
    """(checker, setting) -> what it got wrong, as shares of the wrong and the right."""
    everything = {q.name for group in questions.values() for q in group}
    return {
        (s.checker, s.label): Rates(
            *(_share(_count(outcomes, s, everything, bad)) for bad in Rates._fields)
        )
        for s in settings
    }


def _sizes(questions: Questions) -> str:
    sizes = []
    for name, group in questions.items():
        right = sum(q.right for q in group)
        sizes.append(f"{name} {len(group) - right} wrong + {right} right")
    return "questions: " + ", ".join(sizes)


def _totals(
    questions: Questions, settings: Sequence[Setting], outcomes: Sequence[Outcome]
) -> str:
    everything = {q.name for group in questions.values() for q in group}
    rows = []
    for setting in settings:
        own = _of(outcomes, setting, everything)
        judged = [o for o in own if o.score not in ("crashed", "not asked")]
        rows.append(
            [
                setting.checker,
                setting.label,
                *(_fraction(_count(own, setting, everything, bad)) for bad in AMONG),
                str(sum(o.score == "crashed" for o in own)),
                str(sum(o.score == "not asked" for o in own)),
                f"{median(o.evaluations for o in judged):.0f}" if judged else "",
                f"{median(o.seconds for o in judged):.2g}" if judged else "",
            ]
        )
    head = ["checker", "setting", *AMONG, "crashed", "not asked", "evals", "seconds"]
    return _table(head, rows)


def _by_group(
    questions: Questions,
    settings: Sequence[Setting],
    outcomes: Sequence[Outcome],
    bad: str,
) -> str:
    names = {group: {q.name for q in asked} for group, asked in questions.items()}
    return _split(names, settings, outcomes, bad)


def _by_kind(
    questions: Questions, settings: Sequence[Setting], outcomes: Sequence[Outcome]
) -> str:
    every = [q for group in questions.values() for q in group]
    names = {kind: {q.name for q in every if q.kind == kind} for kind in WRONG_KINDS}
    return _split(names, settings, outcomes, "missed")


def _split(
    names: Mapping[str, set[str]],
    settings: Sequence[Setting],
    outcomes: Sequence[Outcome],
    bad: str,
) -> str:
    rows = [
        [
            setting.checker,
            setting.label,
            *(_fraction(_count(outcomes, setting, n, bad)) for n in names.values()),
        ]
        for setting in settings
    ]
    return _table(["checker", "setting", *names], rows)


def _settings(settings: Iterable[Setting]) -> list[str]:
    return [
        f"{s.checker}: "
        + (", ".join(f"{k}={v:.3g}" for k, v in s.values.items()) or "its default")
        for s in settings
        if s.label == "best"
    ]


def _own_mistakes(outcomes: Iterable[Outcome]) -> list[str]:
    mistakes = [
        f"{_score(o)}: {o.question}"
        for o in outcomes
        if o.checker == "jaxnet" and o.score in ("missed", "accused", "crashed")
    ]
    return mistakes or ["nothing"]


def _lines(title: str, lines: Sequence[str]) -> str:
    return "\n".join([title + ":", "", *(f"- {line}" for line in lines)])


def _of(
    outcomes: Iterable[Outcome], setting: Setting, names: set[str]
) -> list[Outcome]:
    who = (setting.checker, setting.label)
    return [o for o in outcomes if (o.checker, o.label) == who and o.question in names]


def _count(
    outcomes: Iterable[Outcome],
    setting: Setting,
    names: set[str],
    bad: str,
) -> tuple[int, int]:
    """How many of these were judged badly, and how many were judged."""
    scores = list(map(_score, _of(outcomes, setting, names)))
    return scores.count(bad), sum(scores.count(score) for score in AMONG[bad])


def _score(outcome: Outcome) -> str:
    """A right gradient that was not passed is not accused where it is undecided."""
    is_undecided = outcome.score == "accused" and outcome.undecided
    return "undecided" if is_undecided else outcome.score


def _share(count: tuple[int, int]) -> float:
    return count[0] / count[1] if count[1] else 0.0


def _fraction(count: tuple[int, int]) -> str:
    return f"{count[0]}/{count[1]}" if count[1] else "-"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    body = [head, ["-" * width for width in widths], *rows]
    lines = []
    for cells in body:
        padded = [
            cell.ljust(width) if number < 2 else cell.rjust(width)
            for number, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        lines.append(f"| {' | '.join(padded)} |")
    return "\n".join(lines)
