"""Functions whose slope is another at another scale: seen there, or left undecided."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import Verdict, check_gradients

AGREE, DISAGREE = Verdict.AGREE, Verdict.DISAGREE
UNDECIDED = (Verdict.UNRESOLVED, Verdict.NONDIFFERENTIABLE)


def verdict(loss: Callable[..., Any], x: Any, gradient: Any) -> Verdict:
    """Of one gradient at one point."""
    return check_gradients(loss, np.asarray(x), gradient).verdict


def roots(p: Any) -> Any:
    """Σ √|p|."""
    return jnp.sum(jnp.sqrt(jnp.abs(p)))


def slopes_of_roots(p: Any) -> Any:
    """Its gradient."""
    return 0.5 / jnp.sqrt(jnp.abs(p)) * jnp.sign(p)


@pytest.mark.parametrize("size", [3, 100])
def test_an_entry_smaller_than_every_step_is_moved_by_its_own_size(size: int) -> None:
    """√|x| at 1e-20 beside 1: its slope is 5e9, and zeroed it is wrong."""
    x = np.append(np.random.default_rng(0).normal(size=size - 1), 1e-20)
    assert verdict(roots, x, slopes_of_roots) is AGREE
    zeroed = check_gradients(roots, x, lambda p: slopes_of_roots(p).at[-1].set(0.0))
    assert zeroed.verdict is DISAGREE
    assert zeroed.worst.worst_index == (size - 1,)


def test_an_entry_smaller_than_every_step_has_the_bound_of_both_sides() -> None:
    """|x|^1.5 at 1e-17: 4.7e-9 is not told from 0, and neither is called wrong."""

    def loss(p: Any) -> Any:
        return jnp.sum(jnp.abs(p) ** 1.5)

    x = np.array([1.0, -2.0, 1e-17])
    report = check_gradients(
        loss, x, lambda p: 1.5 * jnp.sqrt(jnp.abs(p)) * jnp.sign(p)
    )
    assert report.passed
    assert report.leaves[0].resolution > 1e-7


@pytest.mark.slow
def test_units_of_many_scales_in_one_leaf() -> None:
    """Volts and farads: arctan(1e9 p₀ p₁) at (1e3, 1e-12), sin(p/s) for s over 1e60."""

    def phase(p: Any) -> Any:
        return -jnp.arctan(1e9 * p[0] * p[1])

    x = np.array([1e3, 1e-12])
    assert verdict(phase, x, jax.grad(phase)) is AGREE
    twice = np.array([1.0, 2.0])
    assert verdict(phase, x, lambda p: twice * jax.grad(phase)(p)) is DISAGREE
    s = 10.0 ** np.linspace(-30, 30, 70)

    def sines(p: Any) -> Any:
        return jnp.sum(jnp.sin(p / s))

    def cosines(p: Any) -> Any:
        return jnp.cos(p / s) / s

    assert verdict(sines, s, cosines) is AGREE
    for i in (0, 35, 69):
        wrong = check_gradients(sines, s, lambda p, i=i: cosines(p).at[i].multiply(2.0))
        assert wrong.worst.worst_index == (i,)


def test_a_steep_step_is_no_jump() -> None:
    """A sigmoid of scale 1e12 at 1e-12."""

    def gate(p: Any) -> Any:
        return p[0] ** 2 + jax.nn.sigmoid(1e12 * p[1] - 1)

    x = np.array([1.0, 1e-12])
    assert verdict(gate, x, jax.grad(gate)) is AGREE
    assert verdict(gate, x, lambda p: jax.grad(gate)(p).at[1].multiply(2.0)) is DISAGREE


@pytest.mark.parametrize("power", [0.3, 0.5, 2 / 3, 0.9])
@pytest.mark.parametrize("size", [2, 100])
def test_a_cusp_is_no_smooth_point(power: float, size: int) -> None:
    """|x|^p at 0: one-sided derivatives grow without end."""
    x = np.append(np.random.default_rng(0).normal(size=size - 1), 0.0)
    gradient = power * np.abs(x[:-1]) ** (power - 1) * np.sign(x[:-1])

    def loss(p: Any) -> Any:
        return jnp.sum(jnp.abs(p) ** power)

    report = check_gradients(loss, x, np.append(gradient, 0.0))
    assert report.verdict in UNDECIDED
    assert not report.passed


@pytest.mark.parametrize("power", [1.1, 1.5])
def test_a_flat_power_is_smooth_enough(power: float) -> None:
    """|x|^1.1 has the derivative 0 at 0."""
    x = np.array([1.0, 0.0])
    loss = lambda p: jnp.sum(jnp.abs(p) ** power)  # noqa: E731
    assert verdict(loss, x, np.array([power, 0.0])) is AGREE


@pytest.mark.parametrize("distance", [1e-6, 1e-8, 1e-9, 1e-10, 1e-11])
def test_a_kink_beside_the_point_is_no_jump(distance: float) -> None:
    """The slope is that of the side where the point lies."""

    def loss(p: Any) -> Any:
        return jnp.sum(jax.nn.relu(p - 1 + distance))

    x = np.array([1.0, 2.0])
    assert verdict(loss, x, np.array([1.0, 1.0])) is AGREE
    assert verdict(loss, x, np.array([0.0, 1.0])) is DISAGREE
    nearer = check_gradients(lambda p: jnp.sum(jax.nn.relu(p - 1 + 1e-13)), x)
    assert "jump" not in nearer.worst.cause


@pytest.mark.parametrize(
    "frequency", [1e9, 2 * np.pi * 4.0**8, 2 * np.pi * 4.0**12, 2 * np.pi * 4.0**15]
)
def test_a_ripple_is_seen_or_undecided(frequency: float) -> None:
    """Neither the gradient with the ripple nor that without it is judged wrongly."""

    def loss(p: Any) -> Any:
        return jnp.sum(p**2 + 1e-8 * jnp.sin(frequency * p))

    x = np.array([1.0, 2.0, 0.3])
    right = verdict(loss, x, jax.grad(loss))
    assert right in (AGREE, *UNDECIDED)
    assert verdict(loss, x, lambda p: 2 * p) in (DISAGREE, *UNDECIDED)


def printed(p: Any) -> float:
    """What an external program prints, to six digits."""
    return float(f"{np.sum(np.sin(p)):.6g}")


def in_half(p: Any) -> float:
    """Computed in half precision, unseen."""
    return float(np.sum(np.sin(np.asarray(p, np.float16)).astype(np.float64)))


def in_single(p: Any) -> float:
    """Computed in float32, unseen."""
    return float(np.sum(np.sin(np.asarray(p, np.float32))))


def by_host(p: Any) -> Any:
    """In half precision behind a callback that says float32."""
    kernel = lambda v: np.asarray(in_half(v), v.dtype)  # noqa: E731
    shape = jax.ShapeDtypeStruct((), p.dtype)
    return jax.pure_callback(kernel, shape, p, vmap_method="sequential")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("loss", "dtype"),
    [(printed, np.float64), (in_half, np.float64), (by_host, np.float32)],
)
def test_a_staircase_is_undecided(loss: Callable[..., Any], dtype: Any) -> None:
    """Flat at fine steps and sloped at coarse ones: rounded, or really flat?"""
    x = np.array([1.0, 2.0, 0.3], dtype)
    assert verdict(loss, x, np.cos(x)) in UNDECIDED
    assert verdict(loss, x, 0 * x) in (DISAGREE, *UNDECIDED)
    assert verdict(loss, x, 2 * np.cos(x)) is DISAGREE


def test_float32_is_no_staircase() -> None:
    """Its noise is known."""
    x = np.array([1.0, 2.0, 0.3])
    assert verdict(in_single, x, np.cos(x)) is AGREE
    assert verdict(in_single, x, 1.01 * np.cos(x)) is DISAGREE


def test_rounding_of_the_argument_is_the_candidates_own() -> None:
    """In float32, sin(1000 x) turns by 1000 x ε: its gradient there is right."""
    x = np.random.default_rng(1).normal(size=6).astype(np.float32)

    def loss(p: Any) -> Any:
        return jnp.sum(jnp.sin(1000 * p))

    gradient = np.asarray(jax.grad(loss)(jnp.asarray(x)))
    assert verdict(loss, x, gradient) is AGREE
    assert verdict(loss, x, np.float32(1.01) * gradient) is DISAGREE
