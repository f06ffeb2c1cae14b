"""Over a mesh the numeric gradients and the verifier give what one device gives."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh

from jaxnet import check_gradients, gradients, numerical_gradient
from jaxnet.devices import automatic, spread, summed
from jaxnet.differences import of_network
from jaxnet.network import Network, mean_loss
from tests.problems import problem
from tests.tolerances import close

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent
IN_THREE = """
import jax
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 3)
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
from tests import test_devices
mesh = jax.make_mesh((3,), ("batch",))
test_devices.compare(mesh)
from jaxnet.verification.function import lines
lines.LINE_BYTES = 0
test_devices.compare(mesh)
test_devices.count_turns(test_devices.automatic(mesh))
"""


def test_many_devices_are_as_one() -> None:
    """On 3 devices, which divide nothing here: `compare` and `count_turns`, below.

    Lines both as of a small net and as of a large one.
    """
    command = [sys.executable, "-W", "error", "-c", IN_THREE]
    subprocess.run(command, check=True, cwd=ROOT)


def compare(mesh: Any) -> None:
    """Numeric gradients agree up to rounding; reports in all but rounding.

    Another point, as is seen, has other gradients; a wrong one is found as ever.
    """
    params, images, labels = problem(2)
    network = Network("tanh")

    def loss(params: Any) -> Any:
        return mean_loss(params, jnp.asarray(images), jnp.asarray(labels), network)

    other = jax.tree.map(lambda leaf: 1.001 * leaf, params)
    kind = "second difference"
    for route in (
        lambda p, **mesh: gradients.numerical(p, images, labels, network, **mesh),
        lambda p, **mesh: numerical_gradient(loss, p, **mesh),
    ):
        got, want = route(params, mesh=mesh), route(params)
        assert close(got, want, "float64", kind)
        assert not close(route(other, mesh=mesh), want, "float64", kind)
    with jax.enable_x64(True):
        right = jax.tree.map(np.asarray, jax.grad(loss)(params))
    wrong = (right[0]._replace(bias=2 * right[0].bias), right[1])
    for candidate in (right, wrong):
        one = check_gradients(loss, params, candidate)
        many = check_gradients(loss, params, candidate, mesh=mesh)
        assert many.passed == one.passed == (candidate is right)
        assert [x.verdict for x in many.leaves] == [x.verdict for x in one.leaves]


def count_turns(mesh: Any) -> None:
    """The work is split: all devices together call the function as often as one.

    A function that every device calls for the whole of its argument is called more.
    """
    turns: list[int] = []

    def square(x: Any) -> Any:
        jax.debug.callback(lambda: turns.append(1))
        return x * x

    def mapped(xs: Any) -> Any:
        return jax.lax.map(square, xs)

    def everywhere(number: Any, xs: Any) -> Any:
        return mapped(xs)

    for function, count in ((spread(mapped, mesh), 9), (summed(everywhere, mesh), 21)):
        turns.clear()
        squares = jax.jit(function)(np.arange(7.0, dtype=np.float32))
        jax.effects_barrier()
        assert len(turns) == count
        assert squares.shape == (7,)


def test_shares_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """The shares of three devices are the whole, and two of them are not."""
    monkeypatch.setattr(of_network, "CHUNK_ENTRIES", 60)
    params, images, labels = problem(2)
    with jax.enable_x64(True):
        given = jax.tree.map(jnp.asarray, (params, images, labels))
        share = jax.jit(of_network._share, static_argnums=(3, 4))
        shares = [share(*given, Network(), (k, 3)) for k in range(3)]
        whole = share(*given, Network(), (0, 1))
        for count in (3, 2):
            total = jax.tree.map(lambda *terms: sum(terms), *shares[:count])
            agree = close(total, whole, "float64", "second difference")
            assert agree == (count == 3)


def test_one_axis() -> None:
    """A mesh of two axes is refused in one line; none stays none."""
    assert automatic(None) is None
    devices = np.array(jax.devices()[:1])
    assert automatic(Mesh(devices, ("batch",))) is not None
    with pytest.raises(ValueError, match="`mesh`: expected one axis"):
        automatic(Mesh(devices[:, None], ("batch", "model")))
