"""HIPS autograd's check_grads: reverse mode, order 1, in float64.

Every case can be said in it: the value of an autograd primitive is the JAX loss, its
vjp is the candidate. Order 2, its default, would need the candidate's own derivative.
"""

import itertools
from contextlib import nullcontext
from typing import Any
from unittest import mock

import numpy as np

from experiments.checkers.checker import Answer, Checker, Settings
from experiments.checkers.question import Question
from experiments.checkers.subject import Subject


def hips_autograd() -> Checker:
    """check_grads(modes=["rev"], order=1); its tolerances are module constants."""
    grid = itertools.product(
        (1e-6, 1e-5, 1e-4, 1e-3), (1e-6, 1e-12), (1e-3, 1e-4, 1e-5, 1e-6)
    )
    return Checker(
        name="autograd",
        package="autograd",
        dtype="float64",
        answer=_check_grads,
        grid=tuple({"EPS": e, "TOL": t, "RTOL": r} for e, t, r in grid),
    )


def _check_grads(question: Question, subject: Subject, settings: Settings) -> Answer:
    from autograd import test_util
    from autograd.extend import defvjp, primitive

    subject.require_floats()
    if hasattr(subject.task, "candidate"):
        subject.checked_gradient()

    @primitive
    def function(*leaves: Any) -> Any:
        return np.array(subject.value(leaves), np.float64)

    def by(i: int) -> Any:
        return lambda value, *leaves: lambda cotangent: subject.pull(cotangent)[i]

    numbers = tuple(range(len(subject.leaves)))
    defvjp(function, *map(by, numbers))
    np.random.seed(0)  # noqa: NPY002 - it draws from the global generator
    changed = mock.patch.multiple(test_util, **settings) if settings else nullcontext()
    with changed:
        check = test_util.check_grads(function, numbers, modes=["rev"], order=1)
        check(*subject.leaves)
    return Answer(True, evaluations=subject.evaluations)
