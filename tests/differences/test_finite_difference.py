"""Numerical gradients of anything, against calculus, and descent by them."""

import math
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet.differences import central
from jaxnet.differences.gradient_descent import gradient_descent
from jaxnet.differences.numerical_gradient import FEW, numerical_gradient
from tests.tolerances import close


def squares(x):
    """The book's function, x₀² + x₁²."""
    return x[0] ** 2 + x[1] ** 2


def right(got, want):
    """Whether a float64 difference is as near as it should be."""
    return close(got, want, "float64", "difference")


def test_the_book_s_gradients():
    """x0² + x1² has the gradients (6, 8), (0, 4) and (6, 0) at the book's points."""
    for point, want in {
        (3.0, 4.0): (6, 8),
        (0.0, 2.0): (0, 4),
        (3.0, 0.0): (6, 0),
    }.items():
        assert right(numerical_gradient(squares, np.array(point)), np.array(want))


def test_the_book_s_descent():
    """From (-3, 4) at rate 0.01, 1000 steps lead to (-5.0489e-09, 6.7319e-09)."""
    point, path = gradient_descent(squares, np.array([-3.0, 4.0]), 0.01, 1000)
    assert [f"{x:.4e}" for x in point] == ["-5.0489e-09", "6.7319e-09"]
    assert path.shape == (1001, 2)
    assert path[0].tolist() == [-3, 4]
    assert (path[-1] == point).all()
    assert right(path[1], 0.98 * path[0])


def test_descent_by_plain_calls_is_the_same():
    """A function JAX cannot trace walks the same path."""
    start = np.array([-3.0, 4.0])
    traced = gradient_descent(squares, start, num_steps=50)
    plain = gradient_descent(
        lambda x: math.pow(x[0], 2) + x[1] ** 2, start, num_steps=50
    )
    assert right(plain, traced)


def test_descent_of_a_pytree():
    """The path has the structure of the start, and one more axis."""
    start = {"a": np.ones((2, 3)), "b": 1.0}
    point, path = gradient_descent(
        lambda p: (p["a"] ** 2).sum() + p["b"], start, 0.25, 4
    )
    assert path["a"].shape == (5, 2, 3)
    assert right(point, {"a": np.full((2, 3), 0.5**4), "b": 0.0})
    assert gradient_descent(squares, np.ones(2), num_steps=0)[1].tolist() == [[1, 1]]


@pytest.mark.parametrize("shape", [(), (4,), (2, 3), (2, 1, 3), (0,)])
def test_any_number_of_axes(shape):
    """Scalars, vectors, matrices and more have the gradient cos x of Σ sin x."""
    x = np.random.default_rng(0).normal(size=shape)
    gradient = numerical_gradient(lambda x: jnp.sum(jnp.sin(x)), x)
    assert gradient.shape == shape
    assert gradient.dtype == np.float64
    assert isinstance(gradient, np.ndarray)
    assert right(gradient, np.cos(x))


def test_pytrees_of_mixed_types():
    """Lists, dictionaries, numbers, float32 and integers: all come back in float64."""
    point = {"a": [np.float32(0.5), 2], "b": (jnp.ones((2, 2)), None)}
    gradient = numerical_gradient(
        lambda p: p["a"][0] ** 2 * p["a"][1] + (p["b"][0] ** 3).sum(), point
    )
    assert right(gradient, {"a": [2.0, 0.25], "b": (np.full((2, 2), 3.0), None)})
    assert {leaf.dtype for leaf in jax.tree.leaves(gradient)} == {np.dtype(float)}
    assert numerical_gradient(lambda p: 1.0, ()) == ()


@pytest.mark.parametrize("traceable", [True, False])
def test_integers_are_promoted(traceable):
    """The gradient at the integer point (3, 4) is (6, 8): no step is rounded to 0."""
    function = squares if traceable else lambda x: math.pow(x[0], 2) + x[1] ** 2
    assert right(numerical_gradient(function, np.array([3, 4])), np.array([6, 8]))
    assert right(numerical_gradient(lambda x: x**2, 3), np.array(6))


@pytest.mark.parametrize("wrap", [lambda f: f, lambda f: lambda x: f(np.asarray(x))])
def test_nothing_is_mutated(wrap):
    """The point keeps its values, even where the function writes to its argument."""

    def function(x):
        x = x.copy()
        x[0] *= 3
        return float((x**2).sum())

    def rude(x):
        x *= 0
        return float(x.sum())

    point = np.array([3.0, 4.0])
    point.flags.writeable = False
    assert right(numerical_gradient(wrap(function), point), np.array([54, 8]))
    assert (numerical_gradient(wrap(rude), point) == 0).all()
    assert point.tolist() == [3, 4]


def _fills_an_array(x):
    out = np.zeros(2)
    out[0], out[1] = x[0] ** 2, x[1] ** 2
    return out.sum()


def _branches(x):
    return jnp.sum(x**2) if x[0] > 0 else 0


class _Unhashable:
    __hash__ = None

    def __call__(self, x):
        return (x**2).sum()


UNTRACEABLE = {
    "float": lambda x: float(x[0]) ** 2 + float(x[1]) ** 2,
    "flat": lambda x: sum(value**2 for value in x.flat),
    "numpy": lambda x: np.linalg.norm(np.asarray(x)) ** 2,
    "fills": _fills_an_array,
    "branches": _branches,
    "unhashable": _Unhashable(),
}


@pytest.mark.parametrize("name", UNTRACEABLE)
def test_untraceable_functions_fall_back_to_plain_calls(name):
    """Whatever NumPy code says to a tracer; JAX inside still computes in float64."""
    gradient = numerical_gradient(UNTRACEABLE[name], np.array([3.0, 4.0]))
    assert right(gradient, np.array([6, 8]))


def test_what_a_function_closes_over_may_change():
    """The second gradient is that of the function as it now is."""
    factor = np.ones(2)

    def function(x):
        return (factor * x).sum()

    assert right(numerical_gradient(function, np.zeros(2)), np.ones(2))
    factor *= 5
    assert right(numerical_gradient(function, np.zeros(2)), np.full(2, 5.0))


@pytest.mark.parametrize("factor", [1.0, 2.0, 0.0])
def test_a_program_is_its_data_too(factor):
    """Functions of one body, of which a jitted function within holds other data.

    The text of the program does not tell them apart.
    """
    data = factor * np.eye(3)
    inner = jax.jit(lambda w: w @ data)
    slope = numerical_gradient(lambda w: jnp.sum(inner(w) ** 2), np.ones(3))
    assert right(slope, np.full(3, 2 * factor**2))


def test_a_traceable_function_is_traced_not_called():
    """The number of Python calls does not depend on the number of coordinates.

    Among few coordinates, a function that needs no JAX is called instead.
    """
    calls = []

    def function(x):
        calls.append(type(x))
        return (x**2).sum()

    many = FEW + 1
    numerical_gradient(function, np.ones(many))
    once = len(calls)
    numerical_gradient(function, np.ones(3 * many))
    assert len(calls) == 2 * once
    assert not any(kind is np.ndarray for kind in calls)
    calls.clear()
    numerical_gradient(function, np.ones(3))
    assert calls == 7 * [np.ndarray]


def test_called_or_traced_is_one_gradient(monkeypatch):
    """What decides between them changes rounding only: a factor of 1.001 is seen."""
    x = np.linspace(-1, 1, 5)

    def function(x):
        return (x**3).sum() * x[0]

    called = numerical_gradient(function, x)
    monkeypatch.setattr("jaxnet.differences.numerical_gradient.FEW", 0)
    assert right(called, numerical_gradient(function, x))
    assert not right(1.001 * called, numerical_gradient(function, x))


def test_memory_is_bounded_in_chunks(monkeypatch):
    """Chunks hold as many coordinates as fit, what the function computes included."""

    def chunk(function, size):
        with jax.enable_x64(True):
            return central._chunk(function, np.zeros(size))

    large = 2**16
    assert chunk(lambda x: x.sum(), 100) == 100
    one_copy = 8 * large
    most = central.MAX_BYTES // (2 * one_copy)
    assert 1 <= chunk(lambda x: x.sum(), large) <= most
    outer = jax.jit(lambda x: (x[:, None] * x[None, :]).sum())
    square = 8 * 1000**2
    assert chunk(outer, 1000) <= max(1, central.MAX_BYTES // (2 * square))
    monkeypatch.setattr(central, "MAX_BYTES", 1)
    assert chunk(outer, 1000) == 1
    got = numerical_gradient(lambda x: (x**2).sum(), np.arange(3.0))
    assert right(got, 2 * np.arange(3.0))


def test_chunks_of_every_size_agree(monkeypatch):
    """A last chunk that is not full loses no coordinate."""
    x = np.arange(11.0)
    for chunk in (1, 2, 3, 5, 11):
        monkeypatch.setattr(central, "_chunk", lambda *_, c=chunk: c)
        assert right(numerical_gradient(lambda x: jnp.sum(x**2), x), 2 * x)


def test_step_follows_the_coordinate():
    """Large and small coordinates are both resolved: h grows with |x| above 1."""
    x = np.array([1e8, 1.0, 1e-8])
    for each in x:
        assert right(numerical_gradient(lambda x: x**2, each), 2 * each)
    steps = central.steps(x, 1e-4)
    assert (steps >= 1e-4 * np.maximum(x, 1)).all()
    assert (steps < 2e-4 * np.maximum(x, 1)).all()
    assert (np.frexp(steps)[0] == 0.5).all()


def test_a_poor_step_is_seen():
    """The comparison sees a step far too large or far too small."""

    def gradient(step):
        return numerical_gradient(jnp.exp, 1.0, step=step)

    assert right(gradient(1e-5), np.exp(1))
    assert not right(gradient(1e-1), np.exp(1))
    assert not right(gradient(1e-13), np.exp(1))


@pytest.mark.parametrize(
    ("function", "point", "error", "message"),
    [
        (
            squares,
            {"a": np.array([True])},
            TypeError,
            "`point['a']`: expected real numbers, got bool of shape (1,); "
            "differentiate by real numbers only",
        ),
        (
            lambda x: x,
            np.ones(2),
            TypeError,
            "`function(point)`: expected a real scalar, got float64 of shape (2,); "
            "return one real number",
        ),
        (
            lambda x: None,
            np.ones(2),
            TypeError,
            "`function(point)`: expected a real scalar, got NoneType None; "
            "return one real number",
        ),
        (
            lambda x: jnp.sum(x).astype(int),
            np.ones(2),
            TypeError,
            "`function(point)`: expected a real scalar, got int64 of shape (); "
            "return one real number",
        ),
        (
            lambda p: p["a"].sum() + jnp.log(p["b"]),
            {"a": np.ones(2), "b": 0.0},
            ValueError,
            "`function`: expected finite values beside point, got nan at coordinate 0; "
            "pass a smaller `step`, or a point inside the function's domain",
        ),
    ],
)
def test_bad_input(function, point, error, message):
    """Each error is one line that says what, expected, got and what to do."""
    with pytest.raises(error) as caught:
        numerical_gradient(function, point)
    assert str(caught.value) == message


@pytest.mark.parametrize("step", [0.0, -1.0, math.nan, math.inf])
def test_bad_steps(step):
    """A step that is not positive and finite is refused."""
    with pytest.raises(ValueError, match="`step`: expected a finite number above 0"):
        numerical_gradient(squares, np.ones(2), step=step)
    with pytest.raises(ValueError, match="`learning_rate`: expected a finite number"):
        gradient_descent(squares, np.ones(2), learning_rate=step)


@pytest.mark.parametrize("error", [KeyError, ValueError])
def test_errors_of_the_function_come_through(error):
    """An error inside the function is the one the caller sees."""

    def broken(x):
        raise error("the function's own")

    with pytest.raises(error, match="the function's own"):
        numerical_gradient(broken, np.ones(2))


def test_float64_stays_inside():
    """Afterwards JAX is in float32 as before, and nothing has warned."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        numerical_gradient(squares, np.ones(2))
    assert jnp.ones(1).dtype == jnp.float32


def test_what_cannot_be_traced_is_tried_once():
    """It is seen with a tracer in the first call, and with arrays ever after."""

    def function(x):
        kinds.append(type(x))
        return float(np.dot(np.asarray(x), np.asarray(x)))

    kinds = []
    x = np.ones(FEW + 1)
    assert right(numerical_gradient(function, x), 2 * x)
    assert sum(kind is not np.ndarray for kind in kinds) == 1
    kinds.clear()
    assert right(numerical_gradient(function, x), 2 * x)
    assert kinds == 2 * x.size * [np.ndarray]


def test_a_function_without_a_hash():
    """It cannot be remembered, and is differentiated all the same."""

    class Squares:
        __hash__ = None

        def __call__(self, x):
            return float(np.dot(np.asarray(x), np.asarray(x)))

    x = np.ones(FEW + 1)
    for _ in range(2):
        assert right(numerical_gradient(Squares(), x), 2 * x)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, jnp.bfloat16])
@pytest.mark.parametrize("in_numpy", [True, False])
def test_a_function_that_computes_coarsely_gets_a_wider_step(dtype, in_numpy):
    """With h = 6e-6 a square in bfloat16 has slope 0; the step is ∛ε of that type."""

    def squares(x):
        if in_numpy:
            return float((x.astype(dtype) ** 2).sum())
        return jnp.sum(jnp.asarray(x).astype(dtype) ** 2)

    slope = numerical_gradient(squares, np.array([0.3]))
    assert abs(slope[0] - 0.6) < float(jnp.finfo(dtype).eps)


def test_a_function_in_float64_on_simple_numbers_keeps_its_step():
    """A flat or a linear one gives numbers of few bits, and a kink is near."""
    x = np.array([-1e-3, 1.0])
    relu = numerical_gradient(lambda x: np.sum(np.maximum(x, 0)), x)
    assert relu.tolist() == [0.0, 1.0]
    assert numerical_gradient(lambda x: np.maximum(x, 0.0)[0], x).tolist() == [0, 0]


def test_a_step_that_moves_nothing_is_refused():
    """x + h is x: in float64 at 1e12, and within float32 at 1."""
    with pytest.raises(ValueError, match="x \\+ h is x at coordinate 0"):
        numerical_gradient(lambda x: (x**2).sum(), np.array([1e12]), step=1e-20)

    def inside(x):
        return jnp.sum(x.astype(np.float32) ** 2)

    line = "within `convert_element_type` at .*test_finite_difference.py"
    with pytest.raises(ValueError, match=line):
        numerical_gradient(inside, jnp.ones(3), step=1e-9)


@pytest.mark.parametrize("function", [squares, lambda x: float(np.asarray(x) @ x)])
def test_a_descent_that_diverges_says_so(function):
    """One line names the step and the rate; what comes down is no error."""
    start = np.array([1.0, 2.0])
    with (
        np.errstate(all="ignore"),
        pytest.raises(FloatingPointError, match=r"after step \d+; the learning") as e,
    ):
        gradient_descent(function, start, 1e3, num_steps=120)
    assert "\n" not in str(e.value)
    assert abs(gradient_descent(function, start, 0.4, num_steps=20)[0]).max() < 1e-6


def test_a_descent_from_nowhere_or_inside_jit_is_one_line():
    """NaN is named at its place, and a tracer is no start."""
    with pytest.raises(
        ValueError, match=r"`init\[1\]`: expected finite numbers, got n"
    ):
        gradient_descent(lambda x: (x**2).sum(), np.array([1.0, np.nan]))
    with pytest.raises(TypeError, match=r"`init`: .*outside jit") as e:
        jax.jit(lambda x: gradient_descent(jnp.sum, x)[0])(jnp.ones(2))
    assert "\n" not in str(e.value)
