"""kill -9 at any moment loses at most the epoch in flight, and not one bit."""

import multiprocessing
import os
import time
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from experiments import train_mnist
from experiments.main_job.flags import Flags
from experiments.main_job.watcher import Watcher
from tests.test_processes import identical, newest_step, tiny_mnist

pytestmark = pytest.mark.slow

KILLS = 24
MOST_SAVES, LONGEST = 8, 0.01
"""A kill comes up to so many seconds after one of the first saves begins."""


def run(flags: Flags, cache: Path, saving: Event, number: int) -> None:
    """Train in a process of its own; `saving` is set just before a save."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    jax.config.update("jax_compilation_cache_dir", str(cache))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    save, numbers = Watcher.save, iter(range(10**6))

    def told(watcher: Watcher) -> None:
        if next(numbers) == number:
            saving.set()
        save(watcher)

    Watcher.save = told  # type: ignore[method-assign]
    train_mnist.run(flags, None)


def test_killed_at_any_moment(tmp_path: Path) -> None:
    """Killed 24 times, in saves or between, the run ends as if it had never been.

    Most of its time goes into saves, one every ten steps. The checkpoint before the
    last, as is seen, is another.
    """
    data, cache = tiny_mnist(tmp_path / "data"), tmp_path / "cache"
    processes: Any = multiprocessing.get_context("forkserver")
    processes.set_forkserver_preload(["experiments.train_mnist"])
    saving, draws = processes.Event(), np.random.default_rng(0)

    def start(out: Path, last: int, number: int = -1) -> Any:
        resume = any(out.glob("step-*"))
        flags = Flags(
            data=data,
            out=out,
            resume=resume,
            figure=False,
            batch_size=20,
            hidden=(4,),
            num_steps=last,
        )
        process = processes.Process(target=run, args=(flags, cache, saving, number))
        process.start()
        return process

    killed, whole = tmp_path / "killed", tmp_path / "whole"
    for number in draws.integers(MOST_SAVES, size=KILLS):
        saving.clear()
        process = start(killed, 10**6, number)
        assert saving.wait(60)
        time.sleep(draws.uniform(0, LONGEST))
        process.kill()
        process.join()
        assert process.exitcode == -9
    last = newest_step(killed) + 20
    for process in (start(killed, last), start(whole, last)):
        process.join()
        assert process.exitcode == 0
    assert newest_step(killed) == last
    assert identical(killed, whole)
    assert not identical(killed, min(killed.glob("step-*")))
