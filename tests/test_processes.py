"""Two real processes on loopback: one run, of which a process may die."""

import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from experiments import faults
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


def tiny_mnist(folder: Path, seed: int = 0) -> Path:
    """The folder, with four IDX files of 200 + 50 random images in it."""
    draws = np.random.default_rng(seed)
    files = [
        idx(draws.integers(0, 256, (n, 28, 28)) if images else draws.integers(0, 10, n))
        for n in (200, 50)
        for images in (True, False)
    ]
    return written(folder, files)


class Pair:
    """Two processes of one run, and what they print.

    `own` are flags of each of them, `script` is that of the main job by default.
    """

    def __init__(
        self,
        *flags: object,
        own: Sequence[Sequence[object]] = ((), ()),
        script: Path = SCRIPT,
    ) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            where = f"127.0.0.1:{free.getsockname()[1]}"
        many = ["--num-processes", "2", "--coordinator", where, "--process-id"]
        self.processes = [
            subprocess.Popen(
                [
                    *(sys.executable, script, *map(str, flags)),
                    *(*many, str(number), *map(str, own[number])),
                ],
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


def started(*flags: object) -> subprocess.Popen[str]:
    """One process of train_mnist.py alone."""
    return subprocess.Popen(
        [sys.executable, SCRIPT, *map(str, flags)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def is_blocked(process: int, number: int) -> bool:
    """Whether the process has blocked the signal, as one that listens has."""
    status = Path(f"/proc/{process}/status").read_text()
    (mask,) = re.findall(r"^SigBlk:\s*(\w+)$", status, re.MULTILINE)
    return bool(int(mask, 16) >> (number - 1) & 1)


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
    wait_until(lambda: any(out.glob("step-*")) and newest_step(out) >= step)


def wait_until(is_so: Callable[[], bool]) -> None:
    """Return once it is so."""
    end = time.monotonic() + 60
    while not is_so():
        assert time.monotonic() < end
        time.sleep(0.01)


def newest_step(out: Path) -> int:
    """The step of the newest checkpoint of a folder."""
    return max(int(path.stem.removeprefix("step-")) for path in out.glob("step-*"))


@pytest.mark.parametrize("victim", [1, 0])
def test_a_dead_process_ends_the_other_and_the_run_goes_on(
    data: Path, tmp_path: Path, pairs: list[Pair], victim: int
) -> None:
    """The survivor names the dead one in one line and exits 1.

    Resumed, the run ends where one without a death does, in every bit; the checkpoint
    before the last, as is seen, is another. Only the first process prints.
    """
    out, last = tmp_path / "killed", 10**6
    killed = Pair(*small_flags(data, out), "--num-steps", last)
    pairs.append(killed)
    wait_for_step(out, 20)
    os.kill(killed.processes[victim].pid, signal.SIGKILL)
    assert_lost(killed, victim)
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


def test_a_frozen_process_ends_the_other(
    data: Path, tmp_path: Path, pairs: list[Pair], impatient: Path
) -> None:
    """Also where it is the coordinator: one line, no stack, no abort."""
    for victim in (0, 1):
        out = tmp_path / str(victim)
        flags = small_flags(data, out)
        pairs.append(Pair(*flags, "--num-steps", 10**6, script=impatient))
        wait_for_step(out, 20)
        os.kill(pairs[-1].processes[victim].pid, signal.SIGSTOP)
    for victim in (0, 1):
        assert_lost(pairs[victim], victim)


def assert_lost(pair: Pair, victim: int) -> None:
    """The other process waited, lost the victim, and says no more."""
    status, _, errors = pair.ended(1 - victim, ENDS_WITHIN)
    assert status == 1, errors
    waiting, lost = errors.splitlines()
    assert re.fullmatch(r"waiting for 127\.0\.0\.1:\d+ \(1 of 2 here\)", waiting)
    assert re.match(rf"error: lost process {victim} \(", lost)
    assert lost.endswith("; start all again with --resume")


IMPATIENT = """
from experiments import train_mnist
from experiments.main_job import peers
peers.WAIT_SECONDS, peers.HEARTBEAT_SECONDS = 15, 5
train_mnist.main()
"""


@pytest.fixture
def impatient(tmp_path: Path) -> Path:
    """The main job, which waits less long for the others."""
    script = tmp_path / "impatient.py"
    script.write_text(IMPATIENT)
    return script


def test_a_peer_that_never_comes_is_waited_for(
    data: Path, tmp_path: Path, pairs: list[Pair], impatient: Path
) -> None:
    """With two ports, both wait and say so, and end by themselves."""
    flags, other = small_flags(data, tmp_path / "out"), ["--coordinator", "127.0.0.1:1"]
    pair = Pair(*flags, own=((), other), script=impatient)
    pairs.append(pair)
    for number in (0, 1):
        status, _, errors = pair.ended(number, ENDS_WITHIN)
        waiting, late = errors.splitlines()
        assert (status, waiting[:11]) == (1, "waiting for")
        words = r"error: waited 15 s for 127\.0\.0\.1:\d+, and not all of 2 came"
        assert re.match(words, late)


def test_the_coordinator_listens_on_its_own_address_only(
    data: Path, tmp_path: Path
) -> None:
    """Another address of this machine is refused; a port in use is one line."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    flags = [*small_flags(data, tmp_path / "out"), "--num-processes", 2]
    flags += ["--coordinator", f"127.0.0.1:{port}", "--process-id", 0]
    process = started(*flags)
    try:
        wait_until(lambda: listens("127.0.0.1", port))
        assert not listens("127.0.0.2", port)
        second = started(*flags)
        _, errors = second.communicate(timeout=ENDS_WITHIN)
        assert second.returncode == 1
        last = errors.splitlines()[-1]
        assert last.startswith(f"error: 127.0.0.1:{port}: Address already in use")
    finally:
        process.kill()
        process.communicate()


def listens(host: str, port: int) -> bool:
    """Whether someone takes a connection there."""
    with socket.socket() as asking:
        return asking.connect_ex((host, port)) == 0


def test_a_fault_that_is_not_held_against_shows(tmp_path: Path) -> None:
    """The table counts status, second lines, lateness and losses as what they are."""
    good = faults.End(1, "", "waiting for x\nerror: it is so\n", 2.0)
    assert good.says(1, "error: it is")
    assert not good.says(0, "error: it is")
    assert not good.says(1, "error: it was")
    assert not good.says(1, "error: it is", within=1)
    assert not good._replace(errors=good.errors + "F00 Check").says(1, "error: it is")
    tries = [faults.Try(True), faults.Try(False), faults.Try(True, False)]
    assert faults.row("what", tries) == "| what | 3 | 2 | 2 |"
    lab = faults.Lab(tmp_path, 1)
    faults.write_data(tmp_path / "data")
    assert set(faults.reused(lab)) == {faults.Try(True)}


def test_train_2_fails_if_one_of_them_does(data: Path, tmp_path: Path) -> None:
    """`make train-2` trains in two processes, and passes on the status of either."""
    (tmp_path / "installed").touch()
    flags = " ".join(map(str, small_flags(data, tmp_path / "out")))
    for batch_size, status in ((20, 0), (21, 2)):
        done = subprocess.run(
            [
                *("make", "--no-print-directory", "train-2", f"VENV={tmp_path}"),
                f"BIN={Path(sys.executable).parent}",
                f"FLAGS={flags} --num-steps 30 --batch-size {batch_size} --overwrite",
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


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_a_run_at_its_step(
    data: Path, tmp_path: Path, number: int
) -> None:
    """However often it comes: a save, status 0, and the one line that goes on.

    What went on ends in the bits of a run that never stopped.
    """
    out, flags = tmp_path / "stopped", small_flags(data, tmp_path / "stopped")
    process = started(*flags, "--num-steps", 10**6)
    wait_for_step(out, 20)
    for _ in range(5):
        process.send_signal(number)
    _, errors = process.communicate(timeout=ENDS_WITHIN)
    assert process.returncode == 0, errors
    (line,) = errors.splitlines()
    step = newest_step(out)
    assert line.startswith(f"stopped at step {step}; {out}/step-{step:08d}.safetensors")
    words = shlex.split(line.split("go on by python ")[1])
    assert words[-1] == "--resume"
    last = ["--num-steps", step + 20]
    for command in (
        [*words[1:-3], *last, "--resume"],
        [*small_flags(data, tmp_path / "whole"), *last],
    ):
        process = started(*command)
        process.communicate(timeout=ENDS_WITHIN)
        assert process.returncode == 0
    assert newest_step(out) == step + 20
    assert identical(out, tmp_path / "whole")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_imports_is_one_line(tmp_path: Path, number: int) -> None:
    """As soon as the process listens, and however often."""
    process = started("--out", tmp_path / "out")
    wait_until(lambda: is_blocked(process.pid, number))
    for _ in range(3):
        process.send_signal(number)
    printed, errors = process.communicate(timeout=ENDS_WITHIN)
    assert (process.returncode, printed) == (0, "")
    assert errors == "stopped before the first step; nothing is written\n"
    assert not (tmp_path / "out").exists()


def test_a_signal_to_one_process_stops_all_at_one_step(
    data: Path, tmp_path: Path, pairs: list[Pair]
) -> None:
    """Each says how it goes on; the step is in the folder."""
    out = tmp_path / "out"
    pair = Pair(*small_flags(data, out), "--num-steps", 10**6)
    pairs.append(pair)
    wait_for_step(out, 20)
    pair.processes[1].send_signal(signal.SIGTERM)
    for number in (0, 1):
        status, _, errors = pair.ended(number)
        assert status == 0, errors
        last = errors.splitlines()[-1]
        assert last.startswith(f"stopped at step {newest_step(out)}; ")
        assert last.endswith(f"--process-id {number} --resume")


def test_processes_that_differ_do_not_begin(
    data: Path, tmp_path: Path, pairs: list[Pair]
) -> None:
    """Flags and data that differ are named with their ranks on both, which exit 1."""
    other = tiny_mnist(tmp_path / "other", seed=1)
    flags = small_flags(data, tmp_path / "out")
    changed = [
        *("--seed", 1, "--learning-rate", 0.2, "--gradient", "autodiff"),
        *("--data", other, "--num-steps", 29, "--num-processes", 3),
    ]
    pair = Pair(*flags, "--num-steps", 30, own=((), changed))
    pairs.append(pair)
    for number in (0, 1):
        status, _, errors = pair.ended(number)
        assert status == 1
        last = errors.splitlines()[-1]
        for words in (
            "seed is 0 on process 0, 1 on process 1",
            "learning_rate is 0.1 on process 0, 0.2 on process 1",
            "gradient is backprop on process 0, autodiff on process 1",
            "num_steps is 30 on process 0, 29 on process 1",
            "num_processes is 2 on process 0, 3 on process 1",
            "; data is 200 + 50 images",
        ):
            assert words in last
    assert not list((tmp_path / "out").glob("step-*"))


def test_processes_that_resume_from_other_folders_do_not_begin(
    data: Path, tmp_path: Path, pairs: list[Pair]
) -> None:
    """Of another step, without a checkpoint, or a copy: a folder that is not shared.

    Nor from what another number of processes left: its bits could not be gone on with.
    """
    outs = [tmp_path / name for name in ("10", "20", "none", "copy", "alone")]
    for out, last in zip(outs, (10, 20), strict=False):
        pair = Pair(*small_flags(data, out), "--num-steps", last)
        pairs.append(pair)
        assert pair.ended(0)[0] == pair.ended(1)[0] == 0
    shutil.copytree(outs[0], outs[3])
    process = started(*small_flags(data, outs[4]), "--num-steps", 10)
    process.communicate(timeout=ENDS_WITHIN)
    assert process.returncode == 0
    number = "devices was '1 in 1 processes', is '2 in 2 processes'"
    for first, out, words in (
        (outs[0], outs[1], "the step to begin at is 10 on process 0, 20 on process 1"),
        (
            outs[0],
            outs[2],
            f"refusal is none on process 0, {outs[2]}: no checkpoint here",
        ),
        (outs[0], outs[3], "the writer to --out is process"),
        (outs[0], outs[4], f"refusal is none on process 0, {outs[4]}/step"),
        (outs[4], outs[4], number),
    ):
        flags = [*small_flags(data, first), "--num-steps", 30, "--resume"]
        pair = Pair(*flags, own=((), ("--out", out)))
        pairs.append(pair)
        for number in (0, 1):
            status, _, errors = pair.ended(number)
            assert status == 1
            assert words in errors.splitlines()[-1]


@pytest.mark.parametrize("count", [3, 4])
def test_several_processes_or_devices_train_as_one(tmp_path: Path, count: int) -> None:
    """But for the order of sums: three have 33 images each, a third of 99."""
    lab, flags = faults.Lab(tmp_path, 1), ["--num-steps", 20]
    faults.write_data(tmp_path / "data")
    if count == 3:
        flags += ["--batch-size", 99]
    outs = [lab.out() for _ in range(3)]
    for out, *more in ((outs[0],), (outs[1], "--devices", count)):
        (end,) = lab.done(out, *flags, *more)
        assert end.status == 0
    ends = lab.done(outs[2], *flags, count=count)
    assert [end.status for end in ends] == [0] * count
    alone = arrays(outs[0])
    assert len(alone) > 4
    for out in outs[1:]:
        for name, values in arrays(out).items():
            np.testing.assert_allclose(values, alone[name], rtol=1e-4, atol=1e-6)


CALLS = """
import sys, jax, numpy as np, jax.numpy as jnp
from functools import partial
from jaxnet import gradients, init_state, train
from jaxnet.mnist import Mnist
jax.config.update("jax_num_cpu_devices", 2)
_, _, count, _, where, _, rank = sys.argv
jax.distributed.initialize(where, int(count), int(rank))
mesh, rank = jax.make_mesh((4,), ("batch",)), int(rank)
draws = np.random.default_rng(0)
def data(shift=0):
    images = [np.full((n, 5), 7, np.uint8) for n in (8, 4)]
    labels = [(np.arange(n) + shift) % 3 for n in (8, 4)]
    return Mnist(images[0], labels[0], images[1], labels[1])
def outcome(shift=0, seed=0, **arguments):
    state = init_state(jax.random.key(seed), (5, 3, 3))
    try:
        arguments = {"batch_size": 4, "num_steps": 4, **arguments}
        train(data(shift), state, mesh=mesh, **arguments)
    except ValueError as error:
        return str(error)
    return "trained"
print(outcome())
print(outcome(shift=rank))
print(outcome(seed=rank))
print(outcome(num_steps=4 + rank))
print(outcome(gradient=(gradients.backprop, gradients.autodiff)[rank]))
print(outcome(callback=(None, lambda *_: None)[rank]))
"""


def test_train_refuses_processes_that_differ(tmp_path: Path, pairs: list[Pair]) -> None:
    """In data, state, length or program; callbacks may be each process's own."""
    script = tmp_path / "calls.py"
    script.write_text(CALLS)
    pair = Pair(script=script)
    pairs.append(pair)
    said = []
    for number in (0, 1):
        status, printed, errors = pair.ended(number)
        assert status == 0, errors
        lines = printed.splitlines()  # Gloo's own may come in pieces
        said.append([x for x in lines if "Gloo" not in x and "peer ranks" not in x])
    assert said[0] == said[1]
    same, labels, seed, steps, route, callbacks = said[0]
    assert same == callbacks == "trained"
    for line, what in ((labels, "data"), (seed, "state"), (route, "program")):
        differs = rf"{what} is \w+ on process 0, \w+ on process 1; start"
        assert re.match(f"the processes differ: {differs}", line)
    assert "num_steps is 4 on process 0, 5 on process 1; start" in steps
