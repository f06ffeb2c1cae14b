"""Losses: the book's numbers, values against formulas, derivatives against autodiff."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import losses
from jaxnet.losses import OUTPUTS, cross_entropy_error, softmax, sum_squared_error
from tests.tolerances import close

Y = np.array([0.1, 0.05, 0.6, 0.0, 0.05, 0.1, 0.0, 0.1, 0.0, 0.0])
"""The book's probabilities of ten digits: 2 is the likeliest."""
Y_OTHER = np.array([0.1, 0.05, 0.1, 0.0, 0.05, 0.1, 0.0, 0.6, 0.0, 0.0])
T = np.eye(10)[2]

each_output = pytest.mark.parametrize("name", list(OUTPUTS))
each_mode = pytest.mark.parametrize(
    ("dtype", "jit"),
    [("float32", jax.jit), ("float64", jax.jit), ("float32", lambda f: f)],
    ids=["float32-jit", "float64-jit", "float32-plain"],
)

BATCH = np.eye(10)[[7, 2]], np.array([2, 2])
"""One answer quite wrong and one quite right."""

PRINTED = [
    (sum_squared_error, Y, T, 0.0975),
    (sum_squared_error, Y_OTHER, T, 0.5975),
    (cross_entropy_error, Y, T, 0.510825457099338),
    (cross_entropy_error, Y_OTHER, T, 2.3025840929945454),
    (cross_entropy_error, BATCH[0][:1], BATCH[1][:1], 16.118095650958317),
    (cross_entropy_error, *BATCH, 8.059047775479161),
]


@pytest.mark.slow
@pytest.mark.parametrize(("error", "y", "t", "printed"), PRINTED)
@each_mode
def test_the_printed_numbers(error, y, t, printed, dtype, jit):
    """The numbers that the book and the blog print."""
    with jax.enable_x64(True):
        assert close(jit(error)(jnp.asarray(y, dtype), jnp.asarray(t)), printed, dtype)


@pytest.mark.parametrize("error", [sum_squared_error, cross_entropy_error])
def test_class_numbers_are_one_hot_rows(error):
    """One-hot and class numbers give one result, for one example and for a batch."""
    y = softmax(np.arange(12.0).reshape(4, 3) % 5)
    numbers = np.array([2, 0, 1, 1])
    assert error(y, numbers) == error(y, np.eye(3)[numbers])
    assert error(y[0], numbers[0]) == error(y[0], np.eye(3)[2])
    each = [float(error(y[i], numbers[i])) for i in range(4)]
    assert close(error(y, numbers), np.mean(each), "float32")


@pytest.mark.parametrize("label", [2, np.int64(2), np.array(2), jnp.array(2)])
def test_one_integer_label_is_its_class(label):
    """A single example with label 2 is class 2, not class 0 and not one-hot."""
    assert cross_entropy_error(Y, label) == cross_entropy_error(Y, T)
    assert cross_entropy_error(Y, label) != cross_entropy_error(Y, 0)


@pytest.mark.slow
def test_format_is_told_by_shape_not_by_size():
    """Ten class numbers of ten examples are not taken for one one-hot row."""
    y = softmax(np.random.default_rng(0).normal(size=(10, 10)))
    numbers = np.arange(10)[::-1].copy()
    want = -np.log(np.asarray(y)[np.arange(10), numbers] + losses.BOOK_EPSILON).mean()
    assert close(cross_entropy_error(y, numbers), want, "float32")


@pytest.mark.slow
def test_one_hot_and_back():
    """from_one_hot undoes one_hot, for one label and for many."""
    labels = np.array([[3, 0], [9, 1]])
    assert losses.one_hot(labels).shape == (2, 2, 10)
    assert (losses.from_one_hot(losses.one_hot(labels)) == labels).all()
    assert losses.from_one_hot(losses.one_hot(np.array(4), 5)) == 4
    assert jax.jit(losses.from_one_hot)(jnp.eye(3)).tolist() == [0, 1, 2]


def _slow_losses(name, logits, labels):
    """The losses in NumPy float64, one example at a time, as the formulas read."""
    values = []
    for row, label in zip(logits, labels, strict=True):
        exponentials = [np.exp(z) for z in row]
        shares = np.array(exponentials) / sum(exponentials)
        squashed = 1 / (1 + np.exp(-row))
        t = np.eye(len(row))[label]
        values.append(
            {
                "softmax_cross_entropy": -np.log(shares[label]),
                "sigmoid_cross_entropy": -np.log(squashed[label] + 1e-7),
                "identity_squared_error": sum((row - t) ** 2) / 2,
                "softmax_squared_error": sum((shares - t) ** 2) / 2,
            }[name]
        )
    return np.array(values)


LOGITS = np.random.default_rng(1).normal(size=(6, 4))
LABELS = np.array([0, 3, 1, 2, 2, 0])


@pytest.mark.slow
@each_output
@each_mode
def test_losses_are_the_formulas(name, dtype, jit):
    """Each output's losses are those of a plain loop over examples."""
    with jax.enable_x64(True):
        got = jit(OUTPUTS[name].losses)(jnp.asarray(LOGITS, dtype), jnp.asarray(LABELS))
        assert got.dtype == dtype
        assert close(got, _slow_losses(name, LOGITS, LABELS), dtype)


@each_output
@each_mode
def test_derivatives_are_autodiff(name, dtype, jit):
    """Each d_logits is jax.grad of the sum of the losses; its negative is not."""
    output, labels = OUTPUTS[name], jnp.asarray(LABELS)
    with jax.enable_x64(True):
        logits = jnp.asarray(LOGITS, dtype)
        want = jax.jit(jax.grad(lambda z: output.losses(z, labels).sum()))(logits)
        got = jit(output.d_logits)(logits, labels)
        assert close(got, want, dtype)
        assert not close(-got, want, dtype)


@pytest.mark.slow
def test_forgetting_the_epsilon_is_caught():
    """y - t is not the gradient of -log(y + 1e-7): it is off where y is small."""
    with jax.enable_x64(True):
        logits = jnp.log(jnp.array([[1e-7, 1.0, 3.0]]))
        labels = jnp.array([0])
        y = losses.sigmoid(logits)
        got = losses.d_sigmoid_cross_entropy(logits, labels)
        forgetful = y - jnp.eye(3)[labels]
        assert not close(forgetful, got, "float64", "difference")
        assert round(float(forgetful[0, 0] / got[0, 0]), 6) == 2


@pytest.mark.slow
@each_output
def test_stable_far_out(name):
    """Logits of ±1e4 give finite losses and derivatives, in float32 too."""
    logits = jnp.array([[1e4, -1e4, 0.0], [-1e4, 1e4, 1e4]])
    labels = jnp.array([1, 0])
    output = OUTPUTS[name]
    for values in (output.losses(logits, labels), output.probabilities(logits)):
        assert jnp.isfinite(values).all()
    assert jnp.isfinite(output.d_logits(logits, labels)).all()
    grad = jax.jit(jax.grad(lambda z: output.losses(z, labels).sum()))(logits)
    assert close(output.d_logits(logits, labels), grad, "float32")


@pytest.mark.slow
def test_softmax_cross_entropy_far_out_is_exact():
    """The loss at logits (1e4, -1e4) of the unlikely label is 2e4, not infinite."""
    logits = jnp.array([[1e4, -1e4]])
    assert losses.softmax_cross_entropy(logits, jnp.array([1])).tolist() == [2e4]
    assert losses.softmax_cross_entropy(logits, jnp.array([0])).tolist() == [0.0]
    assert softmax(logits).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("labels", "error"),
    [
        (np.array([0, 3]), ValueError),
        (np.array([-1]), ValueError),
        (np.array([2**32]), ValueError),
        (np.array([1.5]), TypeError),
        (np.array([np.nan]), TypeError),
        (jnp.array([3]), ValueError),
    ],
)
def test_one_hot_of_no_class_is_one_line(labels, error):
    """No row of zeros, and no class 0 for 2³²: the label is named."""
    plain = getattr(losses.one_hot, "__wrapped__", losses.one_hot)  # floats come in too
    with pytest.raises(error, match=r"`labels(\[[01]\])?`: expected integers 0…2") as e:
        plain(labels, 3)
    assert "\n" not in str(e.value)


def test_traced_labels_of_no_class_give_nan():
    """Under jit the row is NaN, in any dtype; rows of classes are as they were."""
    for dtype in (jnp.int32, jnp.int8):
        labels = jnp.array([3, -1, 1], dtype)
        rows = jax.jit(losses.one_hot, static_argnums=1)(labels, 3)
        assert np.isnan(rows[:2]).all()
        assert rows[2].tolist() == [0, 1, 0]
    rows = jax.jit(losses.one_hot, static_argnums=1)(jnp.array([255], jnp.uint8), 256)
    assert rows.sum() == rows[0, 255] == 1
    with jax.enable_x64(True):
        far = jnp.array([2**32])
        assert np.isnan(jax.jit(losses.one_hot, static_argnums=1)(far, 3)).all()


@each_output
@pytest.mark.parametrize("label", [-1, 4])
def test_a_label_of_no_class_makes_its_example_nan(name, label):
    """Its loss, its derivative by hand and by jax.grad; those of others are whole."""
    output, logits = OUTPUTS[name], jnp.asarray(LOGITS, jnp.float32)
    labels = jnp.asarray(LABELS).at[1].set(label)
    grad = jax.grad(lambda z: output.losses(z, labels).sum())
    for function in (output.losses, output.d_logits, lambda z, _: grad(z)):
        values = np.asarray(jax.jit(function)(logits, labels)).reshape(6, -1)
        assert np.isnan(values[1]).all()
        assert np.isfinite(np.delete(values, 1, axis=0)).all()
