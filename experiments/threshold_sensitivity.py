"""How many verdicts hang on each threshold of the verifier?

    python experiments/threshold_sensitivity.py
    python experiments/threshold_sensitivity.py --names CONVERGED KINK_BOUNDS --every 1

Halves and doubles every named threshold, one at a time, asks a sample of the cases
again, and prints a line for each: its name, where it stands, its value, and how many
verdicts differ with half and with double of it. A threshold that changes many is
delicate; one that never changes any may be more exact than it needs to be, or unused.
One case in eight is asked unless --every says another: about an hour on two cores.
--quick asks three cases about two thresholds, in half a minute.
"""

import ast
import importlib
import pkgutil
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from experiments.command import parsed
from experiments.gradient_cases import all_cases
from experiments.gradient_cases.case import Case
from jaxnet import check_gradients

WINGS = ("jaxnet.jaxpr", "jaxnet.verification", "jaxnet.differences")
QUICK_NAMES, QUICK_CASES = ("KINK_BOUNDS", "COARSEST"), 3


@dataclass(frozen=True)
class Flags:
    """What is asked."""

    every: int = 8
    """One case in so many is asked."""
    names: tuple[str, ...] = ()
    """Only thresholds of these names; by default all."""
    quick: bool = False
    """Three cases and two thresholds."""


class Threshold(NamedTuple):
    """A number with a name and its reason beside it."""

    module: str
    name: str
    value: float


def thresholds() -> Iterator[Threshold]:
    """Every upper-case number of the verifier that has a docstring below it."""
    for module in modules():
        tree = ast.parse(Path(str(module.__file__)).read_text())
        for assignment, reason in zip(tree.body, tree.body[1:], strict=False):
            if not isinstance(assignment, ast.Assign) or not is_text(reason):
                continue
            for target in assignment.targets:
                name = target.id if isinstance(target, ast.Name) else ""
                value: Any = getattr(module, name, None)
                if name.isupper() and type(value) in (int, float):
                    yield Threshold(module.__name__, name, value)


def modules() -> list[ModuleType]:
    """All modules of the verifier and of the differences below it."""
    names = [
        found.name
        for wing in WINGS
        for found in pkgutil.walk_packages(
            importlib.import_module(wing).__path__, f"{wing}."
        )
    ]
    return [importlib.import_module(name) for name in names]


def is_text(node: ast.stmt) -> bool:
    """Whether a statement is a docstring."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


@contextmanager
def changed(threshold: Threshold, factor: float) -> Iterator[None]:
    """The threshold at another value, wherever it was imported."""
    value = type(threshold.value)(threshold.value * factor)
    holders = [
        module
        for module in list(sys.modules.values())
        if getattr(module, "__name__", "").startswith("jaxnet")
        and vars(module).get(threshold.name) is threshold.value
    ]
    try:
        for module in holders:
            setattr(module, threshold.name, value)
        yield
    finally:
        for module in holders:
            setattr(module, threshold.name, threshold.value)


def verdicts(cases: Sequence[Case]) -> list[str]:
    """What is said of each case's candidate, or the name of what is raised."""
    return [verdict(case.loss, case.params, case.candidate) for case in cases]


def verdict(loss: Any, params: Any, candidate: Any) -> str:
    """The verdict, and whether it passed."""
    try:
        report = check_gradients(loss, params, {"candidate": candidate})
    except Exception as error:  # a case that raises has that for an answer
        return type(error).__name__
    return f"{report.verdict.value} {report.passed}"


def main() -> None:
    """A line a threshold."""
    flags = parsed(Flags, __doc__)
    cases = list(all_cases())[:: flags.every]
    names = flags.names
    if flags.quick:
        cases, names = cases[:QUICK_CASES], QUICK_NAMES
    before = verdicts(cases)
    print(f"{len(cases)} cases; how many verdicts differ with")
    print(f"{'half':>5} {'double':>6}  threshold")
    for threshold in thresholds():
        if names and threshold.name not in names:
            continue
        counts = []
        for factor in (0.5, 2.0):
            with changed(threshold, factor):
                after = verdicts(cases)
            counts.append(sum(a != b for a, b in zip(before, after, strict=True)))
        where = threshold.module.removeprefix("jaxnet.")
        line = f"{counts[0]:5} {counts[1]:6}  {threshold.name} = {threshold.value:g}"
        print(f"{line}, {where}", flush=True)


if __name__ == "__main__":
    main()
