"""Estimators of a gradient are right in the mean, at the price that is stated."""

import json
import sys
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import zeroth_order as experiment
from jaxnet import gradients, init_params
from tests.tolerances import close

pytestmark = pytest.mark.slow

DRAWS, DIRECTIONS = 200, 20
DEVIATIONS = 6.0
"""Of 23 entries none is so many standard errors off in a lifetime; and of the noise of
their float32 values and their curvature there is a tenth of one."""

PARAMS = init_params(0, (4, 3, 2), scale=0.5)
IMAGES = np.random.default_rng(0).random((6, 4), np.float32)
LABELS = np.array([0, 1, 1, 0, 1, 0])
projected = partial(partial, experiment.projected)
ESTIMATORS = {
    "SPSA": projected(experiment.signs, experiment.by_difference, DIRECTIONS),
    "MeZO": projected(experiment.normal, experiment.by_difference, DIRECTIONS),
    "forward": projected(experiment.normal, experiment.by_jvp, DIRECTIONS),
    "rank one": partial(experiment.rank_one, DIRECTIONS),
}


def deviations(estimator: experiment.Estimator) -> float:
    """How many standard errors the mean of many draws is from jax.grad, at most."""
    keys = jax.random.split(jax.random.key(1), DRAWS)
    draw = jax.jit(jax.vmap(lambda key: estimator(key, PARAMS, IMAGES, LABELS)))
    right = gradients.autodiff(PARAMS, IMAGES, LABELS)
    apart = [
        np.abs(each.mean(axis=0) - want) / (each.std(axis=0) / np.sqrt(DRAWS))
        for each, want in zip(
            jax.tree.leaves(jax.tree.map(np.asarray, draw(keys))),
            jax.tree.leaves(jax.tree.map(np.asarray, right)),
            strict=True,
        )
    ]
    return max(float(leaf.max()) for leaf in apart)


@pytest.mark.parametrize("name", ESTIMATORS)
def test_an_estimator_is_right_in_the_mean(name: str) -> None:
    """The mean over random directions is jax.grad's, within its standard error."""
    assert deviations(ESTIMATORS[name]) < DEVIATIONS


def twice(key, params, images, labels):
    """A difference divided by h where 2h is due."""
    slopes = ESTIMATORS["SPSA"](key, params, images, labels)
    return jax.tree.map(lambda leaf: 2 * leaf, slopes)


def lopsided(key, params):
    """Directions whose mean is not 0."""
    return jax.tree.map(lambda z: (z + 1) / np.sqrt(2), experiment.signs(key, params))


@pytest.mark.parametrize(
    "wrong",
    [
        twice,
        projected(lopsided, experiment.by_difference, DIRECTIONS),
        lambda *batch: jax.tree.map(jnp.negative, ESTIMATORS["forward"](*batch)),
        lambda *batch: tuple(
            layer._replace(weight=layer.weight * 4.0)
            for layer in ESTIMATORS["rank one"](*batch)
        ),
    ],
    ids=["2h", "lopsided", "sign", "factor"],
)
def test_a_wrong_estimator_is_caught(wrong: experiment.Estimator) -> None:
    """Its mean is many standard errors off."""
    assert not deviations(wrong) < DEVIATIONS


def test_rank_one_members_are_networks_of_their_own() -> None:
    """One pair's slope is the difference of the whole loss at the moved parameters."""
    key = jax.random.key(3)
    first, last = experiment.rank_one(1, key, PARAMS, IMAGES, LABELS)
    c = jax.random.split(jax.random.split(key, 3)[2], 2)
    slope = first.bias / jax.random.normal(c[0], (1, 3), jnp.float32)[0]
    z = jax.tree.map(lambda leaf: leaf / slope[0], (first, last))
    sigma = experiment.SIGMA
    up, down = (
        experiment.loss(experiment.along(PARAMS, far, z), IMAGES, LABELS)
        for far in (sigma, -sigma)
    )
    assert close((up - down) / (2 * sigma), slope[0], "float32", "difference")
    assert np.linalg.matrix_rank(np.asarray(first.weight), tol=1e-5) == 1


def test_each_method_runs_and_is_drawn(monkeypatch, capsys, tmp_path) -> None:
    """In the quick mode: a line and a curve each, at the price of each step."""
    words = ["zeroth_order", "--quick", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", words)
    experiment.main()
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines()[:-1])) <= 80
    curves = json.loads((tmp_path / "zeroth_order.json").read_text())
    prices = {m.name: m.evaluations for m in experiment.METHODS}
    assert prices["exact differences"] == 2 * 39_760
    assert set(curves) >= {m.name for m in experiment.METHODS if m.estimator}
    for name, curve in curves.items():
        assert name in text
        for point in curve:
            assert point["evaluations"] == prices[name] * point["steps"]
    assert curves["backprop"][-1]["test_accuracy"] > 0.5
    assert (tmp_path / "zeroth_order.png").stat().st_size > 5000


def test_the_sweep_names_the_best(monkeypatch, capsys) -> None:
    """Of the learning rates it tried."""
    words = ["zeroth_order", "--quick", "--sweep", "--methods", "backprop"]
    monkeypatch.setattr(sys, "argv", words)
    experiment.main()
    said = capsys.readouterr().out
    assert said.startswith("backprop: best ")
    assert len(said.splitlines()) == 2
