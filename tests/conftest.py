"""Strict promotion in every test, programs compiled in haste and kept, a random key."""

import gc
import os
import subprocess
import sys

import jax
import pytest

collect_ignore = ["sample_package"]
"""A suite of its own, which the tests of the plugin run."""

HASTE = "--xla_backend_optimization_level=0", "--xla_cpu_use_fusion_emitters=false"
"""Half of all the time went into optimising programs that run once. Child processes
inherit it; `XLA_FLAGS= make test` leaves the compiler as users have it."""


def _is_known(flag: str) -> bool:
    """Whether this XLA starts with the flag: it ends the process over another's."""
    start = [sys.executable, "-c", "import jax; jax.devices()"]
    environment = {**os.environ, "XLA_FLAGS": flag}
    done = subprocess.run(start, env=environment, stderr=subprocess.DEVNULL)
    return done.returncode == 0


if "XLA_FLAGS" not in os.environ:  # which it reads once, when it starts
    os.environ["XLA_FLAGS"] = " ".join(filter(_is_known, HASTE))

gc.set_threshold(100_000, 50, 100)  # collections took a fourteenth of all the time
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


def pytest_configure(config: pytest.Config) -> None:
    """Compile a program once for all tests, their processes, and the next run.

    A third of the time went into compiling. A program is found by all that it is
    compiled from; the folder goes with pytest's own cache.
    """
    if hasattr(config, "cache"):
        folder = config.cache.mkdir("compiled")
        for name, value in {
            "jax_compilation_cache_dir": str(folder),
            "jax_persistent_cache_min_compile_time_secs": 0,
        }.items():
            jax.config.update(name, value)
            os.environ[name.upper()] = str(value)


def pytest_collection_finish() -> None:
    """What was imported is no garbage: no collection goes through it."""
    gc.freeze()


@pytest.fixture
def key() -> jax.Array:
    """A random key, the same in every test; float64 is not enabled here."""
    return jax.random.key(0)
