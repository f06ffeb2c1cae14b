"""Backpropagation stands on its own: written by hand, and its formulas one by one."""

import ast
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import activations, losses
from jaxnet import backprop as module
from jaxnet.backprop import backprop
from jaxnet.network import Dense, Network, Params, mean_loss
from tests.problems import problem
from tests.tolerances import close

AUTODIFF = {"grad", "value_and_grad", "vjp", "jvp", "linearize", "jacobian", "jacrev"}
BY_HAND = [
    module.backprop,
    *(a.derivative for a in activations.ACTIVATIONS.values()),
    *(o.d_logits for o in losses.OUTPUTS.values()),
]


def _names(tree: ast.AST) -> set[str]:
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    names |= {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    imported = (n for n in ast.walk(tree) if isinstance(n, ast.Import | ast.ImportFrom))
    return names | {alias.name for node in imported for alias in node.names}


@pytest.mark.parametrize(
    "source", [module, activations, losses], ids=lambda m: m.__name__
)
def test_no_automatic_differentiation(source):
    """Neither jax.grad nor any of its kin is named in what backprop is made of."""
    tree = ast.parse(inspect.getsource(source))
    assert not _names(tree) & AUTODIFF
    assert "grad" in _names(ast.parse("import jax\njax.grad(f)"))


@pytest.mark.slow
def test_one_layer_is_the_outer_product():
    """Without hidden layers the gradient is xᵀ (softmax - t) / n, in NumPy loops."""
    params, images, labels = problem(1)
    want = np.zeros_like(params[0].weight)
    for x, label in zip(images, labels, strict=True):
        z = np.exp(x @ params[0].weight + params[0].bias)
        want += np.outer(x, z / z.sum() - np.eye(len(z))[label]) / len(images)
    with jax.enable_x64(True):
        got = backprop(*_traced(params, images, labels), Network())
    assert close(got[0].weight, want, "float64")


@pytest.mark.slow
def test_the_form_of_the_parameters():
    """The gradient has their structure, shapes and dtype; no input is written to."""
    params, images, labels = problem(4, "float32")
    kept = [leaf.copy() for leaf in jax.tree.leaves(params)]
    got = backprop(*_traced(params, images, labels), Network("relu"))
    assert jax.tree.structure(got) == jax.tree.structure(params)
    for leaf, old, d_leaf in zip(
        jax.tree.leaves(params), kept, jax.tree.leaves(got), strict=True
    ):
        assert (leaf == old).all()
        assert (d_leaf.shape, d_leaf.dtype) == (leaf.shape, leaf.dtype)


def _traced(*arrays):
    return jax.tree.map(jnp.asarray, arrays)


def _mistaken(mistake: str):
    """Backpropagation with one mistake of the usual kind."""

    def wrong(params: Params, images, labels, network: Network) -> Params:
        first, second = params
        hidden = network.activation.value(images @ first.weight + first.bias[None, :])
        z = hidden @ second.weight + second.bias[None, :]
        scale = 1 if mistake == "sum, not mean" else 1 / len(images)
        delta = network.output_loss.d_logits(z, labels) * scale
        back = delta @ second.weight.T
        if mistake != "no activation derivative":
            back = back * network.activation.derivative(
                z[:, :1] if mistake == "derivative of another value" else hidden
            )
        sign = -1 if mistake == "sign of a bias" else 1
        return (
            Dense(images.T @ back, sign * back.sum(axis=0)),
            Dense(hidden.T @ delta, delta.sum(axis=0)),
        )

    return wrong


@pytest.mark.slow
@pytest.mark.parametrize(
    "mistake",
    [
        "none",
        "sum, not mean",
        "no activation derivative",
        "derivative of another value",
        "sign of a bias",
    ],
)
def test_mistakes_are_caught(mistake):
    """The comparison with autodiff sees each planted mistake, and only those."""
    with jax.enable_x64(True):
        arguments = (*_traced(*problem(2)), Network("tanh"))
        want = jax.jit(jax.grad(mean_loss), static_argnums=3)(*arguments)
        got = jax.jit(_mistaken(mistake), static_argnums=3)(*arguments)
        assert close(got, want, "float64") == (mistake == "none")
