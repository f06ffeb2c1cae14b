"""The constants of a program are what its caller wrote, not what rounds like it."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.custom_derivatives import linear_call

from jaxnet import Verdict, check_gradients, check_vjp
from jaxnet.verification.function.constants import constants, traced

BF16 = jnp.bfloat16
X = np.array([0.3, 1.7, 2.9], np.float32)
THIRD = np.float32(1 / 3)


def found(function: Callable[[list[Any]], Any]) -> dict[tuple[str, float], float]:
    """The dtype and value of each constant, and how far it may be off."""
    closed, _, exact = traced(function, [X])
    return {
        (str(c.places[0].dtype), float(c.value)): float(c.uncertainty)
        for c in constants(closed, exact)
    }


def halves(values: list[Any]) -> Any:
    """1.0 in bfloat16, beside a 1.001 that rounds to it."""
    (x,) = values
    return x * 1.001, jnp.asarray(1.0, BF16) - x.astype(BF16)


def longer_in_float64(values: list[Any]) -> Any:
    """The same, with one constant more where the argument is in float64."""
    (x,) = values
    return *halves(values), x * 3.0 if x.dtype == np.float64 else x


def test_a_number_is_what_stands_in_its_place() -> None:
    """Though both round to 1 in bfloat16."""
    assert found(halves) == {("bfloat16", 1.0): 0.0, ("float32", 1.001): 0.0}


def test_a_number_that_the_dtype_makes_is_nobody_elses() -> None:
    """And the others still have their places."""

    def with_eps(values: list[Any]) -> Any:
        (x,) = values
        return *halves(values), x + float(jnp.finfo(x.dtype).eps)

    expected = {("bfloat16", 1.0), ("float32", 1.001), ("float32", 2.0**-23)}
    assert found(with_eps) == dict.fromkeys(expected, 0.0)


def test_a_program_that_is_run_anew_has_the_constants_of_the_first() -> None:
    """Its numbers are those of their dtype, where another rounds to them too."""

    def more(values: list[Any]) -> Any:
        (x,) = values
        return x * 1.001, *halves(values)

    closed, _, exact = traced(more, [X])
    known = constants(closed, exact)
    again = {str(c.places[0].dtype): c.value for c in constants(closed, (), known)}
    assert again == {"bfloat16": 1.0, "float32": 1.001}


def test_where_places_differ_a_round_number_is_meant() -> None:
    """It may yet be the other one, and the allowance knows it."""
    assert found(longer_in_float64) == {
        ("bfloat16", 1.0): pytest.approx(0.001),
        ("float32", 1.001): 0.0,
    }


@pytest.mark.parametrize("third", [THIRD, jnp.asarray(1 / 3, jnp.float32), 1 / 3])
def test_a_candidate_has_the_constants_of_its_own(third: Any) -> None:
    """A third in float32 is a third, within its rounding, and no more than that."""

    def loss(x: Any) -> Any:
        return jnp.sum(x**3) / 9

    right = check_gradients(loss, X, lambda x: x**2 * third)
    assert right.passed
    assert right.leaves[0].resolution < 1e-6
    assert (right.leaves[0].resolution < 1e-10) == isinstance(third, float)
    wrong = check_gradients(loss, X, lambda x: x**2 * (third * (1 + 2e-6)))
    assert wrong.verdict is Verdict.DISAGREE


RANDOM = np.random.default_rng(0)
WORDS = RANDOM.integers(0, 16, (2, 7))
SIZES = {"q": (16, 16), "k": (16, 16), "v": (16, 16), "up": (16, 32), "down": (32, 16)}
PARAMS = {
    "words": RANDOM.normal(size=(16, 16)).astype(np.float32) * 0.5,
    "gain": np.ones(16, np.float32),
    "last": np.ones(16, np.float32),
    **{n: RANDOM.normal(size=s).astype(np.float32) * 0.2 for n, s in SIZES.items()},
}


def language_model(p: Any) -> Any:
    """Parameters, norms and loss in float32, all else in bfloat16."""

    def normed(x: Any, gain: Any) -> Any:
        x = x.astype(jnp.float32)
        scale = jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + 1e-6)
        return (x * scale * gain).astype(BF16)

    words = p["words"].astype(BF16)
    x = words[WORDS[:, :-1]]
    h = normed(x, p["gain"])
    q, k, v = (h @ p[name].astype(BF16) for name in "qkv")
    scores = (q @ k.mT).astype(jnp.float32) / 16**0.5
    seen = np.tril(np.ones((6, 6), bool))
    weights = jax.nn.softmax(jnp.where(seen, scores, jnp.float32(-1e9)))
    x = x + weights.astype(BF16) @ v
    x = x + jax.nn.silu(x @ p["up"].astype(BF16)) @ p["down"].astype(BF16)
    logits = (normed(x, p["last"]) @ words.T).astype(jnp.float32)
    right = WORDS[:, 1:, None]
    return -jnp.mean(jnp.take_along_axis(jax.nn.log_softmax(logits), right, -1))


@pytest.mark.slow
@pytest.mark.parametrize("wrong", ["", "gain", "last", "q", "words"])
def test_a_mixed_precision_model(wrong: str) -> None:
    """A leaf that is 0.1 % off is named, and no other."""

    def gradient(p: Any) -> Any:
        right = jax.grad(language_model)(p)
        return {n: g * 1.001 if n == wrong else g for n, g in right.items()}

    with jax.numpy_rank_promotion("allow"):
        report = check_gradients(language_model, PARAMS, gradient)
    found = [x.path for x in report.leaves if not x.passed]
    assert found == ([f"['{wrong}']"] if wrong else [])
    assert all(x.resolution < 1e-6 for x in report.leaves if x.passed)


@pytest.mark.parametrize("factor", [1.0, 1.1])
def test_constants_of_a_linear_call(factor: float) -> None:
    """Of a function and of its transpose by hand, neither of them exact in float32."""

    def scaled(x: Any) -> Any:
        return linear_call(
            lambda r, t: 0.3 * r * t,
            lambda r, g: factor * 0.3 * r * g,
            jnp.float32(2),
            x,
        )

    report = check_vjp(scaled, X)
    assert report.passed is (factor == 1.0)
    assert factor == 1.0 or "×1.1 on every entry" in report.worst.cause


def test_numbers_that_a_jitted_function_keeps_cost_no_further_trace() -> None:
    """Its cache keeps those of the trace under x64; they are no data that were cut."""
    inner = jax.jit(lambda x: x * jnp.asarray(1.5, BF16))
    calls = list[Any]()

    def of_bfloat16_only(values: list[Any]) -> Any:
        calls.append(values[0].dtype)
        if values[0].dtype != BF16:
            raise TypeError("bfloat16 only")
        return inner(values[0])

    traced(of_bfloat16_only, [X.astype(BF16)])
    assert calls == [np.float64, BF16, BF16]
