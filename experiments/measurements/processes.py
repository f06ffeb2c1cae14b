"""The main job as a whole process, ours beside each peer's that is installed."""

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter

from experiments.measurements.section import Section

EXPERIMENTS = Path(__file__).parents[1]
PEERS = ("numpy", "torch", "flax", "equinox")
OURS = "jaxnet"
IN_JAX = (OURS, "flax", "equinox")
KEPT = ", compilation kept"
"""Marks a program whose earlier runs have left their compiled programs in a folder."""


@dataclass
class Racer:
    """One program, and what each of its runs took."""

    name: str
    command: list[str]
    environment: dict[str, str] = field(default_factory=dict)
    wall: list[float] = field(default_factory=list)
    user: list[float] = field(default_factory=list)
    accuracy: float = 0.0

    def run(self, counted: bool) -> None:
        """One whole process, which must end well; OUT becomes a folder of its own.

        Raises:
            RuntimeError: it failed, or did not print the accuracy.
        """
        with TemporaryDirectory() as out:
            command = [out if word == "OUT" else word for word in self.command]
            start = perf_counter()
            process = subprocess.Popen(
                [sys.executable, *command],
                env={**os.environ, **self.environment},
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            assert process.stdout is not None
            with process.stdout:
                text = process.stdout.read()
            _, status, usage = os.wait4(process.pid, 0)
            wall = perf_counter() - start
            process.returncode = os.waitstatus_to_exitcode(status)
        found = re.search(r"test accuracy after \d+ steps: ([\d.]+)", text)
        if process.returncode or not found:
            raise RuntimeError(f"{' '.join(command)}:\n{text}")
        self.accuracy = float(found[1])
        if counted:
            self.wall.append(wall)
            self.user.append(usage.ru_utime)


def main_job(
    peers: Sequence[str] = PEERS,
    rounds: int = 5,
    num_steps: int = 5000,
    warm_up: bool = True,
) -> Section:
    """The programs in turn, `rounds` times, after one round that is not counted.

    Those in JAX once more, with what they compiled kept by JAX in that first round.
    """
    steps = str(num_steps)
    script = str(EXPERIMENTS / "train_mnist.py")
    ours = [script, "--no-figure", "--out", "OUT", "--num-steps", steps]
    racers = [Racer(OURS, ours)]
    missing = [peer for peer in peers if importlib.util.find_spec(peer) is None]
    for peer in peers:
        if peer not in missing:
            path = EXPERIMENTS / "peers" / f"{peer}_mnist.py"
            racers.append(Racer(peer, [str(path), "OUT", steps]))
    with TemporaryDirectory() as folder:
        if warm_up:
            racers += [
                Racer(racer.name + KEPT, racer.command, keeping_compilations(folder))
                for racer in racers
                if racer.name in IN_JAX
            ]
        for number in range(0 if warm_up else 1, rounds + 1):
            for racer in racers:
                racer.run(counted=number > 0)
    return report(racers, missing, num_steps)


def keeping_compilations(folder: str) -> dict[str, str]:
    """JAX's settings by which a later process finds there what one has compiled."""
    return {
        "JAX_COMPILATION_CACHE_DIR": folder,
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }


def report(racers: list[Racer], missing: list[str], num_steps: int) -> Section:
    """The table, and how we stand to the fastest peer."""
    rounds = len(racers[0].wall)
    section = Section(f"{num_steps} steps as a whole process, {rounds} rounds in turn")
    ours, *peers = (racer for racer in racers if not racer.name.endswith(KEPT))
    fastest = min(peers, key=lambda racer: median(racer.wall), default=None)
    for racer in racers:
        middle = median(racer.wall)
        section.rows.append(
            {
                "program": racer.name,
                "min s": min(racer.wall),
                "median s": middle,
                "max s": max(racer.wall),
                "user s": median(racer.user),
                "fastest peer = 1": fastest and middle / median(fastest.wall),
                "test accuracy": f"{racer.accuracy:.4f}",
            }
        )
    if fastest:
        ratio = median(fastest.wall) / median(ours.wall)
        section.notes.append(
            f"{OURS} is {ratio:.2f} times as fast as the fastest peer, {fastest.name}."
        )
    if missing:
        section.notes.append(f"Not installed, and left out: {', '.join(missing)}.")
    return section


def whole_numerical_run() -> tuple[float, float]:
    """Seconds and test accuracy of the whole training by numeric gradient."""
    script = str(EXPERIMENTS / "train_mnist.py")
    flags = ["--gradient", "numerical", "--no-figure", "--out", "OUT"]
    racer = Racer(OURS, [script, *flags])
    racer.run(counted=True)
    return racer.wall[0], racer.accuracy
