"""What a traced program is, and which two are one."""

from typing import Any

import jax
import jax.numpy as jnp

from jaxnet.verification.function.program import same_program

X = jnp.ones(3)


def over(data: jax.Array, within: bool) -> Any:
    """A product with data, held by the program or by a function jitted within it."""
    times = lambda x: x * data  # noqa: E731
    return jax.make_jaxpr(jax.jit(times) if within else times)(X)


def test_programs_are_one_if_their_data_are() -> None:
    """Wherever they are held: the text of a program does not tell that."""
    for within in (False, True):
        assert same_program(over(X, within), over(jnp.ones(3), within))
        assert not same_program(over(X, within), over(2 * X, within))
    assert not same_program(jax.make_jaxpr(jnp.sin)(X), jax.make_jaxpr(jnp.cos)(X))
