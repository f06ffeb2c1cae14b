"""Mistakes that a point cannot show; complex parameters; assertions for pytest."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import GradientMismatch, Verdict, check_gradients
from jaxnet.testing import assert_gradients, assert_jvp, assert_vjp
from jaxnet.verification import check

Loss = Callable[[Any], Any]

X = np.array([1.2, 0.4, -1.3], np.float32)


def network_loss(images: np.ndarray) -> Loss:
    """Cross entropy of a linear layer, class 0 being right throughout."""

    def loss(params: Any) -> Any:
        weight, bias = params["weight"], params["bias"]
        logits = jnp.asarray(images, weight.dtype) @ weight + bias[None]
        return -jnp.mean(jax.nn.log_softmax(logits)[:, 0])

    return loss


PARAMS = {
    "weight": np.array([[0.3, -0.2], [0.5, 0.1], [-0.4, 0.7]], np.float32),
    "bias": np.array([0.1, -0.2], np.float32),
}


@pytest.mark.slow
def test_survivors_name_what_a_point_cannot_show() -> None:
    """A batch of 1, and images of zeros; five random images show everything."""
    random = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    assert check_gradients(network_loss(random), PARAMS).blind_spots == ()
    (one,) = check_gradients(network_loss(random[:1]), PARAMS).blind_spots
    assert one == "forgetting 1/N: the data are a batch of 1"
    blank = check_gradients(network_loss(0 * random), PARAMS)
    assert (
        "any factor on ['weight'], of which the gradient is 0 here" in blank.blind_spots
    )
    assert not any("bias" in text for text in blank.blind_spots)
    assert f"not covered here: {blank.blind_spots[0]}" in str(blank)


def test_kinks_of_several_leaves_are_not_probed_together() -> None:
    """1 for both of two equal ones is allowed at each kink, and 2 in all is not."""
    tie = {"x": np.float32(1), "y": np.float32(1)}

    def larger(p: dict[str, jax.Array]) -> jax.Array:
        return jnp.maximum(p["x"], p["y"])

    report = check_gradients(larger, tie, {"x": 1.0, "y": 1.0})
    spot = "the sum of what is claimed at the kinks of ['x'], ['y']"
    assert report.passed
    assert spot in report.blind_spots
    alone = check_gradients(larger, {**tie, "y": np.float32(0)})
    assert not any("kinks" in text for text in alone.blind_spots)


@pytest.mark.slow
def test_survivors_name_symmetric_and_equal_leaves() -> None:
    """A transposition of a symmetric gradient, and a swap of two equal ones."""
    square, other = np.eye(3, dtype=np.float32) + 1, np.ones((3, 3), np.float32)
    pair = {"a": square, "b": square.copy(), "c": np.triu(square)}
    found = check_gradients(lambda p: sum(jnp.sum(x**2) for x in p.values()), pair)
    assert "a transposition in ['a'], ['b']" in found.blind_spots
    assert "a swap with another leaf of its shape in ['b']" in found.blind_spots
    assert "3 of the 9 entries of ['c'] have gradient 0" in found.blind_spots
    assert check_gradients(lambda x: jnp.sum(x**3 * X), other).blind_spots == ()


def test_survivors_cost_no_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many calls of a NumPy loss with them as without."""
    calls = []

    def loss(x: Any) -> Any:
        calls.append(0)
        return float(np.sum(np.asarray(x) ** 2))

    assert check_gradients(loss, X, 2 * X).passed
    with_survivors = len(calls)
    monkeypatch.setattr(check, "blind_spots", lambda *anything: ())
    assert check_gradients(loss, X, 2 * X).passed
    assert len(calls) == 2 * with_survivors


Z = np.array([1 + 2j, -0.5 + 1j], np.complex64)


def squares(z: Any) -> Any:
    """Σ |z|²."""
    return jnp.sum(jnp.real(z * jnp.conj(z)))


@pytest.mark.slow
def test_complex_gradients_are_conjugates_of_the_textbook() -> None:
    """JAX's gradient of |z|² is 2 conj(z); 2z is named as conjugated."""
    assert check_gradients(squares, Z).worst.verdict is Verdict.AGREE
    assert check_gradients(squares, Z, 2 * np.conj(Z)).worst.verdict is Verdict.AGREE
    wrong = check_gradients(squares, Z, 2 * Z).worst
    assert wrong.verdict is Verdict.DISAGREE
    assert wrong.cause.startswith("conjugated")
    sign = check_gradients(squares, Z, -2 * np.conj(Z)).worst
    assert sign.cause.startswith("sign flipped")


@jax.custom_jvp
def sine(x: Any) -> Any:
    """Sin, with a rule half too large."""
    return jnp.sin(x)


sine.defjvps(lambda t, y, x: 1.5 * jnp.cos(x) * t)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("assertion", "right", "wrong"),
    [
        (assert_gradients, (squares, Z), (squares, Z, 2 * Z)),
        (assert_vjp, (jnp.sin, X), (sine, X)),
        (assert_jvp, (jnp.sin, X), (sine, X)),
    ],
)
def test_assertions_raise_the_table(
    assertion: Any, right: tuple[Any, ...], wrong: tuple[Any, ...]
) -> None:
    """A right one returns its report; a wrong one is an AssertionError with it."""
    assert assertion(*right).passed
    with pytest.raises(GradientMismatch) as caught:
        assertion(*wrong)
    assert isinstance(caught.value, AssertionError)
    lines = str(caught.value).splitlines()
    assert lines[0].startswith("FAILED: ")
    assert any(line.startswith("leaf ") and "verdict" in line for line in lines)
    assert any("DISAGREE" in line for line in lines)
