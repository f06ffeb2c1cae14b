"""Derivatives that are meant are called what they are, and can be said to be meant."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas as pl

from jaxnet import GradientReport, Verdict, check_gradients
from jaxnet.verification.explanation import by_design
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.function.sites import sites
from jaxnet.verification.point import Point

X = np.array([1.2, 0.4, -1.3], np.float32)
W = np.random.default_rng(1).standard_normal((4, 4))
SYMMETRIC = W @ W.T + np.eye(4)
MENDED = "with the true derivative in its place, this leaf agrees"


def straight_through(x: Any) -> Any:
    """Rounded, with the derivative of the identity."""
    return x + lax.stop_gradient(jnp.round(x) - x)


@jax.custom_vjp
def reversed_gradient(x: Any) -> Any:
    """The identity, with a gradient that is turned round: adversarial training."""
    return x


reversed_gradient.defvjp(lambda x: (x, None), lambda _, g: (-g,))


@jax.custom_vjp
def wrong(x: Any) -> Any:
    """Sin, with a gradient too large."""
    return jnp.sin(x)


wrong.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (1.1 * g * jnp.cos(x),))


def line(function: Callable[..., Any], text: str) -> str:
    """File and line of the first line of a function that holds a text."""
    source, first = inspect.getsourcelines(function)
    number = next(i for i, line in enumerate(source) if text in line)
    return f"test_by_design.py:{first + number}"


@pytest.mark.parametrize(
    "rounded", [jnp.round, jnp.sign, lambda x: (x > 0).astype(x.dtype)]
)
def test_a_straight_through_estimator(rounded: Callable[[Any], Any]) -> None:
    """A stop_gradient around what is rounded; not one around anything else."""
    report = check_gradients(
        lambda x: jnp.sum(jnp.sin(x + lax.stop_gradient(rounded(x) - x))), X
    )
    assert report.verdict is Verdict.DISAGREE
    assert "a straight-through estimator of `" in report.worst.cause
    other = check_gradients(lambda x: jnp.sum(jnp.sin(x + lax.stop_gradient(x))), X)
    assert "stop_gradient (called at" in other.worst.cause
    assert "a straight-through" not in other.worst.cause


@pytest.mark.slow
def test_a_sign_that_only_chooses_is_no_straight_through_estimator() -> None:
    """logsumexp takes the sign of its sum to give NaN where that is negative."""
    cut = jax.custom_vjp(lambda x: jax.nn.logsumexp(x) ** 2)
    cut.defvjp(lambda x: (cut(x), x), lambda x, g: (g * jax.nn.softmax(x),))

    def stopped(x: Any) -> Any:
        return jax.nn.logsumexp(x) * lax.stop_gradient(jax.nn.logsumexp(x))

    for loss in (cut, stopped):
        report = check_gradients(loss, X)
        assert report.verdict is Verdict.DISAGREE
        assert "straight-through" not in str(report)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("function", "which"),
    [
        pytest.param(
            lambda a: lax.linalg.cholesky(a, symmetrize_input=False),
            "lower",
            marks=pytest.mark.skipif(
                jax.__version_info__ >= (0, 12), reason="right from JAX 0.12 on"
            ),
        ),
        (lambda a: jnp.linalg.eigh(a, symmetrize_input=False)[0], "lower"),
        (lambda a: jax.scipy.linalg.solve(a, W, assume_a="pos"), "upper"),
    ],
)
def test_one_triangle(function: Callable[[Any], Any], which: str) -> None:
    """Functions that read half of a symmetric matrix, with a symmetric gradient."""
    weights = np.random.default_rng(2).standard_normal((4, 4))

    def loss(a: Any) -> Any:
        value = function(a).reshape(-1)
        return jnp.sum(weights.reshape(-1)[: value.size] * value**2)

    assert (
        f"the function reads the {which}"
        in check_gradients(loss, SYMMETRIC).worst.cause
    )
    symmetric = check_gradients(lambda a: loss((a + a.T) / 2), SYMMETRIC)
    assert symmetric.passed


def loss_of_all(x: Any) -> Any:
    """A rule, a stop_gradient, both meant; a mistake too if there is one to be."""
    y = reversed_gradient(jnp.tanh(x)) * x
    return jnp.sum(y * lax.stop_gradient(y))


BOTH = (reversed_gradient, line(loss_of_all, "stop_gradient(y)"))


@pytest.mark.slow
@pytest.mark.parametrize("both", [BOTH, ("reversed_gradient", BOTH[1])])
def test_what_is_intended_is_named_and_not_judged(both: Any) -> None:
    """All else agrees; one of the two alone is not enough."""
    assert not check_gradients(loss_of_all, X).passed
    report = check_gradients(loss_of_all, X, intended=both)
    assert report.verdict is Verdict.AGREE
    meant = [note for note in report.notes if note.startswith("not judged")]
    assert len(meant) == 2
    assert "the rule of `reversed_gradient`" in meant[0] + meant[1]
    for one in both:
        alone = check_gradients(loss_of_all, X, intended=(one,))
        assert alone.verdict is Verdict.DISAGREE


@pytest.mark.slow
@pytest.mark.slow
def test_the_function_that_a_stop_stands_in_is_intended() -> None:
    """Another function's stop is judged, and a rule is not meant by it."""

    def stopped(x: Any) -> Any:
        return x * lax.stop_gradient(x)

    def loss(x: Any) -> Any:
        return jnp.sum(straight_through(x)) + jnp.sum(stopped(x))

    report = check_gradients(loss, X, intended=[straight_through, stopped])
    assert report.passed
    assert sum("not judged" in note for note in report.notes) == 2
    text = check_gradients(loss, X, intended=[straight_through]).worst.cause
    assert line(stopped, "x * lax") in text
    jitted = jax.jit(stopped)
    both = [jitted, partial(straight_through)]
    assert check_gradients(loss, X, intended=both).passed
    with pytest.raises(ValueError, match="rules that the loss calls: wrong, got"):
        check_gradients(lambda x: jnp.sum(wrong(x)), X, intended=[stopped])


def test_a_mistake_beside_what_is_intended() -> None:
    """It is found, in a scan too, and it alone is named."""

    def loss(x: Any) -> Any:
        step = lambda c, row: (reversed_gradient(wrong(c * row)), None)  # noqa: E731
        return jnp.sum(jax.jit(lambda x: lax.scan(step, x, x)[0])(x))

    text = check_gradients(loss, X, intended=[reversed_gradient]).worst.cause
    assert "the rule of `wrong`" in text
    assert "reversed" not in text


def test_a_rule_around_what_is_intended_is_judged() -> None:
    """Its own derivative is used, not that of the rule within."""

    @jax.custom_vjp
    def outer(x: Any) -> Any:
        return jnp.sin(reversed_gradient(x))

    outer.defvjp(lambda x: (outer(x), x), lambda x, g: (5 * g * jnp.cos(x),))
    report = check_gradients(
        lambda x: jnp.sum(outer(x) + reversed_gradient(x)),
        X,
        intended=reversed_gradient,
    )
    assert "the rule of `outer`" in report.worst.cause
    assert "×5" in report.worst.cause


def test_of_two_rules_of_one_name_the_one_that_is_meant() -> None:
    """A rule that is given itself is told by its backward pass, under vmap too."""

    def rule(factor: float) -> Any:
        same = jax.custom_vjp(jnp.sin)
        same.defvjp(lambda x: (same(x), x), lambda x, g: (factor * g * jnp.cos(x),))
        return same

    one, other = rule(3.0), rule(2.0)

    def both(x: Any) -> Any:
        return jnp.sum(jax.vmap(one)(x) + other(x))

    text = check_gradients(both, X, intended=[one]).worst.cause
    assert text.startswith("×1.5")
    assert check_gradients(both, X, intended=(one, other)).passed


def test_what_cannot_be_intended() -> None:
    """No such rule; a kernel; a candidate beside it: one line each."""
    shape = jax.ShapeDtypeStruct(X.shape, X.dtype)

    @jax.custom_vjp
    def kernel(x: Any) -> Any:
        def body(x_ref: Any, y_ref: Any) -> None:
            y_ref[...] = jnp.sin(x_ref[...])

        return pl.pallas_call(body, out_shape=shape, interpret=True)(x)

    kernel.defvjp(lambda x: (kernel(x), x), lambda x, g: (g,))
    with pytest.raises(ValueError, match="rules that the loss calls: reversed_grad"):
        check_gradients(loss_of_all, X, intended=["another"])
    with pytest.raises(ValueError, match="got sin; name a rule, file"):
        check_gradients(loss_of_all, X, intended=jnp.sin)
    with pytest.raises(ValueError, match="functions that JAX can differentiate"):
        check_gradients(lambda x: jnp.sum(kernel(x)), X, intended=[kernel])
    with pytest.raises(ValueError, match="none, got candidates beside intended="):
        check_gradients(loss_of_all, X, {"mine": X}, intended=BOTH)


@pytest.mark.parametrize(
    "candidate", [None, jax.grad(lambda x: jnp.sum(straight_through(x) ** 2))]
)
def test_a_reference(candidate: Any) -> None:
    """What a gradient is meant to be that of, given by its values."""

    def loss(x: Any) -> Any:
        return jnp.sum(straight_through(x) ** 2)

    def check(factor: float) -> GradientReport:
        def meant(x: Any) -> Any:
            return factor * jnp.sum(2 * np.round(X) * x)

        return check_gradients(loss, X, candidate, reference=meant)

    assert check(1.0).verdict is Verdict.AGREE
    assert check(1.01).verdict is Verdict.DISAGREE


STOPS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "rounded": (lambda x: jnp.sum(jnp.round(4 * x) ** 2), "round"),
    "cast": (
        lambda x: jnp.sum((100 * x).astype(int).astype(x.dtype)),
        "convert_element_type",
    ),
    "compared": (lambda x: jnp.sum(jnp.where(x > 0, 2.0, 3.0)), "gt"),
    "an index": (lambda x: jnp.arange(1.0, 4.0)[jnp.argmax(x)], "argmax"),
    "in a scan": (
        lambda x: lax.scan(lambda c, y: (c + jnp.floor(3 * y), None), 0.0, x)[0],
        "floor",
    ),
    "under jit": (lambda x: jnp.sum(jax.jit(jnp.sign)(x)), "sign"),
}


@pytest.mark.parametrize("how", STOPS)
@pytest.mark.slow
def test_what_stops_a_gradient_on_every_way_is_named(how: str) -> None:
    """Where that is 0, as the differences are; not where there is another way."""
    loss, name = STOPS[how]
    (leaf,) = check_gradients(loss, X).leaves
    assert leaf.passed
    assert f"it reaches the loss only through `{name}` at {__file__}:" in leaf.cause
    (leaf,) = check_gradients(lambda x: loss(x) + jnp.sum(x), X).leaves
    assert "only through" not in leaf.cause
    (leaf,) = check_gradients(lambda x: loss(x) + 0 * jnp.sum(x), X).leaves
    assert leaf.is_zero
    assert "only through" not in leaf.cause


@pytest.mark.parametrize("how", ["rounded", "cast"])
@pytest.mark.slow
def test_what_rounds_is_named_where_two_slopes_are_seen(how: str) -> None:
    """Nothing decides whether it is meant; nor is a step named that moves nothing."""

    def rounded(x: Any) -> Any:
        scaled = 1e7 * x
        idle = jnp.asarray(3.5)
        small = scaled.astype(int) if how == "cast" else jnp.round(scaled)
        whole = small.astype(x.dtype) / 1e7
        return jnp.sum(whole**2) + jnp.floor(idle) + jnp.sum(x**2)

    (leaf,) = check_gradients(rounded, X).leaves
    assert leaf.verdict is Verdict.UNRESOLVED
    name = {"rounded": "round", "cast": "convert_element_type"}[how]
    assert f"; rounded inside: `{name}` at " in leaf.cause
    assert leaf.cause.count(".py:") == 1
    assert line(rounded, "small =") in leaf.cause


def largest(x: Any) -> Any:
    """By its index."""
    return x[jnp.argmax(x)]


@jax.custom_vjp
def wrong_largest(x: Any) -> Any:
    """The same, with the gradient of the smallest."""
    return largest(x)


wrong_largest.defvjp(
    lambda x: (largest(x), x), lambda x, g: (g * jax.nn.one_hot(jnp.argmin(x), 3),)
)

MOVES = {
    "a target": lambda x: (x[1] - 0.9 * lax.stop_gradient(largest(x))) ** 2,
    "a sign": lambda x: jnp.sum(x * lax.stop_gradient(jnp.sign(x) * x)),
    "a remainder": lambda x: jnp.sum(x * lax.stop_gradient(x - jnp.floor(x))),
    "a rule": lambda x: wrong_largest(x) ** 2,
}


@pytest.mark.parametrize("how", MOVES)
@pytest.mark.slow
def test_what_rounds_somewhere_and_moves_is_a_mistake(how: str) -> None:
    """It has a slope, which the gradient lacks."""
    report = check_gradients(MOVES[how], X)
    assert report.verdict is Verdict.DISAGREE
    assert "straight-through" not in report.worst.cause


MASK = np.array([1, 1, 0, 0, 0, 0], np.float32)


def masked(x: Any) -> Any:
    """Most of it stands still, as it is 0."""
    e = jnp.exp(jnp.concatenate([x, x])) * MASK
    return jnp.sum((e / lax.stop_gradient(jnp.sum(e))) ** 2)


def surrogate(x: Any) -> Any:
    """A score function: of no value."""
    logs = jax.nn.log_softmax(x)
    return jnp.sum(jnp.arange(3.0) * jnp.exp(logs - lax.stop_gradient(logs)))


@pytest.mark.slow
def test_what_stands_still_but_for_a_few_is_a_mistake() -> None:
    """Under a mask; and no step is named where there is none."""
    report = check_gradients(masked, X)
    assert report.worst.cause.endswith("stops a part of it; " + MENDED)
    cause = check_gradients(surrogate, X).worst.cause
    assert "stops a part of it: a surrogate: its value does not move" in cause


@jax.jit
def rest(x: Any) -> Any:
    """What rounding adds, in a program of its own."""
    return lax.stop_gradient(jnp.round(x) - x)


STEPPING = {
    "under jit": lambda x: x + rest(x),
    "reshaped": lambda x: x + lax.stop_gradient(jnp.round(x) - x).reshape(3, 1)[:, 0],
    "times one": lambda x: x + 1.0 * lax.stop_gradient(jnp.round(x) - x),
    "chosen": lambda x: x + lax.stop_gradient(jnp.where(x > 0, 1.0, -1.0) - x),
    "cast": lambda x: x + lax.stop_gradient((9 * x).astype(int).astype(x.dtype) - x),
}
BY_STEPS = {
    "compared": lambda x: jnp.where(x > 0, 1.0, 0.0),
    "a boolean": lambda x: (x > 0).astype(x.dtype),
    "ordered": lambda x: jnp.argsort(x).astype(x.dtype),
}


@pytest.mark.parametrize("how", [*STEPPING, *BY_STEPS])
@pytest.mark.slow
def test_a_straight_through_estimator_however_it_is_spelt(how: str) -> None:
    """By a stop_gradient anywhere before the sum, or by a rule."""
    function = STEPPING.get(how)
    if function is None:
        rule = jax.custom_vjp(BY_STEPS[how])
        rule.defvjp(lambda x: (BY_STEPS[how](x), None), lambda _, g: (g,))
        function = rule
    weights = jnp.array([1.0, 2.0, 4.0])
    report = check_gradients(lambda x: jnp.sum(weights * function(x)), X)
    assert "a straight-through estimator of `" in report.worst.cause


@pytest.mark.slow
def test_the_leaf_in_question_alone_is_moved() -> None:
    """A codebook moves what it gives; a quantised value does not."""

    def quantised(p: Any) -> Any:
        z, codes = jnp.tanh(p["z"]), p["codes"]
        nearest = codes[jnp.argmin((z[:, None] - codes[None]) ** 2, axis=1)]
        return jnp.sum((z + lax.stop_gradient(nearest - z) - 1) ** 2)

    params = {"z": X, "codes": np.array([-1, -0.2, 0.4, 0.9], np.float32)}
    report = check_gradients(quantised, params)
    said = {leaf.path: leaf.cause for leaf in report.leaves}
    assert "straight-through estimator of `argmin`" in said["['z']"]
    assert "straight-through" not in said["['codes']"]


STILL = {
    "apart": lambda x: x - lax.stop_gradient(x) + lax.stop_gradient(jnp.round(x)),
}


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("how", STILL)
@pytest.mark.slow
def test_what_stands_still_is_a_straight_through_estimator(
    how: str, dtype: Any
) -> None:
    """What is stopped is not what rounds."""
    x = jnp.asarray(X, dtype)
    report = check_gradients(lambda x: jnp.sum(jnp.sin(STILL[how](x))), x)
    assert report.verdict is Verdict.DISAGREE
    assert "a surrogate: its value does not move" in report.worst.cause


@pytest.mark.parametrize("loops", [False, True])
def test_a_loop_that_need_not_end_elsewhere_is_not_run_elsewhere(
    loops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Until a value is met to the last bit, say, as it is at this point alone."""
    runs = list[Any]()
    monkeypatch.setattr(by_design, "_gives_the_same", lambda *args: runs.append(args))

    @jax.custom_vjp
    def halved(x: Any) -> Any:
        if not loops:
            return jnp.round(x) / 2
        return jnp.round(lax.while_loop(lambda y: jnp.max(y) > 1, lambda y: y / 2, x))

    halved.defvjp(lambda x: (halved(x), None), lambda _, g: (g,))
    objective = Objective(lambda x: jnp.sum(halved(x)), Point.of(X))
    program = objective.program
    assert program is not None
    (site,) = sites(program.closed, program.equations)
    by_design.straight_through(objective, site)
    assert len(runs) == (0 if loops else 1)


def test_a_rule_in_which_nothing_rounds_is_not_run_elsewhere(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is no straight-through estimator, whatever it gives."""
    runs = list[Any]()
    monkeypatch.setattr(by_design, "_gives_the_same", lambda *args: runs.append(args))
    rule = jax.custom_vjp(jnp.sin)
    rule.defvjp(lambda x: (jnp.sin(x), None), lambda _, g: (g,))
    report = check_gradients(lambda x: jnp.sum(rule(x)), X)
    assert "the rule of `sin`" in report.worst.cause
    assert not runs
