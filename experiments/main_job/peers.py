"""The other processes of a run: waited for, and named when one of them is gone.

JAX's own client answers the loss of a peer by printing a stack and aborting. Here what
its C++ prints goes through a pipe, from which the one line is made that says who.
"""

import ctypes
import os
import re
import select
import signal
import socket
import sys
import threading
import time
from typing import NoReturn

import jax

from experiments.main_job.flags import Flags
from experiments.main_job.signals import leave

WAIT_SECONDS = 45
"""How long a process waits for the others to come."""

HEARTBEAT_SECONDS = 20
"""How long a process may be silent before the others end."""

SHUTDOWN_SECONDS = 40
"""How long a process that is done waits for the others."""

END = b"Terminating process because"
"""What JAX's client prints before it aborts."""

SILENT = re.compile(rb"stopped sending heartbeats\):\s*(?:.*\D)?(\d+)")
"""The process that JAX's coordinator misses; none is named where that is its own."""


def join(flags: Flags) -> None:
    """Connect this process with all others of the run.

    Raises:
        OSError: the address of process 0 is taken, or not this machine's.
    """
    if flags.coordinator is not None and flags.process_id == 0:
        check_address(flags.coordinator)
    filter_errors()
    where = flags.coordinator or "the coordinator"
    count = flags.num_processes or "all"
    print(f"waiting for {where} (1 of {count} here)", file=sys.stderr, flush=True)
    late = f"error: waited {WAIT_SECONDS} s for {where}, and not all of {count} came"
    fix = "start every process with this --coordinator, and another --process-id"
    timer = threading.Timer(WAIT_SECONDS, leave, (1, f"{late}; {fix}"))
    timer.daemon = True
    timer.start()
    jax.distributed.initialize(
        flags.coordinator,
        flags.num_processes,
        flags.process_id,
        initialization_timeout=2 * WAIT_SECONDS,
        heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
        shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        coordinator_bind_address=flags.coordinator,
    )
    timer.cancel()


def check_address(coordinator: str) -> None:
    """Nobody listens there, not even a coordinator, which would share its port."""
    host, _, port = coordinator.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        family, _, _, _, address = found[0]
        socket.create_server(address[:2], family=family).close()
    except OSError as error:
        fix = "take a free port of process 0's machine"
        raise OSError(f"{coordinator}: {error.strerror}; {fix}") from None


def lost(error: Exception) -> NoReturn:
    """End this process, after an error that a peer's end may be the reason of.

    Of two processes it is the other one; of more, the coordinator knows a little later.
    """
    here, count = jax.process_index(), jax.process_count()
    reason = " ".join(str(error).split())[:200]
    if count == 1:
        sys.exit(f"error: {reason}")
    if count > 2:
        time.sleep(2 * HEARTBEAT_SECONDS)
    others = ", ".join(str(i) for i in range(count) if i != here)
    leave(1, gone(f"one of {others}" if count > 2 else others, reason))


def gone(who: str, reason: str) -> str:
    """The line about a process that died or froze."""
    return f"error: lost process {who} ({reason}); start all again with --resume"


def filter_errors() -> None:
    """Let what C++ prints go through `_read`, and Python print as before.

    An abort waits until that is read: its handler is `sleep`, and is given the signal's
    number, 6 seconds.
    """
    errors = os.dup(2)
    sys.stderr = os.fdopen(errors, "w", buffering=1)
    reading, writing = os.pipe()
    os.dup2(writing, 2)
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], None
    libc.signal(signal.SIGABRT, ctypes.cast(libc.sleep, ctypes.c_void_p))
    threading.Thread(target=_read, args=(reading, errors), daemon=True).start()


def _read(reading: int, errors: int) -> None:
    """Pass on what is read, but for what is said of a lost peer: that is one line."""
    held = b""
    while True:
        if select.select([reading], [], [], 1 if held else None)[0]:
            held += os.read(reading, 2**16)
        elif END in held:
            missed = SILENT.search(held)
            who = missed[1].decode() if missed else "0"
            leave(1, gone(who, "it died or is frozen"))
        else:
            os.write(errors, held)
            held = b""
