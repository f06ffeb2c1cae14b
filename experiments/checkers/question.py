"""One question: is this gradient, or this derivative rule, right?"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from experiments.gradient_cases import Case

LARGE = 20_000
"""A check of more evaluations than this is asked for one MNIST batch only."""
TOO_LARGE = 100_000
"""A check of more evaluations than this is not asked for."""
ENDLESS_IN_FLOAT32 = ("fixed_point",)
"""Cases that iterate until a change is below 1e-15."""
RIGHT_KINDS = ("right", "kink")
"""`kink`: a valid subgradient counts as right."""
WRONG_KINDS = ("wrong", "malformed", "unrepeatable", "jump", "hidden")
"""`unrepeatable`: the loss or the gradient gives two values for one input.
`hidden`: right at the point, where all is 0, and wrong beside it."""


@dataclass(frozen=True, eq=False)
class LossTask:
    """A candidate gradient of a loss at a point."""

    loss: Callable[[Any], Any]
    params: Any
    candidate: Any
    traceable: bool = True
    repeatable: bool = True
    ends_in_float32: bool = True


@dataclass(frozen=True, eq=False)
class RuleTask:
    """A function of arrays with a rule of its own; `mode` is "vjp" or "jvp"."""

    function: Callable[..., Any]
    args: tuple[np.ndarray, ...]
    mode: str


@dataclass(frozen=True, eq=False)
class Question:
    """A task with its answer.

    group: the column of the tables in which it is counted.
    patience: how many evaluations of the loss a checker may spend on it.
    """

    name: str
    group: str
    kind: str
    task: LossTask | RuleTask
    patience: float = TOO_LARGE

    @property
    def right(self) -> bool:
        """Whether a checker ought to pass it."""
        return self.kind in RIGHT_KINDS


def of_case(case: Case, group: str) -> Question:
    """A case of the corpus."""
    repeatable = "NONDETERMINISTIC" not in case.answers
    task = LossTask(
        case.loss,
        case.params,
        case.candidate,
        case.traceable,
        repeatable,
        ends_in_float32=not case.name.startswith(ENDLESS_IN_FLOAT32),
    )
    return Question(case.name, group, kind_of(case), task)


def kind_of(case: Case) -> str:
    """What is asked, by the answers that are accepted."""
    if "NONDETERMINISTIC" in case.answers:
        return "unrepeatable"
    if "MALFORMED" in case.answers:
        return "malformed"
    if "NONDIFFERENTIABLE" in case.answers:
        return "kink" if case.right else "jump"
    if case.right:
        return "right"
    return "hidden" if "UNINFORMATIVE" in case.answers else "wrong"


def is_floating(leaf: Any) -> bool:
    """Whether a leaf is one to differentiate by."""
    return np.issubdtype(np.result_type(leaf), np.floating)


def is_float0(leaf: Any) -> bool:
    """Whether a leaf is the gradient JAX gives by an integer."""
    return getattr(leaf, "dtype", None) == jax.dtypes.float0
