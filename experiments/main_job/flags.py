"""The flags of train_mnist.py, and what of them is refused."""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Literal

from jaxnet.input_checks import (
    check_layer_sizes,
    check_positive,
    complaint,
    describe,
)
from jaxnet.mnist import NUM_CLASSES
from jaxnet.training.checkpoint_file import MAX_BYTES

MAX_DEVICES = 4096

QUICK_STEPS, QUICK_EXAMPLES = 150, 5000
NUM_PIXELS = 784


@dataclass(frozen=True)
class Flags:
    """Train the book's network on MNIST."""

    gradient: Literal["backprop", "autodiff", "numerical"] = "backprop"
    """The route to the gradient."""
    data: Path | None = None
    """Folder of four IDX files, gzipped or not; MNIST by default."""
    out: Path | None = None
    """Folder for the checkpoints, the metrics and the figure; `out` by default, or
    `out/quick` of a quick run."""
    resume: bool = False
    """Go on from the newest checkpoint in `out`."""
    overwrite: bool = False
    """Begin anew, whatever run the checkpoints in `out` are of."""
    quick: bool = False
    """A few steps on a few images, to see that everything works."""
    figure: bool = True
    """Draw accuracy.png."""
    seed: int = 0
    num_steps: int = 5000
    batch_size: int = 100
    learning_rate: float = 0.1
    hidden: tuple[int, ...] = (50,)
    """Width of each hidden layer."""
    keep: int = 3
    """How many checkpoints are left in `out`."""
    devices: int | None = None
    """Split each batch over so many devices, of all processes together."""
    distributed: bool = False
    """One of many processes, started by Slurm, MPI or Kubernetes."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where they were started by hand."""
    num_processes: int | None = None
    process_id: int | None = None

    @property
    def folder(self) -> Path:
        """Where the run writes."""
        default = Path("out/quick") if self.quick else Path("out")
        return self.out or default


def num_steps(flags: Flags) -> int:
    """How many steps the run takes."""
    return min(flags.num_steps, QUICK_STEPS) if flags.quick else flags.num_steps


def layer_sizes(flags: Flags) -> tuple[int, ...]:
    """Pixels, the hidden layers' units, classes."""
    return (NUM_PIXELS, *flags.hidden, NUM_CLASSES)


def check_flags(flags: Flags) -> None:
    """What would end in an obscure error, or in none, is refused before all else."""
    if flags.resume and flags.overwrite:
        fix = "one goes on, the other begins anew"
        expected, got = "--resume or --overwrite", "both"
        raise ValueError(complaint("overwrite", expected, got, fix))
    check_positive("learning_rate", flags.learning_rate)
    sizes = layer_sizes(flags)
    check_layer_sizes(sizes)
    count = sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes))
    _check_within("hidden", count, 1, MAX_BYTES // 4, "parameters", "narrower layers")
    _check_within("seed", flags.seed, -(2**63), 2**63 - 1, "", "a smaller number")
    _check_within(
        "devices",
        1 if flags.devices is None else flags.devices,
        1,
        MAX_DEVICES,
        "",
        "fewer",
    )
    ranks = {"num_processes": flags.num_processes, "process_id": flags.process_id}
    for name, value in ranks.items():
        if flags.coordinator is None and value is not None:
            fix = "pass --coordinator HOST:PORT, or --distributed without numbers"
            raise ValueError(complaint(name, "a coordinator", str(value), fix))
    host, _, port = (flags.coordinator or "127.0.0.1:1").rpartition(":")
    if not (host and port.isdecimal() and len(port) < 6 and 0 < int(port) < 2**16):
        got, fix = (
            describe(flags.coordinator),
            "take a free port of process 0's machine",
        )
        raise ValueError(complaint("coordinator", "HOST:PORT", got, fix))


def _check_within(
    name: str, value: int, least: int, most: int, what: str, fix: str
) -> None:
    if not least <= value <= most:
        expected = f"{least} to {most} {what}".rstrip()
        raise ValueError(complaint(name, expected, str(value)[:40], f"pass {fix}"))
