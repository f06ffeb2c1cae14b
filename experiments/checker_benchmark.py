"""Which gradient checker misses a wrong gradient, and which accuses a right one?

    python experiments/checker_benchmark.py

Asks jaxnet, jax.test_util.check_grads, chex, HIPS autograd, torch.autograd.gradcheck
and the book's mean of differences the same questions: the cases of gradient_cases,
programs as they are run, hand-written rules, mistakes in the book's network on MNIST
over 20 seeds, and random functions. Each rival is asked twice: with its documented
settings, and with those that would have served it best on the cases, sought with
hindsight. To see one cell again:

    python experiments/checker_benchmark.py --case relu_at_0 --checker jax-x64-rev

with `--settings '{"eps": 1e-5}'` for others than the default. Prints tables of what
was missed, accused and left undecided; writes them as checker_benchmark.md, with a JSON
of every cell, and checker_benchmark.png to --out. Takes about 40 minutes on two cores;
--quick, 3 minutes.
"""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from matplotlib.figure import Figure
from tqdm import tqdm

from experiments.checkers import (
    CHECKERS,
    Checker,
    Outcome,
    Question,
    Setting,
    ask,
    best_settings,
    groups,
    installed,
    named,
    versions,
)
from experiments.checkers.tables import Rates, as_markdown, rates
from experiments.command import command
from jaxnet.plots import save_figure

COLUMNS = {
    "missed": ("wrong gradients passed", "C3"),
    "accused": ("right gradients called wrong", "C0"),
    "undecided": ("right gradients: cannot tell", "C7"),
}
"""Of the figure: the title and colour of each of the `Rates`."""


@dataclass(frozen=True)
class Flags:
    """Gradient checkers, compared."""

    out: Path = Path("out")
    """Folder for the tables, the JSON file and the figure."""
    case: str | None = None
    """Ask this one question, and print the answer; nothing is written."""
    checker: str | None = None
    """Ask this checker alone."""
    settings: str = "{}"
    """Of the one checker asked one question, as JSON; its own defaults if empty."""
    seeds: int = 20
    """MNIST batches."""
    functions: int = 28
    """Random functions, each with its gradient right and wrong."""
    quick: bool = False
    """The public cases only, and a quarter of the grid of settings."""


def main() -> None:
    """Parse the flags, and run."""
    command(Flags, __doc__, lambda f: run(f) if f.case is None else print_cells(f))


def print_cells(flags: Flags) -> None:
    """The one question, asked of the one checker or of all."""
    question = named(flags.case or "")
    print(f"{question.name}: {question.kind}")
    for checker in chosen(flags):
        setting = Setting(checker.name, "given", json.loads(flags.settings))
        outcome = ask(checker, question, setting)
        spent = f"{outcome.evaluations} evaluations, {outcome.seconds:.2g} s"
        print(f"{checker.name}: {outcome.score}; {spent}")
        if outcome.note:
            print(f"    {outcome.note}")


def run(flags: Flags, questions: dict[str, list[Question]] | None = None) -> None:
    """Search, ask, print and write."""
    if questions is None:
        questions = groups(flags.seeds, flags.functions, flags.quick)
    checkers = chosen(flags)
    settings = settings_of(checkers, questions, 4 if flags.quick else 1)
    outcomes = asked(checkers, [q for g in questions.values() for q in g], settings)
    absent = [c.package for c in CHECKERS.values() if not installed(c)]
    text = as_markdown(questions, settings, outcomes, versions(), absent)
    print(text, end="")
    flags.out.mkdir(parents=True, exist_ok=True)
    (flags.out / "checker_benchmark.md").write_text(text)
    path = flags.out / "checker_benchmark.json"
    kinds = {q.name: q.kind for group in questions.values() for q in group}
    result = {
        "versions": versions(),
        "settings": [asdict(setting) for setting in settings],
        "kinds": kinds,
        "cells": [asdict(outcome) for outcome in outcomes],
    }
    path.write_text(json.dumps(result, indent=1))
    figure = flags.out / "checker_benchmark.png"
    missed_against_accused(rates(questions, settings, outcomes), figure)
    print(f"written: {path} {figure}")


def chosen(flags: Flags) -> list[Checker]:
    """The checkers that are asked for and installed.

    Raises:
        ValueError: the one asked for is not.
    """
    wanted = [c for c in CHECKERS.values() if flags.checker in (None, c.name)]
    here = [checker for checker in wanted if installed(checker)]
    if not here:
        names = ", ".join(name for name, c in CHECKERS.items() if installed(c))
        raise ValueError(f"`checker`: expected one of {names}; got {flags.checker!r}")
    return here


def settings_of(
    checkers: Sequence[Checker], questions: dict[str, list[Question]], every: int
) -> list[Setting]:
    """For each checker the documented settings, then the best by hindsight."""
    corpus = questions.get("public", []) + questions.get("more", [])
    with tqdm(total=len(checkers) * len(corpus), disable=quiet(), desc="search") as bar:
        best = best_settings(checkers, corpus, every, bar.update)
    found = []
    for checker in checkers:
        if checker.default is not None:
            found.append(Setting(checker.name, "default", checker.default))
        if checker.name in best:
            found.append(best[checker.name])
    return found


def asked(
    checkers: Sequence[Checker],
    questions: Sequence[Question],
    settings: Sequence[Setting],
) -> list[Outcome]:
    """Every question to every checker, in each of its settings."""
    outcomes = []
    for question in tqdm(questions, disable=quiet(), desc="ask"):
        for checker in checkers:
            own = [s for s in settings if s.checker == checker.name]
            outcomes += [ask(checker, question, setting) for setting in own]
    return outcomes


def quiet() -> bool:
    """Whether nobody watches."""
    return not sys.stderr.isatty()


def missed_against_accused(
    rates: dict[tuple[str, str], Rates], path: str | Path
) -> Path:
    """Three columns of bars, a row for each checker and setting: what it missed, what
    it accused, what it left undecided, as shares; the darker bar is the default
    setting.
    """
    figure = Figure(figsize=(9, 0.8 + 0.28 * len(rates)), layout="constrained")
    columns = figure.subplots(1, len(COLUMNS), sharey=True)
    names = [f"{checker}, {setting}" for checker, setting in rates]
    for axes, (field, (title, color)) in zip(columns, COLUMNS.items(), strict=True):
        for row, ((_, setting), each) in enumerate(rates.items()):
            share, alpha = getattr(each, field), 1.0 if setting == "default" else 0.5
            axes.barh(row, share, color=color, alpha=alpha)
            axes.text(share, row, f" {share:.0%}", va="center", fontsize=8)
        axes.set_yticks(range(len(rates)), names)
        axes.set(xlim=(0, 1), ylim=(len(rates) - 0.5, -0.5), xticks=[])
        axes.set_title(title, color=color, fontsize=10, loc="left")
        axes.axvline(0, color="black", linewidth=0.8)
        axes.spines[["top", "right", "bottom", "left"]].set_visible(False)
        axes.tick_params(left=False)
    return save_figure(figure, path)


if __name__ == "__main__":
    main()
