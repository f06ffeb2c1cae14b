"""The corpus of gradient cases says what is true, shown without the verifier.

The reference is the slowest one: one coordinate at a time, on a ladder of steps, with
central differences, one Richardson step, and the spread between levels as the error.
"""

import functools
import itertools
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.gradient_cases import FAMILIES, Case, all_cases, plant

PUBLIC = [
    "mlp_right",
    "mlp_times_batch",
    "mlp_b2_mean",
    "mlp_b1_sign",
    "mlp_no_act_deriv",
    "mlp_one_coord_zero",
    "l2_factor2_tiny",
    "book_log_eps_typical",
    "book_log_eps_saturated",
    "transposed",
    "rolled_5pct_n2000",
    "leaf_masked_by_scale",
    "tiny_grads_x2",
    "big_x_right",
    "offset_1e8",
    "f32_inside_f64",
    "degenerate_point",
    "nan_one_coord",
    "relu_at_0",
    "abs_at_0",
    "relu_minus_relu",
    "relu_kink_wrong_elsewhere",
    "round_ste",
    "stop_gradient",
    "additive_const",
    "nondet_f",
    "one_coord_of_1e5",
]
VERDICTS = {
    "AGREE",
    "DISAGREE",
    "NONDIFFERENTIABLE",
    "NONDETERMINISTIC",
    "UNRESOLVED",
    "UNINFORMATIVE",
    "MALFORMED",
}

SAFETY = 10  # times the estimated error of a difference
SHARPNESS = 1e-2  # largest accepted error of a difference, in its leaf's rms
ROUNDING = 1e-15  # relative noise of f's values
NOISY = {"f32": 5e-7, "noise": 5e-7}  # the same, for names that begin so
CANDIDATE_ROUNDING = 1e-13  # relative rounding of a gradient computed in float64
COORDINATES = 3  # looked at in every leaf, beside the places named
STEPS = 2.0 ** -np.arange(1, 61)

CASES = all_cases()
DIFFERENCED = [c for c in CASES if c.smooth or c.name.startswith("noise")]
SMOOTH_RIGHT = [c for c in DIFFERENCED if c.right]
WRONG = [c for c in CASES if c.answers == ("DISAGREE",)]
KINKS = [c for c in CASES if c.answers == ("NONDIFFERENTIABLE",) and c.right]
RANDOM = [c for c in CASES if c.answers == ("NONDETERMINISTIC",)]
BROKEN = [c for c in CASES if "MALFORMED" in c.answers]

Coordinate = tuple[str, tuple[int, ...]]
each = functools.partial(pytest.mark.parametrize, "case", ids=lambda c: c.name)


def leaves_of(tree: Any) -> dict[str, np.ndarray]:
    """The leaves by their keystr, in NumPy."""
    entries = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(p): np.array(leaf) for p, leaf in entries}


@functools.cache
def compiled(function: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """`function` compiled without optimisation: compiling is what takes time here."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def candidate_at_x(name: str) -> dict[str, np.ndarray]:
    """The candidate's leaves at a case's own point, computed once."""
    (case,) = (c for c in CASES if c.name == name)
    return candidate_of(case, case.params)


def candidate_of(case: Case, point: Any) -> dict[str, np.ndarray]:
    """The candidate's leaves, computed in float64 where it is a function."""
    with jax.enable_x64(True):
        if not callable(case.candidate):
            return leaves_of(case.candidate)
        once = case.traceable and case not in RANDOM
        function = compiled(case.candidate) if once else case.candidate
        return leaves_of(function(jax.tree.map(jnp.asarray, point)))


def along(
    case: Case, where: Coordinate, params: Any = None
) -> Callable[[Any], np.ndarray]:
    """The loss at each of these values of one coordinate."""
    point = case.params if params is None else params
    path, index = where
    loss = compiled(case.loss) if case.traceable else case.loss
    leaves, tree = leaves_of(point), jax.tree.structure(point)

    def moved(x: float) -> Any:
        changed = leaves[path].copy()
        changed[index] = x
        return jax.tree.unflatten(tree, list((leaves | {path: changed}).values()))

    def values(xs: Any) -> np.ndarray:
        with jax.enable_x64(True):
            return np.array([float(loss(moved(x))) for x in xs])

    return values


def steps_at(case: Case, where: Coordinate, params: Any = None) -> np.ndarray:
    """Steps from half the coordinate's or its leaf's size down, coarse first."""
    leaf = leaves_of(case.params if params is None else params)[where[0]]
    size = max(float(np.max(np.abs(leaf))), abs(float(leaf[where[1]])))
    return STEPS * (size or 1.0)


def difference(
    case: Case, where: Coordinate, params: Any = None
) -> tuple[float, float]:
    """The derivative by one coordinate and the error of this estimate.

    The level with the smallest error among those that agree with all finer ones.
    """
    values = along(case, where, params)
    x = float(leaves_of(case.params if params is None else params)[where[0]][where[1]])
    steps = steps_at(case, where, params)
    up, down = values(x + steps), values(x - steps)
    apart = (x + steps) - (x - steps)
    with np.errstate(invalid="ignore", divide="ignore"):
        plain = (up - down) / apart
        better = (4 * plain[1:] - plain[:-1]) / 3
        noise = _rounding(case) * _largest(up, down) / apart
    return _best_consistent(better, noise[1:])


def _rounding(case: Case) -> float:
    found = (size for start, size in NOISY.items() if case.name.startswith(start))
    return next(found, ROUNDING)


def _largest(*values: np.ndarray) -> float:
    """The largest finite magnitude: f may be small by cancellation at one level."""
    finite = np.concatenate(values)
    return 2 * float(np.max(np.abs(finite[np.isfinite(finite)])))


def _best_consistent(estimates: np.ndarray, noise: np.ndarray) -> tuple[float, float]:
    spread = np.abs(np.diff(estimates))
    error = np.maximum(spread[1:], spread[:-1]) + noise[1:-1]
    middle = estimates[1:-1]
    best, low, high = (0.0, np.inf), -np.inf, np.inf
    for d, e in zip(middle[::-1], error[::-1], strict=True):
        if not np.isfinite(e):
            continue
        low, high = max(low, d - e), min(high, d + e)
        if low > high:
            break
        best = min(best, (float(d), float(e)), key=lambda pair: pair[1])
    return best


def mismatch(
    case: Case, gradient: dict[str, np.ndarray], where: Coordinate, params: Any = None
) -> float:
    """How far the gradient lies from the difference, in accepted errors."""
    path, index = where
    d, error = difference(case, where, params)
    rms = float(np.linalg.norm(gradient[path]) / gradient[path].size ** 0.5)
    assert SAFETY * error <= SHARPNESS * (rms or 1.0), "the reference says nothing"
    g = float(gradient[path][index])
    return abs(g - d) / (SAFETY * error + CANDIDATE_ROUNDING * abs(g) + 1e-320)


def is_place(text: str, where: Coordinate) -> bool:
    """Whether this text of `places` covers the coordinate."""
    return text in (where[0], where[0] + str(list(where[1])))


def named_coordinates(case: Case) -> dict[str, list[Coordinate]]:
    """The coordinates each place covers; of a whole leaf, a random few."""
    found: dict[str, list[Coordinate]] = {}
    for text in case.places:
        indexed = re.fullmatch(r"(.*)\[([\d, ]+)\]", text)
        if text in leaves_of(case.params):
            found[text] = chosen_coordinates(case, text, 5)
        else:
            assert indexed, f"{text} is no leaf of {case.name}"
            index = tuple(int(i) for i in indexed[2].split(","))
            found[text] = [(indexed[1], index)]
    return found


def chosen_coordinates(case: Case, path: str, count: int) -> list[Coordinate]:
    """Random coordinates of a leaf, the same at every run."""
    leaf = leaves_of(case.params)[path]
    rng = np.random.default_rng(7)
    flat = rng.choice(leaf.size, size=min(count, leaf.size), replace=False)
    return [
        (path, tuple(int(i) for i in np.unravel_index(k, leaf.shape))) for k in flat
    ]


def innocent_coordinates(case: Case) -> list[Coordinate]:
    """Random coordinates of every floating leaf that no place names."""
    leaves = leaves_of(case.params)
    floating = [p for p, x in leaves.items() if x.dtype.kind == "f"]
    looked = [w for p in floating for w in chosen_coordinates(case, p, COORDINATES)]
    return [w for w in looked if not any(is_place(t, w) for t in case.places)]


def test_names_are_unique_and_the_public_ones_present() -> None:
    """One case, one name; no public case is missing."""
    names = [case.name for case in CASES]
    assert len(set(names)) == len(names)
    assert set(PUBLIC) <= set(names)
    assert len(set(PUBLIC)) == 27


def test_cases_are_the_same_at_every_call() -> None:
    """Parameters come from fixed seeds."""
    for first, second in zip(CASES, all_cases(), strict=True):
        jax.tree.map(np.testing.assert_array_equal, first.params, second.params)


@each(CASES)
def test_answers_are_consistent_with_right(case: Case) -> None:
    """A right candidate is never DISAGREE or MALFORMED, a wrong one never AGREE."""
    assert case.answers
    assert set(case.answers) <= VERDICTS
    forbidden = {"DISAGREE", "MALFORMED"} if case.right else {"AGREE"}
    assert not forbidden & set(case.answers)
    assert case.places or case.right or case.answers != ("DISAGREE",)


@pytest.mark.slow
@each(SMOOTH_RIGHT)
def test_right_candidates_match_differences(case: Case) -> None:
    """At random coordinates of every leaf."""
    gradient = candidate_at_x(case.name)
    for where in innocent_coordinates(case):
        assert mismatch(case, gradient, where) <= 1, where


@pytest.mark.slow
@each(WRONG)
def test_wrong_candidates_differ_at_every_place(case: Case) -> None:
    """Every place named holds a coordinate that is wrong beyond doubt."""
    gradient = candidate_at_x(case.name)
    for text, coordinates in named_coordinates(case).items():
        worst = max(mismatch(case, gradient, where) for where in coordinates)
        assert worst > 1, text


@pytest.mark.slow
@each([c for c in WRONG if c in DIFFERENCED])
def test_wrong_candidates_are_right_elsewhere(case: Case) -> None:
    """What no place names is not wrong."""
    gradient = candidate_at_x(case.name)
    for where in innocent_coordinates(case):
        assert mismatch(case, gradient, where) <= 1, where


@each(KINKS)
def test_kinks_have_two_slopes_and_a_value_between(case: Case) -> None:
    """The one-sided slopes differ and the candidate lies in their interval."""
    gradient = candidate_at_x(case.name)
    for where in itertools.chain(*named_coordinates(case).values()):
        left, right = one_sided(case, where)
        assert abs(right - left) > 1e-3
        g = float(gradient[where[0]][where[1]])
        assert min(left, right) - 1e-6 <= g <= max(left, right) + 1e-6


def one_sided(case: Case, where: Coordinate, h: float = 1e-8) -> tuple[float, float]:
    """The slopes to the left and to the right."""
    x = float(leaves_of(case.params)[where[0]][where[1]])
    below, middle, above = along(case, where)([x - h, x, x + h])
    return (middle - below) / h, (above - middle) / h


@each([c for c in CASES if c.name.startswith("jump")])
def test_jumps_do_not_shrink_with_the_step(case: Case) -> None:
    """Across the place f changes by as much over 1e-12 as over 1e-6."""
    ((where,),) = named_coordinates(case).values()
    slopes = [sum(one_sided(case, where, h)) * h for h in (1e-6, 1e-12)]
    assert slopes == pytest.approx([0.5, 0.5], rel=1e-3)


@each([c for c in CASES if "UNINFORMATIVE" in c.answers])
def test_uninformative_points_hide_what_a_nearby_point_shows(case: Case) -> None:
    """At x some leaf is 0 in both; beside it a wrong candidate is seen, a right not."""
    assert any(not np.any(leaf) for leaf in candidate_at_x(case.name).values())
    if not callable(case.candidate):
        return
    rng = np.random.default_rng(3)
    near = jax.tree.map(lambda x: x + 0.1 * rng.standard_normal(x.shape), case.params)
    gradient = candidate_of(case, near)
    looked = innocent_coordinates(case)
    worst = max(mismatch(case, gradient, where, near) for where in looked)
    assert (worst <= 1) == case.right


@each(RANDOM)
def test_nondeterministic_cases_change_between_calls(case: Case) -> None:
    """The loss, eager and jitted, or the candidate gives more than one value."""
    with jax.enable_x64(True):
        params = jax.tree.map(jnp.asarray, case.params)
        losses = [case.loss, case.loss, jax.jit(case.loss), jax.jit(case.loss)]
        values = {float(loss(params)) for loss in losses}
        gradients = [candidate_of(case, case.params)["['x']"] for _ in range(2)]
    assert len(values) > 1 or np.any(gradients[0] != gradients[1])


@each(BROKEN)
def test_malformed_candidates_do_not_fit_or_are_not_finite(case: Case) -> None:
    """Structure, shape or kind of number differs, or something is not finite."""
    params, gradient = leaves_of(case.params), candidate_at_x(case.name)
    finite = all(np.all(np.isfinite(leaf)) for leaf in gradient.values())
    fits = {p: x.shape for p, x in params.items()} == {
        p: x.shape for p, x in gradient.items()
    }
    kinds = {x.dtype.kind for x in gradient.values()}
    with np.errstate(invalid="ignore"), jax.enable_x64(True):
        defined = np.isfinite(float(case.loss(jax.tree.map(jnp.asarray, case.params))))
    assert not (finite and fits and kinds == {"f"} and defined)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("scale", [1e-3, 1e3])
def test_families_give_gradients_that_match_differences(
    name: str, scale: float
) -> None:
    """Autodiff's gradient passes; the same with one planted error does not."""
    rng = np.random.default_rng(11)
    loss, params, gradient = FAMILIES[name](rng, scale)
    wrong, path, index = plant(rng, gradient)
    assert leaves_of(gradient)[path].dtype == np.float64
    assert len(FAMILIES) >= 12
    case = Case(name, loss, params, gradient, ("AGREE",))
    assert mismatch(case, leaves_of(gradient), (path, index)) <= 1
    assert mismatch(case, leaves_of(wrong), (path, index)) > 1
