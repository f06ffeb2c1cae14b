"""The cases of programs as they are run say what is true, shown without the verifier.

The reference are differences of the loss in its own dtype, by one coordinate, at two
steps that follow each other and agree best.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.gradient_cases import Case, program_cases

pytestmark = pytest.mark.slow

CASES = {case.name: case for case in program_cases()}
PAIRS = [
    name.removesuffix("_wrong")
    for name in CASES
    if name.endswith("_wrong") and name.removesuffix("_wrong") + "_right" in CASES
]
STEPS = {"float64": np.arange(2, 40), "float32": np.arange(2, 14)}
"""By the dtype of the leaf: they end before rounding gives the same quotient twice…"""
OF_A_RIPPLE = np.arange(30, 36)
"""…and begin within a wave of 6e-6 beside 1e3."""


def gradient_of(case: Case) -> dict[str, np.ndarray]:
    """The candidate's leaves at the case's point, in float64."""
    found = case.candidate
    if callable(found):
        found = found(case.params)
    return {k: np.asarray(v, np.float64) for k, v in found.items()}


def difference(case: Case, leaf: str, index: tuple[int, ...]) -> float:
    """The slope of the loss by one coordinate."""
    x = np.asarray(case.params[leaf])
    slopes = []
    powers = OF_A_RIPPLE if case.name.startswith("ripple") else STEPS[x.dtype.name]
    for step in 2.0**-powers * abs(float(x[index])):
        moved = [x.copy(), x.copy()]
        moved[0][index] += step
        moved[1][index] -= step
        apart = float(moved[0][index]) - float(moved[1][index])
        values = [float(case.loss({**case.params, leaf: m})) for m in moved]
        slopes.append((values[0] - values[1]) / apart if apart else np.nan)
    slopes = np.array([s for s in slopes if np.isfinite(s) and s])
    best = int(np.argmin(np.abs(np.diff(slopes)) / np.abs(slopes[1:])))
    return float(np.mean(slopes[best : best + 2]))


@pytest.mark.parametrize("name", PAIRS)
def test_differences_tell_the_right_one_from_the_wrong_one(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Where they differ most, by the place that is named; elsewhere they are equal."""
    right, wrong = CASES[f"{name}_right"], CASES[f"{name}_wrong"]
    is_double = all(x.dtype == np.float64 for x in right.params.values())
    with jax.enable_x64(is_double):
        good, bad = gradient_of(right), gradient_of(wrong)
        (place,) = wrong.places
        [(leaf, where)] = re.findall(r"^\['(\w+)'\](.*)$", place)
        apart = np.abs(good[leaf] - bad[leaf])
        worst = np.unravel_index(int(np.argmax(apart)), apart.shape)
        if where:
            assert where == str(list(map(int, worst)))
            assert np.count_nonzero(apart) == 1
        assert all(np.array_equal(good[k], bad[k]) for k in good if k != leaf)
        monkeypatch.setattr(jnp, "bfloat16", jnp.float32)  # its loss in float32
        (twin,) = (case for case in program_cases() if case.name == right.name)
        found = difference(twin, leaf, worst)
    off = abs(found - good[leaf][worst])
    assert off < apart[worst] / 3
    assert off < 0.05 * abs(good[leaf][worst])
