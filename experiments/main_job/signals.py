"""SIGTERM and SIGINT, which ask a run to stop: Slurm, Kubernetes and Ctrl-C.

Only standard modules are imported here, so that a process listens before it imports
all others.
"""

import os
import shlex
import signal
import sys
import threading
from typing import NoReturn

GRACE_SECONDS = 10
"""How long a run that is asked to stop may take to save."""

_SIGNALS = {signal.SIGINT, signal.SIGTERM}
_asked, _training = threading.Event(), threading.Event()


def listen() -> None:
    """From here on both signals are a question, in every thread, however often.

    Until `training` the process ends at once: there is nothing to save.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    threading.Thread(target=_wait, name="signals", daemon=True).start()


def training() -> None:
    """From here on the run is asked by `asked`, and saves."""
    _training.set()


def asked() -> bool:
    """Whether this process was asked to stop."""
    return _asked.is_set()


def command() -> str:
    """The command line that goes on with this run."""
    again = [word for word in sys.argv if word not in ("--resume", "--overwrite")]
    return f"python {shlex.join(again)} --resume"


def leave(status: int, line: str) -> NoReturn:
    """End this process now, whatever its other threads do, with one line."""
    os.write(sys.stderr.fileno(), f"{line}\n".encode())
    os._exit(status)


def _wait() -> None:
    signal.sigwait(_SIGNALS)
    _asked.set()
    if not _training.is_set():
        leave(0, "stopped before the first step; nothing is written")
    threading.Event().wait(GRACE_SECONDS)
    leave(1, f"error: not stopped in {GRACE_SECONDS} s; go on by {command()}")
