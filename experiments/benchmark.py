"""How fast is it all, beside the book's loop and the same job in other libraries?

    python experiments/benchmark.py [--numeric-gradient] [--main-job] ...

Prints a table for each section, with ratios of times from this one run, and writes
benchmark.json to `--out`; --markdown writes the same as Markdown. Without a flag of a
section all are run: the main job as a whole process (ours and each peer of the extra
`benchmarks` that is installed), the numeric gradient of the network and of any
function, training by it, many runs at once, and an accelerator if there is one. Takes
about 8 minutes on two cores, which should have nothing else to do.
"""

import json
import os
import platform
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Annotated, Any

import jax
import tyro

from experiments.command import parsed
from experiments.measurements.checks import cost_of_checks, cost_of_models
from experiments.measurements.gradients import any_function, network_gradients
from experiments.measurements.processes import PEERS, main_job
from experiments.measurements.runs import accelerator, many_runs, numeric_training
from experiments.measurements.section import Section

BENCHMARKS = Path(__file__).parent / "BENCHMARKS.md"
PACKAGES = ("jax", "numpy", "optax", "torch", "flax", "equinox")
QUICK_STEPS = 20


@dataclass(frozen=True)
class Flags:
    """Measure times and their ratios; a section without its flag is left out."""

    main_job: bool = False
    """The main job as a whole process, beside the peers."""
    numeric_gradient: bool = False
    """The whole numeric gradient of 784-50-10."""
    any_function: bool = False
    """The numeric gradient of small and large functions."""
    numeric_training: bool = False
    """Training by numeric gradient."""
    many_runs: bool = False
    """8 learning rates × 2 seeds in one program."""
    checks: bool = False
    """Gradient checks of small functions, beside check_grads and chex."""
    models: bool = False
    """Gradient checks of a deep model and of a large leaf."""
    accelerator: bool = False
    """Times on the first device, if that is no CPU."""
    full: bool = False
    """Train by numeric gradient to the end: minutes more."""
    rounds: int = 5
    """How often each program of the main job is run."""
    peers: tuple[str, ...] = PEERS
    quick: bool = False
    """Small sizes, to see that everything works."""
    out: Path = Path("out")
    """Folder for benchmark.json."""
    markdown: Annotated[tuple[Path, ...] | None, tyro.conf.arg(metavar="[FILE]")] = None
    """Write the tables as Markdown: experiments/BENCHMARKS.md if no file is named."""


def main() -> None:
    """Parse the flags, and run."""
    run(parsed(Flags, __doc__))


def run(flags: Flags) -> None:
    """Measure and print section by section, then write all of them."""
    load = os.getloadavg()[0]
    found = {}
    for name, measure in chosen(flags).items():
        found[name] = measure()
        print(found[name].text() + "\n", flush=True)
    result: dict[str, Any] = {
        "machine": {**machine(), "load_at_start": load},
        "quick": flags.quick,
        "sections": {name: asdict(section) for name, section in found.items()},
    }
    print(machine_text(result["machine"]))
    files = [flags.out / "benchmark.json"]
    files[0].parent.mkdir(parents=True, exist_ok=True)
    files[0].write_text(json.dumps(result, indent=1))
    if flags.markdown is not None:
        files.append(flags.markdown[0] if flags.markdown else BENCHMARKS)
        files[-1].write_text(as_markdown(result["machine"], list(found.values())))
    print("written:", *files)


def chosen(flags: Flags) -> dict[str, Callable[[], Section]]:
    """The sections that were asked for, or all.

    The main job comes first: this process has then not taken an accelerator's memory.
    """
    quick = flags.quick
    rounds, steps = (1, QUICK_STEPS) if quick else (flags.rounds, 5000)
    sections: dict[str, Callable[[], Section]] = {
        "main_job": lambda: main_job(flags.peers, rounds, steps, not quick),
        "numeric_gradient": lambda: network_gradients(quick),
        "any_function": lambda: any_function(quick),
        "numeric_training": lambda: numeric_training(quick, flags.full),
        "many_runs": lambda: many_runs(quick),
        "checks": lambda: cost_of_checks(quick),
        "models": lambda: cost_of_models(quick),
        "accelerator": lambda: accelerator(quick),
    }
    asked = {k: measure for k, measure in sections.items() if getattr(flags, k)}
    return asked or sections


def machine() -> dict[str, Any]:
    """What all this was measured on."""
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **{name: release for name in PACKAGES if (release := version_of(name))},
        "devices": [device.device_kind for device in jax.devices()],
    }


def processor() -> str:
    """The processor's name, as far as the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()


def version_of(package: str) -> str | None:
    """Of an installed package."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def machine_text(found: dict[str, Any]) -> str:
    """The machine in two lines, and a warning if it had something else to do."""
    versions = ", ".join(f"{k} {found[k]}" for k in ("python", *PACKAGES) if k in found)
    lines = [
        f"{found['processor']}, {found['cores']} cores, {found['system']}; "
        f"devices: {', '.join(found['devices'])}",
        versions,
    ]
    if (load := found["load_at_start"]) > 0.5:
        lines.append(f"The machine was busy: load {load:.1f} at the start.")
    return "\n".join(lines)


def as_markdown(found: dict[str, Any], sections: list[Section]) -> str:
    """The machine, and all tables."""
    head = "# Benchmarks\n\nWritten by `python experiments/benchmark.py --markdown`."
    ratios = "Ratios are of times from one run; absolute times are this machine's."
    tables = "\n\n".join(section.markdown() for section in sections)
    paragraph = machine_text(found).replace("\n", "  \n")
    return f"{head}\n{ratios}\n\n{paragraph}\n\n{tables}\n"


if __name__ == "__main__":
    main()
