"""What stands inside a program is seen, and moved, as if it were an argument."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet.jaxpr.reader import every_equation
from jaxnet.verification.function.planted import planted

X = np.array([0.3, -0.7, 1.1], np.float32)


def halved(x: Any) -> Any:
    """sin is the equation that is looked for."""
    return jnp.sin(0.5 * x)


def in_scan(x: Any) -> Any:
    return jax.lax.scan(lambda c, _: (halved(c), c), x, None, length=3)[0]


def in_nested_scans(x: Any) -> Any:
    return jax.lax.scan(lambda c, _: (in_scan(c), None), x, None, length=2)[0]


def in_branches(x: Any) -> Any:
    return jax.lax.cond(x[0] > 0, halved, jnp.cos, x) + halved(x)


def in_one_program_twice(x: Any) -> Any:
    layer = jax.jit(halved)
    return layer(layer(x))


def in_checkpoint(x: Any) -> Any:
    return jax.checkpoint(halved)(x)


def in_vmap(x: Any) -> Any:
    return jax.vmap(halved)(x)


FUNCTIONS = {
    f.__name__: f
    for f in (
        halved,
        in_scan,
        in_nested_scans,
        in_branches,
        in_one_program_twice,
        in_checkpoint,
        in_vmap,
    )
}


def sines(function: Callable[[Any], Any]) -> tuple[Any, set[int]]:
    """The program of a function, and its sines."""
    closed = jax.make_jaxpr(function)(X)
    chosen = {id(e) for e in every_equation(closed) if e.primitive.name == "sin"}
    return closed, chosen


@pytest.mark.parametrize("name", FUNCTIONS)
def test_unchanged(name: str) -> None:
    """With 0 added the outputs are the function's, and what is seen are sines."""
    closed, chosen = sines(FUNCTIONS[name])
    (plain,), seen = planted(closed, [X], chosen, {})
    zeros = {p: [jnp.zeros_like(y) for y in s.outputs] for p, s in seen.items()}
    (moved,), again = jax.jit(lambda x, z: planted(closed, [x], chosen, z))(X, zeros)
    np.testing.assert_allclose(plain, FUNCTIONS[name](X), rtol=1e-6)
    np.testing.assert_allclose(moved, plain, rtol=1e-6)
    assert seen.keys() == again.keys()
    for place in seen.values():
        np.testing.assert_allclose(place.outputs[0], np.sin(place.inputs[0]), rtol=1e-6)


@pytest.mark.parametrize(
    ("name", "shapes"),
    [
        ("in_scan", [(3, 3)]),
        ("in_nested_scans", [(2, 3, 3)]),
        ("in_branches", [(3,), (3,)]),
        ("in_one_program_twice", [(3,), (3,)]),
        ("in_vmap", [(3,)]),
    ],
)
def test_shapes(name: str, shapes: list[tuple[int, ...]]) -> None:
    """Every place is seen by itself, with an axis for each scan around it."""
    _, seen = planted(*reordered(name), {})
    assert [s.outputs[0].shape for s in seen.values()] == shapes


def reordered(name: str) -> tuple[Any, list[Any], set[int]]:
    """A program, the point, the chosen equations."""
    closed, chosen = sines(FUNCTIONS[name])
    return closed, [X], chosen


def test_moves_what_follows() -> None:
    """What is added to the first of three rounds goes through the two after it."""
    closed, inputs, chosen = reordered("in_scan")
    _, seen = planted(closed, inputs, chosen, {})
    (place,) = seen

    def of(added: Any) -> Any:
        return planted(closed, inputs, chosen, {place: [added]})[0][0][0]

    slope = jax.grad(of)(jnp.zeros((3, 3), np.float32))
    first, second = (seen[place].inputs[0][i, 0] for i in (1, 2))
    expected = 0.5 * np.cos(first) * 0.5 * np.cos(second)
    np.testing.assert_allclose(slope[0, 0], expected, rtol=1e-6)
    np.testing.assert_allclose(slope[2], [1.0, 0.0, 0.0])


def test_first_round_of_a_while() -> None:
    """A while loop is as it was, and its first round is seen."""

    def loop(x: Any) -> Any:
        return jax.lax.while_loop(lambda c: jnp.sum(c) > 0.1, halved, x)

    closed, chosen = sines(loop)
    (value,), seen = planted(closed, [X], chosen, {})
    np.testing.assert_allclose(value, loop(X), rtol=1e-6)
    (one,) = seen.values()
    np.testing.assert_allclose(one.inputs[0], 0.5 * X)


def test_branch_not_taken() -> None:
    """What is not run is seen as 0."""
    closed, inputs, chosen = reordered("in_branches")
    _, seen = planted(closed, [-X], chosen, {})
    first, second = seen.values()
    assert not first.outputs[0].any()
    assert second.outputs[0].all()
    assert inputs
