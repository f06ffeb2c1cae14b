"""check_gradients gives the verdict, the place and the cause that every case states."""

import functools
import re
from typing import Any

import jax
import numpy as np
import pytest

from experiments.gradient_cases import FAMILIES, Case, all_cases, plant
from jaxnet.verification import GradientReport, LeafReport, Verdict, check_gradients

CASES = all_cases()
RANDOM = [case for case in CASES if case.answers == ("NONDETERMINISTIC",)]
REFUSED = ["loss_is_nan"]
"""Cases without a report: the loss has no value at the point."""


@functools.cache
def report_of(name: str) -> GradientReport:
    """The report of a case, made once."""
    (case,) = (case for case in CASES if case.name == name)
    return check_gradients(case.loss, case.params, case.candidate)


def indices_by_path(case: Case) -> dict[str, list[tuple[int, ...] | None]]:
    """The coordinates that a case names in each leaf."""
    paths = {
        jax.tree_util.keystr(path)
        for path, _ in jax.tree_util.tree_leaves_with_path(case.params)
    }
    found: dict[str, list[tuple[int, ...] | None]] = {}
    for place in case.places:
        indexed = re.fullmatch(r"(.*)\[([\d, ]+)\]", place)
        if place in paths or not indexed:
            found.setdefault(place, []).append(None)
        else:
            index = tuple(map(int, indexed[2].split(",")))
            found.setdefault(indexed[1], []).append(index)
    return found


def is_named(leaf: LeafReport, index: tuple[int, ...] | None) -> bool:
    """Whether a leaf's record says something of the coordinate, or of the leaf."""
    return index is None or leaf.worst_index == index or str(list(index)) in leaf.cause


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", [c for c in CASES if c.name not in REFUSED], ids=lambda c: c.name
)
def test_a_case_gets_its_answer(case: Case) -> None:
    """Verdict, place and cause; a wrong candidate never passes.

    A right one does, unless the function is random or the point says nothing.
    """
    report = report_of(case.name)
    assert report.verdict.value in case.answers, str(report)
    if not case.right or case in RANDOM:
        assert not report.passed, str(report)
    elif report.verdict not in (Verdict.UNRESOLVED, Verdict.UNINFORMATIVE):
        assert report.passed, str(report)
    places_are_named(case, report)
    said = [leaf.cause for leaf in report.leaves] + list(report.notes)
    assert any(case.cause in text for text in said), str(report)


def places_are_named(case: Case, report: GradientReport) -> None:
    """Every leaf a case names is spoken of, by one of its coordinates; no other is."""
    spoken = [
        leaf
        for leaf in report.leaves
        if leaf.verdict is report.verdict and leaf.verdict.value == case.answers[0]
    ]
    places = indices_by_path(case)
    for path, indices in places.items():
        (leaf,) = (leaf for leaf in spoken if leaf.path == path)
        assert any(is_named(leaf, index) for index in indices), str(report)
        if leaf.worst_index and None not in indices:
            assert leaf.worst_index in indices
    if places:
        assert {leaf.path for leaf in spoken} == set(places), str(report)


@pytest.mark.parametrize("name", REFUSED)
def test_a_point_without_a_value_is_refused(name: str) -> None:
    """One line says that the loss is not finite at the point."""
    with pytest.raises(ValueError, match=r"^`loss\(params\)`: .*got nan; .*$"):
        report_of(name)


def test_a_bare_array_has_a_place() -> None:
    """The path of a bare array is empty; the table calls it `params`."""
    report = report_of("bare_array_one_coord_0.1pct")
    assert report.worst.path == ""
    assert report.worst.place == "params[7]"
    assert "params[7]" in str(report)


def test_every_kink_of_a_leaf_is_named() -> None:
    """max has two equal entries: one is the worst, the other stands in the cause."""
    worst = report_of("max_tie").worst
    assert {worst.worst_index, *_also(worst)} == {(1,), (3,)}
    assert "reduce_max" in worst.cause


def _also(leaf: LeafReport) -> set[tuple[int, ...]]:
    found = re.search(r"also at ((?:\[[\d, ]+\](?:, )?)+)", leaf.cause)
    lists = re.findall(r"\[([\d, ]+)\]", found[1]) if found else []
    return {tuple(map(int, text.split(","))) for text in lists}


def test_a_kink_does_not_hide_a_mistake_elsewhere() -> None:
    """The verdict is of the mistake at [2], not of the kink at [1]."""
    worst = report_of("relu_kink_wrong_elsewhere").worst
    assert worst.verdict is Verdict.DISAGREE
    assert worst.worst_index == (2,)


@pytest.mark.slow
def test_a_public_case_names_its_factor_with_its_place() -> None:
    """×N says whose size N is, and that a mean was not taken."""
    cause = report_of("mlp_times_batch").worst.cause
    assert re.search(r"×\d+; did you forget to divide by the batch size", cause)


@pytest.mark.slow
def test_one_sign_of_100_000_is_found_by_halving() -> None:
    """In at most 3000 evaluations, also where no other gradient is there to compare."""
    assert report_of("one_coord_of_1e5").worst.evaluations <= 3000


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_random_functions_at_any_scale(name: str) -> None:
    """The right gradient is not accused, and one coordinate off by 1e-3 is named."""
    random = np.random.default_rng([17, *name.encode()])
    loss, params, gradient = FAMILIES[name](random, 10.0 ** random.uniform(-3, 3))
    wrong, path, index = plant(np.random.default_rng(18), gradient, 1e-3)
    report = check_gradients(loss, params, {"right": gradient, "wrong": wrong})
    right = [leaf for leaf in report.leaves if leaf.candidate == "right"]
    assert all(leaf.passed for leaf in right), str(report)
    wrongs = _by_path(report, "wrong")
    assert wrongs.pop(path).worst_index == tuple(index), str(report)
    assert all(leaf.passed for leaf in wrongs.values()), str(report)
    assert report.odd_one_out == "wrong"


def _by_path(report: GradientReport, candidate: str) -> dict[str, Any]:
    return {leaf.path: leaf for leaf in report.leaves if leaf.candidate == candidate}
