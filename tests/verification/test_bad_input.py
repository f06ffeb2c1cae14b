"""What cannot be checked is refused in one line, or MALFORMED with its path."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet.verification import GradientReport, Verdict, check_gradients

X = np.random.default_rng(0).standard_normal(6)
PARAMS = {"x": X, "y": X[:3]}
RIGHT = {"x": np.cos(X), "y": 2 * X[:3]}


def loss(params: Any) -> Any:
    """Σ sin x + Σ y²."""
    return jnp.sum(jnp.sin(params["x"])) + jnp.sum(params["y"] ** 2)


def _raising(params: Any) -> Any:
    raise RuntimeError("no such kernel")


REFUSED = {
    "vector": (lambda p: jnp.sin(p["x"]), ValueError, r"of shape \(6,\)"),
    "tuple": (lambda p: (loss(p), loss(p)), TypeError, "tuple of 2; .* has_aux"),
    "list": (lambda p: [loss(p)], TypeError, "list of 1"),
    "dictionary": (
        lambda p: {"loss": loss(p)},
        TypeError,
        "dict of 1; .* not its grad",
    ),
    "nothing": (lambda p: None, TypeError, "got None; return it"),
    "text": (lambda p: "2.3", TypeError, "'2.3'"),
    "integer": (lambda p: jnp.sum(p["x"] > 0), TypeError, "int"),
    "boolean": (lambda p: jnp.any(p["x"] > 0), TypeError, "bool"),
    "complex": (lambda p: 1j * loss(p), TypeError, "complex"),
    "nan": (lambda p: loss(p) + jnp.log(-jnp.sum(p["x"] ** 2)), ValueError, "got nan"),
    "infinite": (lambda p: loss(p) / 0, ValueError, "got inf"),
    "raises": (_raising, ValueError, "RuntimeError: no such kernel"),
    "misspelt": (lambda p: loss(p["z"]), ValueError, "KeyError"),
    "integer in NumPy": (lambda p: int(np.sum(p["x"] > 0)), TypeError, "int"),
    "vector in NumPy": (lambda p: np.sin(np.array(p["x"])), ValueError, r"\(6,\)"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_a_loss_without_a_real_scalar(name: str) -> None:
    """One line that begins with what is wrong and ends with the likely fix."""
    wrong, kind, got = REFUSED[name]
    with pytest.raises(kind, match=got) as caught:
        check_gradients(wrong, PARAMS)
    text = str(caught.value)
    assert text.startswith("`loss(params)`: expected")
    assert "; " in text.split("got", 1)[1]
    assert "\n" not in text


@pytest.mark.parametrize(
    "params", [{}, (), None, {"n": np.arange(3)}, {"key": jax.random.key(0)}, [True]]
)
def test_params_without_a_floating_leaf(params: Any) -> None:
    """There is nothing to differentiate by."""
    with pytest.raises(ValueError, match=r"^`params`: .*a floating leaf.*$"):
        check_gradients(lambda p: jnp.float32(1), params)


def test_params_that_are_not_finite() -> None:
    """The path of the leaf is named."""
    with pytest.raises(ValueError, match=r"^`params\['y'\]`: expected finite .* nan"):
        check_gradients(loss, {**PARAMS, "y": np.array([1.0, np.nan, 2.0])})


@pytest.mark.parametrize(
    ("option", "value", "kind"),
    [
        ("safety", 0.0, ValueError),
        ("safety", -1.0, ValueError),
        ("safety", np.inf, ValueError),
        ("safety", np.nan, ValueError),
        ("key", 0.5, TypeError),
        ("key", -3, TypeError),
        ("candidates", {}, ValueError),
    ],
)
def test_options_that_are_none(option: str, value: Any, kind: type[Exception]) -> None:
    """The option is named, with what it got."""
    with pytest.raises(kind, match=f"^`{option}`: expected"):
        check_gradients(loss, PARAMS, **{option: value})


def _with(name: str, value: Any) -> dict[str, Any]:
    return {**RIGHT, name: value}


def _raises(params: Any) -> Any:
    raise ZeroDivisionError("in line two")


MALFORMED = {
    "missing": ({"x": RIGHT["x"]}, "['y']", "missing"),
    "none": (_with("y", None), "['y']", "missing"),
    "extra": (_with("z", X), "['z']", "do not have"),
    "one axis more": (_with("x", RIGHT["x"][:, None]), "['x']", "shape (6, 1)"),
    "too short": (_with("x", RIGHT["x"][:5]), "['x']", "(5,), expected (6,)"),
    "scalar": (_with("y", np.float64(1)), "['y']", "shape ()"),
    "integers": (_with("y", np.arange(3)), "['y']", "int64"),
    "booleans": (_with("y", np.ones(3, bool)), "['y']", "bool"),
    "complex": (_with("y", RIGHT["y"] + 0j), "['y']", "complex128"),
    "raises": (_raises, "['x']", "ZeroDivisionError: in line two"),
    "several": ([RIGHT, RIGHT], "['x']", "2 gradients: expected one, or a dict"),
    "callable of one leaf": (lambda p: {"x": jnp.cos(p["x"])}, "['y']", "missing"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", MALFORMED)
def test_a_candidate_that_does_not_fit(name: str) -> None:
    """Its path and what is wrong; leaves that fit are checked all the same."""
    candidate, path, cause = MALFORMED[name]
    report = check_gradients(loss, PARAMS, {"mine": candidate, "right": RIGHT})
    assert report.verdict is Verdict.MALFORMED
    assert not report.passed
    (leaf,) = (x for x in _faults(report) if x.path == path)
    assert cause in leaf.cause
    assert leaf.candidate == "mine"
    assert f"MALFORMED at {path}" in str(report) or name in ("raises", "several")
    assert all(leaf.passed for leaf in report.leaves if leaf.candidate == "right")
    assert report.odd_one_out == "mine"


def _faults(report: GradientReport) -> list[Any]:
    return [leaf for leaf in report.leaves if leaf.verdict is Verdict.MALFORMED]


@pytest.mark.slow
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("dtype", [np.float64, np.float32, jnp.bfloat16])
def test_an_entry_that_is_not_finite(value: float, dtype: Any) -> None:
    """Its index, how many there are, and the other leaf checked as ever."""
    bad = np.array(RIGHT["x"])
    bad[[2, 4]] = value
    report = check_gradients(loss, PARAMS, _with("x", bad.astype(dtype)))
    (leaf,) = _faults(report)
    assert leaf.place == "['x'][2]"
    assert leaf.cause == f"{value} in 2 of 6 entries"
    assert {leaf.path for leaf in report.leaves if leaf.passed} == {"['y']"}


def test_a_mistake_beside_a_malformed_leaf_is_found() -> None:
    """A record of its own, for the leaf that fits."""
    report = check_gradients(loss, PARAMS, {"x": 2 * RIGHT["x"]})
    verdicts = {leaf.path: leaf.verdict for leaf in report.leaves}
    assert verdicts == {"['x']": Verdict.DISAGREE, "['y']": Verdict.MALFORMED}


def test_a_gradient_of_a_held_leaf_is_ignored() -> None:
    """As jax.grad with allow_int gives one, float0 or integers."""
    params = {"x": X, "y": X[:3], "rows": np.arange(3)}
    zeros = np.zeros(3, jax.dtypes.float0)
    assert check_gradients(loss, params, {**RIGHT, "rows": zeros}).passed
    assert check_gradients(loss, params, {**RIGHT, "rows": np.zeros(3, int)}).passed
    assert check_gradients(loss, params, {**RIGHT, "rows": None}).passed
    assert check_gradients(loss, params, RIGHT).passed
