"""Do many devices, and two processes, train the network of one, and what do they cost?

    python experiments/devices.py

Trains 784-50-10 for 100 steps on 1, 2, 4 and 8 CPU devices and in two processes on
loopback, by backprop and by the numeric gradient in float32, with batches drawn with
and without replacement. Prints how far the parameters are from those of one device, in
units in the last place of each leaf's largest entry, and beside it those of another
key; the times of a step and of a whole numeric gradient in one process and in two; and
what a batch of 1024 costs on 8 to 1024 devices, on paper. Takes minutes on two cores.
"""

import json
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from experiments.command import parsed
from experiments.main_job.folder import write_whole
from jaxnet import gradients
from jaxnet.mnist import Mnist, load_mnist
from jaxnet.training import State, init_state, train

ROUTES = ("backprop", "numerical")
BATCHES = {"with replacement": True, "permutations": False}
NUM_STEPS, QUICK_STEPS, BATCH_SIZE, QUICK_BATCH = 100, 20, 96, 16
MOST_ULPS = {"backprop": 32, "numerical": 2**19}
"""How far any number of devices may lead from one after 100 steps. A numeric slope has
the loss's rounding, divided by a step of some 5e-3, and another at every step."""

ONE, PAIR, OTHER_KEY = "1 device", "2 processes", "another key"
COUNTS, QUICK_COUNTS = (2, 4, 8), (8,)

SHOWN = (8, 64, 256, 1024)
LARGE_BATCH, PARAMETERS = 1024, 784 * 50 + 50 + 50 * 10 + 10
LATENCY, BANDWIDTH = 5e-6, 12.5e9
"""Seconds a message, and bytes a second, of a cluster's network of 100 Gbit/s."""

Arrays = dict[str, np.ndarray]


@dataclass(frozen=True)
class Flags:
    """Compare and time devices and processes."""

    quick: bool = False
    """A narrow network on few images, on fewer devices, for 20 steps."""
    out: Path | None = None
    """Folder for devices.json."""
    worker: Path | None = None
    """For the script itself: measure, and write to this folder."""
    coordinator: str | None = None
    """For the script itself: be one of two processes."""
    process_id: int = 0


def main() -> None:
    """Have it measured in processes of their own, compare, print and write."""
    flags = parsed(Flags, __doc__)
    if flags.worker is not None:
        work(flags, flags.worker)
        return
    with tempfile.TemporaryDirectory() as folder:
        found = measured(flags.quick, Path(folder))
    times = ("numeric gradient", *(f"step {route}" for route in ROUTES))
    seconds = {p: {t: float(found[p][t]) for t in times} for p in (ONE, PAIR)}
    result: dict[str, Any] = {
        "ulps": [row(found, route, place) for route in ROUTES for place in found],
        "steps": steps(flags.quick),
        "seconds": seconds,
        "on_paper": [
            on_paper(r, seconds[ONE][f"step {r}"] / batch_size(flags.quick))
            for r in ROUTES
        ],
    }
    print("\n\n".join(map("\n".join, texts(result))))
    if flags.out is not None:
        flags.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps(result, indent=1)
        write_whole(flags.out / "devices.json", lambda path: path.write_text(text))


def measured(quick: bool, folder: Path) -> dict[str, Arrays]:
    """What a process of eight devices found, and then two processes of one each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        pair = ["--coordinator", f"127.0.0.1:{free.getsockname()[1]}", "--process-id"]
    command = [sys.executable, __file__, "--worker", str(folder)]
    command += ["--quick"] * quick
    alone: list[list[str]] = [[]]
    for group in (alone, [[*pair, "0"], [*pair, "1"]]):
        processes = [
            subprocess.Popen([*command, *more], stdout=subprocess.DEVNULL)
            for more in group
        ]
        if any([process.wait() for process in processes]):
            sys.exit("error: a process that was to measure failed")
    return {path.stem: dict(np.load(path)) for path in sorted(folder.glob("*.npz"))}


def work(flags: Flags, folder: Path) -> None:
    """Measure on 1, 2, 4 and 8 devices of this process, or on those of two."""
    jax.config.update("jax_compilation_cache_dir", str(folder / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    if flags.coordinator is not None:
        jax.distributed.initialize(flags.coordinator, 2, flags.process_id)
        mesh = jax.make_mesh((2,), ("batch",))
        found = {**trained(mesh, flags.quick), **timed(mesh, flags.quick)}
        if flags.process_id == 0:
            np.savez(folder / PAIR, **found)  # type: ignore[arg-type]
        return
    jax.config.update("jax_num_cpu_devices", max(COUNTS))
    alone = {**trained(None, flags.quick), **timed(None, flags.quick)}
    np.savez(folder / ONE, **alone)  # type: ignore[arg-type]
    np.savez(folder / OTHER_KEY, **trained(None, flags.quick, seed=1))  # type: ignore[arg-type]
    for count in QUICK_COUNTS if flags.quick else COUNTS:
        mesh = jax.make_mesh((count,), ("batch",), devices=jax.devices()[:count])
        np.savez(folder / f"{count} devices", **trained(mesh, flags.quick))  # type: ignore[arg-type]


def runs(mesh: Mesh | None, quick: bool, seed: int = 0) -> dict[str, Any]:
    """By route and batches: training for as many steps as it is called with."""
    count, start = 1000 if quick else 10_000, start_of(quick, seed)
    data = Mnist(*(array[:count] for array in load_mnist(as_bytes=True)))
    return {
        f"{route} {batches}": partial(
            train,
            data,
            start,
            gradient=route,
            batch_size=batch_size(quick),
            replacement=replacement,
            mesh=mesh,
        )
        for route in ROUTES
        for batches, replacement in BATCHES.items()
    }


def start_of(quick: bool, seed: int = 0) -> State:
    """A network of 50 hidden units, or of 8."""
    return init_state(jax.random.key(seed), (784, 8 if quick else 50, 10))


def batch_size(quick: bool) -> int:
    """Images a step, a number that 8 devices share evenly."""
    return QUICK_BATCH if quick else BATCH_SIZE


def steps(quick: bool) -> int:
    """Of training."""
    return QUICK_STEPS if quick else NUM_STEPS


def trained(mesh: Mesh | None, quick: bool, seed: int = 0) -> Arrays:
    """The parameters after the last step of every run, by run and leaf."""
    found = {}
    for name, go in runs(mesh, quick, seed).items():
        state, _ = go(num_steps=steps(quick))
        for number, leaf in enumerate(jax.tree.leaves(state.params)):
            found[f"{name} {number}"] = np.asarray(leaf)
    return found


def timed(mesh: Mesh | None, quick: bool) -> Arrays:
    """Seconds of a step by each route, and of a numeric gradient in float64."""
    found, count = {}, 6 if quick else NUM_STEPS
    for route in ROUTES:
        go = runs(mesh, quick)[f"{route} permutations"]
        some, one = (partial(go, num_steps=number) for number in (count, 1))
        rest = fastest(some, quick) - fastest(one, quick)  # both evaluate twice
        found[f"step {route}"] = np.array(rest / (count - 1))
    images, labels = (array[: batch_size(quick)] for array in load_mnist()[:2])
    params = jax.tree.map(np.asarray, start_of(quick).params)
    gradient = partial(gradients.numerical, params, images, labels, mesh=mesh)
    return {**found, "numeric gradient": np.array(fastest(gradient, quick))}


def fastest(call: Any, quick: bool) -> float:
    """The seconds of the fastest of five calls, compiled before."""
    call()
    seconds = []
    for _ in range(1 if quick else 5):
        begin = time.perf_counter()
        jax.block_until_ready(call())
        seconds.append(time.perf_counter() - begin)
    return min(seconds)


def row(found: dict[str, Arrays], route: str, place: str) -> dict[str, Any]:
    """How far a place leads from one device, by one route and both kinds of batches."""
    ulps = {
        batches: max(
            ulps_apart(array, found[ONE][name])
            for name, array in found[place].items()
            if name.startswith(f"{route} {batches} ")
        )
        for batches in BATCHES
    }
    return {"route": route, "place": place, **ulps}


def ulps_apart(got: np.ndarray, want: np.ndarray) -> float:
    """The largest difference, in units in the last place of the largest entry."""
    return float(np.abs(got - want).max() / np.spacing(np.abs(want).max()))


def on_paper(route: str, seconds: float) -> dict[str, Any]:
    """The speed-up of a step of 1024 images on many devices, from one's time an image.

    Each device computes its images and then takes part in one all-reduce of all
    parameters: 2 log₂ N messages, and twice their bytes less what it has.
    """
    alone, speedups = seconds * LARGE_BATCH, {}
    for devices in (2**n for n in range(1, 11)):
        bytes_sent = 2 * 4 * PARAMETERS * (devices - 1) / devices
        reduce = 2 * np.log2(devices) * LATENCY + bytes_sent / BANDWIDTH
        speedups[devices] = float(alone / (alone / devices + reduce))
    pays = max((n for n, s in speedups.items() if s >= n / 2), default=1)
    return {"route": route, "alone": alone, "speedups": speedups, "pays_up_to": pays}


def texts(result: dict[str, Any]) -> list[list[str]]:
    """The three tables, each as lines."""
    ulps = [
        f"ulps from {ONE} after {result['steps']} steps".ljust(36)
        + columns(BATCHES, 20)
    ]
    for r in result["ulps"]:
        numbers = columns((f"{r[batches]:.4g}" for batches in BATCHES), 20)
        ulps.append(f"{r['route']:<12}{r['place']:<24}{numbers}")
    seconds = ["milliseconds".ljust(36) + columns(result["seconds"], 20)]
    for what in result["seconds"][ONE]:
        times = (f"{1e3 * s[what]:.3f}" for s in result["seconds"].values())
        seconds.append(f"{what:<36}" + columns(times, 20))
    paper = [f"on paper, {LARGE_BATCH} images a step: times faster on"]
    paper += [f"{'':12}" + columns((*SHOWN, "pays up to"), 12)]
    for r in result["on_paper"]:
        faster = (f"{r['speedups'][n]:.1f}" for n in SHOWN)
        paper.append(f"{r['route']:<12}" + columns((*faster, r["pays_up_to"]), 12))
    return [ulps, seconds, paper]


def columns(words: Iterable[Any], width: int) -> str:
    """Words set flush right, each in so many columns."""
    return "".join(f"{word:>{width}}" for word in words)


if __name__ == "__main__":
    main()
