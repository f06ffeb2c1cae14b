"""Two real processes on loopback: one run, of which a process may die."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from jaxnet.training.checkpoint import load_params
from tests.test_mnist import idx, written

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
SCRIPT = ROOT / "experiments/train_mnist.py"
ENDS_WITHIN = 60
"""Seconds in which a process whose peer died must have ended."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 200 + 50 random images of 28 × 28."""
    return tiny_mnist(tmp_path_factory.mktemp("data"))


def tiny_mnist(folder: Path) -> Path:
    """The folder, with four IDX files of 200 + 50 random images in it."""
    draws = np.random.default_rng(0)
    files = [
        idx(draws.integers(0, 256, (n, 28, 28)) if images else draws.integers(0, 10, n))
        for n in (200, 50)
        for images in (True, False)
    ]
    return written(folder, files)


class Pair:
    """Two processes of one run of train_mnist.py, and what they print."""

    def __init__(self, *flags: object) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            where = f"127.0.0.1:{free.getsockname()[1]}"
        many = ["--num-processes", "2", "--coordinator", where, "--process-id"]
        self.processes = [
            subprocess.Popen(
                [sys.executable, SCRIPT, *map(str, flags), *many, str(number)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for number in (0, 1)
        ]

    def ended(self, number: int, within: float = 120) -> tuple[int, str, str]:
        """The exit status, what was printed, and the errors of one of them."""
        out, errors = self.processes[number].communicate(timeout=within)
        return self.processes[number].returncode, out, errors


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    """Those that a test began; none of their processes is left running."""
    begun: list[Pair] = []
    yield begun
    for process in (p for pair in begun for p in pair.processes):
        process.kill()
        process.communicate()


def arrays(out: Path) -> dict[str, np.ndarray]:
    """All that the newest checkpoint holds."""
    return load(load_params(out)[2].read_bytes())


def identical(one: Path, other: Path) -> bool:
    """Whether two newest checkpoints hold the same, bit for bit."""
    first, second = arrays(one), arrays(other)
    return first.keys() == second.keys() and all(
        np.array_equal(first[name], second[name]) for name in first
    )


def small_flags(data: Path, out: Path) -> list[object]:
    """Of a run with an epoch of ten steps on the small images."""
    return [
        *("--data", data, "--out", out, "--batch-size", 20, "--hidden", 4),
        "--no-figure",
    ]


def wait_for_step(out: Path, step: int) -> None:
    """Return once a checkpoint of that step, or of a later one, is there."""
    end = time.monotonic() + 60
    while not any(out.glob("step-*")) or newest_step(out) < step:
        assert time.monotonic() < end
        time.sleep(0.01)


def newest_step(out: Path) -> int:
    """The step of the newest checkpoint of a folder."""
    return max(int(path.stem.removeprefix("step-")) for path in out.glob("step-*"))


@pytest.mark.parametrize("victim", [1, 0])
def test_a_dead_process_ends_the_other_and_the_run_goes_on(
    data: Path, tmp_path: Path, pairs: list[Pair], victim: int
) -> None:
    """The survivor names the dead one and ends within a minute, with an error.

    Resumed, the run ends where one without a death does, in every bit; the checkpoint
    before the last, as is seen, is another. Only the first process prints.
    """
    out, last = tmp_path / "killed", 10**6
    killed = Pair(*small_flags(data, out), "--num-steps", last)
    pairs.append(killed)
    wait_for_step(out, 20)
    os.kill(killed.processes[victim].pid, signal.SIGKILL)
    status, _, errors = killed.ended(1 - victim, ENDS_WITHIN)
    assert status not in (0, None)
    assert re.search(rf"([Tt]ask|lost process) {victim}\b", errors)
    assert not re.search(rf"lost process {1 - victim}\b", errors)
    if victim == 0:
        return
    last = newest_step(out) + 20
    for folder, *more in ((out, "--resume"), (tmp_path / "whole",)):
        pair = Pair(*small_flags(data, folder), "--num-steps", last, *more)
        pairs.append(pair)
        assert pair.ended(0)[0] == 0
        status, printed, _ = pair.ended(1)
        assert status == 0
        assert "step" not in printed
    assert identical(out, tmp_path / "whole")
    assert not identical(out, min(out.glob("step-*")))


def test_train_2_fails_if_one_of_them_does(data: Path, tmp_path: Path) -> None:
    """`make train-2` trains in two processes, and passes on the status of either."""
    (tmp_path / "installed").touch()
    flags = " ".join(map(str, small_flags(data, tmp_path / "out")))
    for batch_size, status in ((20, 0), (21, 2)):
        done = subprocess.run(
            [
                *("make", "--no-print-directory", "train-2", f"VENV={tmp_path}"),
                f"BIN={Path(sys.executable).parent}",
                f"FLAGS={flags} --num-steps 30 --batch-size {batch_size}",
            ],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == status, done.stderr
        last = done.stdout.splitlines()[-1]
        assert last.startswith("written: ") == (status == 0)
    assert "the nearest sizes that divide are 20 or 22" in done.stderr
