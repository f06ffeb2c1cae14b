"""Counts of missed and accused, as Markdown tables of at most 100 columns."""

from collections.abc import Iterable, Mapping, Sequence
from statistics import median

from experiments.checkers.asking import Outcome, Setting
from experiments.checkers.question import WRONG_KINDS, Question

Questions = Mapping[str, Sequence[Question]]

EXPLANATION = """\
missed: wrong gradients passed, of those judged. accused: right ones not passed.
crashed: an error that is no verdict. not asked: it cannot be put to this checker.
evaluations, seconds: of the loss, in one check; the median. Compilation is counted for
jaxnet, and not for the others. default: as documented. best: chosen with hindsight
from a grid, for the smallest share missed + share accused of the cases (public, more).
"""


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
        _by_group(questions, settings, outcomes, False),
        "accused, by group",
        _by_group(questions, settings, outcomes, True),
        "missed, by what is wrong",
        _by_kind(questions, settings, outcomes),
        _lines("best settings", _settings(settings)),
        _lines("jaxnet missed or accused", _own_mistakes(outcomes)),
    ]
    if absent:
        parts.append(f"left out, not installed: {', '.join(dict.fromkeys(absent))}")
    return "\n\n".join(parts) + "\n"


def rates(
    questions: Questions, settings: Sequence[Setting], outcomes: Sequence[Outcome]
) -> dict[tuple[str, str], tuple[float, float]]:
    """(checker, setting) -> the shares missed of the wrong and accused of the right."""
    everything = {q.name for group in questions.values() for q in group}
    return {
        (s.checker, s.label): (
            _share(_count(outcomes, s, everything, "missed", "caught")),
            _share(_count(outcomes, s, everything, "accused", "cleared")),
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
                _fraction(_count(own, setting, everything, "missed", "caught")),
                _fraction(_count(own, setting, everything, "accused", "cleared")),
                str(sum(o.score == "crashed" for o in own)),
                str(sum(o.score == "not asked" for o in own)),
                f"{median(o.evaluations for o in judged):.0f}" if judged else "",
                f"{median(o.seconds for o in judged):.2g}" if judged else "",
            ]
        )
    head = "checker setting missed accused crashed not_asked evaluations seconds"
    return _table([word.replace("_", " ") for word in head.split()], rows)


def _by_group(
    questions: Questions,
    settings: Sequence[Setting],
    outcomes: Sequence[Outcome],
    right: bool,
) -> str:
    scores = ("accused", "cleared") if right else ("missed", "caught")
    names = {group: {q.name for q in asked} for group, asked in questions.items()}
    return _split(names, settings, outcomes, scores)


def _by_kind(
    questions: Questions, settings: Sequence[Setting], outcomes: Sequence[Outcome]
) -> str:
    every = [q for group in questions.values() for q in group]
    names = {kind: {q.name for q in every if q.kind == kind} for kind in WRONG_KINDS}
    return _split(names, settings, outcomes, ("missed", "caught"))


def _split(
    names: Mapping[str, set[str]],
    settings: Sequence[Setting],
    outcomes: Sequence[Outcome],
    scores: tuple[str, str],
) -> str:
    rows = [
        [
            setting.checker,
            setting.label,
            *(_fraction(_count(outcomes, setting, n, *scores)) for n in names.values()),
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
        f"{o.score}{', cannot tell' if o.undecided else ''}: {o.question}"
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
    good: str,
) -> tuple[int, int]:
    """How many of these were judged badly, and how many were judged."""
    scores = [o.score for o in _of(outcomes, setting, names)]
    return scores.count(bad), scores.count(bad) + scores.count(good)


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
