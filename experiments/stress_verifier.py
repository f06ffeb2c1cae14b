"""Does the verifier accuse a right gradient, or miss a wrong one?

    python experiments/stress_verifier.py      # 1000 right and 1000 wrong gradients
    python experiments/stress_verifier.py --quick                     # 28 of each

Random functions of 14 families at scales 1e-3…1e3 are checked with the right gradient
and with one coordinate of it off by 1e-3. Prints how many right ones were accused and
how many agreed, how many wrong ones were caught, how often the place was named, and
writes the same as JSON to --out. Takes about 15 minutes on two cores.
"""

import json
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from experiments.command import command
from experiments.gradient_cases import FAMILIES, plant
from jaxnet.verification import GradientReport, Verdict, check_gradients


@dataclass(frozen=True)
class Options:
    """Flags of the script."""

    count: int = 1000
    """How many random functions."""
    relative: float = 1e-3
    """By how much one coordinate of the wrong gradients is off."""
    seed: int = 0
    """Of the functions and points."""
    quick: bool = False
    """Two functions of each family."""
    out: Path | None = None
    """Folder for stress.json."""


def run(options: Options) -> dict[str, Any]:
    """Check every random gradient, right and wrong, and count the answers."""
    count = 2 * len(FAMILIES) if options.quick else options.count
    answers: Counter[str] = Counter()
    exceptions = []
    for number in tqdm(range(count), disable=not sys.stderr.isatty()):
        rng = np.random.default_rng([options.seed, number])
        name = list(FAMILIES)[number % len(FAMILIES)]
        scale = 10.0 ** rng.uniform(-3, 3)
        loss, params, gradient = FAMILIES[name](rng, scale)
        wrong, path, index = plant(rng, gradient, options.relative)
        report = check_gradients(
            loss, params, {"right": gradient, "wrong": wrong}, key=number
        )
        right_verdict = _verdict(report, "right")
        caught, named = _caught(report, path, index)
        answers[f"right {right_verdict.value}"] += 1
        answers["wrong caught" if caught else "wrong missed"] += 1
        answers["place named"] += named
        if right_verdict is not Verdict.AGREE or not named:
            exceptions.append(f"{name} #{number} at scale {scale:.2g}")
    return {"count": count, **answers, "exceptions": exceptions}


def _verdict(report: GradientReport, candidate: str) -> Verdict:
    return Verdict.worst(x.verdict for x in report.leaves if x.candidate == candidate)


def _caught(
    report: GradientReport, path: str, index: tuple[int, ...]
) -> tuple[bool, bool]:
    leaf = next(x for x in report.leaves if (x.candidate, x.path) == ("wrong", path))
    caught = leaf.verdict is Verdict.DISAGREE
    return caught, caught and leaf.worst_index == tuple(index)


def main() -> None:
    """Parse the flags, and show."""
    command(Options, __doc__, show)


def show(options: Options) -> None:
    """Print the counts, and write them if asked to."""
    result = run(options)
    for name, value in result.items():
        if name != "exceptions":
            print(f"{name:24} {value:6}")
    for exception in result["exceptions"]:
        print(f"    not AGREE, or place not named: {exception}")
    if options.out:
        options.out.mkdir(parents=True, exist_ok=True)
        (options.out / "stress.json").write_text(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
