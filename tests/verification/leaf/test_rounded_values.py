"""Values that were rounded where no trace shows it: behind Python, or a callback."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxnet import GradientReport, Verdict, check_gradients

Loss = Callable[[Any], Any]
WEIGHTS = np.random.default_rng(9).normal(size=(4, 3))


def sines(x: Any) -> Any:
    """Σ sin x."""
    return np.sum(np.sin(x))


def soft_maximum(x: Any) -> Any:
    """log Σ exp x."""
    return np.log(np.sum(np.exp(x)))


def layer(x: Any) -> Any:
    """Σ tanh(x W)."""
    return np.sum(np.tanh(x @ WEIGHTS.astype(x.dtype)))


GRADIENTS: dict[Loss, Loss] = {
    sines: np.cos,
    soft_maximum: lambda x: np.exp(x) / np.sum(np.exp(x)),
    layer: lambda x: (1 - np.tanh(x @ WEIGHTS) ** 2) @ WEIGHTS.T,
}


def computed_in(dtype: Any) -> Callable[[Loss], Loss]:
    """All of it in that dtype."""
    return lambda loss: lambda x: float(loss(x.astype(dtype)))


def given_in(dtype: Any) -> Callable[[Loss], Loss]:
    """Rounded at the end."""
    return lambda loss: lambda x: float(np.asarray(loss(x)).astype(dtype))


def printed(digits: str) -> Callable[[Loss], Loss]:
    """As text."""
    return lambda loss: lambda x: float(digits % loss(x))


def rounded(decimals: int) -> Callable[[Loss], Loss]:
    """To so many decimals."""
    return lambda loss: lambda x: float(np.round(loss(x), decimals))


COARSE = {
    "float16": computed_in(np.float16),
    "bfloat16": computed_in(ml_dtypes.bfloat16),
    "float16 at the end": given_in(np.float16),
    "bfloat16 at the end": given_in(ml_dtypes.bfloat16),
    "3 digits": printed("%.3g"),
    "4 digits": printed("%.4g"),
    "6 digits": printed("%.6g"),
    "2 decimals": rounded(2),
    "4 decimals": rounded(4),
}
FINE = {
    "float32": computed_in(np.float32),
    "8 digits": printed("%.8g"),
    "7 decimals": rounded(7),
}


COARSE_OR_NOT = {
    np.float32: FINE["float32"],
    np.float16: COARSE["float16"],
    ml_dtypes.bfloat16: COARSE["bfloat16"],
}


def verdicts(loss: Loss, of: Loss, seed: int) -> dict[str, Verdict]:
    """Of the gradient of `of`, of twice it, and of 0."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=4) * rng.choice([0.3, 1, 3])
    right = np.asarray(GRADIENTS[of](x))
    report = check_gradients(loss, x, {"right": right, "2": 2 * right, "0": 0 * right})
    return {leaf.candidate: leaf.verdict for leaf in report.leaves}


@pytest.mark.slow
@pytest.mark.parametrize("how", COARSE)
def test_a_right_gradient_is_not_called_wrong_and_a_wrong_one_is(how: str) -> None:
    """It is flat, or rounded: no value tells which; but it is not twice as steep."""
    caught = []
    for of in GRADIENTS:
        for seed in range(4):
            found = verdicts(COARSE[how](of), of, seed)
            assert found["right"] in (Verdict.AGREE, Verdict.UNRESOLVED)
            assert not {found["0"], found["2"]} & {Verdict.AGREE}
            caught.append(found["2"] is Verdict.DISAGREE)
    assert np.mean(caught) >= 0.5


@pytest.mark.slow
@pytest.mark.parametrize("how", FINE)
def test_what_is_rounded_to_float32_or_less_has_a_slope(how: str) -> None:
    """Its stairs are noise beside the steps of a ladder."""
    for of in GRADIENTS:
        for seed in range(3):
            found = verdicts(FINE[how](of), of, seed)
            assert found["right"] in (Verdict.AGREE, Verdict.UNRESOLVED)
            assert found["2"] is found["0"] is Verdict.DISAGREE


def check(loss: Loss, x: Any, gradient: Any) -> GradientReport:
    """Of one gradient."""
    return check_gradients(loss, np.asarray(x), np.asarray(gradient))


def test_the_report_says_what_the_values_lie_on() -> None:
    """In words, with the slope that they have if they were rounded."""
    x = np.array([1.0, 2.0, 0.3, -0.7])
    half = COARSE["float16"](sines)
    undecided = check(half, x, np.cos(x)).worst
    assert undecided.verdict is Verdict.UNRESOLVED
    assert (
        undecided.cause == "values lie on stairs: the loss jumps, or is rounded inside"
    )
    wrong = check(half, x, [*np.cos(x[:3]), 2 * np.cos(x[3])])
    assert wrong.worst.verdict is Verdict.DISAGREE
    assert wrong.worst.worst_index == (3,)
    assert wrong.worst.reference_value == pytest.approx(np.cos(x[3]), rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_a_net_in_a_coarse_dtype_and_decay_in_float64(dtype: Any) -> None:
    """Fine steps show the slope of the decay alone, which is not the gradient."""
    passed = []
    for seed in range(4):
        x = 0.3 * np.random.default_rng(seed).normal(size=4)
        net, decay = COARSE_OR_NOT[dtype](layer), 0.02 * x

        def loss(x: Any, net: Loss = net) -> float:
            return net(x) + 0.01 * float(np.sum(x**2))

        right = np.asarray(GRADIENTS[layer](x)) + decay
        report = check_gradients(
            loss, x, {"all": right, "decay": decay, "2": 2 * right}
        )
        found = {leaf.candidate: leaf.verdict for leaf in report.leaves}
        assert found["2"] is Verdict.DISAGREE
        assert found["all"] in (Verdict.AGREE, Verdict.UNRESOLVED)
        assert found["decay"] in (Verdict.DISAGREE, Verdict.UNRESOLVED)
        passed.append(found["all"] is Verdict.AGREE)
    assert any(passed) == (dtype is np.float32)


@pytest.mark.slow
def test_what_is_flat_here_and_moves_elsewhere_is_flat() -> None:
    """A unit that is off, a clip, an unused entry: the slope 0 is right, 1 is wrong."""
    for loss in (
        lambda x: float(np.maximum(x[0], 0) + x[1] ** 2),
        lambda x: float(np.clip(x[0], -0.2, 0.2) ** 2 + x[1] ** 2),
        lambda x: float(x[1] ** 2),
    ):
        x, right = np.array([-0.7, 1.3]), np.array([0.0, 2.6])
        assert check(loss, x, right).passed
        wrong = check(loss, x, right + np.array([1, 0]))
        assert wrong.worst.verdict is Verdict.DISAGREE
        assert wrong.worst.worst_index == (0,)


def test_a_coordinate_that_moves_the_value_by_less_than_a_stair() -> None:
    """Nothing is seen of it; what is larger than any stair hides is wrong."""
    x = np.array([0.5, 0.3])
    loss = COARSE["2 decimals"](lambda x: 10 * x[0] + 1e-3 * x[1])
    small = check(loss, x, [10.0, 1e-3]).worst
    assert small.verdict is Verdict.UNRESOLVED
    large = check(loss, x, [10.0, 2.0]).worst
    assert (large.verdict, large.worst_index) == (Verdict.DISAGREE, (1,))


@pytest.mark.slow
def test_a_callback_in_half_precision() -> None:
    """Which declares float32, in a program that JAX traces."""

    def kernel(x: Any) -> Any:
        return np.asarray(np.sum(np.sin(np.asarray(x, np.float16))), x.dtype)

    def loss(x: Any) -> Any:
        shape = jax.ShapeDtypeStruct((), x.dtype)
        return jax.pure_callback(kernel, shape, x, vmap_method="sequential")

    x = np.array([1.0, 2.0, 0.3], np.float32)
    right = jnp.cos(x)
    assert check(loss, x, right).verdict is Verdict.UNRESOLVED
    assert check(loss, x, 2 * right).verdict is Verdict.DISAGREE


@pytest.mark.filterwarnings("error")
def test_values_that_are_infinite_or_larger_than_float32_warn_of_nothing() -> None:
    """Beside the point, at the steps that places are looked at for."""

    def with_an_end(x: Any) -> float:
        return float(x[0] ** 2) if abs(x[0] - 1) < 1e-3 else math.inf

    def between_two(x: Any) -> float:
        return (
            float(x[0] ** 2)
            if abs(x[0] - 1) < 1e-6
            else math.copysign(math.inf, x[0] - 1)
        )

    one = np.array([1.0])
    assert check(with_an_end, one, 2 * one).passed
    assert check(between_two, one, 2 * one).verdict is not Verdict.DISAGREE
    assert check(lambda x: 1e60 * math.sin(x[0]), one, 1e60 * np.cos(one)).passed


@pytest.mark.parametrize("beside", [1e-9, 1e-8, -1e-7])
def test_a_jump_beside_the_point_does_not_hide_the_slope_between_jumps(
    beside: float,
) -> None:
    """It is taken from elsewhere: 0 may be meant, twice the slope may not."""
    factors = np.array([0.7, -1.3, 0.4])
    x = np.array([1.2, 0.4, -1.3]) * (1 + beside)

    def loss(x: Any) -> float:
        return float(np.sum(factors * np.floor(100 * np.asarray(x))))

    candidates = {"between": np.zeros(3), "wrong": 200 * factors}
    report = check_gradients(loss, x, candidates)
    found = {leaf.candidate: leaf.verdict for leaf in report.leaves}
    assert found["between"] is Verdict.UNRESOLVED
    assert found["wrong"] is Verdict.DISAGREE
