"""Is the resolution that the verifier states true?

    python experiments/calibration.py
    python experiments/calibration.py --quick

The resolution of a leaf is the smallest error, as a share of the 2-norm of its
gradient, that shows 19 times in 20. Here right gradients of random functions get errors
of 1, 2 and 3 times what is stated for them: in one entry, a row, a block, all entries.
Prints a line for each kind of candidate and of error: how many were caught, of
how many. Candidates are arrays in float64, float32 and bfloat16, and the gradient that
JAX derives, by a rule that is off by as much; leaves have 6 to 48 entries, which are
probed one by one, or 200 to 2000. Some 15 minutes on two cores for 60 functions a line;
--quick asks two functions a line, in half a minute.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.command import parsed
from jaxnet import Verdict, check_gradients
from jaxnet.float64 import in_float64

SIZES = {"small": (6, 48), "large": (200, 2000)}
TIMES = (1, 2, 3)
CANDIDATES = ("float64", "float32", "bfloat16", "built-in")

Pattern = Callable[[np.random.Generator, tuple[int, int]], np.ndarray]


@dataclass(frozen=True)
class Flags:
    """How many functions, and from which seed."""

    functions: int = 60
    """Of each kind of candidate and of leaf."""
    seed: int = 0
    """Of the functions and their errors."""
    quick: bool = False
    """Two functions of each kind."""


def one_entry(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """An error in one entry."""
    error = np.zeros(shape)
    error.reshape(-1)[rng.integers(error.size)] = rng.choice([-1.0, 1.0])
    return error


def one_row(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """An error in one row."""
    error = np.zeros(shape)
    error[rng.integers(shape[0])] = rng.normal(size=shape[1])
    return error


def one_block(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """An error in a quarter of the entries."""
    error = np.zeros(shape)
    half = tuple(-(-n // 2) for n in shape)
    error[: half[0], : half[1]] = rng.normal(size=half)
    return error


def all_entries(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """An error in all entries."""
    return rng.normal(size=shape)


PATTERNS: tuple[Pattern, ...] = (one_entry, one_row, one_block, all_entries)


def loss_of(rng: np.random.Generator, shape: tuple[int, int]) -> Callable[..., Any]:
    """A random function of a matrix: a small net, waves and an offset, a quotient."""
    x, y = rng.normal(size=(9, shape[0])), rng.normal(size=(9, shape[1]))
    a, offset = rng.normal(size=shape), 10.0 ** rng.uniform(-2, 3)

    def net(w: Any) -> Any:
        out = jnp.tanh(jnp.asarray(x, w.dtype) @ w / shape[0] ** 0.5)
        return jnp.mean((out - jnp.asarray(y, w.dtype)) ** 2)

    def waves(w: Any) -> Any:
        return jnp.mean(jnp.asarray(a, w.dtype) * jnp.sin(3 * w)) + offset

    def quotient(w: Any) -> Any:
        return jnp.log1p(jnp.mean(w**2)) + jnp.mean(
            jnp.asarray(a, w.dtype) / (1 + w**2)
        )

    functions: tuple[Callable[..., Any], ...] = (net, waves, quotient)
    return functions[rng.integers(3)]


def off_by(loss: Callable[..., Any], error: np.ndarray) -> Callable[..., Any]:
    """The loss with a rule whose gradient is off by an error."""
    rule = jax.custom_vjp(loss)
    rule.defvjp(
        lambda w: (loss(w), w),
        lambda w, c: (c * (jax.grad(loss)(w) + jnp.asarray(error, w.dtype)),),
    )
    return rule


def caught(flags: Flags, kind: str, size: str) -> Iterator[tuple[str, int, bool]]:
    """For each pattern and multiple of the stated resolution, whether it was seen."""
    for number in range(2 if flags.quick else flags.functions):
        rng = np.random.default_rng([flags.seed, number, *map(ord, kind + size)])
        low, high = SIZES[size]
        columns = int(rng.integers(2, 9))
        shape = int(rng.integers(low, high) // columns) + 1, columns
        loss = loss_of(rng, shape)
        given = np.float64 if kind == "float64" else np.float32
        w = rng.normal(size=shape).astype(given)
        with in_float64():
            right = np.asarray(jax.grad(loss)(jnp.asarray(w, np.float64)))
        dtype = jnp.bfloat16 if kind == "bfloat16" else given
        array = right.astype(dtype)
        report = check_gradients(loss, w, None if kind == "built-in" else array)
        (leaf,) = report.leaves
        if leaf.verdict is not Verdict.AGREE:
            continue
        for pattern in PATTERNS:
            shown = pattern(rng, shape)
            shown *= leaf.resolution * np.linalg.norm(right) / np.linalg.norm(shown)
            for times in TIMES:
                if kind == "built-in":
                    wrong = check_gradients(off_by(loss, times * shown), w)
                else:
                    wrong = check_gradients(
                        loss, w, _rounded(right + times * shown, dtype)
                    )
                yield pattern.__name__, times, not wrong.passed


def _rounded(gradient: np.ndarray, dtype: Any) -> np.ndarray:
    return np.asarray(gradient.astype(dtype))


def main() -> None:
    """Print the table."""
    flags = parsed(Flags, __doc__)
    print("caught of all, at 1, 2 and 3 times the stated resolution")
    for kind in CANDIDATES:
        for size in SIZES:
            found = list(caught(flags, kind, size))
            for pattern in PATTERNS:
                name, cells = pattern.__name__, []
                for times in TIMES:
                    seen = [x for who, t, x in found if (who, t) == (name, times)]
                    cells.append(f"{sum(seen):3}/{len(seen):<3}")
                print(f"{kind:9} {size:6} {name:12}", *cells, flush=True)


if __name__ == "__main__":
    main()
