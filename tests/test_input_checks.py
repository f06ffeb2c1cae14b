"""What each check says: what, expected, got and the likely fix, in one line."""

import math
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import (
    audit,
    check_gradients,
    check_vjp,
    gradient_descent,
    input_checks,
    numerical_gradient,
)
from jaxnet.network import Dense, Network, init_params

PARAMS = (
    Dense(np.zeros((3, 4), np.float32), np.zeros(4, np.float32)),
    Dense(np.zeros((4, 2), np.float32), np.zeros(2, np.float32)),
)
IMAGES = np.zeros((5, 3), np.float32)
LABELS = np.zeros(5, np.int32)


def _batch(images=IMAGES, labels=LABELS):
    return lambda: input_checks.check_batch(PARAMS, images, labels, Network())


def _params(first=PARAMS[0], second=PARAMS[1]):
    return lambda: input_checks.check_params((first, second))


def _targets(targets, shape=(5, 10)):
    return lambda: input_checks.check_targets(shape, targets)


def _one_hot(*targets):
    return lambda: input_checks.check_one_hot("targets", np.array(targets))


BAD_INPUTS = [
    (
        lambda: input_checks.check_labels(np.zeros((64, 10), np.float32), 64, 10),
        TypeError,
        "`labels`: expected integers 0…9 of shape (64,), "
        "got float32 of shape (64, 10); pass class numbers, or use from_one_hot",
    ),
    (
        _batch(labels=np.zeros((5, 2), int)),
        ValueError,
        "`labels`: expected integers 0…1 of shape (5,), got int64 of shape (5, 2); "
        "pass class numbers, or use from_one_hot",
    ),
    (
        _batch(labels=np.array([0, 1, 2, 9, 0])),
        ValueError,
        "`labels[2]`: expected integers 0…1 of shape (5,), got 2; "
        "pass class numbers, or use from_one_hot",
    ),
    (
        _batch(labels=np.array([0, 1, -1, 0, 0])),
        ValueError,
        "`labels[2]`: expected integers 0…1 of shape (5,), got -1; "
        "pass class numbers, or use from_one_hot",
    ),
    (
        _batch(labels=[0, 1, 0, 1, 0]),
        TypeError,
        "`labels`: expected integers 0…1 of shape (5,) as an array, "
        "got list [0, 1, 0, 1, 0]; write np.array(labels)",
    ),
    (
        _batch(labels=np.zeros(5, bool)),
        TypeError,
        "`labels`: expected integers 0…1 of shape (5,), got bool of shape (5,); "
        "pass class numbers, or use from_one_hot",
    ),
    (
        _batch(images=np.zeros((5, 3), np.uint8)),
        TypeError,
        "`images`: expected floats of shape (batch, 3), got uint8 of shape (5, 3); "
        "flatten each image to a row, grey levels in [0, 1]",
    ),
    (
        _batch(images=np.zeros((5, 28, 28))),
        ValueError,
        "`images`: expected floats of shape (batch, 3), got float64 of shape "
        "(5, 28, 28); flatten each image to a row, grey levels in [0, 1]",
    ),
    (
        _batch(images=np.zeros((0, 3))),
        ValueError,
        "`images`: expected floats of shape (batch, 3), got float64 of shape (0, 3); "
        "flatten each image to a row, grey levels in [0, 1]",
    ),
    (
        _batch(images=np.array([[0, 1, 0]] * 4 + [[0, 0, np.nan]])),
        ValueError,
        "`images[4, 2]`: expected finite numbers, got nan; "
        "mend the data, or leave that example out",
    ),
    (
        _batch(images=jnp.array([[0, -jnp.inf, 0]] * 5)),
        ValueError,
        "`images[0, 1]`: expected finite numbers, got -inf; "
        "mend the data, or leave that example out",
    ),
    (
        lambda: input_checks.check_classes("labels", [0, 1], 3),
        TypeError,
        "`labels`: expected integers 0…2 as an array, got list [0, 1]; "
        "write np.array(labels)",
    ),
    (
        lambda: jax.jit(lambda x: input_checks.check_untraced("x", [x], "call it"))(1),
        TypeError,
        "`x`: expected values, got a tracer of jit, grad or vmap, which has none; "
        "call it",
    ),
    (
        lambda: jax.jit(lambda s: input_checks.check_positive("scale", s))(0.1),
        TypeError,
        "`scale`: expected values, got a tracer of jit, grad or vmap, which has none; "
        "pass a Python float",
    ),
    (
        lambda: init_params(jax.random.key(0), (2**31, 2**31)),
        ValueError,
        "`layer_sizes`: expected at most 1073741824 parameters, "
        "got 4611686020574871552; pass narrower layers",
    ),
    (
        lambda: input_checks.check_num_parameters((2**20 - 1, 2**10, 1)),
        ValueError,
        "`layer_sizes`: expected at most 1073741824 parameters, "
        "got 1073742849; pass narrower layers",
    ),
    (
        lambda: input_checks.check_params({}),
        TypeError,
        "`params`: expected a tuple of Dense layers, got dict {}; use init_params",
    ),
    (
        lambda: input_checks.check_params(((None, None),)),
        TypeError,
        "`params`: expected a tuple of Dense layers, got tuple ((None, None),); "
        "use init_params",
    ),
    (
        _params(second=Dense(np.zeros((5, 2)), np.zeros(2))),
        ValueError,
        "`params[1].weight`: expected shape (4, outputs), got float64 of shape (5, 2); "
        "use init_params",
    ),
    (
        _params(first=Dense(np.zeros((3, 4)), np.zeros(3))),
        ValueError,
        "`params[0].bias`: expected shape (4,), got float64 of shape (3,); "
        "use init_params",
    ),
    (
        _params(first=Dense(np.zeros((3, 4), int), np.zeros(4))),
        TypeError,
        "`params[0].weight`: expected floats, got int64 of shape (3, 4); "
        "use init_params",
    ),
    (
        _targets(np.zeros(5)),
        TypeError,
        "`t`: expected one-hot of shape (5, 10) or integers of shape (5,), "
        "got float64 of shape (5,); pass class numbers as integers, one an example",
    ),
    (
        _targets(np.zeros((5, 1), int)),
        ValueError,
        "`t`: expected one-hot of shape (5, 10) or integers of shape (5,), "
        "got int64 of shape (5, 1); pass class numbers as integers, one an example",
    ),
    (
        _targets(np.array([0, 0, 0, 10, 0])),
        ValueError,
        "`t[3]`: expected integers 0…9, got 10; "
        "pass class numbers as integers, one an example",
    ),
    (
        _targets(np.array(-1), (10,)),
        ValueError,
        "`t`: expected integers 0…9, got -1; "
        "pass class numbers as integers, one an example",
    ),
    (
        _targets(np.zeros((2, 2, 2)), (2, 2, 2)),
        ValueError,
        "`y`: expected shape (classes,) or (batch, classes), got (2, 2, 2); "
        "pass class numbers as integers, one an example",
    ),
    (
        _one_hot([0.0, 1.0], [0.5, 0.5]),
        ValueError,
        "`targets[1]`: expected rows of one 1 and zeros, got [0.5 0.5]; "
        "class numbers need no conversion",
    ),
    (
        _one_hot(1, 1),
        ValueError,
        "`targets`: expected rows of one 1 and zeros, got [1 1]; "
        "class numbers need no conversion",
    ),
    (
        lambda: input_checks.check_one_hot("targets", np.array(3)),
        ValueError,
        "`targets`: expected rows of one 1 and zeros, got int64 of shape (); "
        "class numbers need no conversion",
    ),
    (
        lambda: input_checks.check_floats("y", np.array([0, 1]), "pass probabilities"),
        TypeError,
        "`y`: expected floats, got int64 of shape (2,); pass probabilities",
    ),
    (
        lambda: input_checks.check_count("num_steps", 2.5),
        TypeError,
        "`num_steps`: expected a whole number ≥ 1, got float 2.5; pass a Python int",
    ),
    (
        lambda: input_checks.check_count("num_steps", -1, minimum=0),
        ValueError,
        "`num_steps`: expected a whole number ≥ 0, got int -1; pass a larger one",
    ),
    (
        lambda: input_checks.check_count("num_steps", True),
        ValueError,
        "`num_steps`: expected a whole number ≥ 1, got bool True; pass a Python int",
    ),
    (
        lambda: input_checks.check_positive("learning_rate", -0.1),
        ValueError,
        "`learning_rate`: expected a finite number above 0, got float -0.1; "
        "0.1 is the book's learning rate",
    ),
    (
        lambda: input_checks.check_positive("step", math.nan),
        ValueError,
        "`step`: expected a finite number above 0, got float nan; "
        "pass a positive number",
    ),
    (
        lambda: input_checks.check_positive("step", "0.1"),
        TypeError,
        "`step`: expected a finite number above 0, got str '0.1'; "
        "pass a positive number",
    ),
    (
        lambda: Network(hidden="rellu"),
        ValueError,
        "`hidden`: expected one of 'sigmoid', 'relu', 'tanh', got 'rellu'; "
        "mind the spelling",
    ),
    (
        lambda: input_checks.check_choice("hidden", ["relu"], {"relu": 1}),
        ValueError,
        "`hidden`: expected one of 'relu', got ['relu']; pass one of these",
    ),
    (
        lambda: input_checks.check_layer_sizes(784),
        ValueError,
        "`layer_sizes`: expected a tuple of two or more sizes, got int 784; "
        "pass (inputs, …, outputs), as (784, 50, 10)",
    ),
    (
        lambda: init_params(jax.random.key(0), (784, 0, 10)),
        ValueError,
        "`layer_sizes[1]`: expected a whole number ≥ 1, got int 0; pass a larger one",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), BAD_INPUTS, ids=lambda p: None)
def test_messages(call, error, message):
    """Each bad input has its type of error and its one line."""
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value) == message
    assert "\n" not in message


def test_long_values_stay_on_one_line():
    """A nested list of arrays or a long row is shortened to one line."""
    for text in (
        input_checks.describe([np.eye(30)]),
        str(_error(_one_hot(np.linspace(0.123456789, 1, 40)))),
    ):
        assert "\n" not in text
    assert len(input_checks.describe("x" * 500)) < 60


def _error(call):
    with pytest.raises(ValueError, match="`targets") as caught:
        call()
    return caught.value


def test_good_input_passes():
    """What is right is let through, labels in int32 and arrays as JAX arrays."""
    params, images, labels = _batch(labels=LABELS.astype(np.uint8))()
    assert labels.dtype == jnp.int32
    for leaf in jax.tree.leaves((params, images, labels)):
        assert isinstance(leaf, jax.Array)
    _params()()
    _one_hot([0.0, 1.0], [1.0, 0.0])()
    _targets(np.zeros((5, 10)))()
    _targets(np.full(5, 9, np.uint8))()
    for minimum in (0, 1):
        input_checks.check_count("n", np.int64(1), minimum)
    input_checks.check_positive("step", np.float32(1))


def test_tracers_have_no_values():
    """Under jit shapes and dtypes are checked, the range of labels is not."""

    @jax.jit
    def traced(labels):
        input_checks.check_labels(labels, 5, 2)
        input_checks.check_one_hot("targets", jnp.eye(3)[labels])
        return labels

    assert traced(np.full(5, 7)).tolist() == [7] * 5
    with pytest.raises(TypeError, match="`labels`: expected integers"):
        traced(np.zeros(5))


SCRIPT = """
import jax, numpy as np, jaxnet
from jaxnet import gradients, losses, network
params = network.init_params(jax.random.key(0), (4, 3))
images, labels = np.zeros((2, 4), np.float32), np.zeros(2, int)
one_hot = np.eye(3)[labels]
calls = [
    lambda f=f: f(params, images, one_hot)
    for f in (network.loss, network.accuracy, gradients.backprop, gradients.autodiff,
              gradients.numerical)
]
calls += [lambda f=f: f(params, images.astype(int))
          for f in (network.logits, network.predict)]
calls += [lambda f=f: f(one_hot, np.array([0, 1.0]))
          for f in (losses.cross_entropy_error, losses.sum_squared_error)]
for call in calls:
    try:
        call()
    except TypeError as error:
        print(error)
"""


@pytest.mark.slow
def test_public_functions_check_without_the_test_hook():
    """In a plain process every public function says the line that fits."""
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT], capture_output=True, text=True
    )
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    labels, images, targets = lines[:5], lines[5:7], lines[7:]
    assert set(labels) == {
        "`labels`: expected integers 0…2 of shape (2,), got float64 of shape (2, 3); "
        "pass class numbers, or use from_one_hot"
    }
    assert set(images) == {
        "`images`: expected floats of shape (batch, 4), got int64 of shape (2, 4); "
        "flatten each image to a row, grey levels in [0, 1]"
    }
    assert set(targets) == {
        "`t`: expected one-hot of shape (2, 3) or integers of shape (2,), "
        "got float64 of shape (2,); pass class numbers as integers, one an example"
    }
    assert (len(labels), len(images), len(targets)) == (5, 2, 2)


@pytest.mark.parametrize(
    "call",
    [
        lambda x: numerical_gradient(jnp.sum, x),
        lambda x: gradient_descent(jnp.sum, x)[0],
        lambda x: check_gradients(jnp.sum, {"x": x}).passed,
        lambda x: check_vjp(jnp.sin, x).passed,
        lambda x: audit(jnp.sin, x).passed,
    ],
)
@pytest.mark.parametrize("transform", [jax.jit, jax.grad, jax.vmap])
def test_what_looks_at_values_is_called_outside_of_jit(call, transform):
    """One line of ours, in place of JAX's about a conversion to NumPy."""
    x = 1.0 if transform is jax.grad else np.ones(3)
    with pytest.raises(TypeError, match=r"tracer of jit, grad or vmap.*; c.* outside"):
        transform(call)(x)
