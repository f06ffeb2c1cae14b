"""The verifier proves backprop for every network, and sees a slip in any formula."""

from typing import Any

import jax
import jax.numpy as jnp
import pytest

from jaxnet import activations, losses
from jaxnet.backprop import backprop
from jaxnet.gradients import backprop as checked_backprop
from jaxnet.network import Network, Params, mean_loss
from jaxnet.verification import GradientReport, Verdict, check_gradients
from tests.problems import SIZES, every_network, name, problem

pytestmark = pytest.mark.slow

RESOLUTION = 1e-8
"""What every leaf of these small networks is resolved to, at least."""


def verify(
    network: Network, num_layers: int, seed: int = 0, gradient: Any = backprop
) -> GradientReport:
    """The report of a route's gradient on a small problem with random biases."""
    params, images, labels = problem(num_layers, seed=seed)

    def loss(params: Params) -> Any:
        return mean_loss(params, images, labels, network)

    def candidate(params: Params) -> Params:
        return gradient(params, images, jnp.asarray(labels), network)

    return check_gradients(loss, params, {"backprop": candidate})


@pytest.mark.parametrize("num_layers", [1, 2, 3])
@pytest.mark.parametrize("network", every_network(), ids=name)
def test_backprop_is_the_gradient(network: Network, num_layers: int) -> None:
    """Of every activation with every output, in one, two and three layers."""
    report = verify(network, num_layers)
    assert report.verdict is Verdict.AGREE, str(report)
    assert len(report.leaves) == 2 * num_layers == 2 * (len(SIZES[num_layers]) - 1)
    assert all(leaf.resolution <= RESOLUTION for leaf in report.leaves), str(report)


def test_the_public_route_is_the_same_function() -> None:
    """jaxnet.gradients.backprop, compiled and with its checks of arguments."""
    report = verify(Network("tanh"), 3, seed=1, gradient=checked_backprop)
    assert report.verdict is Verdict.AGREE, str(report)


def planted(monkeypatch: pytest.MonkeyPatch, output: str, d_logits: Any) -> None:
    """Give an output layer another derivative."""
    changed = losses.OUTPUTS[output]._replace(d_logits=d_logits)
    monkeypatch.setitem(losses.OUTPUTS, output, changed)


def test_a_forgotten_1e_7_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """-t (1 - y) is the derivative of -log y, not of -log(y + 1e-7)."""

    def without(logits: Any, labels: Any) -> Any:
        y = losses.sigmoid(logits)
        return -jax.nn.one_hot(labels, y.shape[1], dtype=y.dtype) * (1 - y)

    planted(monkeypatch, "sigmoid_cross_entropy", without)
    report = verify(Network("tanh", "sigmoid_cross_entropy"), 2)
    assert {leaf.verdict for leaf in report.leaves} == {Verdict.DISAGREE}
    assert "adds 1e-07" in report.worst.cause


def test_y_minus_t_is_not_the_derivative(monkeypatch: pytest.MonkeyPatch) -> None:
    """The book's pair on sigmoid outputs."""

    def book(logits: Any, labels: Any) -> Any:
        y = losses.sigmoid(logits)
        return y - jax.nn.one_hot(labels, y.shape[1], dtype=y.dtype)

    planted(monkeypatch, "sigmoid_cross_entropy", book)
    report = verify(Network("sigmoid", "sigmoid_cross_entropy"), 2)
    assert report.verdict is Verdict.DISAGREE


@pytest.mark.parametrize(
    "output",
    ["softmax_cross_entropy", "identity_squared_error", "softmax_squared_error"],
)
def test_a_derivative_of_the_loss_off_by_1e_5(
    monkeypatch: pytest.MonkeyPatch, output: str
) -> None:
    """Every leaf carries the factor, and says so."""
    true = losses.OUTPUTS[output].d_logits
    planted(monkeypatch, output, lambda z, t: (1 + 1e-5) * true(z, t))
    report = verify(Network("tanh", output), 3)
    assert {leaf.verdict for leaf in report.leaves} == {Verdict.DISAGREE}
    assert all("×1.00001" in leaf.cause for leaf in report.leaves)


def test_a_softmax_without_its_cross_terms(monkeypatch: pytest.MonkeyPatch) -> None:
    """y (1 - y) (y - t): the diagonal of the softmax's derivative alone."""

    def diagonal(logits: Any, labels: Any) -> Any:
        y = losses.softmax(logits)
        t = jax.nn.one_hot(labels, y.shape[1], dtype=y.dtype)
        return y * (1 - y) * (y - t)

    planted(monkeypatch, "softmax_squared_error", diagonal)
    report = verify(Network("relu", "softmax_squared_error"), 2)
    assert report.verdict is Verdict.DISAGREE


@pytest.mark.parametrize("hidden", ["sigmoid", "relu", "tanh"])
def test_a_dropped_derivative_of_the_activation(
    monkeypatch: pytest.MonkeyPatch, hidden: str
) -> None:
    """It harms the layers below the activation, and not the last one."""
    changed = activations.ACTIVATIONS[hidden]._replace(derivative=jnp.ones_like)
    monkeypatch.setitem(activations.ACTIVATIONS, hidden, changed)
    report = verify(Network(hidden), 2)
    wrong = {leaf.path for leaf in report.leaves if not leaf.passed}
    assert wrong == {"[0].weight", "[0].bias"}
    assert report.verdict is Verdict.DISAGREE


def test_a_derivative_in_terms_of_the_input(monkeypatch: pytest.MonkeyPatch) -> None:
    """1 - tanh² of the output instead of 1 - y²: right at 0 only."""
    wrong = activations.ACTIVATIONS["tanh"]._replace(
        derivative=lambda y: 1 - jnp.tanh(y) ** 2
    )
    monkeypatch.setitem(activations.ACTIVATIONS, "tanh", wrong)
    report = verify(Network("tanh"), 3)
    failed = {leaf.path for leaf in report.leaves if not leaf.passed}
    assert failed == {f"[{i}].{part}" for i in (0, 1) for part in ("weight", "bias")}


def test_a_kink_of_relu_is_told_from_a_mistake() -> None:
    """With zero biases and a black image every relu sits at 0: a valid subgradient."""
    params, images, labels = problem(2)
    params = (params[0]._replace(bias=0 * params[0].bias), params[1])
    images[0] = 0

    def loss(params: Params) -> Any:
        return mean_loss(params, images, labels, Network("relu"))

    def hand(params: Params) -> Params:
        return backprop(params, images, jnp.asarray(labels), Network("relu"))

    report = check_gradients(loss, params, hand)
    assert report.verdict is Verdict.NONDIFFERENTIABLE
    assert report.passed
    assert report.worst.path == "[0].bias" or report.worst.passed
