"""A cause is named for every mistake worth a name, and none where none is confirmed."""

import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet.verification import Verdict, check_gradients
from jaxnet.verification.explanation import explain

RANDOM = np.random.default_rng(0)
SQUARE, WIDE = RANDOM.standard_normal((5, 5)), RANDOM.standard_normal((4, 6))
CUBE, KERNEL = RANDOM.standard_normal((3, 3, 3)), RANDOM.standard_normal((2, 1, 3, 4))
VECTOR = RANDOM.standard_normal(30)
LARGE = RANDOM.standard_normal((40, 30))


def sines(params: Any) -> Any:
    """Σ (1 + i / n) sin xᵢ over all leaves: no two entries weigh the same."""
    return sum(jnp.sum(_weights(x) * jnp.sin(x)) for x in jax.tree.leaves(params))


def right(params: Any) -> Any:
    """The gradient of `sines`, in NumPy."""
    return jax.tree.map(lambda x: np.asarray(_weights(x)) * np.cos(x), params)


def _weights(x: Any) -> Any:
    return 1 + np.arange(x.size).reshape(x.shape) / x.size


def cause_of(mistake: Callable[[Any], Any], params: np.ndarray) -> str:
    """The cause named for a changed gradient of one array."""
    with np.errstate(all="raise"):
        given = mistake(right(params))
    report = check_gradients(sines, {"x": params}, {"x": given})
    assert report.verdict is Verdict.DISAGREE
    return report.worst.cause


def _times(index: Any, value: float) -> Callable[[Any], Any]:
    def change(g: Any) -> Any:
        changed = g.copy()
        changed[index] *= value
        return changed

    return change


MISTAKES: dict[str, tuple[Callable[[Any], Any], np.ndarray, str]] = {
    "twice": (lambda g: 2 * g, WIDE, "×2"),
    "half": (lambda g: g / 2, WIDE, "×½"),
    "thrice": (lambda g: 3 * g, LARGE, "×3"),
    "minus": (lambda g: -g, WIDE, "sign flipped, ×-1"),
    "minus twice": (lambda g: -2 * g, WIDE, "×-2"),
    "percent": (lambda g: 1.01 * g, LARGE, "×1.01 on every entry"),
    "zero": (lambda g: 0 * g, LARGE, "all zero"),
    "transposed": (lambda g: g.T, SQUARE, "transposed"),
    "reshaped": (lambda g: g.T.reshape(g.shape), WIDE, "transposed before a reshape"),
    "rolled": (lambda g: np.roll(g, 2), VECTOR, "rolled by 2 along axis 0"),
    "rolled back": (lambda g: np.roll(g, -3, 1), WIDE, "rolled by 3|rolled by -3"),
    "reversed": (lambda g: g[::-1], VECTOR, "reversed along axis 0"),
    "flipped": (lambda g: g[:, ::-1], WIDE, "reversed along axis 1"),
    "turned": (lambda g: g[::-1, ::-1], LARGE, "reversed along"),
    "a little": (lambda g: (1 + 2e-8) * g, WIDE, r"×\(1 \+ 2.0e-08\) on every entry"),
    "axes": (lambda g: np.swapaxes(g, 0, 1), CUBE, "transposed: axes 0 and 1"),
    "kernel": (
        lambda g: g[..., ::-1, ::-1],
        KERNEL,
        "reversed along the last two axes",
    ),
    "channel": (
        _times((1,), 0),
        KERNEL,
        "index 1 of axis 0 alone: it is zero",
    ),
    "penalty": (
        lambda g: g - 1e-4 * WIDE,
        WIDE,
        r"off by -0.0001 × \['x'\] itself: a wrong penalty\?",
    ),
    "offset": (lambda g: g + 1e-4, VECTOR, r"offset: \+0.0001 on every entry"),
    "entry": (_times((1, 2), 1.5), WIDE, r"this coordinate alone: ×1.5"),
    "entry zero": (_times((30, 7), 0), LARGE, "this coordinate alone: it is zero"),
    "row": (_times((2, slice(None)), 0), WIDE, "row 2 alone: it is zero"),
    "large row": (_times((11, slice(None)), 0), LARGE, "row 11 alone: it is zero"),
    "column": (_times((slice(None), 3), 2), LARGE, "column 3 alone: ×2"),
    "rows": (
        lambda g: g * np.linspace(0.5, 2, len(g))[:, None],
        WIDE,
        "one factor per row, 0.5 to 2",
    ),
    "columns": (
        lambda g: g * np.linspace(0.5, 2, g.shape[1]),
        LARGE,
        "one factor per column, 0.5 to 2",
    ),
    "some": (_times(([1, 2, 5],), -1), VECTOR, "3 of 30 entries"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_has_its_cause(name: str) -> None:
    """On small leaves by their coordinates, on large ones by what autodiff confirms."""
    mistake, params, cause = MISTAKES[name]
    assert re.match(cause, cause_of(mistake, params))


def test_no_cause_is_guessed() -> None:
    """A gradient that is nothing simple is called nothing simple."""
    noise = np.random.default_rng(1).standard_normal(WIDE.shape)
    assert cause_of(lambda g: g * (1 + noise), WIDE) == ""


def test_the_ratio_comes_before_the_offset() -> None:
    """Of a gradient with one value, ×2 and +1 are one: it is ×2."""
    report = check_gradients(jnp.sum, np.ones(5), 2 * np.ones(5))
    assert report.worst.cause.startswith("×2")


@pytest.mark.slow
def test_a_factor_of_the_size_of_an_axis_names_it() -> None:
    """Of the data, or of a parameter."""
    data = np.random.default_rng(2).standard_normal((7, 4))

    def mean(params: Any) -> Any:
        return jnp.mean(jnp.sum(jnp.tanh(jnp.asarray(data) @ params["W"]), axis=1))

    def causes(factor: float) -> str:
        def candidate(params: Any) -> Any:
            return {"W": factor * jax.grad(mean)(params)["W"]}

        return check_gradients(mean, {"W": WIDE}, candidate).worst.cause

    assert causes(7.0) == "×7; did you forget to divide by the batch size (7)?"
    assert causes(1 / 7) == "×1/7; did you divide twice by the batch size (7)?"
    assert causes(6.0) == "×6; did you forget to divide by 6 (axis 1 of ['W'])?"
    assert causes(11.0) == "×11"


def test_swapped_leaves() -> None:
    """Each is said to be the other's."""
    params = {"a": WIDE, "b": WIDE[::-1].copy()}
    g = right(params)
    report = check_gradients(sines, params, {"a": g["b"], "b": g["a"]})
    causes = {leaf.path: leaf.cause for leaf in report.leaves}
    assert all(cause.startswith("swapped") for cause in causes.values())
    assert "['b']" in causes["['a']"]
    assert "['a']" in causes["['b']"]


def _book_loss(params: Any) -> Any:
    return -jnp.mean(jnp.log(jax.nn.softmax(params["logits"])[:, 0] + 1e-7))


def _without_its_constant(params: Any) -> Any:
    y = jax.nn.softmax(params["logits"])
    return {"logits": (y - jnp.eye(y.shape[1])[0][None, :]) / len(y)}


@pytest.mark.slow
def test_a_forgotten_small_constant() -> None:
    """The loss adds 1e-7 to a probability, y - t does not: its line is named."""
    params = {"logits": WIDE}
    report = check_gradients(_book_loss, params, _without_its_constant)
    assert report.verdict is Verdict.DISAGREE
    assert "adds 1e-07" in report.worst.cause
    assert "_book_loss" in report.worst.cause
    assert check_gradients(_book_loss, params).passed
    other = check_gradients(_book_loss, params, lambda p: {"logits": 0 * p["logits"]})
    assert "adds" not in other.worst.cause


@jax.custom_vjp
def _square(x: Any) -> Any:
    return x * x


def _square_forward(x: Any) -> Any:
    return x * x, x


def _square_backward(x: Any, d: Any) -> Any:
    return (x * d,)


_square.defvjp(_square_forward, _square_backward)


@jax.custom_jvp
def _cube(x: Any) -> Any:
    return x**3


@_cube.defjvp
def _cube_jvp(primals: Any, tangents: Any) -> Any:
    return primals[0] ** 3, 2 * primals[0] ** 2 * tangents[0]


def test_an_explanation_that_fails_changes_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The verdict stands, and the report says what failed."""

    def raising(wrong: Any) -> Any:
        raise RuntimeError("out of words")

    monkeypatch.setattr(explain, "causes", raising)
    report = check_gradients(sines, {"x": SQUARE}, {"x": 2 * right(SQUARE)})
    assert report.verdict is Verdict.DISAGREE
    assert report.worst.worst_index is not None
    words = "the explanation failed: RuntimeError: out of words"
    assert report.worst.cause == words
