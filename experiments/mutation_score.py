"""Which mistakes of a derivative rule would a test of it see?

    python experiments/mutation_score.py

Takes the canonical mistakes of eight rules (`jaxnet.testing.mutants`) and asks JAX's
check_grads, chex's assert_numerical_grads, both at their default settings in float32
and in float64, and jaxnet. Prints, and writes to `--out` as mutation_score.md, how many
mutants each of them catches, and how many right rules it accuses. Ten minutes on two
cores; with --quick, two rules in two.
"""

import sys
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from experiments.command import parsed
from experiments.measurements.section import Section
from jaxnet.testing import assert_vjp, mutants
from jaxnet.testing.mutants import MISTAKES, mutated


@dataclass(frozen=True)
class Flags:
    """Mutants of derivative rules, and who catches them."""

    out: Path = Path("out")
    """Folder for the table."""
    quick: bool = False
    """Two of the rules."""


def layer_norm(x: Any, gain: Any) -> Any:
    """Of the last axis."""
    centred = x - x.mean(-1, keepdims=True)
    return gain * centred / jnp.sqrt(jnp.square(centred).mean(-1, keepdims=True) + 1e-3)


def attention(q: Any, k: Any, v: Any) -> Any:
    """Of one head."""
    return jax.nn.softmax(q @ k.T / jnp.sqrt(q.shape[-1]).astype(q.dtype)) @ v


def cross_entropy(logits: Any, labels: Any) -> Any:
    """Mean over the examples."""
    rows = jnp.arange(len(labels))
    return jnp.mean(jax.nn.logsumexp(logits, -1) - logits[rows, labels])


def drawn(*shape: int) -> Any:
    """Standard normal numbers in float64, the same for a shape."""
    return np.random.default_rng(shape).standard_normal(shape)


RULES: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]] = {
    "softplus": (jax.nn.softplus, (drawn(3, 4),)),
    "cross entropy": (cross_entropy, (drawn(4, 3), np.array([0, 2, 1, 1]))),
    "dense layer": (lambda x, w: jnp.tanh(x @ w), (drawn(4, 3), drawn(3, 3))),
    "layer norm": (layer_norm, (drawn(3, 4), drawn(4))),
    "attention": (attention, (drawn(3, 4), drawn(2, 4), drawn(2, 4))),
    "logsumexp": (jax.nn.logsumexp, (drawn(6),)),
    "solve": (jnp.linalg.solve, (drawn(3, 3) + 3 * np.eye(3), drawn(3, 2))),
    "convolution": (partial(jnp.convolve, mode="same"), (drawn(7), drawn(3))),
}
"""Functions, which get rules by reverse mode, and where."""


def by_jax(rule: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """check_grads of the floating arguments, as it comes."""
    check_grads(*_of_floats(rule, args), order=1, modes=["rev"])


def by_chex(rule: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """assert_numerical_grads likewise."""
    import chex

    chex.assert_numerical_grads(*_of_floats(rule, args), order=1, modes=["rev"])


def by_jaxnet(rule: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """assert_vjp of all arguments."""
    assert_vjp(rule, *args)


CHECKERS: dict[str, tuple[Callable[..., None], bool]] = {
    "check_grads, float32": (by_jax, False),
    "check_grads, float64": (by_jax, True),
    "chex, float32": (by_chex, False),
    "chex, float64": (by_chex, True),
    "jaxnet, float32": (by_jaxnet, False),
}
"""Name -> how it is asked, and whether in float64."""


def catches(checker: str, rule: Callable[..., Any], args: tuple[Any, ...]) -> bool:
    """Whether the check of a rule fails."""
    check, is_double = CHECKERS[checker]
    dtype = np.float64 if is_double else np.float32
    with jax.enable_x64(True) if is_double else nullcontext():
        given = [jnp.asarray(x, dtype if x.dtype.kind == "f" else None) for x in args]
        try:
            with warnings.catch_warnings(action="ignore"):
                check(rule, tuple(given))
        except AssertionError:
            return True
    return False


def table(rules: dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]) -> Section:
    """A row a mistake: how many of the mutants each checker catches."""
    single = {
        name: tuple(x.astype(np.float32) if x.dtype.kind == "f" else x for x in args)
        for name, (_, args) in rules.items()
    }
    found = {name: mutants(f, *single[name]) for name, (f, _) in rules.items()}
    section, every = Section("Mutants of a rule, caught"), dict.fromkeys(CHECKERS, 0)
    for mistake in MISTAKES:
        own = [(x[mistake], rules[n][1]) for n, x in found.items() if mistake in x]
        counts = {c: sum(catches(c, *one) for one in own) for c in CHECKERS}
        every = {c: every[c] + count for c, count in counts.items()}
        cells = {c: f"{count}/{len(own)}" for c, count in counts.items()}
        section.rows.append({"mistake": mistake, **cells})
    total = sum(map(len, found.values()))
    scores = {c: f"{count}/{total}" for c, count in every.items()}
    section.rows.append({"mistake": "all", **scores})
    right = [(mutated(f, _right), args) for f, args in rules.values()]
    accused = {c: sum(catches(c, *one) for one in right) for c in CHECKERS}
    cells = {c: f"{count}/{len(right)}" for c, count in accused.items()}
    section.rows.append({"mistake": "none: a right rule, accused", **cells})
    section.notes.append(
        f"Rules: {', '.join(rules)}. By `python experiments/mutation_score.py`; "
        f"JAX {jax.__version__}, every checker at its default settings, reverse mode. "
        "A mistake that float32 alone has is none in float64."
    )
    return section


def main() -> None:
    """Ask all, print the table and write it."""
    flags = parsed(Flags, __doc__)
    if find_spec("chex") is None:
        sys.exit("error: chex is not installed; pip install -e '.[benchmarks]'")
    chosen = dict(list(RULES.items())[:2]) if flags.quick else RULES
    section = table(chosen)
    print(section.text())
    flags.out.mkdir(parents=True, exist_ok=True)
    path = flags.out / "mutation_score.md"
    path.write_text(section.markdown() + "\n", encoding="utf-8")


def _right(linear: Any, args: Any, direction: Any) -> Any:
    return linear(args, direction)


def _of_floats(
    rule: Callable[..., Any], args: tuple[Any, ...]
) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    """The function of its floating arguments, which come first."""
    moving = tuple(x for x in args if jnp.issubdtype(x.dtype, np.floating))
    return lambda *some: rule(*some, *args[len(moving) :]), moving


if __name__ == "__main__":
    main()
