"""The network: shapes, values against a plain loop, and the simple net's number."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import network as module
from jaxnet.losses import BOOK_EPSILON, cross_entropy_error
from jaxnet.network import Dense, Network, init_params
from tests.problems import SIZES, every_network, name, problem
from tests.tolerances import close

HIDDEN = {
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "relu": lambda x: np.maximum(x, 0),
    "tanh": np.tanh,
}
each_network = pytest.mark.parametrize("network", every_network(), ids=name)


def _slow_logits(params, images, network):
    """One example, one layer, one unit at a time, in NumPy."""
    rows = []
    for x in images:
        for number, (weight, bias) in enumerate(params):
            x = np.array([x @ w + b for w, b in zip(weight.T, bias, strict=True)])
            x = HIDDEN[network.hidden](x) if number < len(params) - 1 else x
        rows.append(x)
    return np.array(rows)


@pytest.mark.slow
@pytest.mark.parametrize("num_layers", SIZES)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_logits_are_those_of_a_plain_loop(num_layers, hidden):
    """Any depth and activation; in the dtype of the parameters; jitted and not."""
    network = Network(hidden)
    params, images, _ = problem(num_layers)
    want = _slow_logits(params, images, network)
    with jax.enable_x64(True):
        got = module.logits(params, images, network)
        plain = module.forward(params, images, network)[1]
        assert got.dtype == jnp.float64
        assert close(got, want, "float64")
        assert close(plain, want, "float64")
    got = module.logits(params, images, network)
    assert got.dtype == jnp.float32
    assert close(got, want, "float32")


@pytest.mark.slow
@each_network
def test_loss_predict_and_accuracy_agree(network):
    """The loss is the mean of the examples'; the accuracy is that of the argmax."""
    params, images, labels = problem(2, "float32")
    probabilities = np.asarray(module.predict(params, images, network))
    each = module.example_losses(params, images, jnp.asarray(labels), network)
    assert close(module.loss(params, images, labels, network), each.mean(), "float32")
    share = np.mean(probabilities.argmax(axis=1) == labels)
    assert close(module.accuracy(params, images, labels, network), share, "float32")
    if network.output.startswith("softmax"):
        assert close(probabilities.sum(axis=1), np.ones(len(images)), "float32")


@pytest.mark.slow
def test_init_params(key):
    """Sizes, spread, zero biases and float32; one key gives one result."""
    params = init_params(key)
    assert [layer.weight.shape for layer in params] == [(784, 50), (50, 10)]
    assert all((layer.bias == 0).all() for layer in params)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    spread = float(params[0].weight.std())
    assert f"{spread:.4f}" == "0.0100"
    assert jax.tree.all(
        jax.tree.map(lambda a, b: (a == b).all(), params, init_params(key))
    )
    wide = init_params(key, (784, 50, 10), scale=1.0)
    assert close(wide[0].weight, 100 * params[0].weight, "float32")
    other = init_params(jax.random.key(1))
    assert not (other[0].weight == params[0].weight).any()


def test_layers_have_weights_of_their_own(key):
    """Two layers of one shape do not share their random numbers."""
    first, second = init_params(key, (6, 6, 6))
    assert not (first.weight == second.weight).any()


def test_network_is_a_static_argument():
    """Networks are compared and hashed by value, and cannot be changed."""
    assert Network("relu") == Network(hidden="relu") != Network("tanh")
    assert len({Network("relu"), Network("relu"), Network()}) == 2
    with pytest.raises(AttributeError):
        Network().hidden = "relu"


def test_one_compilation_for_each_network():
    """Equal networks share one compiled loss."""
    params, images, labels = problem(3, "float32")
    before = module._loss._cache_size()
    for _ in range(3):
        module.loss(params, images, labels, Network("tanh"))
    assert module._loss._cache_size() == before + 1


def test_labels_may_be_of_any_integer_type():
    """int64, int32 and uint8 class numbers give one loss, in float64 as well."""
    params, images, labels = problem()
    with jax.enable_x64(True):
        found = {
            float(module.loss(params, images, labels.astype(dtype)))
            for dtype in ("int64", "int32", "uint8")
        }
    assert len(found) == 1


def test_inside_jit_and_vmap(key):
    """The public functions can be traced; a mapped loss is the loss of each."""
    params, images, labels = problem(2, "float32")
    want = module.loss(params, images, labels)
    assert close(jax.jit(module.loss)(params, images, labels), want, "float32")
    runs = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), params)
    mapped = jax.vmap(module.loss, in_axes=(0, None, None))(runs, images, labels)
    assert close(mapped, np.repeat(want, 2), "float32")


@pytest.mark.slow
@each_network
def test_stable_with_huge_weights(network):
    """Logits of ±1e4 give a finite loss in float32."""
    weight = np.array([[1e4, -1e4]], np.float32)
    params = (Dense(weight, np.zeros(2, np.float32)),)
    images = np.array([[1.0], [-1.0]], np.float32)
    assert np.isfinite(module.loss(params, images, np.array([1, 0]), network))
    assert np.isfinite(module.predict(params, images, network)).all()


def test_simple_net():
    """Seed 42 gives 1.802525526 with the book's + 1e-7, as printed; 6e-7 more without.

    The gap is what 1e-7 adds to the logarithm of the label's probability, 0.165.
    """
    weight = np.random.RandomState(42).randn(2, 3)
    params = (Dense(weight, np.zeros(3)),)
    images, label = np.array([[0.6, 0.9]]), np.array([2])
    with jax.enable_x64(True):
        y = module.predict(params, images)
        assert f"{float(cross_entropy_error(y, label)):.9f}" == "1.802525526"
        loss = module.loss(params, images, label)
        assert f"{float(loss):.9f}" == "1.802526132"
        assert close(
            np.log(np.exp(-loss) + BOOK_EPSILON), -1.802525526, "float64", "difference"
        )


@each_network
def test_a_label_of_no_class_is_a_loss_of_nan_under_jit(network):
    """-1 does not train as the last class, nor 4 as none at all."""
    params, images, labels = problem(1, "float32")
    loss = jax.jit(lambda labels: module.loss(params, images, labels, network))
    assert np.isfinite(loss(jnp.asarray(labels)))
    for label in (-1, 4):
        assert np.isnan(loss(jnp.asarray(labels).at[3].set(label)))
    with jax.enable_x64(True):
        assert np.isnan(loss(jnp.asarray(labels).at[3].set(2**32)))
