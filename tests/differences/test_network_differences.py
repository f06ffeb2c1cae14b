"""The cheap differences of a network are the differences a loop would take."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet.differences import of_network
from jaxnet.differences.numerical_gradient import numerical_gradient
from jaxnet.differences.of_network import network_differences
from jaxnet.network import Network, mean_loss
from tests.problems import every_network, name, problem
from tests.tolerances import close

pytestmark = pytest.mark.slow

smooth = [n for n in every_network() if n.hidden != "relu"]


def _differences(arguments, network):
    with jax.enable_x64(True):
        traced = jax.tree.map(jnp.asarray, arguments)
        got = jax.jit(network_differences, static_argnums=3)(*traced, network)
        return jax.tree.map(np.asarray, got)


@pytest.mark.parametrize("network", every_network(), ids=name)
def test_they_are_the_generic_ones(network):
    """numerical_gradient of the same loss, one parameter after the other."""
    params, images, labels = problem(2)
    want = numerical_gradient(
        lambda params: mean_loss(params, images, jnp.asarray(labels), network), params
    )
    kind = "second difference" if network in smooth else "difference"
    assert close(_differences((params, images, labels), network), want, "float64", kind)


@pytest.mark.parametrize("num_layers", [1, 3])
@pytest.mark.parametrize("entries", [1, 60])
def test_chunks_of_every_size_agree(num_layers, entries, monkeypatch):
    """Pairs that do not fill the last chunk are neither lost nor counted twice."""
    want = _differences(problem(num_layers), Network("tanh"))
    monkeypatch.setattr(of_network, "CHUNK_ENTRIES", entries)
    got = _differences(problem(num_layers), Network("tanh"))
    assert close(got, want, "float64", "second difference")


def test_zero_inputs_are_skipped_exactly():
    """A pixel that is 0 in the whole batch has a slope of exactly 0, as is true."""
    params, images, labels = problem(2)
    images[:, 2] = 0
    slopes = _differences((params, images, labels), Network())[0].weight
    assert (slopes[2] == 0).all()
    assert (slopes[[0, 1, 3, 4]] != 0).all()


def test_a_batch_of_zeros():
    """With no input at all only the biases of the first layer have slopes."""
    params, images, labels = problem(2)
    got = _differences((params, 0 * images, labels), Network())
    assert (got[0].weight == 0).all()
    assert (got[0].bias != 0).all()


def test_fewer_inputs_cost_fewer_rounds(monkeypatch):
    """Work is done for the pairs that are not zero, counted in the loop itself."""
    rounds = []
    losses = of_network._Nudged.losses

    def counted(*arguments):
        jax.debug.callback(lambda: rounds.append(1))
        return losses(*arguments)

    monkeypatch.setattr(of_network._Nudged, "losses", counted)
    monkeypatch.setattr(of_network, "CHUNK_ENTRIES", 1)
    params, images, labels = problem(1)
    for chosen in (images, 0 * images):
        rounds.clear()
        _differences((params, chosen, labels), Network())
        jax.effects_barrier()
        biases = len(chosen)
        assert len(rounds) == 2 * (np.count_nonzero(chosen) + biases)


def test_a_nudge_of_the_wrong_layer_is_caught():
    """The comparison sees the differences of parameters that are only near."""
    params, images, labels = problem(2)
    other = (params[0], params[1]._replace(weight=params[1].weight * (1 + 1e-6)))
    got = _differences((params, images, labels), Network())
    wrong = _differences((other, images, labels), Network())
    assert not close(wrong, got, "float64", "second difference")
