"""The calls of the book's chapter 4 work, or say in one line what to write instead."""

import inspect
import subprocess
import sys
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxnet
from tests.tolerances import close


def test_the_notebook_s_doctest_of_integers() -> None:
    """Probabilities 0 and 1 as integers are those of floats, and bools are refused."""
    y, t = np.array([1, 0, 0]), np.array([0, 1, 0])
    for error in (jaxnet.cross_entropy_error, jaxnet.sum_squared_error):
        assert error(y, t) == error(y.astype(np.float32), t)
    assert close(jaxnet.cross_entropy_error(y, t), 16.118095650958317, "float32")
    with jax.enable_x64(True):
        assert close(jaxnet.cross_entropy_error(y, t), 16.118095650958317, "float64")


def test_the_book_s_keywords_are_one_line() -> None:
    """What stands in their place is named; another is Python's own error."""
    with pytest.raises(TypeError, match=r"`normalize`: .* write `x_train,") as e:
        jaxnet.load_mnist(normalize=True, one_hot_label=True)  # type: ignore[call-arg]
    assert "\n" not in str(e.value)
    with pytest.raises(TypeError, match=r"`lr`: .* write learning_rate"):
        jaxnet.gradient_descent(abs, np.ones(2), lr=0.1, step_num=100)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match=r"`step_num`: .* write num_steps"):
        jaxnet.gradient_descent(abs, np.ones(2), step_num=100)  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="unexpected keyword argument 'rate'"):
        jaxnet.gradient_descent(abs, np.ones(2), rate=0.1)  # type: ignore[call-arg]
    assert "num_steps" in inspect.signature(jaxnet.gradient_descent).parameters


def test_gradients_of_what_does_not_read_its_argument() -> None:
    """The book changes an array in place; here a warning says what to write."""
    weight = np.array([3.0, 4.0])

    def book(_: np.ndarray) -> float:
        return float((weight**2).sum())

    with pytest.warns(UserWarning, match=r"does not read it; .* write lambda w: loss"):
        assert not jaxnet.numerical_gradient(book, weight).any()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        own = jaxnet.numerical_gradient(lambda w: (w**2).sum(), weight)
        assert close(own, np.array([6.0, 8.0]), "float64", "difference")
        assert not jaxnet.numerical_gradient(lambda w: 0 * w.sum(), weight).any()


@pytest.mark.slow
def test_a_whole_number_is_a_seed() -> None:
    """It draws what its key draws, also as NumPy's; two keys of JAX are one."""
    for draw in (jaxnet.init_params, jaxnet.init_state):
        own, *others = (
            jax.tree.leaves(draw(key, (4, 3)))[0]  # the first weight
            for key in (jax.random.key(7), 7, jax.random.PRNGKey(7), 8)
        )
        assert [bool((own == other).all()) for other in others] == [1, 1, 0]


SCRIPT = """
import jax, numpy as np, jaxnet
from jaxnet import Mnist, init_params, init_state, train
params, state = init_params(0, (4, 3)), init_state(0, (4, 3))
images, labels = np.zeros((2, 4), np.float32), np.zeros(2, np.int32)
data = Mnist(images, labels, images, labels)
for call in (
    lambda: train(data, params),
    lambda: train(state, data),
    lambda: train(((images, labels), (images, labels)), state),
    lambda: train(data._replace(train_labels=None), state, batch_size=1),
    lambda: train(data._replace(train_images=None), state, batch_size=1),
    lambda: train(data, state, gradient="numeric"),
    lambda: train(data, state, gradient=None),
    lambda: train(data, state, 600),
    lambda: init_params(None),
    lambda: init_params(0.5),
    lambda: init_state("0"),
    lambda: jaxnet.loss(params, images, None),
    lambda: jaxnet.accuracy(params, images, None),
    lambda: jaxnet.gradients.backprop(params, images, None),
    lambda: jaxnet.gradients.numerical(params, images, None),
    lambda: jaxnet.loss(images, params, labels),
    lambda: jaxnet.loss(params, labels, images),
    lambda: jaxnet.predict(images, params),
    lambda: jaxnet.numerical_gradient(images, lambda x: x.sum()),
    lambda: jaxnet.gradient_descent(images, lambda x: x.sum()),
):
    try:
        call()
    except (TypeError, ValueError) as error:
        print(error)
"""
SAID = """\
`state`: expected a State, got tuple (Dense(weight=Array(
`data`: expected a Mnist, got State State(params=(Dense(
`data`: expected a Mnist, got tuple ((array([[
`train_labels`: expected integers 0…2 of shape (2,) as an array, got NoneType None; pas
`train_images`: expected floats or bytes of shape (examples, 4), got NoneType None; pas
`gradient`: expected one of 'backprop', 'autodiff', 'numerical', got 'numeric'; mind th
`gradient`: expected a function, got NoneType None; pass gradients.backprop, or its nam
`history`: expected a History, got int 600; pass what train returned; name all else, as
`key`: expected a key or a whole number, got NoneType None; pass jax.random.key(0), or
`key`: expected a key or a whole number, got float 0.5; pass jax.random.key(0), or 0
`key`: expected a key or a whole number, got str '0'; pass jax.random.key(0), or 0
`labels`: expected integers 0…2 of shape (2,) as an array, got NoneType None; pass clas
`labels`: expected integers 0…2 of shape (2,) as an array, got NoneType None; pass clas
`labels`: expected integers 0…2 of shape (2,) as an array, got NoneType None; pass clas
`labels`: expected integers 0…2 of shape (2,) as an array, got NoneType None; pass clas
`params`: expected a tuple of Dense layers, got float32 of shape (2, 4); use init_param
`images`: expected floats of shape (batch, 4), got int32 of shape (2,); flatten each im
`params`: expected a tuple of Dense layers, got float32 of shape (2, 4); use init_param
`function`: expected a function, got float32 of shape (2, 4); write numerical_gradient(f
`function`: expected a function, got float32 of shape (2, 4); write gradient_descent(fun
"""


@pytest.mark.slow
def test_mistakes_of_a_caller_are_one_line() -> None:
    """In a plain process, without the hook that checks annotations."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT], capture_output=True, text=True
    )
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    for got, begin in zip(lines, SAID.splitlines(), strict=True):
        assert got.startswith(begin), got
        assert "; " in got


@pytest.mark.slow
def test_a_network_in_the_book_s_words() -> None:
    """The methods of TwoLayerNet, one line each, with a seed for its random numbers."""
    params = jaxnet.init_params(0, (4, 3, 2))
    x, t = jnp.ones((5, 4)), jnp.array([0, 1, 0, 1, 1])
    assert jaxnet.predict(params, x).shape == (5, 2)
    assert 0 <= jaxnet.accuracy(params, x, t) <= 1
    grads = jaxnet.gradients.numerical(params, x, t)
    by_hand = jaxnet.gradients.backprop(params, x, t)
    assert close(by_hand, grads, "float32")
    moved = jax.tree.map(lambda p, d: p - 0.1 * d, params, by_hand)
    assert jaxnet.loss(moved, x, t) < jaxnet.loss(params, x, t)
