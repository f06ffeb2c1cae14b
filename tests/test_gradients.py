"""The three routes give one gradient: every output, activation and depth."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import backprop as by_hand
from jaxnet import gradients
from jaxnet.differences.central import relative_step
from jaxnet.network import Network, init_params, mean_loss
from tests.problems import SIZES, every_network, name, problem
from tests.tolerances import TOLERANCES, close, epsilons_apart

each_network = pytest.mark.parametrize("network", every_network(), ids=name)
each_depth = pytest.mark.parametrize("num_layers", SIZES)


@pytest.mark.slow
@each_network
@each_depth
def test_the_three_agree_in_float64(network, num_layers):
    """Backprop equals jax.grad to 1e-12, and the differences equal both to 1e-8."""
    params, images, labels = problem(num_layers)
    assert _far_from_kinks(params, images, network)
    with jax.enable_x64(True):
        autodiff = gradients.autodiff(params, images, labels, network)
        backprop = gradients.backprop(params, images, labels, network)
        assert close(backprop, autodiff, "float64", "gradient")
    numerical = gradients.numerical(params, images, labels, network)
    assert close(numerical, autodiff, "float64", "difference")


@pytest.mark.slow
@each_network
@each_depth
def test_backprop_agrees_in_float32(network, num_layers):
    """Within a few float32 epsilons of the leaf's largest entry."""
    problem32 = problem(num_layers, "float32")
    backprop = gradients.backprop(*problem32, network)
    autodiff = gradients.autodiff(*problem32, network)
    assert close(backprop, autodiff, "float32", "gradient")
    off = jax.tree.map(lambda g: g * np.float32(1 + 1e-5), backprop)
    assert not close(off, autodiff, "float32", "gradient")


def _far_from_kinks(params, images, network):
    """Whether no step of a parameter takes a relu over its kink; others have none."""
    if network.hidden != "relu":
        return True
    nearest, x = np.inf, images
    for layer in params[:-1]:
        x = x @ layer.weight + layer.bias
        nearest, x = min(nearest, np.abs(x).min()), np.maximum(x, 0)
    largest = max(1, *(np.abs(leaf).max() for leaf in jax.tree.leaves(params)))
    return nearest > 20 * relative_step(np.float64) * largest


def test_the_tolerances_are_those_claimed():
    """float64 rounding is below 1e-12, differences below 1e-8."""
    eps = np.finfo(float).eps
    assert TOLERANCES["float64", "rounding"].epsilons * eps < 1e-12
    assert TOLERANCES["float64", "gradient"].epsilons * eps < 1e-12
    assert TOLERANCES["float64", "difference"].epsilons * eps < 1e-8


@pytest.mark.parametrize("route", gradients.ROUTES)
def test_a_wrong_gradient_is_caught(route):
    """A factor, a sign or one entry of any route is seen by the comparison."""
    arguments = problem(2)
    with jax.enable_x64(True):
        want = gradients.autodiff(*arguments)
        got = gradients.ROUTES[route](*arguments)
        kind = "difference" if route == "numerical" else "rounding"
        assert close(got, want, "float64", kind)
        for wrong in (
            jax.tree.map(lambda g: 2 * g, got),
            jax.tree.map(lambda g: -g, got),
            (got[0]._replace(bias=np.asarray(got[0].bias)[::-1]), got[1]),
            (got[0]._replace(bias=np.asarray(got[0].bias) * np.nan), got[1]),
        ):
            assert not close(wrong, want, "float64", kind)


@pytest.mark.slow
@pytest.mark.parametrize("route", gradients.ROUTES)
def test_jit_changes_nothing(route):
    """The plain function and the compiled one give one gradient."""
    plain = {
        "backprop": by_hand.backprop,
        "autodiff": jax.grad(mean_loss),
        "numerical": gradients._numerical.__wrapped__,
    }[route]
    kind = "second difference" if route == "numerical" else "rounding"
    with jax.enable_x64(True):
        params, images, labels = jax.tree.map(jnp.asarray, problem(2))
        want = plain(params, images, labels, Network("tanh"))
        got = gradients.ROUTES[route](params, images, labels, Network("tanh"))
    assert close(got, want, "float64", kind)


@pytest.mark.slow
def test_numerical_is_numpy_float64_by_default():
    """Whatever the dtype of the parameters; "float64" by any name."""
    arguments = problem(2, "float32")
    for dtype in (np.float64, jnp.float64, "float64", np.dtype("float64")):
        for leaf in jax.tree.leaves(gradients.numerical(*arguments, dtype=dtype)):
            assert isinstance(leaf, np.ndarray)
            assert leaf.dtype == np.float64


@pytest.mark.slow
def test_numerical_in_float32_can_be_traced():
    """dtype=jnp.float32 gives float32 leaves, under jit and in a float64 context."""
    params, images, labels = problem(2, "float32")

    @jax.jit
    def traced(params):
        return gradients.numerical(params, images, labels, dtype=jnp.float32)

    got, want = traced(params), gradients.autodiff(params, images, labels)
    assert {leaf.dtype for leaf in jax.tree.leaves(got)} == {jnp.dtype("float32")}
    assert close(got, want, "float32", "difference")
    assert not close(got, want, "float32")
    with jax.enable_x64(True):
        inside = gradients.numerical(params, images, labels, dtype=jnp.float32)
    assert close(inside, want, "float32", "difference")


def test_the_dtype_is_that_of_the_parameters(key):
    """float32 parameters with float64 images keep their gradient in float32."""
    params = init_params(key, (5, 4))
    _, images, labels = problem(1)
    with jax.enable_x64(True):
        for route in (gradients.backprop, gradients.autodiff):
            gradient = route(params, images, labels)
            assert gradient[0].weight.dtype == jnp.float32


@pytest.mark.slow
def test_one_compilation_for_each_network():
    """Three calls with new values compile once, for every route."""
    params, images, labels = problem(3, "float32")
    compiled = {
        gradients.backprop: gradients._backprop,
        gradients.autodiff: gradients._autodiff,
        gradients.numerical: gradients._numerical,
    }
    for route, jitted in compiled.items():
        before = jitted._cache_size()
        for factor in (1, 2, 3):
            scaled = jax.tree.map(lambda leaf, f=factor: f * leaf, params)
            route(
                scaled, images[:4], labels[:4], Network("tanh", "softmax_squared_error")
            )
        assert jitted._cache_size() == before + 1


def test_epsilons_are_counted_from_the_largest_entry():
    """One epsilon beside a leaf's largest entry is one, and NaN agrees with nothing."""
    eps = np.finfo(float).eps
    assert epsilons_apart([8.0, 8 * eps], [8.0, 0.0], "float64") == 1
    assert not close([np.nan], [np.nan], "float64")


@pytest.mark.parametrize("route", gradients.ROUTES)
@pytest.mark.parametrize("label", [-1, 4, 2**31 - 1])
def test_a_traced_label_of_no_class_is_nan_by_every_route(route, label):
    """In every entry, also where an input is 0 or a relu is shut; never the last class.

    Classes beside it give a finite gradient.
    """
    params, images, labels = jax.tree.map(jnp.asarray, problem(2, "float32"))
    images = images.at[2].set(0)
    options = {"dtype": jnp.float32} if route == "numerical" else {}

    @jax.jit
    def gradient(labels):
        network = Network("relu")
        return gradients.ROUTES[route](params, images, labels, network, **options)

    for leaf in jax.tree.leaves(gradient(labels.at[2].set(label))):
        assert np.isnan(leaf).all()
    for leaf in jax.tree.leaves(gradient(labels)):
        assert np.isfinite(leaf).all()


def test_what_cannot_be_traced_says_so_in_one_line():
    """Differences in float64 are NumPy's: inside jit or grad the way out is named."""
    params, images, labels = problem(1)
    for tool in (jax.jit, jax.grad):
        with pytest.raises(TypeError, match=r"tracer.*pass dtype=jnp\.float32") as e:
            tool(lambda p: gradients.numerical(p, images, labels)[0].bias.sum())(params)
        assert "\n" not in str(e.value)
