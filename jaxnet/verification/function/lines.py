"""A traced loss along lines through its parameters, in float64.

A line of a small net is one program, compiled once, that moves all leaves at once for
all times. A large net is copied once only, and evaluated time by time.
"""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from jaxnet.devices import of_parts, spread
from jaxnet.verification.directions import ONE, AnyDirection, units
from jaxnet.verification.function.widen import Widened
from jaxnet.verification.point import Point
from jaxnet.xla_options import BY_EIGEN, compiled

LINE_BYTES = 2**26
"""How much memory the parameters of a line's 32 times may take together."""

TIMES_AT_ONCE = 32

Values = Float[np.ndarray, " times"]


class Lines:
    """The lines through points of one structure, over the devices of a mesh."""

    def __init__(self, widened: Widened, point: Point, mesh: Mesh | None) -> None:
        self.widened, self.mesh = widened, mesh
        self._shapes = [leaf.values.shape for leaf in point.leaves]
        size = sum(leaf.size for leaf in point.leaves)
        self._at_once = 8 * TIMES_AT_ONCE * size <= LINE_BYTES
        self._zeros: dict[int, jax.Array] = {}
        # bound to the program and not to self: without a cycle, it is freed at once
        self._line = jax.jit(partial(_along, widened, mesh))
        self._copies = jax.jit(partial(_copied, mesh))
        self._of_copies: Any = None

    def values(self, direction: AnyDirection, times: Values, point: Point) -> Values:
        """The loss at x + t v for all times t, with v in the direction's leaf alone."""
        base = point.wide()
        floors = [leaf.floor for leaf in point.leaves]
        if self._at_once:
            moves = [self._zero(i) for i in range(len(base))]
            moves[direction.leaf.number] = jnp.asarray(direction.multipliers())
            try:
                return np.asarray(self._line(times, base, moves, floors))
            except (NotImplementedError, ValueError):  # what cannot be vmapped
                self._at_once = False
        return self._one_by_one(direction, times, base)

    def _zero(self, number: int) -> jax.Array:
        if number not in self._zeros:
            self._zeros[number] = jnp.zeros(self._shapes[number], jnp.int8)
        return self._zeros[number]

    def _one_by_one(
        self, direction: AnyDirection, times: Values, base: list[Any]
    ) -> Values:
        """The values time by time, or one a device.

        Leaves are moved by programs of their own: fused into the loss's, they would be
        moved anew for each use.
        """
        width = self.mesh.size if self.mesh else 1
        turns = np.pad(times, (0, -len(times) % width), mode="edge").reshape(-1, width)
        copies = [self._copies(turns[0], x, None, 0.0) for x in base]
        leaf, multipliers = direction.leaf, direction.multipliers()
        x = base[leaf.number]
        results = []
        for turn in turns:
            copies[leaf.number] = None  # before there is another
            copies[leaf.number] = self._copies(turn, x, multipliers, leaf.floor)
            if self._of_copies is None:
                self._of_copies = compiled(
                    partial(_of_one_a_device, self.widened, self.mesh), BY_EIGEN, copies
                )
            results.append(np.asarray(self._of_copies(copies)))
        return np.concatenate(results)[: len(times)]


def _along(
    widened: Widened,
    mesh: Mesh | None,
    times: Any,
    base: list[Any],
    moves: list[Any],
    floors: list[Any],
) -> Any:
    """The values at all times, of leaves that all move."""

    def of_part(times: Any, *leaves: list[Any]) -> jax.Array:
        def phi(t: Any) -> jax.Array:
            moved = [_moved(t, *leaf) for leaf in zip(*leaves, strict=True)]
            return _value(widened, moved)

        return jax.vmap(phi)(times)

    return spread(of_part, mesh)(times, base, moves, floors)


def _copied(mesh: Mesh | None, turn: Any, x: Any, multipliers: Any, floor: Any) -> Any:
    """A leaf at one time for each device; multipliers: None if it does not move."""

    def of_part(time: Any, x: Any, multipliers: Any, floor: Any) -> Any:
        if multipliers is None:
            return jnp.asarray(x, np.float64)[None]
        return _moved(time[0], x, multipliers, floor)[None]

    return of_parts(of_part, mesh)(turn, x, multipliers, floor)


def _of_one_a_device(widened: Widened, mesh: Mesh | None, copies: list[Any]) -> Any:
    """The value of each device's own copy."""

    def of_part(copies: list[Any]) -> jax.Array:
        return _value(widened, [copy[0] for copy in copies])[None]

    return spread(of_part, mesh)(copies)


def _value(widened: Widened, moved: list[Any]) -> jax.Array:
    value: jax.Array = jnp.asarray(widened(moved), np.float64)
    return value


def _moved(t: Any, x: Any, multipliers: Any, floor: Any) -> Any:
    """x + t v in float64, as `directions` defines v."""
    x = jnp.asarray(x, np.float64)
    return x + t * (multipliers.astype(np.float64) / ONE) * units(x, floor, jnp)
