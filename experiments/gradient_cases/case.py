"""One case: a loss, a point, a candidate gradient, and the verdicts that are right."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Loss = Callable[[Any], Any]
Candidate = Any  # a pytree of arrays, or a callable params -> pytree

AGREE = ("AGREE",)
DISAGREE = ("DISAGREE",)
MALFORMED = ("MALFORMED",)
NONDETERMINISTIC = ("NONDETERMINISTIC",)
NONDIFFERENTIABLE = ("NONDIFFERENTIABLE",)
UNRESOLVED = ("UNRESOLVED",)
UNINFORMATIVE = ("UNINFORMATIVE",)


@dataclass(frozen=True, eq=False)
class Case:
    """A question for a gradient checker, with its answer.

    `answers` are the accepted verdicts of the whole report. `places` are the leaves
    (`"['W1']"`), or coordinates (`"['W1'][2, 3]"`), that the report must name: those
    that are wrong, or, at a kink or a jump, those where it lies; everything else is
    right. `cause` is a word that the report's cause must contain.

    `right`: the candidate is the gradient, or at a kink a valid subgradient; a checker
    that passes a case with `right=False` missed, one that calls a case with
    `right=True` wrong accused. `smooth`: plain central differences in float64
    can be trusted to find the gradient. `traceable`: JAX can trace the loss.
    """

    name: str
    loss: Loss
    params: Any
    candidate: Candidate
    answers: tuple[str, ...]
    places: tuple[str, ...] = ()
    cause: str = ""
    right: bool = True
    smooth: bool = True
    traceable: bool = True


def wrong(
    name: str,
    loss: Loss,
    params: Any,
    candidate: Candidate,
    places: tuple[str, ...],
    cause: str = "",
    **flags: Any,
) -> Case:
    """A case whose candidate is wrong at `places`: DISAGREE."""
    return Case(
        name, loss, params, candidate, DISAGREE, places, cause, right=False, **flags
    )


def like(constant: np.ndarray, leaf: Any) -> jax.Array:
    """`constant` as a JAX array in the dtype of `leaf`, so a loss runs in any."""
    return jnp.asarray(constant, dtype=leaf.dtype)


def altered(loss: Loss, change: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """The candidate `params -> change(gradient of loss at params)`."""

    def candidate(params: Any) -> Any:
        return change(jax.grad(loss)(params))

    return candidate


def altered_leaf(
    loss: Loss, name: str, change: Callable[[Any], Any]
) -> Callable[[Any], Any]:
    """The gradient of a loss of a dict, with one leaf passed through `change`."""
    return altered(loss, lambda d: {**d, name: change(d[name])})


def normal(seed: int, *shape: int) -> np.ndarray:
    """Standard normal float64 numbers of this shape, the same at every call."""
    return np.random.default_rng(seed).standard_normal(shape)


def keys(*names: str) -> tuple[str, ...]:
    """The `keystr` paths of these entries of a dict."""
    return tuple(f"['{name}']" for name in names)
