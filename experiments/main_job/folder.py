"""The folder of a run: locked while it writes, and not another run's.

A file in it gets its name only once it is whole; what has that name already is replaced
if it is a file, and refused if it is a link, a pipe or a device.
"""

import fcntl
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from experiments.main_job.flags import Flags, num_steps
from jaxnet.training import State
from jaxnet.training.checkpoint import load_checkpoint
from jaxnet.training.checkpoint_file import plain

LOCK, METRICS, FIGURE = ".lock", "metrics.jsonl", "accuracy.png"
WAYS_OUT = "go on by --resume, name another --out, or pass --overwrite"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, which goes with the process however it ends.

    Raises:
        OSError: another process has it, who is named; there can be no such folder, or
            something else than a file is where one is to be.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path, *_ = (plain(folder / name) for name in (LOCK, METRICS, FIGURE))
    for checkpoint in folder.glob("step-*.safetensors"):
        plain(checkpoint)
    with os.fdopen(
        os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o644), "r+"
    ) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = holder_of(folder)
            fix = "wait for it, or name another --out"
            raise OSError(f"{folder}: {holder} writes to it; {fix}") from None
        file.truncate()
        since = datetime.now(UTC).isoformat(" ", "microseconds")
        file.write(f"process {os.getpid()} of {socket.gethostname()}, since {since}\n")
        file.flush()
        os.fsync(file.fileno())
        yield


def holder_of(folder: Path) -> str:
    """Who holds the folder's lock, or held it last, as all see that share the folder.

    No two holders are told alike, on whatever machine.
    """
    try:
        with plain(folder / LOCK).open() as file:
            return " ".join(file.read(200).split()) or "another process"
    except OSError:
        return "nobody"


def check_free(flags: Flags, like: State, config: dict[str, Any]) -> None:
    """A new run may replace what the very same run left when it was done, no more.

    Raises:
        ValueError: the folder holds checkpoints of another run, or of this one at
            another step than the last.
    """
    if flags.overwrite:
        return
    try:
        found = load_checkpoint(flags.folder, like, config)
    except FileNotFoundError:
        return
    except ValueError as error:
        raise ValueError(f"{error}, or pass --overwrite") from None
    step, last = int(found.state.step), num_steps(flags)
    if step != last:
        what = f"{found.path}: this run at step {step}, not {last}"
        raise ValueError(f"{what}; {WAYS_OUT}")


def write_whole(path: Path, write: Callable[[Path], Any]) -> Path:
    """The path, at which there is now what `write` wrote to a temporary name.

    Raises:
        OSError: it cannot be written, or there is something else than a file.
    """
    temporary = plain(plain(path).with_name(f".{path.name}.tmp"))
    try:
        write(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return path
