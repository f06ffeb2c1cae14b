"""Work spread over the devices of a mesh, of one process or of many.

Each device takes its part of the turns, and has all else whole, as it has the results.
The compiler moves the data.
"""

import hashlib
import json
from collections.abc import Callable, Mapping
from functools import cache, wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import UInt8

from jaxnet.array_types import Array, PyTree
from jaxnet.input_checks import complaint, describe

P = ParamSpec("P")
T = TypeVar("T")

MOST_FACTS = 2**16
"""Bytes in which a process says what it is about to do."""


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
    if not isinstance(mesh, Mesh):
        fix = "make one by jax.make_mesh((devices,), ('batch',))"
        raise TypeError(complaint("mesh", "a mesh", describe(mesh), fix))
    if len(mesh.axis_names) != 1:
        fix = "make it by jax.make_mesh((devices,), ('batch',))"
        raise ValueError(complaint("mesh", "one axis", str(mesh.axis_names), fix))
    return Mesh(mesh.devices, mesh.axis_names)


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


def gathered(row: UInt8[np.ndarray, " size"], mesh: Mesh) -> dict[int, np.ndarray]:
    """By process of the mesh, in order: the row that it passed, all of one size."""
    processes = [device.process_index for device in mesh.devices.flat]
    own = np.tile(row, (processes.count(jax.process_index()), 1))
    by_device = NamedSharding(mesh, PartitionSpec(mesh.axis_names[0]))
    rows = jax.make_array_from_process_local_data(by_device, own)
    everywhere = np.asarray(_copied(whole(mesh))(rows))
    by_process = dict(zip(processes, everywhere, strict=True))
    return {process: by_process[process] for process in sorted(by_process)}


@cache
def _copied(to: NamedSharding) -> Callable[[Array], Array]:
    return jax.jit(lambda x: x, out_shardings=to)


def check_same(facts: Mapping[str, Any], mesh: Mesh) -> None:
    """Every process of the mesh says the same, where it says anything.

    Raises:
        ValueError: what differs, and what it is on which process; on all of them.
    """
    told = {name: _brief(str(value)) for name, value in facts.items()}
    text = np.frombuffer(json.dumps(told).encode(), np.uint8)
    rows = gathered(np.pad(text, (0, MOST_FACTS - len(text))), mesh)
    found = {rank: json.loads(bytes(row).rstrip(b"\0")) for rank, row in rows.items()}
    differences = [
        f"{name} is " + ", ".join(f"{value} on {who}" for value, who in values.items())
        for name in dict.fromkeys(name for told in found.values() for name in told)
        if len(values := _holders(name, found)) > 1
    ]
    if differences:
        fix = "start all with the same flags, data and versions"
        raise ValueError(f"the processes differ: {'; '.join(differences)}; {fix}")


def _brief(text: str, longest: int = 400) -> str:
    """A text in one line of bounded length, which is the same for no other text."""
    line = " ".join(text.split())
    end = f"… ({hashlib.sha256(text.encode()).hexdigest()})"
    return line if len(line) <= longest else line[: longest - len(end)] + end


def _holders(name: str, found: Mapping[int, Mapping[str, str]]) -> dict[str, str]:
    """Each value of a fact, and the processes that told it, in words."""
    by_value: dict[str, list[str]] = {}
    for process, told in found.items():
        if name in told:
            by_value.setdefault(told[name], []).append(str(process))
    return {
        value: f"process {', '.join(who[:6])}{' …' if len(who) > 6 else ''}"
        for value, who in by_value.items()
    }


def digest(tree: PyTree) -> str:
    """SHA-256 of the type, the shape and the bytes of every array, in hexadecimal."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        is_key = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        array = np.asarray(jax.random.key_data(leaf) if is_key else leaf)
        total.update(f"{leaf.dtype} {leaf.shape} ".encode())
        total.update(array.tobytes())
    return total.hexdigest()


@cache
def code() -> str:
    """Which JAX this is, and of this package the SHA-256 of all modules."""
    root, total = Path(__file__).parent, hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        total.update(f"{file.relative_to(root)} ".encode() + file.read_bytes())
    return f"JAX {jax.__version__}, jaxnet {total.hexdigest()[:16]}"


def transfers_allowed(function: Callable[P, T]) -> Callable[P, T]:
    """The function, whose own arrays come and go whatever jax.transfer_guard says."""

    @wraps(function)
    def allowed(*args: P.args, **kwargs: P.kwargs) -> T:
        with jax.transfer_guard("allow"):
            return function(*args, **kwargs)

    return allowed
