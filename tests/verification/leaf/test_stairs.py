"""What rounding inside a loss hides: values on stairs, and jumps beside the point."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import jax.scipy.stats as stats
import numpy as np
import pytest

from jaxnet import Verdict, check_gradients

Loss = Callable[[Any], Any]


@pytest.fixture(autouse=True)
def _float64() -> Any:
    with jax.enable_x64(True):
        yield


def upper(x: Any) -> Any:
    """1 - (1 - e^-e^-x): its values are whole ulps of 1."""
    return stats.gumbel_r.sf(x[0])


def log_upper(x: Any) -> Any:
    """The logarithm of almost 1."""
    return special.log_ndtr(x[0])


def log_lower(x: Any) -> Any:
    """The same of the gamma distribution."""
    return stats.gamma.logcdf(x[0], 1.7)


@pytest.mark.slow
@pytest.mark.parametrize(("loss", "at"), [(upper, 40), (log_upper, 8), (log_lower, 40)])
def test_what_lies_below_the_rounding_inside_is_not_called_wrong(
    loss: Loss, at: float
) -> None:
    """The slope is right and 1e-15; the values go in steps of 1e-16."""
    x = np.array([float(at)])
    right = np.asarray(jax.grad(loss)(x))
    candidates = {"right": right, "twice": 2 * right, "more": right + 1e-6}
    report = check_gradients(loss, x, candidates)
    verdicts = {leaf.candidate: leaf.verdict for leaf in report.leaves}
    assert verdicts["right"] is verdicts["twice"] is Verdict.UNRESOLVED
    assert verdicts["more"] is Verdict.DISAGREE


def in_a_loop(x: Any) -> Any:
    """1 - v 1e-14, in a loop whose rounds are counted."""
    rounds = jnp.argmax(x) - 1
    return jnp.sum(jax.lax.fori_loop(0, rounds, lambda _, v: jnp.log(1 - v * 1e-14), x))


def test_rounding_in_a_loop_that_counts() -> None:
    """It is entered, as one of a fixed number of rounds is."""
    x = np.array([0.5, -0.7, 1.3])
    right = -1e-14 / (1 - 1e-14 * x)
    report = check_gradients(in_a_loop, x, {"right": right})
    assert report.verdict is Verdict.UNRESOLVED


def sinc_slope(x: Any) -> Any:
    """(cos πx - sin πx / πx) / x, whose digits are lost near 0: it is flat there."""
    return jax.grad(jnp.sinc)(x[0])


def test_a_slope_that_rests_at_wider_steps_is_not_that_of_the_stairs() -> None:
    """Values a hair away are 0 or noise; farther off they fall by π²/3."""
    x = np.zeros(1)
    right = np.array([-(np.pi**2) / 3])
    candidates = {"right": right, "1 % off": 1.01 * right, "zero": 0 * right}
    report = check_gradients(sinc_slope, x, candidates)
    verdicts = {leaf.candidate: leaf.verdict for leaf in report.leaves}
    assert verdicts["right"] is Verdict.AGREE
    assert verdicts["1 % off"] is Verdict.DISAGREE
    assert verdicts["zero"] in (Verdict.UNRESOLVED, Verdict.DISAGREE)


def test_noise_on_one_side_of_the_end_of_a_domain() -> None:
    """0 below 1, and noisy above: slopes 0 and 1.8."""

    def loss(x: Any) -> Any:
        return stats.pareto.cdf(x[0], 1.8)

    x = np.ones(1)
    report = check_gradients(loss, x, {"right": np.array([1.8]), "left": np.zeros(1)})
    assert report.passed
    assert {leaf.verdict for leaf in report.leaves} == {Verdict.NONDIFFERENTIABLE}
    wrong = {"above": np.array([1.9]), "below": np.array([-0.1])}
    report = check_gradients(loss, x, wrong)
    assert {leaf.verdict for leaf in report.leaves} == {Verdict.DISAGREE}


@pytest.mark.parametrize("away", [1e-10, -1e-10, 1e-9])
def test_a_jump_beside_the_point_is_none_of_it(away: float) -> None:
    """Within 1e-10 on either side the function is smooth."""

    def loss(x: Any) -> Any:
        return jnp.sum(jnp.floor(x + away) + x**2)

    x = np.array([2.0])
    assert check_gradients(loss, x).verdict is Verdict.AGREE
    wrong = {"1 % off": np.array([4.04]), "zero": np.zeros(1)}
    report = check_gradients(loss, x, wrong)
    assert {leaf.verdict for leaf in report.leaves} == {Verdict.DISAGREE}


def box_cox(x: Any) -> Any:
    """(3.7^x - 1) / x."""
    return (3.7**x - 1) / x


@pytest.mark.slow
@pytest.mark.parametrize("x", [3e-9, 3e-8, 3e-7, 3e-6, 3e-5, 3e-4, 3e-2])
@pytest.mark.parametrize(
    ("function", "slope"),
    [
        (lambda x: (1 - jnp.cos(x)) / x, lambda x: 0.5 - x**2 / 8),
        (lambda x: (1 - jnp.cos(x)) / x**2, lambda x: -x / 12 + x**3 / 180),
        (lambda x: (x - jnp.sin(x)) / x**3, lambda x: -x / 60 + x**3 / 1260),
        (box_cox, lambda x: np.log(3.7) ** 2 / 2 + x * np.log(3.7) ** 3 / 3),
    ],
    ids=["(1-cos)/x", "(1-cos)/x²", "(x-sin)/x³", "(3.7^x-1)/x"],
)
def test_stairs_that_something_smooth_multiplies(
    function: Loss, slope: Any, x: float
) -> None:
    """Divided by x they are smooth at steps finer than they are, and go as 1 / x.

    Their slope is not that of the function, and no noise is seen beside it. Where the
    widest step spans a stair or two, nothing shows that a slope that agrees is theirs.
    """
    loss, point, true = lambda v: jnp.sum(function(v)), np.array([x]), slope(x)
    if x > 1e-2:  # from here on two terms of the series are too few
        true = float(jax.grad(loss)(point)[0])
    verdict = check_gradients(loss, point, np.array([true])).verdict
    assert verdict in (Verdict.AGREE, Verdict.UNRESOLVED)
    assert verdict is Verdict.AGREE or x < 1e-2
    if x < 1e-7:
        return
    of_stairs = -float(function(x)) / x
    assert abs(of_stairs - true) > 0.5 * abs(true)
    assert not check_gradients(loss, point, np.array([of_stairs])).passed


def test_rounding_that_leaves_the_domain_is_no_noise() -> None:
    """At its end a density is 1 on one side and 0 on the other, its logarithm -inf."""

    def loss(x: Any) -> Any:
        return stats.uniform.logpdf(x[0])

    report = check_gradients(loss, np.ones(1))
    assert report.verdict in (Verdict.NONDIFFERENTIABLE, Verdict.UNRESOLVED)
    assert not report.passed


def test_a_jump_at_the_point_is_one() -> None:
    """However fine the steps."""

    def loss(x: Any) -> Any:
        return jnp.sum(jnp.floor(x) + x**2)

    report = check_gradients(loss, np.array([2.0]))
    assert report.verdict is Verdict.NONDIFFERENTIABLE
    assert not report.passed


def test_a_loss_is_run_with_other_rounding_only_where_values_may_be_stairs() -> None:
    """A wrong gradient of a smooth loss costs one ladder, and no such runs."""

    def loss(x: Any) -> Any:
        return jnp.sum(jnp.sin(x))

    x = np.linspace(0.5, 1.5, 4)
    right = check_gradients(loss, x, {"a": np.cos(x)})
    wrong = check_gradients(loss, x, {"a": 2 * np.cos(x)})
    assert wrong.evaluations - right.evaluations == 32


@pytest.mark.parametrize("least", [5e-7, 1e-6, 1.3e-6, 1e-5])
def test_what_is_flat_around_the_point_has_no_kink_there(least: float) -> None:
    """max(|x|, 1e-6) at 0: kinks as far off as noise is looked for are no noise."""

    def loss(x: Any) -> Any:
        return jnp.maximum(jnp.sqrt(jnp.sum(x**2) + 1e-300), least)

    x = np.zeros(3)
    assert check_gradients(loss, x).passed
    report = check_gradients(loss, x, {"wrong": np.array([0.5, 0.4, -0.2])})
    assert report.verdict is Verdict.DISAGREE


def test_a_loss_that_makes_its_own_numbers_is_run_with_other_rounding() -> None:
    """arange has no inputs that could be rounded."""

    def loss(x: Any) -> Any:
        return jnp.sum(jax.nn.relu(x) * jnp.arange(1.0, 5.0))

    x = np.array([0.5, -1.0, 2.0, -0.3])
    report = check_gradients(loss, x, {"without its mask": np.arange(1.0, 5.0)})
    assert report.verdict is Verdict.DISAGREE


@pytest.mark.slow
def test_runs_with_other_rounding_are_within_the_budget() -> None:
    """However much is allowed; they are looked for where there is enough of it."""
    x = np.array([8.0])
    wrong = np.asarray(jax.grad(log_upper)(x)) + 1e-6
    whole = check_gradients(log_upper, x, wrong)
    assert whole.verdict is Verdict.DISAGREE
    least = check_gradients(log_upper, x, wrong, budget=1).evaluations
    for budget in range(least, whole.evaluations, 9):
        report = check_gradients(log_upper, x, wrong, budget=budget)
        assert report.evaluations <= budget
        assert report.verdict is Verdict.UNRESOLVED
    assert check_gradients(log_upper, x, wrong, budget=whole.evaluations) == whole
