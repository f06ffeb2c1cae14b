"""Numeric gradients against the book's loop: of the network, and of any function."""

import multiprocessing
import resource
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.measurements import book_loop
from experiments.measurements.section import Section, seconds
from jaxnet import Params, gradients, init_params, load_mnist, numerical_gradient
from jaxnet.network import BOOK_NETWORK, mean_loss

CENTRE = slice(350, 400)
REPEATS = 9


class Batch(NamedTuple):
    """Parameters in float64 and a batch of digits."""

    params: Params
    images: np.ndarray
    labels: np.ndarray


def batch_of_digits(quick: bool) -> Batch:
    """784-50-10 and 100 digits, or 50-8-10 and the middle of 10 digits."""
    data = load_mnist()
    count, pixels, hidden = (10, CENTRE, 8) if quick else (100, slice(None), 50)
    images = data.test_images[:count, pixels].astype(np.float64)
    sizes = (images.shape[1], hidden, 10)
    params = init_params(jax.random.key(0), sizes)
    doubled = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    return Batch(doubled, images, data.test_labels[:count])


def network_gradients(quick: bool) -> Section:
    """Every route to the whole numeric gradient of the network."""
    batch = batch_of_digits(quick)
    with jax.enable_x64(True):
        exact = jax.tree.map(np.asarray, gradients.autodiff(*batch))
    found: dict[str, Any] = {}

    def by(name: str, route: Callable[[], Any]) -> Callable[[], Any]:
        def work() -> Any:
            found[name] = jax.block_until_ready(route())

        return work

    flat = [np.array(leaf) for leaf in jax.tree.leaves(batch.params)]
    loop = by("loop", lambda: book_loop.network_gradient(flat, *batch[1:]))
    generic = by("generic", lambda: numerical_gradient(loss_of(batch), batch.params))
    double = by("float64", lambda: gradients.numerical(*batch))
    single = by("float32", lambda: gradients.numerical(*batch, dtype=np.float32))
    times = {"loop": seconds(loop), "generic, first": seconds(generic)}
    times["generic"] = seconds(generic)
    for name, work in (("float64", double), ("float32", single)):
        work()
        times[name] = seconds(work, REPEATS, in_all=1.0)
    labels = {
        "loop": "the book's NumPy loop",
        "generic, first": "numerical_gradient, first call",
        "generic": "numerical_gradient, later call",
        "float64": "gradients.numerical, float64",
        "float32": "gradients.numerical, float32",
    }
    section = Section(title_of(batch))
    for name, label in labels.items():
        section.rows.append(
            {
                "gradient": label,
                "seconds": times[name],
                "times as fast": times["loop"] / times[name],
                "largest error": error_of(found[name.split(",")[0]], exact),
            }
        )
    section.notes.append("Errors are against jax.grad in float64.")
    section.notes.append(memory_note(batch))
    return section


def title_of(batch: Batch) -> str:
    """The sizes of the network and of the batch."""
    widths = [layer.weight.shape[0] for layer in batch.params]
    sizes = "-".join(map(str, [*widths, batch.params[-1].weight.shape[1]]))
    count = sum(leaf.size for leaf in jax.tree.leaves(batch.params))
    images = len(batch.labels)
    return f"Whole numeric gradient of {sizes}: {count:,} parameters, {images} images"


def loss_of(batch: Batch) -> Callable[[Params], Any]:
    """The loss as a function of the parameters alone."""
    _, images, labels = batch
    return lambda params: mean_loss(params, images, labels, BOOK_NETWORK)


def error_of(gradient: Any, exact: Any) -> float:
    """The largest difference from the exact gradient."""
    pairs = zip(jax.tree.leaves(gradient), jax.tree.leaves(exact), strict=True)
    return max(float(np.abs(np.asarray(g, float) - e).max()) for g, e in pairs)


def memory_note(batch: Batch) -> str:
    """What a process of its own needs at most for gradients.numerical."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        before, peak = pool.apply(_memory, (batch,))
    return (
        f"A process that does nothing but gradients.numerical in float64 holds "
        f"{peak:.0f} MiB at most, {peak - before:.0f} MiB more than one that takes the "
        f"gradient by jax.grad."
    )


def _memory(batch: Batch) -> tuple[float, float]:
    with jax.enable_x64(True):
        jax.block_until_ready(gradients.autodiff(*batch))
    before = peak_memory()
    gradients.numerical(*batch)
    return before, peak_memory()


def peak_memory() -> float:
    """MiB that this process held at most.

    Not by `getrusage` where there is another way: on Linux a process that was started
    by a larger one takes over its maximum.
    """
    status = Path("/proc/self/status")
    if status.exists():
        lines = status.read_text().splitlines()
        return next(int(x.split()[1]) / 1024 for x in lines if x.startswith("VmHWM"))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def sum_of_squares(x: Any) -> Any:
    """Σ xᵢ², of NumPy arrays and of JAX arrays."""
    return (x**2).sum()


def rosenbrock(x: Any) -> Any:
    """Rosenbrock's valley, of NumPy arrays and of JAX arrays."""
    return (100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()


def untraceable(x: Any) -> float:
    """Σ xᵢ² as NumPy alone can compute it."""
    return float(np.dot(np.asarray(x), np.asarray(x)))


SAME_IN_JAX = "the same by jax.jit"

FUNCTIONS: list[tuple[str, Callable[[Any], Any], int]] = [
    ("Rosenbrock's", rosenbrock, 10),
    (SAME_IN_JAX, jax.jit(rosenbrock), 10),
    ("sum of squares", sum_of_squares, 10),
    (SAME_IN_JAX, jax.jit(sum_of_squares), 10),
    ("sum of squares", sum_of_squares, 1000),
    (SAME_IN_JAX, jax.jit(sum_of_squares), 1000),
    ("sum of squares, NumPy only", untraceable, 1000),
    ("sum of squares", sum_of_squares, 39_760),
]


def any_function(quick: bool) -> Section:
    """numerical_gradient against the book's loop, each of a function in NumPy.

    Ours is given the same function, or the same in JAX, as its user has it.
    """
    section = Section("Numeric gradient of any function")
    base = 0.0
    for name, function, size in FUNCTIONS[: 2 if quick else None]:
        x = np.linspace(-1, 1, size)
        large = size > 10_000
        steady = partial(seconds, repeats=1 if large else REPEATS, in_all=0.5)
        if name != SAME_IN_JAX:
            base = steady(partial(book_loop.numerical_gradient, function, x))
        jax.clear_caches()
        ours: Any = partial(numerical_gradient, function, x)
        first, later = seconds(ours), steady(ours)
        section.rows.append(
            {
                "function, numbers": f"{name}, {size:,}",
                "NumPy loop, ms": 1e3 * base,
                "first call, ms": 1e3 * first,
                "later calls, ms": 1e3 * later,
                "times as fast": base / later,
            }
        )
    section.notes.append("The first call compiles; the last column is of later calls.")
    return section
