"""What accuracy does the book's network reach on MNIST?

    python experiments/train_mnist.py [--gradient backprop|autodiff|numerical]

5000 steps of SGD on 784-50-10. Prints the accuracies at the start of every epoch beside
those of the blog's NumPy run, then those after the last step, and writes to `--out`:
checkpoints, metrics.jsonl and accuracy.png. Takes seconds on two cores; with
`--gradient numerical`, no derivative being used at all, minutes. A run that was stopped
goes on with `--resume`.
"""

from experiments.command import parsed
from experiments.main_job import signals

if __name__ == "__main__":
    signals.listen()

import sys
import zlib
from contextlib import ExitStack
from typing import Any

import jax
from jax.sharding import AxisType, Mesh

from experiments.main_job import peers
from experiments.main_job.flags import (
    QUICK_EXAMPLES,
    Flags,
    check_flags,
    layer_sizes,
    num_steps,
)
from experiments.main_job.folder import check_free, holder_of, locked
from experiments.main_job.watcher import Watcher
from jaxnet.devices import check_same, code
from jaxnet.input_checks import first_line
from jaxnet.mnist import Mnist, load_mnist
from jaxnet.training import (
    History,
    Recipe,
    State,
    init_state,
    train,
    with_learning_rate,
)

EXPECTED = (OSError, TypeError, ValueError, FloatingPointError)
"""Errors that are one line."""

STEPS_PER_CALL = 100
"""How soon a run that is asked to stop does: a tenth of a second, here."""


def main() -> None:
    """Parse the flags, train, and turn expected errors into one line."""
    flags = parsed(Flags, __doc__)
    try:
        check_flags(flags)
        mesh = make_mesh(flags)
        run(flags, mesh)
    except EXPECTED as error:
        sys.exit(f"error: {error}")
    except jax.errors.JaxRuntimeError as error:
        peers.lost(error)
    except RuntimeError as error:  # JAX's, of a platform that is not there
        sys.exit(f"error: {first_line(error)}")


def make_mesh(flags: Flags) -> Mesh | None:
    """The devices to split batches over; None where one does it all."""
    many = flags.distributed or flags.coordinator is not None
    if flags.devices is not None:
        here = flags.devices // (flags.num_processes or 1)
        jax.config.update("jax_num_cpu_devices", max(1, here))
    if many:
        jax.config.update("jax_enable_preemption_service", False)  # ours is `signals`
        peers.join(flags)
    if flags.devices is None and not many:
        return None
    devices = jax.devices()
    count = flags.devices or len(devices)
    if count > len(devices):
        raise ValueError(f"--devices {count}: expected at most {len(devices)}")
    if len({device.process_index for device in devices[:count]}) < jax.process_count():
        expected = f"expected one of each of the {jax.process_count()} processes"
        raise ValueError(f"--devices {count}: {expected}")
    kinds = (AxisType.Auto,)
    return jax.make_mesh((count,), ("batch",), kinds, devices=devices[:count])


def run(flags: Flags, mesh: Mesh | None) -> None:
    """Train, print, and write, from the start or from the newest checkpoint.

    A signal ends it after a save. Processes that do not begin with the same do not
    begin, nor do any if one cannot.
    """
    many = jax.process_count() > 1
    everyone = Mesh(jax.devices(), ("batch",)) if many else None
    with ExitStack() as held:
        try:
            data, config = prepared(flags, mesh, held)
            watcher = Watcher(flags, config, everyone)
            state, history = begun(flags, watcher)
        except EXPECTED as error:
            agree({"refusal": error}, everyone)
            raise
        agree({"refusal": "none", **config, **facts(flags, state)}, everyone)
        agree({"the writer to --out": holder_of(flags.folder)}, everyone)
        signals.training()
        try:
            train(
                data,
                state,
                history,
                gradient=flags.gradient,
                batch_size=flags.batch_size,
                num_steps=num_steps(flags),
                mesh=mesh,
                steps_per_call=10 if flags.gradient == "numerical" else STEPS_PER_CALL,
                callback=watcher,
                progress=False,
            )
        except OSError as error:
            if many:
                signals.leave(1, f"error: {error}")  # the others cannot know
            raise
        except KeyboardInterrupt:
            print(watcher.stopped(), file=sys.stderr)
        else:
            watcher.finished()


def prepared(
    flags: Flags, mesh: Mesh | None, held: ExitStack
) -> tuple[Mnist, dict[str, Any]]:
    """The data and the configuration, once the folder is this run's, while it is held.

    Of many processes, the first holds it.
    """
    if jax.process_index() == 0:
        held.enter_context(locked(flags.folder))
    data = load_data(flags)
    return data, configuration(flags, data, mesh)


def begun(flags: Flags, watcher: Watcher) -> tuple[State, History | None]:
    """The state and the history to begin with."""
    fresh = fresh_state(flags)
    if flags.resume:
        return watcher.resumed(fresh)
    check_free(flags, fresh, watcher.config)
    return fresh, None


def agree(facts: dict[str, Any], everyone: Mesh | None) -> None:
    """All processes say the same, or all of them end."""
    if everyone is not None:
        check_same(facts, everyone)


def facts(flags: Flags, state: State) -> dict[str, Any]:
    """What processes of one run have in common, besides the configuration."""
    return {
        "num_steps": num_steps(flags),
        "num_processes": flags.num_processes,
        "the step to begin at": int(state.step),
        "code": code(),
    }


def fresh_state(flags: Flags) -> State:
    """The state before the first step."""
    state = init_state(jax.random.key(flags.seed), layer_sizes(flags))
    return with_learning_rate(state, flags.learning_rate)


def load_data(flags: Flags) -> Mnist:
    """MNIST as bytes; its first images in quick mode."""
    data = load_mnist(flags.data, as_bytes=True)
    return Mnist(*(a[:QUICK_EXAMPLES] for a in data)) if flags.quick else data


def configuration(
    flags: Flags, data: Mnist, mesh: Mesh | None = None
) -> dict[str, Any]:
    """What makes the run, to the last bit: a checkpoint of another is refused."""
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
        "devices": f"{mesh.size if mesh else 1} in {jax.process_count()} processes",
        "data": f"{len(data.train_labels)} + {len(data.test_labels)} images, "
        f"CRC {checksum:08x}",
    }


if __name__ == "__main__":
    main()
