"""Arrays that JAX or XLA would take otherwise than NumPy does, and odd candidates."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet.verification import Verdict, check_gradients

X = np.random.default_rng(0).standard_normal(5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [np.float32, jnp.bfloat16])
@pytest.mark.parametrize("factor", [1, 1.01])
def test_numbers_that_xla_takes_for_zeros(dtype: Any, factor: float) -> None:
    """Subnormal parameters, which NumPy widens: a right gradient and a wrong one.

    No float32 holds the gradient, 2e40: of the right one, the run is said to be lost.
    """
    x = np.array([1e-40, 2e-40, 1e-39], np.float32).astype(dtype)

    def in_numpy(x: Any) -> float:
        return float(np.sum((np.asarray(x) * 1e40) ** 2))

    def in_jax(x: Any) -> jax.Array:
        return jnp.sum((x * 1e40) ** 2)

    for loss in (in_numpy, in_jax):
        report = check_gradients(loss, x, lambda x: factor * 2 * (x * 1e40) * 1e40)
        assert (report.verdict is Verdict.DISAGREE) == (factor != 1), str(report)
        assert ("as it is run, in" in report.worst.cause) == (factor == 1)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [">f8", ">f4", np.longdouble])
def test_dtypes_that_jax_does_not_take(dtype: Any) -> None:
    """As files of other machines hold them; with a loss in NumPy."""
    x = X.astype(dtype)

    def loss(x: Any) -> float:
        return float(np.sum(np.sin(np.asarray(x))))

    assert check_gradients(loss, x, lambda x: np.cos(np.asarray(x))).passed
    assert not check_gradients(loss, x, lambda x: 2 * np.cos(np.asarray(x))).passed


def test_an_array_of_objects_is_malformed_alone() -> None:
    """The other leaves get their verdicts."""

    def loss(params: Any) -> jax.Array:
        return jnp.sum(jnp.sin(params["a"])) + jnp.sum(jnp.sin(params["b"]))

    def candidate(params: Any) -> Any:
        objects = np.array([1.0, None, 2, 3, 4], object)
        return {"a": np.cos(np.asarray(params["a"])), "b": objects}

    report = check_gradients(loss, {"a": X, "b": X}, candidate)
    verdicts = {leaf.path: leaf.verdict for leaf in report.leaves}
    assert verdicts == {"['a']": Verdict.AGREE, "['b']": Verdict.MALFORMED}


@pytest.mark.slow
def test_a_complex_number_in_the_loss() -> None:
    """A wrong gradient is found, though the loss adds 1 to complex numbers."""
    z = (X + 1j * X[::-1]).astype(np.complex64)

    def loss(z: Any) -> jax.Array:
        return jnp.sum(jnp.abs(1j * z + 1) ** 2)

    report = check_gradients(loss, z, lambda z: 1.3 * jax.grad(loss)(z))
    assert report.worst.verdict is Verdict.DISAGREE
    assert "1.3" in report.worst.cause


def test_a_candidate_that_raises_at_a_nearby_point() -> None:
    """A gradient of zero is tried nearby; what raises there is said, not raised."""

    def loss(params: Any) -> jax.Array:
        return jnp.sum(params["a"] ** 2) + jnp.sum(params["b"] ** 3)

    def candidate(params: Any) -> Any:
        if np.any(np.asarray(params["a"])):
            raise ValueError
        return {"a": np.zeros(5), "b": 3 * np.asarray(params["b"]) ** 2}

    report = check_gradients(loss, {"a": np.zeros(5), "b": X}, candidate)
    first, second = sorted(report.leaves, key=lambda leaf: leaf.path)
    assert first.verdict is Verdict.UNINFORMATIVE
    assert "malformed at a nearby point" in first.cause
    assert second.verdict is Verdict.AGREE


def test_a_candidate_that_uses_its_arrays_again() -> None:
    """What it gives nearby does not overwrite what it gave at the point."""
    kept = {"a": np.zeros(5), "b": np.zeros(5)}

    def loss(params: Any) -> jax.Array:
        return jnp.sum(params["a"] ** 2) + jnp.sum(params["b"] ** 3)

    def candidate(params: Any) -> Any:
        np.copyto(kept["a"], 2 * np.asarray(params["a"]))
        np.copyto(kept["b"], 3 * np.asarray(params["b"]) ** 2)
        return kept

    assert check_gradients(loss, {"a": np.zeros(5), "b": X}, candidate).passed


def test_one_array_for_two_leaves() -> None:
    """That they cannot be told apart is said, be they one object or two."""

    def loss(params: Any) -> jax.Array:
        return jnp.sum(jnp.sin(params["a"])) + jnp.sum(jnp.sin(params["b"]))

    cosines = np.cos(X)
    for other in (cosines, cosines.copy()):
        candidate = {"a": cosines, "b": other}
        report = check_gradients(loss, {"a": X, "b": X}, candidate)
        assert any("a swap" in survivor for survivor in report.blind_spots)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_leaves_of_a_loss_that_computes_in_float32(dtype: Any) -> None:
    """The terms are float32's own, and not what the gradient's last cast cuts off."""
    random = np.random.default_rng(0)
    x = random.normal(size=(12, 6)).astype(np.float32)
    w = random.normal(size=(6, 4)).astype(dtype)

    def loss(w: Any) -> Any:
        return jnp.mean(jnp.tanh(x @ w.astype(jnp.float32)) ** 2)

    right = np.asarray(jax.grad(loss)(w))
    largest = np.unravel_index(np.argmax(np.abs(right)), right.shape)
    wrong = right.copy()
    wrong[largest] = 1.6 * float(right[largest])
    report = check_gradients(loss, w, {"right": right, "wrong": wrong})
    first, second = report.leaves
    assert first.verdict is Verdict.AGREE
    assert first.resolution < 0.3
    assert second.verdict is Verdict.DISAGREE
    assert second.worst_index == largest
