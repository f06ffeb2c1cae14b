"""Many parameters: one copy of them at a time, and the same answers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxnet import Verdict, check_gradients
from jaxnet.network import BOOK_NETWORK, mean_loss
from jaxnet.verification import GradientReport, point
from jaxnet.verification.candidates.callables import CalledGradient, LeafByLeaf
from jaxnet.verification.function import lines
from tests.problems import problem

MISTAKE, PLACE = 1e-3, (4, 1)


@pytest.fixture
def as_if_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small net is treated as a large one is."""
    monkeypatch.setattr(point, "MANY", 0)
    monkeypatch.setattr(lines, "LINE_BYTES", 0)


def reports() -> dict[str, GradientReport]:
    """Of a right gradient, and of one with an entry that is off."""
    params, images, labels = problem()

    def loss(params: Any) -> jax.Array:
        return mean_loss(params, images, labels, BOOK_NETWORK)

    def wrong(params: Any) -> Any:
        first, second = jax.grad(loss)(params)
        weight = first.weight.at[PLACE].multiply(1 + MISTAKE)
        return first._replace(weight=weight), second

    candidates = {"autodiff": None, "right": jax.grad(loss), "wrong": wrong}
    return {
        name: check_gradients(loss, params, candidate, every_coordinate=False)
        for name, candidate in candidates.items()
    }


@pytest.mark.slow
def test_the_answers_are_those_of_a_small_net(
    request: pytest.FixtureRequest,
) -> None:
    """Verdicts, resolutions, and the place of a mistake in one entry of 30."""
    one = reports()
    request.getfixturevalue("as_if_many")
    many = reports()
    for name, report in many.items():
        assert report.passed == one[name].passed == (name != "wrong")
        for a, b in zip(report.leaves, one[name].leaves, strict=True):
            assert (a.path, a.verdict) == (b.path, b.verdict)
            assert 0.1 < a.resolution / b.resolution < 10
    a, b = many["wrong"].worst, one["wrong"].worst
    assert a.worst_index == b.worst_index == PLACE
    assert np.isclose(a.reference_value, b.reference_value, rtol=1e-9)


@pytest.mark.slow
@pytest.mark.usefixtures("as_if_many")
def test_a_gradient_is_not_held(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is computed twice to see that it repeats, and once a leaf when it is read."""
    params, images, labels = problem()
    calls, compute = [], CalledGradient.at

    def loss(params: Any) -> jax.Array:
        return mean_loss(params, images, labels, BOOK_NETWORK)

    def counted(self: CalledGradient, point: Any) -> Any:
        calls.append(1)
        return compute(self, point)

    monkeypatch.setattr(CalledGradient, "at", counted)
    assert check_gradients(loss, params, jax.grad(loss)).passed
    examined = survived = len(jax.tree.leaves(params))
    assert len(calls) == 2 + examined + survived


def test_leaf_by_leaf() -> None:
    """The last leaf that was read is kept, and no other."""
    computed = []

    def compute() -> list[np.ndarray]:
        computed.append(1)
        return [np.full(3, 1.0), np.full(2, 2.0)]

    gradient = LeafByLeaf(compute, 2)
    assert [g.size for g in gradient] == [3, 2]
    assert gradient[1] is gradient[1]
    assert len(computed) == 2
    with pytest.raises(IndexError):
        gradient[2]


@pytest.mark.slow
def test_one_time_after_the_other(as_if_many: None) -> None:
    """What cannot be vmapped is evaluated by the same program, 32 times a line."""
    calls = []

    def cubed(x: np.ndarray) -> np.ndarray:
        calls.append(1)
        return x**3

    def loss(params: Any) -> jax.Array:
        shape = jax.ShapeDtypeStruct(params["w"].shape, params["w"].dtype)
        return jnp.sum(jax.pure_callback(cubed, shape, params["w"]))

    point = {"w": np.linspace(1, 2, 5)}
    report = check_gradients(loss, point, lambda p: {"w": 3 * p["w"] ** 2})
    assert report.passed
    assert len(calls) >= report.evaluations


@pytest.mark.usefixtures("as_if_many")
@pytest.mark.parametrize("later", ["raises", "doubled", "nan", "missing", "none"])
def test_a_gradient_that_is_another_when_it_is_read_again(later: str) -> None:
    """It is the same twice, so that it is found out by the reading for each leaf."""
    calls = [0]

    def loss(params: Any) -> jax.Array:
        return jnp.sum(jnp.sin(params["a"])) + jnp.sum(params["b"] ** 2)

    def candidate(params: Any) -> Any:
        gradient = {"a": np.cos(np.asarray(params["a"])), "b": 2 * params["b"]}
        calls[0] += 1
        if calls[0] <= 2 or later == "none":
            return gradient
        if later == "raises":
            raise RuntimeError
        if later == "missing":
            del gradient["b"]
        else:
            gradient["b"] = gradient["b"] * {"doubled": 2, "nan": np.nan}[later]
        return gradient

    params = {"a": np.linspace(1, 2, 5), "b": np.linspace(1, 2, 5)}
    report = check_gradients(loss, params, candidate)
    assert report.passed == (later == "none")
    assert [x.path for x in report.leaves] == ["['a']", "['b']"]
    wanted = Verdict.AGREE if later == "none" else Verdict.NONDETERMINISTIC
    assert {x.verdict for x in report.leaves} == {wanted}


@pytest.mark.slow
@pytest.mark.usefixtures("as_if_many")
def test_without_jit() -> None:
    """jax.disable_jit, as one debugs with, is no hindrance."""
    with jax.disable_jit():
        report = check_gradients(lambda p: jnp.sum(jnp.sin(p)), np.linspace(0, 1, 5))
    assert report.passed
