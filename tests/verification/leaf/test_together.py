"""Deep models: many leaves by few ladders, and a wrong one is named all the same."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import Verdict, check_gradients
from jaxnet.verification import GradientReport
from jaxnet.verification.leaf.second_point import UNUSED

LAYERS, WIDTH = 30, 6
LADDERS = LAYERS * (WIDTH * WIDTH + WIDTH)
"""What one ladder a coordinate would take, of 32 evaluations each."""

Params = dict[str, Any]


def model(**more: np.ndarray) -> tuple[Callable[[Params], Any], Params]:
    """A residual net of 60 leaves, all of them small, and leaves that others add."""
    random = np.random.default_rng(3)
    images = random.normal(size=(4, WIDTH))
    params: Params = {"layers": []} | more
    for _ in range(LAYERS):
        weight = random.normal(size=(WIDTH, WIDTH)) / WIDTH
        params["layers"].append({"w": weight, "b": random.normal(size=WIDTH)})

    def loss(p: Params) -> Any:
        x = jnp.asarray(images)
        for layer in p["layers"]:
            x = x + jnp.tanh(x @ layer["w"] + layer["b"][None]) / LAYERS
        return jnp.mean(x**2)

    return loss, params


def wrong_in(loss: Any, *names: tuple[int, str]) -> Callable[[Params], Params]:
    """Its gradient, with the second entry of some leaves off by a thousandth."""

    def gradient(p: Params) -> Params:
        found = jax.grad(loss)(p)
        for number, name in names:
            leaf = found["layers"][number][name]
            index = (1,) * leaf.ndim
            found["layers"][number][name] = leaf.at[index].multiply(1.001)
        return found

    return gradient


def failed(report: GradientReport) -> list[str]:
    """Where the report finds fault."""
    return [leaf.place for leaf in report.leaves if not leaf.passed]


@pytest.mark.slow
def test_right_leaves_share_their_ladders() -> None:
    """Sixty agree by a handful of ladders, each resolved to a millionth."""
    report = check_gradients(*model())
    assert report.passed
    assert {leaf.verdict for leaf in report.leaves} == {Verdict.AGREE}
    assert max(leaf.resolution for leaf in report.leaves) <= 1e-6
    assert report.evaluations <= LADDERS
    assert "right on 60 leaves" in str(report)


@pytest.mark.slow
@pytest.mark.parametrize("where", [(0, "w"), (17, "b"), (29, "w")])
def test_one_wrong_leaf_is_named(where: tuple[int, str]) -> None:
    """With its entry, among 59 that agree; by far fewer ladders than coordinates."""
    loss, params = model()
    report = check_gradients(loss, params, wrong_in(loss, where))
    number, name = where
    index = "[1, 1]" if name == "w" else "[1]"
    assert failed(report) == [f"['layers'][{number}]['{name}']{index}"]
    assert report.evaluations <= 4 * LADDERS


@pytest.mark.slow
def test_two_wrong_leaves_and_two_candidates() -> None:
    """Leaves that one candidate has wrong are right in the other's report."""
    loss, params = model()
    both = wrong_in(loss, (2, "w"), (20, "b"))
    given = {"right": jax.grad(loss), "wrong": both}
    report = check_gradients(loss, params, given)
    assert sorted(failed(report)) == [
        "['layers'][20]['b'][1]",
        "['layers'][2]['w'][1, 1]",
    ]
    assert {x.candidate for x in report.leaves if not x.passed} == {"wrong"}


@pytest.mark.slow
def test_errors_that_cancel_along_one_direction_are_seen_by_another() -> None:
    """Whatever the signs of a probe: the second has others."""
    loss, params = model()
    right = jax.grad(loss)

    def gradient(p: Params) -> Params:
        found = right(p)
        for number, sign in ((3, 1.0), (4, -1.0)):
            layer = found["layers"][number]
            layer["b"] = layer["b"].at[0].add(sign * 1e-4)
        return found

    found = failed(check_gradients(loss, params, gradient))
    assert found == ["['layers'][3]['b'][0]", "['layers'][4]['b'][0]"]


@pytest.mark.slow
def test_a_leaf_that_rounding_alone_moves_needs_no_ladder_of_its_own() -> None:
    """A shift before a softmax has a gradient of 1e-17: it is zero but for rounding."""
    loss, params = model(shift=np.ones(1), scale=np.ones(WIDTH))

    def shifted(p: Params) -> Any:
        scores = p["scale"] + p["shift"]
        return loss(p) + jax.nn.softmax(scores)[0] * p["scale"][1]

    report = check_gradients(shifted, params)
    assert report.passed
    (leaf,) = [leaf for leaf in report.leaves if leaf.path == "['shift']"]
    assert leaf.verdict is Verdict.AGREE


@pytest.mark.slow
def test_a_kink_among_many_leaves_is_found() -> None:
    """The group is taken apart, and the rest agrees."""
    loss, params = model(edge=np.zeros(3))
    report = check_gradients(lambda p: loss(p) + jnp.sum(jnp.abs(p["edge"])), params)
    assert report.passed
    kinked = [x.path for x in report.leaves if x.verdict is not Verdict.AGREE]
    assert kinked == ["['edge']"]


@pytest.mark.slow
def test_an_unused_leaf_costs_nothing() -> None:
    """The program shows that there is no path; a gradient of it is wrong."""
    loss, params = model()
    _, with_unused = model(left=np.ones(5), out=np.ones((9, 9)))
    before = check_gradients(loss, params)
    report = check_gradients(loss, with_unused)
    assert report.evaluations == before.evaluations
    unused = [x for x in report.leaves if x.path in ("['left']", "['out']")]
    assert [(x.verdict, x.cause) for x in unused] == [(Verdict.AGREE, UNUSED)] * 2

    def gradient(p: Params) -> Params:
        return jax.grad(loss)(p) | {"left": jnp.ones(5)}

    report = check_gradients(loss, with_unused, gradient)
    assert failed(report) == ["['left'][0]"]


@pytest.mark.slow
def test_a_budget_of_evaluations() -> None:
    """What was not looked at does not pass, and says why; what was, has its verdict."""
    loss, params = model()
    params["layers"] = params["layers"][:2]
    whole = check_gradients(loss, params)
    report = check_gradients(loss, params, budget=whole.evaluations // 2)
    assert not report.passed
    assert report.evaluations <= whole.evaluations // 2
    unseen = [leaf for leaf in report.leaves if "not looked at" in leaf.cause]
    assert {leaf.verdict for leaf in unseen} == {Verdict.UNRESOLVED}
    assert 0 < len(unseen) < len(report.leaves)
    assert "not looked at: the budget of" in str(report)
    assert check_gradients(loss, params, budget=whole.evaluations).passed


@pytest.mark.slow
def test_a_budget_that_ends_between_two_candidates() -> None:
    """Each has one record of the leaf: the first its verdict, the second that."""
    x = np.ones(100)
    given = {"right": 2 * x, "wrong": np.where(np.arange(100) == 7, 3.0, 2 * x)}
    whole = check_gradients(lambda x: jnp.sum(x**2), x, given)
    report = check_gradients(
        lambda x: jnp.sum(x**2), x, given, budget=whole.evaluations - 32
    )
    assert [leaf.candidate for leaf in report.leaves] == ["right", "wrong"]
    assert [leaf.verdict for leaf in report.leaves] == [
        Verdict.AGREE,
        Verdict.UNRESOLVED,
    ]


@pytest.mark.slow
def test_a_budget_of_time() -> None:
    """None is left after a microsecond; an hour is enough."""
    loss, params = model()
    spent = check_gradients(loss, params, budget=timedelta(microseconds=1))
    assert len(failed(spent)) == len(spent.leaves)
    assert check_gradients(loss, params, budget=timedelta(hours=1)).passed


@pytest.mark.parametrize("budget", [0, -1, timedelta(0), 0.5, "1 min"])
def test_no_budget_is_an_error(budget: Any) -> None:
    """One line that says what is expected."""
    with pytest.raises((TypeError, ValueError), match="budget"):
        check_gradients(*model(), budget=budget)
