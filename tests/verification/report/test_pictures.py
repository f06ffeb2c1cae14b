"""The pictures of a ladder and of errors, drawn from what was evaluated anyway."""

import itertools
import math
import re
from dataclasses import replace
from typing import Any
from xml.etree import ElementTree

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet.differences.step_ladder import STEPS
from jaxnet.verification import LeafReport, Verdict, check_gradients
from jaxnet.verification.explanation.causes import WrongLeaf
from jaxnet.verification.report.error_map import ErrorMap
from jaxnet.verification.report.pictures import of_errors, of_ladder

X = np.array([0.7, -1.3])
SIZES = np.array([0.5, 1.0])
"""The unit of each coordinate: the power of two below it."""


def loss(x: Any) -> Any:
    """Σ sin x."""
    return jnp.sum(jnp.sin(x))


def worst(factor: float) -> LeafReport:
    """What is found of the gradient with a factor on its first entry."""
    leaf = check_gradients(loss, X, np.cos(X) * [factor, 1.0]).worst
    assert isinstance(leaf, LeafReport)
    return leaf


def drawn(picture: str) -> dict[str, list[ElementTree.Element]]:
    """The elements of a picture by class."""
    found = dict[str, list[ElementTree.Element]]()
    for element in ElementTree.fromstring(picture).iter():
        found.setdefault(element.get("class", ""), []).append(element)
    return found


def words(picture: str) -> list[str]:
    """What is written in it."""
    return [element.text or "" for element in ElementTree.fromstring(picture).iter()]


def test_a_ladder_holds_the_quotients_of_the_worst_coordinate() -> None:
    """Those of sin, by hand; the chosen one is the reference value."""
    leaf = worst(1.01)
    ladder, h = leaf.ladder, STEPS * SIZES[0]
    assert ladder is not None
    np.testing.assert_array_equal(ladder.steps, h)
    by_hand = (np.sin(X[0] + h) - np.sin(X[0] - h)) / (2 * h)
    np.testing.assert_allclose(ladder.quotients, by_hand, rtol=1e-6)
    assert ladder.chosen is not None
    assert ladder.extrapolated[ladder.chosen] == ladder.value == leaf.reference_value
    assert math.isnan(ladder.extrapolated[0])
    assert ladder.kink == 0.0


def test_a_ladder_along_a_direction_is_of_that_slope() -> None:
    """A large leaf that agrees: its quotients tend to the value of its worst probe."""
    x = np.linspace(1.0, 2.0, 100)
    (leaf,) = check_gradients(loss, x).leaves
    assert leaf.worst_index is None
    assert leaf.ladder is not None
    assert leaf.ladder.value == leaf.reference_value
    assert leaf.ladder.extrapolated[5] == pytest.approx(leaf.candidate_value)


@pytest.mark.slow
def test_leaves_probed_together_have_their_own_ladder() -> None:
    """What is left of the sum's quotients tends to the leaf's own slope."""
    params = {str(i): np.full(60, 0.1 + i / 10) for i in range(10)}
    found = check_gradients(lambda p: sum(map(loss, p.values())), params).leaves
    assert all(leaf.ladder is not None for leaf in found)
    for leaf in found:
        assert leaf.ladder is not None
        assert leaf.ladder.extrapolated[5] == pytest.approx(leaf.candidate_value)


@pytest.mark.parametrize("factor", [1.0, 1.01])
def test_a_candidate_lies_in_the_band_or_above_it(factor: float) -> None:
    """The line is in the green where it agrees; all of the picture has a name."""
    leaf = worst(factor)
    (picture, *_) = leaf.pictures
    found = drawn(picture)
    (band,) = found["bound"]
    lines = [x for x in found["good" if leaf.passed else "bad"] if x.get("y1")]
    assert (float(lines[0].get("y1", 0)) >= float(band.get("y", 0))) == leaf.passed
    said = words(picture)
    for word in ("rounding", "truncation", "step h", "chosen step", "candidate"):
        assert any(word in text for text in said)
    assert any("within the bound" in text for text in said)
    points = [x for x in found["better"] if x.tag.endswith("circle")]
    assert len(points) == len(STEPS) - 1


def test_the_chosen_step_is_marked_where_it_is() -> None:
    """Below its line stands the point that was taken: the nearest to the value."""
    leaf = worst(1.01)
    found = drawn(leaf.pictures[0])
    (line,) = (x for x in found["chosen"] if x.get("x1"))
    heights = {x.get("cx"): float(x.get("cy", 0)) for x in found["better"]}
    heights.pop(None)
    assert heights[line.get("x1")] == max(heights.values())


def test_a_kink_is_drawn_by_the_difference_of_its_sides() -> None:
    """|x| at 0: right less left slope is 2 at each step; -1…1 agrees."""
    (leaf,) = check_gradients(lambda x: jnp.abs(x), 0.0, 0.5).leaves
    assert leaf.ladder is not None
    assert leaf.ladder.kink == 2.0
    assert set(leaf.ladder.one_sided) == {2.0}
    found = drawn(leaf.pictures[0])
    assert "kink" in found
    assert "kink" not in drawn(worst(1.0).pictures[0])
    assert "agrees: between the slopes" in words(leaf.pictures[0])
    assert "bad" not in found
    assert "bad" in drawn(of_ladder(leaf.ladder, 1.5, leaf.bound))


@pytest.mark.parametrize("candidate", [0.0, math.nan, math.inf, 1e300])
@pytest.mark.parametrize("bound", [0.0, math.nan, math.inf, 1e-300])
def test_odd_numbers_are_drawn_too(candidate: float, bound: float) -> None:
    """No coordinate is NaN, whatever was found."""
    ladder = worst(1.01).ladder
    assert ladder is not None
    broken = replace(ladder, quotients=(math.inf,) * 15, extrapolated=(math.nan,) * 15)
    for one in (ladder, broken, replace(broken, value=math.nan)):
        picture = of_ladder(one, candidate, bound)
        assert not re.search(r'="-?(nan|inf)', picture)
        ElementTree.fromstring(picture)


def test_no_picture_evaluates_the_loss() -> None:
    """All is drawn from the record."""
    calls = itertools.count()

    def counted(x: Any) -> Any:
        next(calls)
        return float(np.sum(np.sin(np.asarray(x))))

    report = check_gradients(counted, X, 2 * np.cos(X))
    before = next(calls)
    assert report.as_html().count("<svg") >= 2
    assert next(calls) == before + 1


def test_a_map_shows_where_a_large_leaf_is_wrong() -> None:
    """One row of 30 × 20: those entries and no others."""
    x = np.random.default_rng(0).standard_normal((30, 20))
    wrong = np.cos(x)
    wrong[4] *= 1.2
    leaf = check_gradients(loss, x, wrong).worst
    assert isinstance(leaf, LeafReport)
    assert leaf.error_map is not None
    assert leaf.error_map.shape == (30, 20)
    errors = np.zeros((24, 20))
    errors[3] = np.abs(0.2 * np.cos(x[4]))  # rows 3.75 to 5 of 30 are block 3 of 24
    np.testing.assert_allclose(leaf.error_map.errors, errors, atol=1e-9)
    assert len(leaf.pictures) == 2
    assert worst(1.0).error_map is None


def test_a_map_that_fails_changes_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is an explanation: the words say that it failed."""

    def broken(wrong: Any) -> Any:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(WrongLeaf, "error_map", property(broken))
    leaf = worst(1.01)
    assert leaf.verdict is Verdict.DISAGREE
    assert "×1.01" in leaf.cause or "this coordinate alone" in leaf.cause
    assert "the explanation failed: RuntimeError: no such kernel" in leaf.cause


@pytest.mark.parametrize("shape", [(), (1,), (7,), (3, 100), (200, 5), (2, 3, 400)])
def test_blocks_of_a_map(shape: tuple[int, ...]) -> None:
    """Each keeps the largest of its entries; what is within its bound is 0."""
    apart = np.asarray(np.random.default_rng(0).uniform(1, 2, shape))
    found = ErrorMap.of(apart, np.ones(shape))
    rows, columns = len(found.errors), len(found.errors[0])
    assert rows <= 24
    assert columns <= 48
    assert max(map(max, found.errors)) == np.max(apart)
    assert math.prod(found.shape) == apart.size
    assert of_errors(found).count("<path") == 1  # all within a factor of 10
    assert of_errors(ErrorMap.of(apart, np.full(shape, 2.0))) == ""


def test_shades_are_powers_of_ten() -> None:
    """From the largest down; what is smaller than all has the last."""
    errors = np.array([1.0, 0.5, 0.05, 1e-9])
    found = drawn(of_errors(ErrorMap.of(errors, np.zeros(4))))
    assert [x.get("opacity") for x in found["shade"]] == ["1.0", "0.8", "0.2"]
    assert [x.get("d", "").count("M") for x in found["shade"]] == [2, 1, 1]


def test_a_jax_gradient_has_pictures_too() -> None:
    """Traced and widened: nothing in the record is an array."""
    (leaf,) = check_gradients(loss, jax.numpy.asarray(X, "float32")).leaves
    assert leaf.ladder is not None
    assert {type(x) for x in leaf.ladder.steps} == {float}
