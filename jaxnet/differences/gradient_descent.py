"""Descent by numerical gradients, of any scalar function of any pytree.

Source: *Deep Learning from Scratch*, section 4.4.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Float64

from jaxnet.array_types import Array, PyTree, ScalarFunction
from jaxnet.differences.central import one_by_one, relative_step, slopes_of
from jaxnet.differences.flat_point import (
    Coordinates,
    Vector,
    ravel_numpy,
    scalar_value,
)
from jaxnet.float64 import traced_or_none
from jaxnet.input_checks import (
    check_callable,
    check_count,
    check_finite,
    check_positive,
    check_untraced,
    complaint,
    without,
)


@without(init_x="write init", lr="write learning_rate", step_num="write num_steps")
def gradient_descent(
    function: ScalarFunction,
    init: PyTree,
    learning_rate: float = 0.01,
    num_steps: int = 1000,
) -> tuple[PyTree, PyTree]:
    """Where x ← x - learning_rate × numerical_gradient(x) leads, and the way there.

    Both have the structure of `init`, in NumPy float64; the leaves of the path have one
    more leading axis, of num_steps + 1 points from `init` to the result.

    Raises:
        FloatingPointError: the way leads to no finite point.
        TypeError, ValueError: an argument is not what it should be.
    Source: section 4.4.1.

    >>> point, path = gradient_descent(lambda x: x**2, 1.0, 0.25, num_steps=2)
    >>> print(point.round(6), path.round(6))
    0.25 [1.   0.5  0.25]
    """
    check_callable("function", function, "write gradient_descent(function, init)")
    check_positive("learning_rate", learning_rate)
    check_count("num_steps", num_steps, minimum=0)
    check_untraced("init", init, "call gradient_descent outside jit, grad and vmap")
    flat, structure = ravel_numpy(init)
    check_finite("init", flat)
    value = scalar_value(function, structure)
    step = relative_step(np.float64)

    def descend(x: Vector) -> Float[Array, "points coordinates"]:
        def move(x: Vector, _: None) -> tuple[Vector, Vector]:
            return (moved := x - learning_rate * slopes_of(value, x, step)), moved

        path = jax.lax.scan(move, x, length=num_steps)[1]
        return jnp.concatenate([x[None, :], path])

    def descend_plainly(
        x: Coordinates,
    ) -> Float64[np.ndarray, "points coordinates"]:
        path = [x]
        for _ in range(num_steps):
            path.append(path[-1] - learning_rate * one_by_one(value, path[-1], step))
        return np.stack(path)

    # Compiled anew each time: what a function closes over may have changed since.
    with jax.enable_x64(True):
        traced = traced_or_none(descend, flat)
        path = descend_plainly(flat) if traced is None else jax.jit(traced)(flat)
    finite = np.isfinite(path).all(axis=1)
    if not finite.all():
        got = f"NaN or infinity after step {int(np.argmin(finite))}"
        fix = "the learning rate is too large, as a rule: pass a tenth of it"
        raise FloatingPointError(complaint("point", "finite numbers", got, fix))
    points = [structure(x) for x in np.asarray(path)]
    return points[-1], jax.tree.map(lambda *leaves: np.stack(leaves), *points)
