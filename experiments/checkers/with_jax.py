"""jax.test_util.check_grads, and chex.assert_numerical_grads, which builds on it.

A candidate gradient of a loss is put in through a function with a derivative rule of
its own: jax.custom_vjp for reverse mode, jax.custom_jvp for forward mode and for chex,
whose default is both.
"""

import itertools
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from experiments.checkers.checker import Answer, Checker, Settings
from experiments.checkers.question import LossTask, Question, RuleTask
from experiments.checkers.subject import NotApplicable, Subject

EPS = 1 / 2048
"""check_grads' own."""
STEPS = {"float32": (EPS, 1e-3, 1e-2, 1e-1), "float64": (1e-6, 1e-5, 1e-4, EPS)}
RELATIVE = {
    "float32": (1e-1, 1e-2, 2e-3, 1e-4),
    "float64": (1e-4, 1e-5, 1e-6, 1e-7),
}


def check_grads_in(dtype: str, mode: str) -> Checker:
    """check_grads(order=1, modes=[mode])."""
    grid = [
        {"eps": eps, "rtol": rtol, "atol": atol}
        for eps, rtol in itertools.product(STEPS[dtype], RELATIVE[dtype])
        for atol in (rtol, 1e-9)
    ]
    return Checker(
        name=f"jax-{_short(dtype)}-{mode}",
        package="jax",
        dtype=dtype,
        answer=partial(_check_grads, mode),
        grid=tuple(grid),
    )


def chex_in(dtype: str) -> Checker:
    """assert_numerical_grads(order=1) of the leaves, uncompiled.

    Uncompiled because it replaces jax.lax.stop_gradient while it runs.
    """
    grid = [
        {"eps": eps, "rtol": rtol, "atol": atol}
        for eps, rtol in itertools.product(STEPS[dtype], RELATIVE[dtype])
        for atol in (1e-5, 1e-9)
    ]
    return Checker(
        name=f"chex-{_short(dtype)}",
        package="chex",
        dtype=dtype,
        answer=_chex,
        grid=tuple(grid),
        eager=True,
    )


def _short(dtype: str) -> str:
    return {"float32": "f32", "float64": "x64"}[dtype]


def _check_grads(
    mode: str, question: Question, subject: Subject, settings: Settings
) -> Answer:
    subject.require_floats()
    task = question.task
    if isinstance(task, RuleTask):
        if mode == "fwd" and task.mode == "vjp":
            raise NotApplicable("a custom_vjp has no forward mode")
        function, args = _counted(subject), tuple(map(jnp.asarray, subject.leaves))
    elif mode == "rev":
        function, args = _with_vjp(subject), (subject.floating_tree,)
    else:
        function, args = _with_jvp(subject), tuple(subject.leaves)
    check_grads(function, args, order=1, modes=[mode], **settings)
    return Answer(True, evaluations=subject.evaluations)


def _chex(question: Question, subject: Subject, settings: Settings) -> Answer:
    import chex

    subject.require_floats()
    args = tuple(map(jnp.asarray, subject.leaves))
    if isinstance(question.task, LossTask):
        function, modes = _with_jvp(subject), {}
    else:
        function = _counted(subject)
        # its default, both modes, cannot be had of a custom_vjp
        modes = {"modes": ["rev"]} if question.task.mode == "vjp" else {}
    chex.assert_numerical_grads(function, args, order=1, **modes, **settings)
    return Answer(True, evaluations=subject.evaluations)


def _counted(subject: Subject) -> Any:
    """The function with its own rule, uncompiled or compiled as it comes."""
    assert isinstance(subject.task, RuleTask)
    function = subject.task.function

    def counted(*args: Any) -> Any:
        subject.evaluations += 1
        return function(*args)

    return counted


def _with_vjp(subject: Subject) -> Any:
    """The loss of a tree whose gradient, by its rule, is the candidate."""

    @jax.custom_vjp
    def loss(tree: Any) -> Any:
        return subject.of_tree(tree)

    def backward(_: None, cotangent: Any) -> Any:
        return (jax.tree.map(lambda g: cotangent * jnp.asarray(g), subject.gradient()),)

    loss.defvjp(lambda tree: (subject.of_tree(tree), None), backward)
    return loss


def _with_jvp(subject: Subject) -> Any:
    """The loss of leaves whose slope along a tangent is the candidate's product."""
    gradient = [jnp.asarray(g) for g in subject.checked_gradient()]
    if any(
        g.shape != x.shape or np.iscomplexobj(g)
        for g, x in zip(gradient, subject.leaves, strict=True)
    ):
        raise NotApplicable("a jvp has no gradient whose form could be wrong")

    @jax.custom_jvp
    def loss(*leaves: Any) -> Any:
        return subject.value(leaves)

    @loss.defjvp
    def slope(primals: Any, tangents: Any) -> Any:
        value = subject.value(primals)
        now = [jnp.asarray(g) for g in subject.checked_gradient()]
        terms = [jnp.sum(g * t) for g, t in zip(now, tangents, strict=True)]
        return value, jnp.asarray(sum(terms), value.dtype)

    return loss
