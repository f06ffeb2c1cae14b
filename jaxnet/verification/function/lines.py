"""A traced loss along lines through its parameters, in float64.

A line of a small net is one program, compiled once, that moves all leaves at once for
all times. A large net is copied once only, and evaluated time by time.
"""

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from jaxnet.devices import of_parts, spread
from jaxnet.float64 import platform
from jaxnet.input_checks import complaint
from jaxnet.jaxpr.compiled import Bare
from jaxnet.jaxpr.lines import said
from jaxnet.jaxpr.reader import work
from jaxnet.verification.directions import (
    ONE,
    AnyDirection,
    Together,
    parts_of,
    units,
    vector,
)
from jaxnet.verification.function.callbacks import unless_raised
from jaxnet.verification.function.widen import Widened
from jaxnet.verification.point import Point
from jaxnet.xla_options import by_eigen, in_haste

LINE_BYTES = 2**26
"""How much memory the parameters of a line's 32 times may take together."""

TIMES_AT_ONCE = 32

SHORT = 2**13
"""A program that computes so few numbers is run at all times in a millisecond, which
takes less for all lines of a check than to optimise it."""

REFUSED = NotImplementedError, ValueError, jax.errors.JaxRuntimeError
"""What JAX and XLA raise of a program that they cannot run."""

Values = Float[np.ndarray, " times"]

Data = tuple[list[Any], list[Any]]
"""The constants of a program, and its inexact constants."""


class Lines:
    """The lines through points of one structure, over the devices of a mesh."""

    def __init__(self, widened: Widened, point: Point, mesh: Mesh | None) -> None:
        self.mesh = mesh
        size = sum(leaf.size for leaf in point.leaves)
        self._at_once = 8 * TIMES_AT_ONCE * size <= LINE_BYTES
        self._data: Data = list(widened.consts), list(widened.inexact_values())
        self._line = widened.program.compiled(_line, mesh, platform())
        self._copies = _copies(mesh)
        self._of_copies = widened.program.compiled(_of_copies, mesh, platform())

    def values(
        self, direction: AnyDirection | Together, times: Values, point: Point
    ) -> Values:
        """The loss at x + t v for all times t, with v in the direction's leaves."""
        base = point.wide()
        if self._at_once:
            moves = [np.zeros(x.shape) for x in base]
            for part in parts_of(direction):
                moves[part.leaf.number] = vector(part)
            try:
                found = _run(self._line, self._data, times, base, moves)
            except REFUSED:  # what cannot be vmapped, or is too large
                self._at_once, found = False, None
            if found is not None:
                return found
        return self._one_by_one(direction, times, base)

    def _one_by_one(
        self, direction: AnyDirection | Together, times: Values, base: list[Any]
    ) -> Values:
        """The values time by time, or one a device.

        Leaves are moved by programs of their own: fused into the loss's, they would be
        moved anew for each use.
        """
        width = self.mesh.size if self.mesh else 1
        turns = np.pad(times, (0, -len(times) % width), mode="edge").reshape(-1, width)
        copies = [self._copies(turns[0], x, None, 0.0) for x in base]
        moving = [(part.leaf, part.multipliers()) for part in parts_of(direction)]
        results = []
        for turn in turns:
            for leaf, multipliers in moving:
                copies[leaf.number] = None  # before there is another
                rest = base[leaf.number], multipliers, leaf.floor
                copies[leaf.number] = self._copies(turn, *rest)
            try:
                found = _run(self._of_copies, self._data, copies)
            except REFUSED as error:
                if self.mesh is None:
                    raise
                expected = "a loss that can run on each device alone"
                fix = "leave it out where the loss spreads itself over devices"
                text = complaint("mesh", expected, said(error), fix)
                raise ValueError(text) from error
            results.append(np.full(width, np.nan) if found is None else found)
        return np.concatenate(results)[: len(times)]


def _run(program: Any, *args: Any) -> Values | None:
    """Its values; None where a callback raises: a point outside its domain."""
    return unless_raised(lambda: np.asarray(program(*args)))


def _line(program: Bare, mesh: Mesh | None, platform: str) -> Any:
    is_short = work(program.jaxpr) <= SHORT
    return (in_haste if is_short else by_eigen)(
        partial(_along, program, mesh), platform
    )


@lru_cache
def _copies(mesh: Mesh | None) -> Any:
    return jax.jit(partial(_copied, mesh))


def _of_copies(program: Bare, mesh: Mesh | None, platform: str) -> Any:
    return by_eigen(partial(_of_one_a_device, program, mesh), platform)


def _along(
    program: Bare,
    mesh: Mesh | None,
    data: Data,
    times: Any,
    base: list[Any],
    moves: list[Any],
) -> Any:
    """The values at all times, of leaves that all move."""

    def of_part(times: Any, data: Data, *leaves: list[Any]) -> jax.Array:
        def phi(t: Any) -> jax.Array:
            pairs = zip(*leaves, strict=True)
            moved = [jnp.asarray(x, np.float64) + t * v for x, v in pairs]
            return _value(program, data, moved)

        return jax.vmap(phi)(times)

    return spread(of_part, mesh)(times, data, base, moves)


def _copied(mesh: Mesh | None, turn: Any, x: Any, multipliers: Any, floor: Any) -> Any:
    """A leaf at one time for each device; multipliers: None if it does not move."""

    def of_part(time: Any, x: Any, multipliers: Any, floor: Any) -> Any:
        if multipliers is None:
            return jnp.asarray(x, np.float64)[None]
        return _moved(time[0], x, multipliers, floor)[None]

    return of_parts(of_part, mesh)(turn, x, multipliers, floor)


def _of_one_a_device(
    program: Bare, mesh: Mesh | None, data: Data, copies: list[Any]
) -> Any:
    """The value of each device's own copy."""

    def of_part(copies: list[Any], data: Data) -> jax.Array:
        return _value(program, data, [copy[0] for copy in copies])[None]

    return spread(of_part, mesh)(copies, data)


def _value(program: Bare, data: Data, moved: list[Any]) -> jax.Array:
    consts, inexact = data
    value: jax.Array = jnp.asarray(program(consts, *moved, *inexact), np.float64)
    return value


def _moved(t: Any, x: Any, multipliers: Any, floor: Any) -> Any:
    """x + t v in float64, as `directions` defines v."""
    x = jnp.asarray(x, np.float64)
    return x + t * (multipliers.astype(np.float64) / ONE) * units(x, floor, jnp)
