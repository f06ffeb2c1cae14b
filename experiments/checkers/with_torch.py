"""torch.autograd.gradcheck, on a Function that calls JAX both ways, in float64."""

import itertools
from functools import partial
from typing import Any
from unittest import mock

import numpy as np

from experiments.checkers.checker import Answer, Checker, Settings
from experiments.checkers.question import Question
from experiments.checkers.subject import Subject

EXPLANATION = "torch.autograd.gradcheck._run_slow_mode_and_get_error"
"""After fast mode has failed it runs slow mode, for its message: not counted here."""


def gradcheck(fast: bool) -> Checker:
    """gradcheck(fast_mode=fast)."""
    grid = itertools.product(
        (1e-6, 1e-5, 1e-4, 1e-3), (1e-3, 1e-4, 1e-5), (1e-5, 1e-8, 1e-12)
    )
    return Checker(
        name="torch-fast" if fast else "torch-slow",
        package="torch",
        dtype="float64",
        answer=partial(_gradcheck, fast),
        grid=tuple({"eps": e, "rtol": r, "atol": a} for e, r, a in grid),
        cost=lambda size: 0 if fast else 2 * size,
    )


def _gradcheck(
    fast: bool, question: Question, subject: Subject, settings: Settings
) -> Answer:
    import torch
    from torch.autograd.gradcheck import GradcheckError

    subject.require_floats()
    if hasattr(subject.task, "candidate"):
        subject.checked_gradient()

    class InJax(torch.autograd.Function):
        """The value by JAX, its derivative by the candidate or the rule."""

        @staticmethod
        def forward(ctx: Any, *tensors: Any) -> Any:
            value = subject.value([tensor.detach().numpy() for tensor in tensors])
            return torch.from_numpy(np.array(value, np.float64))

        @staticmethod
        def backward(ctx: Any, *cotangents: Any) -> Any:
            pulled = subject.pull(cotangents[0].numpy())
            return tuple(torch.from_numpy(np.array(d)) for d in pulled)

    inputs = [torch.tensor(leaf, requires_grad=True) for leaf in subject.leaves]
    torch.manual_seed(0)
    try:
        with mock.patch(EXPLANATION, return_value="slow mode not run"):
            torch.autograd.gradcheck(InJax.apply, inputs, fast_mode=fast, **settings)
    except GradcheckError as error:
        return Answer(False, str(error), subject.evaluations)
    return Answer(True, evaluations=subject.evaluations)
