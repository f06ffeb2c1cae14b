"""Parameter trees of flax, equinox and optax are verified as they are.

Each library's own small network is tried with its right gradient, and with one leaf of
it wrong, which the report names by the library's own path.
"""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, nnx

from jaxnet import Verdict, check_gradients
from jaxnet.testing import GradientMismatch, assert_gradients

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
IMAGES = RNG.standard_normal((4, 3)).astype(np.float32)
LABELS = np.array([0, 1, 1, 0])


def cross_entropy(logits: Any) -> Any:
    """Optax's loss of a batch."""
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, LABELS)
    return jnp.mean(losses)


def with_factor(gradient: Any, path: str, factor: float) -> Any:
    """The gradient with one leaf multiplied."""

    def change(where: Any, leaf: Any) -> Any:
        return factor * leaf if jax.tree_util.keystr(where) == path else leaf

    return jax.tree_util.tree_map_with_path(change, gradient)


def paths(tree: Any) -> list[str]:
    """The paths of the leaves."""
    flat = jax.tree_util.tree_leaves_with_path(tree)
    return [jax.tree_util.keystr(path) for path, _ in flat]


def verify(loss: Any, params: Any, gradient: Any) -> None:
    """Right as it is; with any one leaf halved, wrong there and nowhere else."""
    report = assert_gradients(loss, params, {"library": gradient})
    assert sorted(leaf.path for leaf in report.leaves) == sorted(paths(params))
    assert report.worst.resolution < 1e-4
    path = paths(params)[-1]
    wrong = with_factor(gradient, path, 0.5)
    with pytest.raises(GradientMismatch, match="×½") as caught:
        assert_gradients(loss, params, {"library": gradient, "halved": wrong})
    assert path in str(caught.value)
    assert "halved stands alone" in " ".join(str(caught.value).split())


def test_flax_nnx() -> None:
    """The state of an nnx module, merged with its graph inside the loss."""

    class Net(nnx.Module):
        def __init__(self, rngs: nnx.Rngs) -> None:
            self.first = nnx.Linear(3, 5, rngs=rngs)
            self.second = nnx.Linear(5, 2, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.second(nnx.tanh(self.first(x)))

    graph, state = nnx.split(Net(nnx.Rngs(0)))

    def loss(state: Any) -> Any:
        return cross_entropy(nnx.merge(graph, state)(IMAGES))

    verify(loss, state, jax.grad(loss)(state))


def test_flax_linen(key: jax.Array) -> None:
    """The variables of a linen module."""
    net = linen.Sequential([linen.Dense(5), linen.tanh, linen.Dense(2)])
    variables = net.init(key, IMAGES)

    def loss(variables: Any) -> Any:
        return cross_entropy(net.apply(variables, IMAGES))

    verify(loss, variables, jax.grad(loss)(variables))


def test_equinox_partitioned(key: jax.Array) -> None:
    """The arrays of an equinox module, and its filtered gradient."""
    net = eqx.nn.MLP(3, 2, 5, depth=1, activation=jnp.tanh, key=key)
    params, static = eqx.partition(net, eqx.is_inexact_array)

    def loss(params: Any) -> Any:
        return cross_entropy(jax.vmap(eqx.combine(params, static))(IMAGES))

    verify(loss, params, eqx.filter_grad(loss)(params))


def test_equinox_whole(key: jax.Array) -> None:
    """A module with its activation among the leaves: that is held."""
    net = eqx.nn.MLP(3, 2, 5, depth=1, activation=jnp.tanh, key=key)

    def loss(net: Any) -> Any:
        return cross_entropy(jax.vmap(net)(IMAGES))

    gradient = eqx.filter_grad(loss)(net)
    report = assert_gradients(loss, net, {"equinox": gradient})
    assert ".activation" in report.held
    assert {leaf.path for leaf in report.leaves} >= {".layers[0].weight"}
    wrong = eqx.tree_at(lambda g: g.layers[0].weight, gradient, replace_fn=jnp.negative)
    with pytest.raises(GradientMismatch, match=r"sign\s+flipped"):
        assert_gradients(loss, net, {"equinox": wrong})


def mlp(params: Any) -> Any:
    """A network as nested dicts and tuples."""
    hidden = jnp.tanh(IMAGES @ params["hidden"][0] + params["hidden"][1][None])
    return hidden @ params["out"][0] + params["out"][1][None]


PARAMS = {
    "hidden": (RNG.standard_normal((3, 5)).astype(np.float32), np.zeros(5, np.float32)),
    "out": (RNG.standard_normal((5, 2)).astype(np.float32), np.zeros(2, np.float32)),
}


def test_optax_loss_with_a_gradient_by_hand() -> None:
    """(softmax - onehot)/N by the last layer; a forgotten 1/N is named."""

    weight, bias = PARAMS["hidden"]
    hidden = np.tanh(IMAGES @ weight + bias)

    def logits(out: Any) -> Any:
        return hidden @ out[0] + out[1][None]

    def loss(out: Any) -> Any:
        return cross_entropy(logits(out))

    def by_hand(out: Any, count: int) -> Any:
        d_logits = jax.nn.softmax(logits(out)) - jax.nn.one_hot(LABELS, 2)
        return hidden.T @ d_logits / count, jnp.sum(d_logits, axis=0) / count

    assert_gradients(loss, PARAMS["out"], lambda out: by_hand(out, 4))
    with pytest.raises(GradientMismatch, match="×4"):
        assert_gradients(loss, PARAMS["out"], lambda out: by_hand(out, 1))


def test_parameters_after_optax_updates() -> None:
    """What momentum leaves behind is a tree as good as the first."""

    def loss(params: Any) -> Any:
        return cross_entropy(mlp(params))

    optimizer = optax.sgd(0.1, momentum=0.9)
    params = jax.tree.map(jnp.asarray, PARAMS)
    state = optimizer.init(params)
    for _ in range(2):
        updates, state = optimizer.update(jax.grad(loss)(params), state)
        params = optax.apply_updates(params, updates)
    verify(loss, params, jax.grad(loss)(params))


def test_a_float32_gradient_through_adam_is_not_accused() -> None:
    """Adam's 1 - 0.999 is 5e-5 off in float32: its gradient is that of what it does."""
    adam = optax.adam(0.1)

    def loss(params: Any) -> Any:
        state, gradient = adam.init(params), jax.tree.map(jnp.cos, params)
        with jax.numpy_dtype_promotion("standard"):  # adam multiplies by its count
            updates, _ = adam.update(gradient, state, params)
        moved = optax.apply_updates(params, updates)
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(moved))

    params = jax.tree.map(jnp.asarray, PARAMS["out"])
    given = jax.grad(loss)(params)
    report = assert_gradients(loss, params, {"float32": given})
    assert report.worst.resolution < 1e-3
    wrong = jax.tree.map(lambda g: g * np.float32(1.001), given)
    with pytest.raises(GradientMismatch, match=r"×1\.001"):
        assert_gradients(loss, params, {"float32": wrong})


def test_float32_data_are_rounded_as_they_were_for_the_candidate() -> None:
    """float64 data that a float32 gradient saw as float32 are no mistake of its."""
    images = RNG.standard_normal((8, 3))

    def loss(weight: Any) -> Any:
        return jnp.sum(jnp.tanh(jnp.asarray(images, dtype=float) @ weight) ** 2)

    weight = jnp.asarray(PARAMS["hidden"][0])
    given = jax.grad(loss)(weight)
    assert given.dtype == np.float32
    assert_gradients(loss, weight, {"float32": given})
    with pytest.raises(GradientMismatch, match=r"×1\.001"):
        assert_gradients(loss, weight, {"float32": given * np.float32(1.001)})


def test_an_optimizer_state_is_a_tree_like_any_other() -> None:
    """Adam's moments move, its integer count is held."""
    params = jax.tree.map(jnp.asarray, PARAMS["out"])
    adam = optax.adam(0.1)

    def loss(state: Any) -> Any:
        updates, _ = adam.update(params, state)
        return sum(jnp.sum(jnp.square(u)) for u in jax.tree.leaves(updates))

    with jax.numpy_dtype_promotion("standard"):  # adam multiplies by its count
        _, state = adam.update(jax.tree.map(jnp.cos, params), adam.init(params))

    def gradient(state: Any, factor: float) -> Any:
        moments, rest = jax.grad(loss, allow_int=True)(state)
        return moments._replace(mu=jax.tree.map(lambda g: factor * g, moments.mu)), rest

    report = assert_gradients(loss, state, lambda state: gradient(state, 1.0))
    assert report.held == ("[0].count",)
    with pytest.raises(GradientMismatch, match="×½"):
        assert_gradients(loss, state, lambda state: gradient(state, 0.5))


def test_the_gradient_of_a_flax_module_is_its_state() -> None:
    """`nnx.grad` gives keys where the module has attributes: they are one leaf."""
    module = nnx.Linear(3, 2, rngs=nnx.Rngs(0))

    def loss(module: Any) -> Any:
        return jnp.sum(module(jnp.asarray(IMAGES)) ** 2)

    state = nnx.grad(loss)(module)
    twice = jax.tree.map(lambda leaf: 2 * leaf, state)
    report = check_gradients(loss, module, {"state": state, "twice": twice})
    found = {(leaf.path, leaf.candidate): leaf.verdict for leaf in report.leaves}
    for path in (".bias.value", ".kernel.value"):
        assert found[path, "state"] is Verdict.AGREE
        assert found[path, "twice"] is Verdict.DISAGREE
    part = nnx.State({"bias": state["bias"]})
    missing = check_gradients(loss, module, part).worst
    assert missing.path == ".kernel.value"
    assert missing.cause == "missing: no gradient here"
