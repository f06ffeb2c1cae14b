"""Work spread over the devices of a mesh, of one process or of many.

Each device takes its part of the turns, and has all else whole, as it has the results.
The compiler moves the data.
"""

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxnet.array_types import Array, PyTree
from jaxnet.input_checks import complaint

P = ParamSpec("P")
T = TypeVar("T")


def whole(mesh: Mesh) -> NamedSharding:
    """All of an array on every device."""
    return NamedSharding(mesh, PartitionSpec())


def automatic(mesh: Mesh | None) -> Mesh | None:
    """The mesh with an axis along which the compiler moves data by itself.

    Raises:
        ValueError: it has another number of axes than one.
    """
    if mesh is None:
        return None
    check_one_axis(mesh.axis_names)
    return Mesh(mesh.devices, mesh.axis_names)


def check_one_axis(axis_names: tuple[Any, ...]) -> None:
    """The devices of a mesh are a list, not a table."""
    if len(axis_names) != 1:
        fix = "make it by jax.make_mesh((devices,), ('batch',))"
        raise ValueError(complaint("mesh", "one axis", str(axis_names), fix))


def check_divides(name: str, size: int, devices: int) -> None:
    """A batch that divides evenly among the devices."""
    if size % devices:
        below, above = size // devices * devices, -(-size // devices) * devices
        nearest = f"{below} or {above}" if below else str(above)
        expected = f"a multiple of the {devices} devices"
        fix = f"the nearest sizes that divide are {nearest}"
        raise ValueError(complaint(name, expected, str(size), fix))


def spread(function: Callable[..., Any], mesh: Mesh | None) -> Callable[..., Any]:
    """function(xs, …), where each device takes its part of the first axis of xs.

    Every array of the result has one entry for each of xs, an array or a pytree of
    them, however many there are. All other arguments, and the results, are whole.
    """
    if mesh is None:
        return function

    def spread_out(xs: PyTree, *others: Any) -> Any:
        count = len(jax.tree.leaves(xs)[0])

        def filled(x: Array) -> Array:
            more = [(0, -count % mesh.size)] + [(0, 0)] * (x.ndim - 1)
            return jnp.pad(x, more, mode="edge") if count % mesh.size else x

        results = of_parts(function, mesh)(jax.tree.map(filled, xs), *others)
        return _gathered(jax.tree.map(lambda y: y[:count], results), mesh)

    return spread_out


def of_parts(function: Callable[..., Any], mesh: Mesh | None) -> Callable[..., Any]:
    """As `spread`, of xs that divide evenly; each device keeps its part of results."""
    if mesh is None:
        return function
    part, every = PartitionSpec(mesh.axis_names[0]), PartitionSpec()

    def each_its_part(xs: PyTree, *others: Any) -> Any:
        specs = (part, *(every for _ in others))
        mapped = jax.shard_map(
            function, mesh=mesh, in_specs=specs, out_specs=part, check_vma=False
        )
        return mapped(xs, *others)

    return each_its_part


def summed(function: Callable[..., PyTree], mesh: Mesh) -> Callable[..., PyTree]:
    """function(number, …) of all devices, added up; they have the numbers from 0."""

    def of_one(numbers: Array, *others: Any) -> PyTree:
        return jax.tree.map(lambda y: y[None], function(numbers[0], *others))

    def of_all(*others: Any) -> PyTree:
        terms = of_parts(of_one, mesh)(jnp.arange(mesh.size), *others)
        return _gathered(jax.tree.map(lambda y: y.sum(axis=0), terms), mesh)

    return of_all


def _gathered(tree: PyTree, mesh: Mesh) -> PyTree:
    return jax.lax.with_sharding_constraint(tree, whole(mesh))


def transfers_allowed(function: Callable[P, T]) -> Callable[P, T]:
    """The function, whose own arrays come and go whatever jax.transfer_guard says."""

    @wraps(function)
    def allowed(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.transfer_guard("allow"):
            return function(*args, **kwargs)

    return allowed
