"""What accuracy does the book's network reach on MNIST?

    python experiments/train_mnist.py [--gradient backprop|autodiff|numerical]

5000 steps of SGD on 784-50-10. Prints the accuracies at the start of every epoch beside
those of the blog's NumPy run, then those after the last step, and writes to `--out`:
checkpoints, metrics.jsonl and accuracy.png. Takes seconds on two cores; with
`--gradient numerical`, no derivative being used at all, minutes. A run that was stopped
goes on with `--resume`.
"""

import json
import shlex
import sys
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh

from experiments.patience import said_if_slow
from jaxnet import gradients
from jaxnet.checkpoint import MAX_BYTES, load_checkpoint, save_checkpoint
from jaxnet.input_checks import (
    check_layer_sizes,
    check_positive,
    complaint,
    describe,
)
from jaxnet.mnist import NUM_CLASSES, Mnist, load_mnist
from jaxnet.training import (
    History,
    Recipe,
    State,
    compile_programs,
    init_state,
    train,
    with_learning_rate,
)

BLOG = (
    (0.0974, 0.0982),
    (0.7766, 0.7832),
    (0.8754, 0.8803),
    (0.8972, 0.9006),
    (0.9066, 0.9095),
    (0.9131, 0.9146),
    (0.9182, 0.9193),
    (0.9235, 0.9253),
    (0.9261, 0.9282),
)
"""Training and test accuracy that the blog printed at the start of each epoch."""

HEARTBEAT_SECONDS = 20
"""How long a process may be silent before the others end."""

MAX_DEVICES = 4096

SHUTDOWN_SECONDS = 40
"""How long a process that is done, or failed, waits for the others."""

QUICK_STEPS, QUICK_EXAMPLES = 150, 5000
MNIST_SHAPES = {"train": (60_000, 784), "test": (10_000, 784)}


@dataclass(frozen=True)
class Flags:
    """Train the book's network on MNIST."""

    gradient: Literal["backprop", "autodiff", "numerical"] = "backprop"
    """The route to the gradient."""
    data: Path | None = None
    """Folder of four IDX files, gzipped or not; MNIST by default."""
    out: Path = Path("out")
    """Folder for the checkpoints, the metrics and the figure."""
    resume: bool = False
    """Go on from the newest checkpoint in `out`."""
    quick: bool = False
    """A few steps on a few images, to see that everything works."""
    figure: bool = True
    """Draw accuracy.png."""
    seed: int = 0
    num_steps: int = 5000
    batch_size: int = 100
    learning_rate: float = 0.1
    hidden: tuple[int, ...] = (50,)
    """Width of each hidden layer."""
    keep: int = 3
    """How many checkpoints are left in `out`."""
    devices: int | None = None
    """Split each batch over so many devices, of all processes together."""
    distributed: bool = False
    """One of many processes, started by Slurm, MPI or Kubernetes."""
    coordinator: str | None = None
    """HOST:PORT of process 0, where they were started by hand."""
    num_processes: int | None = None
    process_id: int | None = None


def main() -> None:
    """Parse the flags, train, and turn expected errors into one line."""
    flags = parse_flags()
    try:
        check_flags(flags)
        mesh = make_mesh(flags)
        run(flags, mesh)
    except (OSError, TypeError, ValueError, FloatingPointError) as error:
        sys.exit(f"error: {error}")
    except jax.errors.JaxRuntimeError as error:
        sys.exit(f"error: {lost(error)}")


def lost(error: jax.errors.JaxRuntimeError) -> str:
    """Which process is gone, as far as this one can tell, and how to go on.

    As it exits JAX waits for the others, and names the one that is silent.
    """
    here, count = jax.process_index(), jax.process_count()
    reason = " ".join(str(error).split())[:200]
    if count == 1:
        return reason
    others = ", ".join(str(i) for i in range(count) if i != here)
    one_of = "one of the processes" if count > 2 else "process"
    fix = "start all of them again with --resume"
    return f"process {here} lost {one_of} {others} ({reason}); {fix}"


def parse_flags() -> Flags:
    """The command line's; tyro is imported only if there is one."""
    if len(sys.argv) == 1:
        return Flags()
    import tyro

    return tyro.cli(Flags, description=__doc__)


def check_flags(flags: Flags) -> None:
    """What would end in an obscure error, or in none, is refused before all else."""
    check_positive("learning_rate", flags.learning_rate)
    sizes = layer_sizes(flags)
    check_layer_sizes(sizes)
    count = sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes))
    _check_within("hidden", count, 1, MAX_BYTES // 4, "parameters", "narrower layers")
    _check_within("seed", flags.seed, -(2**63), 2**63 - 1, "", "a smaller number")
    _check_within(
        "devices",
        1 if flags.devices is None else flags.devices,
        1,
        MAX_DEVICES,
        "",
        "fewer",
    )
    ranks = {"num_processes": flags.num_processes, "process_id": flags.process_id}
    for name, value in ranks.items():
        if flags.coordinator is None and value is not None:
            fix = "pass --coordinator HOST:PORT, or --distributed without numbers"
            raise ValueError(complaint(name, "a coordinator", str(value), fix))
    host, _, port = (flags.coordinator or "127.0.0.1:1").rpartition(":")
    if not (host and port.isdecimal() and len(port) < 6 and 0 < int(port) < 2**16):
        got, fix = (
            describe(flags.coordinator),
            "take a free port of process 0's machine",
        )
        raise ValueError(complaint("coordinator", "HOST:PORT", got, fix))


def _check_within(
    name: str, value: int, least: int, most: int, what: str, fix: str
) -> None:
    if not least <= value <= most:
        expected = f"{least} to {most} {what}".rstrip()
        raise ValueError(complaint(name, expected, str(value)[:40], f"pass {fix}"))


def make_mesh(flags: Flags) -> Mesh | None:
    """The devices to split batches over; None where one does it all."""
    many = flags.distributed or flags.coordinator is not None
    if flags.devices is not None:
        here = flags.devices // (flags.num_processes or 1)
        jax.config.update("jax_num_cpu_devices", max(1, here))
    if many:
        jax.distributed.initialize(
            flags.coordinator,
            flags.num_processes,
            flags.process_id,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=SHUTDOWN_SECONDS,
        )
    if flags.devices is None and not many:
        return None
    devices = jax.devices()
    count = flags.devices or len(devices)
    if count > len(devices):
        raise ValueError(f"--devices {count}: expected at most {len(devices)}")
    kinds = (AxisType.Auto,)
    return jax.make_mesh((count,), ("batch",), kinds, devices=devices[:count])


def run(flags: Flags, mesh: Mesh | None) -> None:
    """Train, print, and write, from the start or from the newest checkpoint."""
    recipe = Recipe(
        gradient=route(flags.gradient, mesh), batch_size=flags.batch_size, mesh=mesh
    )
    waiting = said_if_slow("compiling the programs and reading the data …")
    with waiting, ThreadPoolExecutor(2) as background:
        loading = background.submit(load_data, flags)
        shapes = jax.eval_shape(partial(fresh_state, flags))
        background.submit(compile_programs, recipe, shapes, data_shapes(flags))
        fresh = fresh_state(flags)
        data = loading.result()
    watcher = Watcher(flags, configuration(flags, data))
    state, history = watcher.resumed(fresh) if flags.resume else (fresh, None)
    try:
        train(
            data,
            state,
            history,
            **recipe._asdict(),
            num_steps=num_steps(flags),
            steps_per_call=10 if flags.gradient == "numerical" else None,
            callback=watcher,
        )
    except KeyboardInterrupt:
        sys.exit(watcher.stopped())
    watcher.finished()


def route(name: str, mesh: Mesh | None = None) -> Any:
    """The gradient, in a form that can be traced."""
    numerical = partial(gradients.numerical, dtype=jnp.float32, mesh=mesh)
    return numerical if name == "numerical" else gradients.ROUTES[name]


def num_steps(flags: Flags) -> int:
    return min(flags.num_steps, QUICK_STEPS) if flags.quick else flags.num_steps


def layer_sizes(flags: Flags) -> tuple[int, ...]:
    return (MNIST_SHAPES["train"][1], *flags.hidden, NUM_CLASSES)


def fresh_state(flags: Flags) -> State:
    """The state before the first step."""
    state = init_state(jax.random.key(flags.seed), layer_sizes(flags))
    return with_learning_rate(state, flags.learning_rate)


def load_data(flags: Flags) -> Mnist:
    data = load_mnist(flags.data, as_bytes=True)
    return Mnist(*(a[:QUICK_EXAMPLES] for a in data)) if flags.quick else data


def data_shapes(flags: Flags) -> Mnist:
    """The form of MNIST, to compile for while the files are read.

    If they have another, the programs are compiled once more.
    """
    most = QUICK_EXAMPLES if flags.quick else None
    forms = []
    for examples, pixels in MNIST_SHAPES.values():
        count = len(range(examples)[:most])
        forms.append(jax.ShapeDtypeStruct((count, pixels), np.uint8))
        forms.append(jax.ShapeDtypeStruct((count,), np.int32))
    return Mnist(*forms)  # type: ignore[arg-type]


def configuration(flags: Flags, data: Mnist) -> dict[str, Any]:
    """What makes the run: a checkpoint of another is refused."""
    checksum = 0
    for array in data:
        checksum = zlib.crc32(array[::97].tobytes(), checksum)
    return {
        "network": Recipe().network.__dict__,
        "layer_sizes": layer_sizes(flags),
        "gradient": flags.gradient,
        "optimizer": "sgd",
        "learning_rate": flags.learning_rate,
        "batch_size": flags.batch_size,
        "replacement": Recipe().replacement,
        "seed": flags.seed,
        "data": f"{len(data.train_labels)} + {len(data.test_labels)} images, "
        f"CRC {checksum:08x}",
    }


class Watcher:
    """The callback: prints and writes each new row, and keeps the latest state.

    Of many processes, the first does all of that.
    """

    def __init__(self, flags: Flags, config: dict[str, Any]) -> None:
        self.flags, self.config = flags, config
        self.latest: tuple[State, History] | None = None
        self.paths: list[Path] = []
        self.is_first = jax.process_index() == 0
        self.bar = progress_bar(num_steps(flags)) if self.is_first else None
        self.say("           ours              the blog")
        self.say(" step   train    test     train    test")

    def resumed(self, like: State) -> tuple[State, History]:
        """Where the newest checkpoint left off."""
        state, history, _, path = load_checkpoint(self.flags.out, like, self.config)
        self.say(f"resumed from {path}")
        return state, history

    def __call__(self, state: State, history: History) -> None:
        self.latest = state, history
        step = int(state.step)
        if self.bar is not None:
            self.bar.update(step - self.bar.n)
        if step in history.steps[-1:]:
            self.say(table_row(history))
            self.save()

    def save(self) -> None:
        """Write the checkpoint and the metrics."""
        if self.latest is not None and self.is_first:
            out, keep = self.flags.out, self.flags.keep
            checkpoint = save_checkpoint(out, *self.latest, self.config, keep)
            metrics = write_metrics(out / "metrics.jsonl", self.latest[1])
            self.paths = [checkpoint, metrics]

    def stopped(self) -> str:
        """Save what there is, and say how to go on."""
        self.save()
        if not self.paths:
            return "stopped"
        again = [word for word in sys.argv if word != "--resume"]
        how = f"python {shlex.join(again)} --resume"
        return f"stopped; {self.paths[0]} is written: go on by {how}"

    def finished(self) -> None:
        """Say what came of it, draw it, and name the files."""
        assert self.latest is not None
        _, history = self.latest
        test, step = history.test_accuracy[-1], history.steps[-1]
        self.say(f"test accuracy after {step} steps: {test:.4f}")
        if self.flags.figure and self.is_first:
            from jaxnet.plots import training_curves

            figure = training_curves(history, self.flags.out / "accuracy.png")
            self.paths.append(figure)
        self.say("written: " + ", ".join(map(str, self.paths)))
        if self.bar is not None:
            self.bar.close()

    def say(self, line: str) -> None:
        """Print, above the progress bar if there is one."""
        if self.bar is not None:
            self.bar.write(line)
        elif self.is_first:
            print(line, flush=True)


def progress_bar(total: int) -> Any:
    """A bar with the time left, on a terminal only."""
    if not sys.stderr.isatty():
        return None
    from tqdm import tqdm

    return tqdm(total=total, unit="step", leave=False)


def table_row(history: History) -> str:
    """The newest accuracies beside the blog's, where it has that step."""
    step, count = history.steps[-1], len(history.steps) - 1
    numbers = [history.train_accuracy[-1], history.test_accuracy[-1]]
    if history.steps_per_epoch == 600 and step == 600 * count and count < len(BLOG):
        numbers.extend(BLOG[count])
    ours, blog = (" ".join(f"{x:7.4f}" for x in numbers[i : i + 2]) for i in (0, 2))
    return f"{step:5d} {ours}   {blog}".rstrip()


def write_metrics(path: Path, history: History) -> Path:
    """One line of JSON for each row; the loss is the mean since the row before."""
    lines = []
    for row, step in enumerate(history.steps):
        since = history.losses[history.steps[row - 1] if row else 0 : step]
        metrics = {
            "step": int(step),
            "epoch": float(step / history.steps_per_epoch),
            "loss": float(since.mean()) if len(since) else None,
            "train_accuracy": float(history.train_accuracy[row]),
            "test_accuracy": float(history.test_accuracy[row]),
        }
        lines.append(json.dumps(metrics) + "\n")
    path.write_text("".join(lines))
    return path


if __name__ == "__main__":
    main()
