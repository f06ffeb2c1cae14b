"""What does verifying a net of 10 million parameters cost in memory and time?

    python experiments/verifier_at_scale.py
    python experiments/verifier_at_scale.py --quick      # 250,000 parameters

Ten dense layers of float32 with a tanh between, 10 million parameters, a batch of 16;
autodiff is the candidate, computed in float64. Prints the evaluations of each leaf, the
seconds, and the peak of the resident memory above what the process held before the
check, as a multiple of the parameters' memory; and the same for one loss and gradient
alone, which any checker needs. Exits 1 if the gradient fails. Takes a minute or two.
"""

import json
import os
import re
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.command import parsed
from jaxnet.verification import check_gradients

BATCH = 16


@dataclass(frozen=True)
class Flags:
    """Measure the verifier on a large net."""

    width: int = 1000
    """Of every layer: its square is the number of weights."""
    layers: int = 10
    """How many."""
    out: Path | None = None
    """Folder for verifier_at_scale.json."""
    quick: bool = False
    """A width of 158."""
    measure: str | None = None
    """For the script itself: measure "check" or "gradient" in this process."""


def main() -> None:
    """Measure each in a process of its own, whose peak it is."""
    flags = parsed(Flags, __doc__)
    width, layers = 158 if flags.quick else flags.width, flags.layers
    if flags.measure is not None:
        print(json.dumps(measure(flags.measure, width, layers)))
        return
    result = {name: in_a_process(name, width, layers) for name in ("gradient", "check")}
    size = 4 * layers * (width**2 + width)
    print(f"{size // 4:,} parameters in float32, {size / 2**20:.0f} MiB")
    for name, found in result.items():
        peak = found["peak_bytes"]
        print(
            f"{name:<9} peak {peak / 2**20:6.0f} MiB above the start, "
            f"{peak / size:5.1f} × the parameters, {found['seconds']:5.1f} s"
        )
    for path, leaf in result["check"]["leaves"].items():
        print(
            f"{path:<12} {leaf['evaluations']:4} evaluations, {leaf['verdict']}, "
            f"resolution {leaf['resolution']:.1e}"
        )
    if flags.out is not None:
        flags.out.mkdir(parents=True, exist_ok=True)
        path = flags.out / "verifier_at_scale.json"
        path.write_text(json.dumps(result, indent=1))
        print(f"written: {path}")
    if not result["check"]["passed"]:
        sys.exit(1)


def in_a_process(name: str, width: int, layers: int) -> Any:
    """What a fresh process measures, which returns what it frees: what it holds."""
    words = [sys.executable, __file__, "--measure", name]
    words += ["--width", str(width), "--layers", str(layers)]
    output = subprocess.run(
        words,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "1000000"},
    ).stdout
    return json.loads(output.splitlines()[-1])


def measure(name: str, width: int, layers: int) -> dict[str, Any]:
    """Peak memory above the start, seconds, and what the check said."""
    loss, params = problem(width, layers)
    params = jax.tree.map(jnp.asarray, params)  # as a training loop holds them
    small_loss, small = problem(8, 2)
    check_gradients(small_loss, small)  # loads what JAX loads once
    jax.block_until_ready(jax.grad(loss)(jax.tree.map(jnp.asarray, small)))
    before, begin = peak_memory(), time.perf_counter()
    found: dict[str, Any] = {}
    if name == "gradient":
        jax.block_until_ready(jax.jit(jax.value_and_grad(loss))(params))
    else:
        report = check_gradients(loss, params)
        found["passed"] = report.passed
        found["leaves"] = {
            leaf.path: {
                "evaluations": leaf.evaluations,
                "verdict": leaf.verdict.value,
                "resolution": leaf.resolution,
            }
            for leaf in report.leaves
        }
    seconds = time.perf_counter() - begin
    return {"peak_bytes": peak_memory() - before, "seconds": seconds, **found}


def problem(width: int, layers: int) -> tuple[Any, list[dict[str, np.ndarray]]]:
    """Dense layers of `width` units, and a mean of squares."""
    random = np.random.default_rng(0)
    images = random.standard_normal((BATCH, width), np.float32)
    params = [
        {
            "W": random.standard_normal((width, width), np.float32)
            / np.float32(width**0.5),
            "b": random.standard_normal(width, np.float32) / np.float32(10),
        }
        for _ in range(layers)
    ]

    def loss(params: Any) -> jax.Array:
        x = jnp.asarray(images[:, : len(params[0]["W"])], params[0]["W"].dtype)
        for layer in params:
            x = jnp.tanh(x) @ layer["W"] + layer["b"][None, :]
        return jnp.mean(x**2)

    return loss, params


def peak_memory() -> int:
    """Bytes of resident memory at the highest, so far, in this process alone."""
    try:
        status = Path("/proc/self/status").read_text()
        (peak,) = re.findall(r"VmHWM:\s+(\d+) kB", status)
    except (OSError, ValueError):  # no Linux: a parent's may be counted too
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return 1024 * int(peak)


if __name__ == "__main__":
    main()
