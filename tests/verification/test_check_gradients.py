"""check_gradients as a caller meets it: any tree, any loss, any candidates, one key."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet.verification import (
    GradientReport,
    LeafReport,
    Verdict,
    check_gradients,
    check_vjp,
)

X = np.random.default_rng(0).standard_normal(6)


def sines(params: Any) -> Any:
    """Σ sin x over all leaves of a dict."""
    return sum(jnp.sum(jnp.sin(x)) for x in params.values())


def cosines(params: Any) -> Any:
    """The gradient of `sines`."""
    return {name: jnp.cos(x) for name, x in params.items()}


def leaf_of(report: GradientReport, path: str, candidate: str = "") -> LeafReport:
    """The record of one leaf."""
    (leaf,) = (
        leaf
        for leaf in report.leaves
        if leaf.path == path and candidate in ("", leaf.candidate)
    )
    return leaf


class Pair(NamedTuple):
    """A NamedTuple of parameters."""

    first: Any
    second: Any


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    """A dataclass that JAX knows."""

    weight: Any
    count: Any


TREE = {
    "nested": {"tuple": (X[:2], Pair(X[2:4], None))},
    "layer": Layer(X[4:], 3),
    "scalar": np.asarray(0.3),
    "number": 0.7,
    "empty": np.zeros((0, 2)),
    "rows": np.arange(3),
    "key": jax.random.key(0),
    "flag": True,
}
FLOATING = {
    "['nested']['tuple'][0]": (2,),
    "['nested']['tuple'][1].first": (2,),
    "['layer'].weight": (2,),
    "['scalar']": (),
    "['number']": (),
    "['empty']": (0, 2),
}


def of_tree(params: Any) -> Any:
    """Σ sin x over the floating leaves of `TREE`."""
    first, pair = params["nested"]["tuple"]
    leaves = (first, pair.first, params["layer"].weight, params["empty"])
    numbers = jnp.sin(params["scalar"]) + 2 * jnp.sin(params["number"])
    return sum(jnp.sum(jnp.sin(x)) for x in leaves) + numbers


@pytest.mark.slow
def test_every_kind_of_tree() -> None:
    """Each floating leaf has a record under its keystr; all others are held, listed."""
    report = check_gradients(of_tree, TREE)
    assert report.passed, str(report)
    assert {leaf.path: leaf.shape for leaf in report.leaves} == FLOATING
    held = {"['layer'].count", "['rows']", "['key']", "['flag']"}
    assert set(report.held) == held
    assert all(path in str(report) for path in held)


@pytest.mark.slow
def test_params_without_an_entry_prove_nothing() -> None:
    """A rule has demands to meet for them, a gradient has nothing."""
    report = check_gradients(jnp.sum, np.zeros((0, 3)))
    assert not report.passed
    assert str(report).startswith("FAILED: nothing was checked: every leaf of params")
    assert check_vjp(jnp.sin, np.zeros((0, 3))).passed


@pytest.mark.parametrize("path", [path for path in FLOATING if "empty" not in path])
def test_a_mistake_in_any_kind_of_leaf(path: str) -> None:
    """The leaf is named, and no other."""

    def wrong(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda p, g: 1.001 * g if jax.tree_util.keystr(p) == path else g,
            jax.grad(of_tree, allow_int=True)(params),
        )

    tree = {name: value for name, value in TREE.items() if name != "key"}
    report = check_gradients(of_tree, tree, wrong)
    assert [leaf.path for leaf in report.leaves if not leaf.passed] == [path]


@pytest.mark.slow
@pytest.mark.parametrize("params", [X, 0.5, np.float64(0.5), (X,), [X], Pair(X, X)])
def test_a_tree_of_few_leaves(params: Any) -> None:
    """A bare array, a Python float, a tuple, a list, a NamedTuple."""

    def loss(params: Any) -> Any:
        return sum(jnp.sum(jnp.sin(x)) for x in jax.tree.leaves(params))

    def doubled(params: Any) -> Any:
        return jax.tree.map(lambda x: 2 * jnp.cos(x), params)

    assert check_gradients(loss, params).passed
    report = check_gradients(loss, params, doubled)
    assert report.verdict is Verdict.DISAGREE
    assert report.worst.cause == "×2"


def test_parameters_are_not_written_to() -> None:
    """Not by a loss in NumPy either, which sees copies."""
    x = X.copy()
    check_gradients(lambda p: float(np.sum(np.sin(np.asarray(p)))), x, np.cos(x))
    assert (x == X).all()


@pytest.mark.slow
def test_one_key_one_report() -> None:
    """The same bits for the same key, by any of its names; others for another key."""
    params = {"x": np.random.default_rng(1).standard_normal(200)}

    def report(key: Any) -> GradientReport:
        return check_gradients(sines, params, key=key)

    assert report(7) == report(7)
    assert report(None) == report(0)
    assert report(jax.random.key(7)).leaves == report(jax.random.PRNGKey(7)).leaves
    values = {report(key).leaves[0].reference_value for key in (0, 7, (1, 2))}
    assert len(values) == 3


def test_the_directions_of_a_leaf_are_its_own() -> None:
    """What else is in the tree, and in which order, changes no derivative."""
    x = np.random.default_rng(2).standard_normal(100)
    alone = leaf_of(check_gradients(sines, {"x": x}), "['x']")

    def loss(params: Any) -> Any:
        return sines({"x": params["x"]}) + 0 * jnp.sum(params["a"])

    beside = leaf_of(check_gradients(loss, {"a": X, "x": x}), "['x']")
    assert beside.candidate_value == alone.candidate_value
    assert beside.reference_value == pytest.approx(alone.reference_value, rel=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("every", [True, False, None])
@pytest.mark.parametrize("size", [20, 70])
def test_every_coordinate_or_directions(every: bool | None, size: int) -> None:
    """By default, of small leaves every one; what was looked at has a coordinate."""
    params = {"x": np.random.default_rng(3).standard_normal(size)}
    report = check_gradients(sines, params, cosines, every_coordinate=every)
    one_by_one = size == 20 if every is None else every
    assert report.passed
    assert (report.leaves[0].worst_index is not None) == one_by_one
    assert (report.leaves[0].evaluations >= 32 * size) == one_by_one
    half = {"x": np.where(np.arange(size) == size - 1, 0.999, 1) * cosines(params)["x"]}
    if not one_by_one:
        report = check_gradients(sines, params, half, every_coordinate=every)
        assert report.worst.worst_index == (size - 1,)


def test_safety_is_how_many_bounds() -> None:
    """An error of two bounds passes with 4 of them, and fails with 1/100."""
    params = {"x": X}
    resolution = check_gradients(sines, params, cosines).worst.bound
    slightly = {"x": np.cos(X) + resolution / 4}
    assert check_gradients(sines, params, slightly).passed
    strict = check_gradients(sines, params, slightly, safety=0.01)
    assert strict.verdict is Verdict.DISAGREE


def test_candidates_have_names() -> None:
    """One bare, several by name, autodiff by default."""
    params = {"x": X}

    def names(candidates: Any) -> set[str]:
        return {x.candidate for x in check_gradients(sines, params, candidates).leaves}

    assert names(None) == {"autodiff"}
    assert names(cosines) == names({"x": np.cos(X)}) == {"candidate"}
    assert names({"a": cosines, "b": {"x": np.cos(X)}}) == {"a", "b"}


@pytest.mark.slow
def test_one_stands_alone() -> None:
    """Of three candidates the one that is wrong; or the differences, if all agree."""
    params = {"x": X}
    three = {"hand": cosines, "tool": jax.grad(sines), "other": {"x": np.sin(X)}}
    report = check_gradients(sines, params, three)
    assert report.odd_one_out == "other"
    assert leaf_of(report, "['x']", "hand").passed
    assert "other stands alone" in str(report)
    assert check_gradients(sines, params, {**three, "other": cosines}).passed

    def stopped(params: Any) -> Any:
        return jnp.sum(jax.lax.stop_gradient(params["x"]) * params["x"])

    same = {"hand": {"x": X}, "tool": jax.grad(stopped)}
    report = check_gradients(stopped, params, same)
    assert report.odd_one_out == "finite differences"
    assert not report.passed


def test_all_candidates_share_the_evaluations() -> None:
    """Five right candidates cost what one does."""
    many = {str(i): cosines for i in range(5)}
    one = check_gradients(sines, {"x": X}, cosines).evaluations
    assert check_gradients(sines, {"x": X}, many).evaluations == one


def _in_numpy(params: Any) -> float:
    return float(np.sum(np.sin(np.asarray(params["x"]))))


def _branching(params: Any) -> Any:
    return jnp.sum(jnp.sin(params["x"])) if params["x"][0] < 9 else jnp.float64(0)


@pytest.mark.parametrize("loss", [_in_numpy, _branching])
def test_a_loss_that_cannot_be_traced_is_called(loss: Any) -> None:
    """Point by point, as a note says, and as exactly as a traced one."""
    report = check_gradients(loss, {"x": X}, {"x": np.cos(X)})
    assert report.passed, str(report)
    assert report.worst.resolution <= 1e-10
    assert any("cannot trace" in note for note in report.notes)
    wrong = check_gradients(loss, {"x": X}, {"x": 1.001 * np.cos(X)})
    assert wrong.verdict is Verdict.DISAGREE


@pytest.mark.slow
def test_autodiff_of_a_loss_that_cannot_be_traced() -> None:
    """There is none: pass a candidate, it says, and names the line."""
    report = check_gradients(_in_numpy, {"x": X})
    assert report.verdict is Verdict.MALFORMED
    assert "pass a candidate" in report.worst.cause
    assert (
        f"at {__file__}:{_in_numpy.__code__.co_firstlineno + 1}" in report.worst.cause
    )


@pytest.mark.slow
def test_autodiff_of_a_loss_that_reads_its_values() -> None:
    """`if` and `segment_max` cannot be traced, and jax.grad has the values."""

    def by_segment(x: Any) -> Any:
        return jnp.sum(jax.ops.segment_max(x, np.array([0, 0, 1, 1, 1])) ** 2)

    assert check_gradients(_branching, {"x": X}).passed

    @jax.custom_jvp
    def twice(x: Any) -> Any:
        return jnp.sin(x)

    twice.defjvp(lambda p, t: (jnp.sin(p[0]), 2 * t[0] * jnp.cos(p[0])))

    def branching(x: Any) -> Any:
        return jnp.sum(twice(x)) if x[0] < 9 else jnp.float64(0)

    report = check_gradients(branching, X)
    assert report.verdict is Verdict.DISAGREE
    assert "which rule it is was not looked for" in report.worst.cause
    x = np.array([1.0, 1.5, 2.0, 2.3, 2.1])
    assert check_gradients(by_segment, x).passed
    report = check_gradients(
        by_segment, x, {"twice": lambda x: 2 * jax.grad(by_segment)(x)}
    )
    assert report.verdict is Verdict.DISAGREE


def test_a_report_is_true_if_it_passed() -> None:
    """`assert check_gradients(…)` fails a test."""
    right = check_gradients(lambda p: jnp.sum(p["x"] ** 2), {"x": X}, {"x": 2 * X})
    wrong = check_gradients(lambda p: jnp.sum(p["x"] ** 2), {"x": X}, {"x": X})
    assert right
    assert not wrong
    assert repr(wrong).startswith("<GradientReport FAILED: candidate is ")


@pytest.mark.slow
def test_what_is_zero_but_for_rounding_is_said_apart() -> None:
    """A bias before a normalization: its gradient has no digits, and the rest has."""
    x = np.random.default_rng(0).normal(size=(8, 4)).astype(np.float32)

    def loss(p: Any) -> Any:
        a = x @ p["W"] + p["b"][None]
        return jnp.mean(((a - a.mean(0, keepdims=True)) / a.std(0, keepdims=True)) ** 3)

    report = check_gradients(loss, {"W": x[:4, :3], "b": np.zeros(3, np.float32)})
    first, *rest = str(report).replace("\n", " ").split(".", 1)
    assert "zero but for rounding: ['b']" in str(report).replace("\n", " ")
    assert "to 1" in first or "digits" in first
    assert "not covered here" not in rest[0]
    assert "5.1e+08" not in rest[0]


def _casting(params: Any) -> Any:
    return jnp.sum(jnp.sin(params["x"].astype(jnp.float32)))


def _float32_only(params: Any) -> Any:
    if params["x"].dtype != np.float32:
        raise TypeError("this kernel takes float32")
    return jnp.sum(jnp.sin(params["x"]))


@pytest.mark.slow
@pytest.mark.parametrize("loss", [_casting, _float32_only])
def test_float32_inside_is_checked_in_float64(loss: Any) -> None:
    """Casts are part of the run: the algebra is checked in float64; 1 % is seen.

    A gradient that is given in float32 has the rounding of that.
    """
    params = {"x": X.astype(np.float32)}
    for candidate in (None, cosines, {"x": np.cos(params["x"])}):
        report = check_gradients(loss, params, candidate)
        assert report.verdict is Verdict.AGREE, str(report)
        most = 1e-3 if isinstance(candidate, dict) else 1e-9
        assert report.worst.resolution < most
    wrong = check_gradients(loss, params, {"x": 1.01 * np.cos(params["x"])})
    assert wrong.verdict is Verdict.DISAGREE
    assert "×1.01" in wrong.worst.cause


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_the_dtype_of_parameters_limits_nothing(dtype: Any) -> None:
    """Leaves are promoted: the resolution is that of float64."""
    report = check_gradients(sines, {"x": jnp.asarray(X, dtype)})
    assert report.passed, str(report)
    assert report.worst.resolution <= 1e-10


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16, jnp.float32])
def test_a_candidate_may_be_as_coarse_as_its_dtype(dtype: Any) -> None:
    """Its own rounding is no mistake; 64 ε is. (8 ε of bfloat16 are 6 %: unsure.)"""
    params = {"x": jnp.asarray(X, jnp.float32)}
    given = jnp.cos(params["x"]).astype(dtype)
    report = check_gradients(sines, params, {"x": given})
    assert report.verdict is not Verdict.DISAGREE
    assert report.passed or dtype == jnp.bfloat16
    off = float(64 * jnp.finfo(dtype).eps)
    wrong = {"x": given * jnp.asarray(1 + off, dtype)}
    assert check_gradients(sines, params, wrong).verdict is Verdict.DISAGREE


@pytest.mark.slow
def test_complex_parameters() -> None:
    """By JAX's convention the gradient of |z|² is 2 z̄; 2 z is its conjugate."""
    params = {"z": np.array([1 + 2j, -0.5j, 0.3 - 0.1j])}

    def loss(params: Any) -> Any:
        return jnp.sum(params["z"].real ** 2 + params["z"].imag ** 2)

    assert check_gradients(loss, params).passed
    right = check_gradients(loss, params, {"z": 2 * np.conj(params["z"])})
    assert right.passed
    report = check_gradients(loss, params, {"z": 2 * params["z"]})
    assert report.verdict is Verdict.DISAGREE
    assert "conjugated" in report.worst.cause
    assert report.worst.shape == (3,)


@pytest.mark.slow
@pytest.mark.parametrize("size", [5, 500])
def test_the_loss_is_traced_a_bounded_number_of_times(size: int) -> None:
    """Once for the line program, whatever the number of leaves and probes."""
    calls = []

    def counted(params: Any) -> Any:
        calls.append(isinstance(params["a"], jax.core.Tracer))
        return sines(params)

    random = np.random.default_rng(4)
    for names in ("ab", "abcdefgh"):
        params = {name: random.standard_normal(size) for name in names}
        calls.clear()
        report = check_gradients(counted, params, cosines)
        assert report.passed
        assert len(calls) <= 8
        assert report.evaluations > 100


def test_global_settings_are_left_as_they_were() -> None:
    """float64 and lax promotion end with the check."""
    check_gradients(sines, {"x": X})
    assert jnp.zeros(1).dtype == jnp.float32
    assert not jax.config.jax_enable_x64
    assert jax.config.jax_numpy_dtype_promotion == "strict"
    assert jax.config.jax_numpy_rank_promotion == "raise"


@pytest.mark.slow
def test_a_batch_of_one_hides_a_forgotten_mean() -> None:
    """The report says so; with a batch of two it has no reason to."""
    params = {"W": np.random.default_rng(5).standard_normal((4, 3))}

    def survivors(batch: int) -> str:
        images = np.random.default_rng(6).standard_normal((batch, 4))

        def loss(params: Any) -> Any:
            rows = jnp.asarray(images) @ params["W"]
            return jnp.mean(jnp.sum(jnp.tanh(rows) ** 2, axis=1))

        return " ".join(check_gradients(loss, params).blind_spots)

    assert "batch of 1" in survivors(1)
    assert survivors(2) == ""


def test_data_of_zeros_hide_everything() -> None:
    """W x is 0 at x = 0 for every W: any factor on that gradient survives."""
    params = {"W": np.ones((4, 3)), "b": X[:3]}

    def loss(params: Any) -> Any:
        return jnp.sum(
            jnp.tanh(jnp.zeros((5, 4)) @ params["W"] + params["b"][None]) ** 2
        )

    report = check_gradients(loss, params)
    assert report.passed
    assert leaf_of(report, "['W']").verdict is Verdict.AGREE
    assert "0 here" in leaf_of(report, "['W']").cause
    assert any("any factor on ['W']" in text for text in report.blind_spots)


def test_equal_leaves_hide_a_swap() -> None:
    """Of two leaves whose gradients are one, which is which cannot be seen."""

    def loss(params: Any) -> Any:
        return jnp.sum(jnp.sin(params["a"] + params["b"]))

    report = check_gradients(loss, {"a": X, "b": X[::-1].copy()})
    assert any("swap" in text for text in report.blind_spots)
    different = check_gradients(sines, {"a": X, "b": X[::-1].copy()})
    assert different.blind_spots == ()
