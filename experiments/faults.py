"""Which faults does a run hold against, and is anything lost?

    python experiments/faults.py

Starts runs of train_mnist.py on 200 random images, in one to three processes on
loopback, and does them harm: signals at random moments, peers that die, freeze, differ
or never come, folders that others use. Prints how often it was tried, how often the run
held, which is to end as it should with one line that says why, and how often nothing
was lost, and writes that to `--out`/reliability.md. Takes ten minutes on two cores.
"""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load

from experiments.command import parsed
from experiments.main_job.folder import locked, write_whole
from jaxnet.mnist import Mnist
from jaxnet.training.checkpoint import load_params

SCRIPT = Path(__file__).parent / "train_mnist.py"
ENDS_WITHIN = 60
"""Seconds in which a run has to end once it was harmed."""

STOPS_WITHIN = 10
"""Seconds in which it has to end once it was asked to."""

NAMES = "train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1"
FOREVER = 10**6
GOES_ON, ONE_LINE = r"stopped at step \d+; .* --resume", r"error: .*"


class Try(NamedTuple):
    """Whether the run ended as it should, and whether something was lost."""

    held: bool
    kept: bool = True


@dataclass(frozen=True)
class Flags:
    """Do runs harm, and count what they hold against."""

    tries: int = 6
    """How often each fault that comes at a random moment is tried."""
    out: Path = Path("docs")
    """Folder for reliability.md."""


class End(NamedTuple):
    """How a process ended: its status, what it printed, and the seconds it took."""

    status: int
    output: str
    errors: str
    seconds: float

    def says(self, status: int, pattern: str, within: float = ENDS_WITHIN) -> bool:
        """Whether that was its status, and its one line but for that of its waiting."""
        lines = [x for x in self.errors.splitlines() if not x.startswith("waiting for")]
        return (
            self.status == status
            and len(lines) == 1
            and re.match(pattern, lines[0]) is not None
            and self.seconds <= within
        )


@dataclass(frozen=True)
class Lab:
    """A folder with data, runs in it, and random moments."""

    folder: Path
    tries: int
    draws: random.Random = field(default_factory=lambda: random.Random(0))

    def out(self) -> Path:
        """A new folder for a run."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    @contextmanager
    def run(
        self,
        out: Path,
        *flags: object,
        count: int = 1,
        own: Mapping[int, Sequence[object]] | None = None,
        missing: int = 0,
    ) -> Iterator[list[subprocess.Popen[str]]]:
        """The processes of a run, none of which is left; `own` are flags of some."""
        base = ["--data", self.folder / "data", "--out", out, "--batch-size", 12]
        base += ["--hidden", 4, "--no-figure", *flags]
        where = ["--num-processes", count, "--coordinator", f"127.0.0.1:{free_port()}"]
        processes = []
        for rank in range(count - missing):
            many = [*where, "--process-id", rank] if count > 1 else []
            words = [*base, *many, *(own or {}).get(rank, ())]
            processes.append(
                subprocess.Popen(
                    [sys.executable, SCRIPT, *map(str, words)],
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
        try:
            yield processes
        finally:
            for process in processes:
                process.kill()
                process.communicate()

    def done(self, out: Path, *flags: object, count: int = 1) -> list[End]:
        """A run to its end."""
        with self.run(out, *flags, count=count) as processes:
            return ends(processes)

    def moment(self, longest: float) -> None:
        """Wait for a random time."""
        time.sleep(self.draws.uniform(0, longest))


def ends(processes: Sequence[subprocess.Popen[str]]) -> list[End]:
    """How each of them ends, from now on; one that does not is killed."""
    begin, found = time.monotonic(), []
    for process in processes:
        try:
            output, errors = process.communicate(timeout=2 * ENDS_WITHIN)
        except subprocess.TimeoutExpired:
            process.kill()
            output, errors = process.communicate()
        seconds = time.monotonic() - begin
        found.append(End(process.returncode, output, errors, seconds))
    return found


def free_port() -> int:
    """A port of loopback that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port


def step(out: Path) -> int:
    """The step of the newest checkpoint, which is whole; -1 where there is none."""
    if not any(out.glob("step-*")):
        return -1
    return int(load_params(out)[2].stem.removeprefix("step-"))


def reached(out: Path, least: int) -> int:
    """The step of the newest checkpoint, once it is that or a later one."""
    end = time.monotonic() + 2 * ENDS_WITHIN
    while not any(int(p.stem[5:]) >= least for p in out.glob("step-*")):
        if time.monotonic() > end:
            raise TimeoutError(f"{out}: no step {least}")
        time.sleep(0.01)
    return step(out)


def gone_on(lab: Lab, out: Path, count: int = 1) -> Try:
    """Resumed, the run ends, and in the bits of one that was never harmed."""
    last, whole = ["--num-steps", step(out) + 20], lab.out()
    found = lab.done(out, *last, "--resume", count=count)
    found += lab.done(whole, *last, count=count)
    one, other = (load(load_params(o)[2].read_bytes()) for o in (out, whole))
    same = one.keys() == other.keys() and all(
        np.array_equal(one[name], other[name]) for name in one
    )
    return Try(all(end.status == 0 for end in found), same)


def killed(lab: Lab) -> Iterator[Try]:
    """One process is killed at any moment, and resumed"""
    out = lab.out()
    for _ in range(lab.tries):
        before = step(out)
        resume = ["--resume"] * (before >= 0)
        with lab.run(out, "--num-steps", FOREVER, *resume) as (process,):
            before = reached(out, before + 20)
            lab.moment(0.5)
            process.kill()
        yield Try(step(out) >= before)
    yield gone_on(lab, out)


def asked(lab: Lab) -> Iterator[Try]:
    """SIGTERM or SIGINT, five times: saved at its step, status 0, in 10 s"""
    out = lab.out()
    for number in range(lab.tries):
        before = step(out)
        resume = ["--resume"] * (before >= 0)
        with lab.run(out, "--num-steps", FOREVER, *resume) as (process,):
            before = reached(out, before + 20)
            lab.moment(0.5)
            for _ in range(5):
                process.send_signal((signal.SIGTERM, signal.SIGINT)[number % 2])
            (end,) = ends([process])
        yield Try(end.says(0, GOES_ON, STOPS_WITHIN), step(out) >= before)
    yield gone_on(lab, out)


def asked_early(lab: Lab) -> Iterator[Try]:
    """SIGINT, three times, in the first second: one line, status 0"""
    for _ in range(lab.tries):
        with lab.run(lab.out(), "--num-steps", FOREVER) as (process,):
            while not listening(process.pid):
                time.sleep(0.001)
            lab.moment(1)
            for _ in range(3):
                process.send_signal(signal.SIGINT)
            (end,) = ends([process])
        yield Try(end.says(0, "stopped ", STOPS_WITHIN))


def listening(process: int) -> bool:
    """Whether it is past the interpreter's own start: it has blocked SIGINT."""
    text = Path(f"/proc/{process}/status").read_text()
    return bool(int(re.findall(r"SigBlk:\s*(\w+)", text)[0], 16) & 2)


def one_asked(lab: Lab) -> Iterator[Try]:
    """SIGTERM to one of two processes: both stop at one step, status 0, in 10 s"""
    out = lab.out()
    for rank in (0, 1):
        before = step(out)
        resume = ["--resume"] * (before >= 0)
        with lab.run(out, "--num-steps", FOREVER, *resume, count=2) as processes:
            before = reached(out, before + 20)
            processes[rank].terminate()
            found = ends(processes)
        at = rf"stopped at step {step(out)}; "
        held = all(end.says(0, at, STOPS_WITHIN) for end in found)
        yield Try(held, step(out) >= before)
    yield gone_on(lab, out, count=2)


def gone(lab: Lab, number: int, count: int) -> Iterator[Try]:
    """Each rank in turn gets the signal; all others name it and exit 1."""
    for rank in range(count):
        out = lab.out()
        with lab.run(out, "--num-steps", FOREVER, count=count) as processes:
            before = reached(out, 20)
            processes[rank].send_signal(number)
            rest = [p for other, p in enumerate(processes) if other != rank]
            found = ends(rest)
        pattern = rf"error: lost process {rank} .*--resume"
        held = all(end.says(1, pattern) for end in found)
        yield Try(held, step(out) >= before)


def dead_of_two(lab: Lab) -> Iterator[Try]:
    """One of two is killed: the other names it in 60 s, exits 1"""
    yield from gone(lab, signal.SIGKILL, 2)


def dead_of_three(lab: Lab) -> Iterator[Try]:
    """One of three is killed: the others name it in 60 s, exit 1"""
    yield from gone(lab, signal.SIGKILL, 3)


def frozen_of_two(lab: Lab) -> Iterator[Try]:
    """One of two is frozen (SIGSTOP): the other names it in 60 s, exits 1"""
    yield from gone(lab, signal.SIGSTOP, 2)


def frozen_of_three(lab: Lab) -> Iterator[Try]:
    """One of three is frozen: the others name it in 60 s, exit 1"""
    yield from gone(lab, signal.SIGSTOP, 3)


def never_comes(lab: Lab) -> Iterator[Try]:
    """A peer that never comes, or to another port: said at once, exit 1 in 60 s"""
    other = {1: ("--coordinator", f"127.0.0.1:{free_port()}")}
    with (
        lab.run(lab.out(), count=2, missing=1) as alone,
        lab.run(lab.out(), count=2, own=other) as apart,
    ):
        for end in ends([*alone, *apart]):
            said = "waiting for" in end.errors
            yield Try(said and end.says(1, "error: waited "))


def port_in_use(lab: Lab) -> Iterator[Try]:
    """The coordinator's port is in use: one line, exit 1"""
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = f"127.0.0.1:{server.getsockname()[1]}"
        own = {0: ("--coordinator", where)}
        with lab.run(lab.out(), count=2, missing=1, own=own) as processes:
            (end,) = ends(processes)
    yield Try(end.says(1, rf"error: {where}: Address already in use"))


def differ(lab: Lab) -> Iterator[Try]:
    """Two processes with another seed, rate, route, data, length, number or folder"""
    outs = [lab.out(), lab.out(), lab.out()]
    for out, last in zip(outs, (10, 20), strict=False):
        lab.done(out, "--num-steps", last, count=2)
    write_data(lab.folder / "other", seed=1)
    cases: tuple[tuple[str, Sequence[object], bool], ...] = (
        ("seed", ("--seed", 1), False),
        ("learning_rate", ("--learning-rate", 0.2), False),
        ("gradient", ("--gradient", "autodiff"), False),
        ("data", ("--data", lab.folder / "other"), False),
        ("num_steps", ("--num-steps", 31), False),
        ("num_processes", ("--num-processes", 3), False),
        ("the writer to --out", ("--out", lab.out()), False),
        ("the step to begin at", ("--out", outs[1]), True),
        ("refusal", ("--out", outs[2]), True),
    )
    for name, flags, resume in cases:
        out = outs[0] if resume else lab.out()
        before = step(out)
        more = ["--num-steps", 30, *["--resume"] * resume]
        with lab.run(out, *more, count=2, own={1: flags}) as processes:
            found = ends(processes)
        words = f"error: the processes differ: {name} is .* on process 0, .* process 1"
        yield Try(all(end.says(1, words) for end in found), step(out) == before)


def other_number(lab: Lab) -> Iterator[Try]:
    """A run that another number of processes resumes: its bits would be others"""
    for before, after in ((1, 2), (2, 1), (2, 3)):
        out = lab.out()
        lab.done(out, "--num-steps", 10, count=before)
        found = lab.done(out, "--num-steps", 20, "--resume", count=after)
        words = rf"error: .*: devices was '{before} in .*, is '{after} in"
        yield Try(all(end.says(1, words) for end in found), step(out) == 10)


def shared(lab: Lab) -> Iterator[Try]:
    """A folder that a run writes to: the second is told who does"""
    for more in ((), ("--resume",), ("--overwrite",)):
        out = lab.out()
        lab.done(out, "--num-steps", 10)
        with locked(out):
            (end,) = lab.done(out, "--num-steps", 20, *more)
        words = rf"error: .*: process {os.getpid()} of .* writes to it"
        yield Try(end.says(1, words), step(out) == 10)


def reused(lab: Lab) -> Iterator[Try]:
    """A folder of another run's checkpoints: --resume, --out or --overwrite"""
    out = lab.out()
    lab.done(out, "--num-steps", 20)
    for flags in (("--seed", 1), ("--learning-rate", 1), ("--num-steps", 10)):
        (end,) = lab.done(out, "--num-steps", 20, *flags)
        yield Try(end.says(1, "error: .*--overwrite"), step(out) == 20)


def not_files(lab: Lab) -> Iterator[Try]:
    """A link, a pipe or a folder in the place of a file: named before the first step"""
    checkpoint = "step-00000010.safetensors"
    for name in (".lock", "metrics.jsonl", "accuracy.png", checkpoint):
        for kind in ("link", "pipe", "folder"):
            out, target = lab.out(), lab.folder / "target"
            target.write_text("precious")
            if kind == "link":
                (out / name).symlink_to(target)
            else:
                {"pipe": os.mkfifo, "folder": os.mkdir}[kind](out / name)
            (end,) = lab.done(out, "--num-steps", 10)
            held = end.says(1, "error: .*expected a file or nothing")
            yield Try(held, target.read_text() == "precious")


FAULTS: tuple[Callable[[Lab], Iterator[Try]], ...] = (
    killed,
    asked,
    asked_early,
    one_asked,
    dead_of_two,
    dead_of_three,
    frozen_of_two,
    frozen_of_three,
    never_comes,
    port_in_use,
    differ,
    other_number,
    shared,
    reused,
    not_files,
)


def main() -> None:
    """Do all the harm, print and write the table."""
    flags = parsed(Flags, __doc__)
    lines = [
        "| fault | tried | held | nothing lost |",
        "|---|---|---|---|",
    ]
    with tempfile.TemporaryDirectory() as folder:
        lab = Lab(Path(folder), flags.tries)
        write_data(lab.folder / "data")
        for fault in FAULTS:
            lines.append(row(str(fault.__doc__), list(fault(lab))))
            print(lines[-1], flush=True)
    flags.out.mkdir(parents=True, exist_ok=True)
    text = TEXT + "\n".join(lines) + "\n"
    path = flags.out / "reliability.md"
    print(f"written: {write_whole(path, lambda file: file.write_text(text))}")


TEXT = """# What a run holds against

`python experiments/faults.py` does this harm to runs of `train_mnist.py`, in one to
three processes on loopback, and writes this page. *Held*: the run ended as the row
says, each of its processes with one line of its own. *Nothing lost*: the newest
checkpoint is whole and no older than before; where a run is resumed, the last try is
whether it ends in the bits of one that was never harmed.

"""


def row(what: str, tries: list[Try]) -> str:
    """A line of the table."""
    held, kept = (sum(one) for one in zip(*tries, strict=True))
    return f"| {what} | {len(tries)} | {held} | {kept} |"


def write_data(folder: Path, seed: int = 0) -> None:
    """Four IDX files of 200 + 50 random images."""
    draws = np.random.default_rng(seed)
    arrays = Mnist(
        draws.integers(0, 256, (200, 28, 28), np.uint8),
        draws.integers(0, 10, 200, np.uint8),
        draws.integers(0, 256, (50, 28, 28), np.uint8),
        draws.integers(0, 10, 50, np.uint8),
    )
    folder.mkdir()
    for name, array in zip(NAMES, arrays, strict=True):
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (folder / f"{name}-ubyte").write_bytes(header + array.tobytes())


if __name__ == "__main__":
    main()
