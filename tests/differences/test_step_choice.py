"""The ladder of steps: a slope, and a bound that holds, whatever the function does."""

from collections.abc import Callable

import numpy as np
import pytest

from jaxnet.differences.step_ladder import (
    FINER,
    LEVELS,
    RATIO,
    SMALLEST,
    STEPS,
    TIMES,
    DirectionalDerivative,
    from_ladder,
)
from jaxnet.precision import DOUBLE

Phi = Callable[[np.ndarray], np.ndarray]

SMOOTH: dict[str, tuple[Phi, float]] = {
    "sine": (np.sin, 1.0),
    "exponential": (np.exp, 1.0),
    "line": (lambda t: 3 * t - 2, 3.0),
    "cubic": (lambda t: (1 + t) ** 3, 3.0),
    "logarithm": (lambda t: np.log1p(t), 1.0),
    "fast sine": (lambda t: np.sin(300 * t), 300.0),
    "offset": (lambda t: 1e8 + np.sin(t), 1.0),
    "huge": (lambda t: 1e150 * np.sin(t), 1e150),
    "tiny": (lambda t: 1e-150 * np.sin(t), 1e-150),
    "even": (np.cos, 0.0),
    "constant": (lambda t: np.full_like(t, 0.3), 0.0),
}
KINDS = pytest.mark.parametrize("kind", SMOOTH)


def of(phi: Phi, noise: float = 0.0) -> DirectionalDerivative:
    """The slope of a function of the time, which rounds to float64 at least."""
    with np.errstate(all="ignore"):
        values = phi(TIMES)
        return from_ladder(values, max(noise, DOUBLE * abs(float(values[0])) / 4))


def is_within(found: DirectionalDerivative, true: float) -> bool:
    """Whether the truth lies within the bound."""
    return abs(found.central.value - true) <= found.central.bound


@KINDS
def test_the_truth_lies_within_the_bound(kind: str) -> None:
    """The bound is no guess: one bound holds, without any safety factor."""
    phi, true = SMOOTH[kind]
    found = of(phi)
    assert found.central.converged
    assert is_within(found, true)
    assert not found.has_kink
    assert not found.jump


@KINDS
def test_the_bound_is_narrow(kind: str) -> None:
    """What is lost is the rounding of phi over the step, and ε of the slope."""
    phi, true = SMOOTH[kind]
    found = of(phi)
    lost = 64 * DOUBLE * found.size / STEPS[0] + 1e3 * SMALLEST
    assert found.central.bound <= lost + 1e-9 * abs(true)


def test_a_slope_off_by_a_thousandth_is_outside() -> None:
    """The check that the bounds above are worth something."""
    for phi, true in SMOOTH.values():
        if true:
            assert not is_within(of(phi), 1.001 * true) or true < 1e-8 * of(phi).size


def test_times_are_symmetric_and_shrink() -> None:
    """±h at every level, and 0 twice; exact in binary, and on no common lattice."""
    forward, backward = TIMES[2 : 2 + LEVELS], TIMES[2 + LEVELS :]
    assert (TIMES[:2] == 0).all()
    assert (forward == -backward).all()
    ratios = forward[:-1] / forward[1:]
    assert ((ratios > RATIO / 1.3) & (ratios < RATIO * 1.3)).all()
    assert (FINER * forward * 2.0**46 % 1 == 0).all()
    multiples = forward[:-1] / forward[-1]
    assert np.count_nonzero(multiples % 1) > LEVELS / 2


def test_an_accidentally_tiny_difference_is_not_believed() -> None:
    """Two neighbouring estimates agree by chance; the larger neighbour counts.

    phi = t + c t⁵ - d t⁷ with d such that Richardson's values at the two coarsest
    pairs of steps are one number, and wrong.
    """

    def richardson(power: int) -> np.ndarray:
        central = STEPS ** (power - 1)
        return (RATIO**2 * central[1:] - central[:-1]) / (RATIO**2 - 1)

    ratio = np.diff(richardson(5))[0] / np.diff(richardson(7))[0]
    found = of(lambda t: t + 5e4 * (t**5 - ratio * t**7), noise=1e-9)
    first = 1 + 5e4 * (richardson(5) - ratio * richardson(7))
    assert first[0] == pytest.approx(first[1], rel=1e-12)
    assert abs(first[0] - 1) > 1e-2
    assert is_within(found, 1.0)


def test_the_plateau_of_a_chaotic_map_is_not_believed() -> None:
    """60 rounds of 3.9 x (1 - x): at large h the quotient is bounded, as if calm."""

    def phi(t: np.ndarray) -> np.ndarray:
        x = 0.37 + 0.25 * t
        for _ in range(60):
            x = 3.9 * x * (1 - x)
        return x

    assert not of(phi).central.converged


def test_a_calm_large_step_must_agree_with_all_finer_ones() -> None:
    """A slope of 1 holds down to h = 1e-3 only: below it is 2, which is the limit."""

    def phi(t: np.ndarray) -> np.ndarray:
        return t + np.clip(t, -1e-3, 1e-3)

    found = of(phi)
    assert is_within(found, 2.0)
    assert not is_within(found, 1.0)


@pytest.mark.parametrize("between", [0.0, 0.25, 0.499])
def test_a_staircase_is_no_jump(between: float) -> None:
    """float32 inside float64: its noise known, the slope is found at wide steps.

    Also at the very edge of a tread, where the value rises however small the step is.
    """
    start = float(np.float32(0.7)) + between * float(np.spacing(np.float32(0.7)))
    found = of(lambda t: np.sin(np.float32(start + t)).astype(np.float64), 6e-8)
    assert not found.jump
    assert not found.has_kink
    assert is_within(found, np.cos(start))
    assert 1e-8 < found.central.bound < 1e-3


@pytest.mark.parametrize("side", [-1, 1])
@pytest.mark.parametrize("distance", [2e-7, 3e-5, 1e-3])
def test_a_kink_beside_the_point_is_stepped_over(distance: float, side: int) -> None:
    """|t - 2e-7| falls with slope 1 at 0: steps wider than 2e-7 say 0, and lie."""
    found = of(lambda t: np.abs(t - side * distance) + np.sin(t))
    assert is_within(found, 1.0 - side)
    assert found.central.converged
    assert not found.has_kink


@pytest.mark.parametrize(
    ("left", "right"), [(0, 1), (-1, 1), (1, 0.01), (2, 2.001), (-5, 3)]
)
def test_a_kink_at_the_point_has_two_slopes(left: float, right: float) -> None:
    """Its interval ends with them."""
    found = of(lambda t: np.where(t < 0, left, right) * t + 0.3 + t**2)
    assert found.has_kink
    assert found.interval == pytest.approx(sorted((left, right)), abs=1e-6)
    assert found.one_sided.value == pytest.approx(right - left, abs=1e-6)


def test_no_kink_where_the_slopes_are_one() -> None:
    """A kink in the second derivative, as Huber's loss has, is none."""
    found = of(lambda t: np.where(t < 0, 0.5, 2.0) * t**2 + t)
    assert not found.has_kink
    assert is_within(found, 1.0)


@pytest.mark.parametrize("height", [1e-6, 0.5, -3.0])
def test_a_jump_is_seen_and_measured(height: float) -> None:
    """However small: it stays while h shrinks."""
    found = of(lambda t: np.sin(t) + np.where(t >= 0, height, 0.0))
    assert found.jump == pytest.approx(abs(height), rel=0.05)


def test_a_jump_to_both_sides_is_as_high_as_both() -> None:
    """sign: from -1 over 0 to 1."""
    assert of(lambda t: np.sin(t) + np.sign(t)).jump == pytest.approx(2, rel=0.05)


def test_a_kink_a_hair_away_is_no_jump() -> None:
    """|t - 1e-12|: both sides differ by 2e-12 at any step, and neither jumps."""
    assert not of(lambda t: np.abs(t - 1e-12)).jump


def finer(phi: Phi) -> DirectionalDerivative:
    """The slope by the finer ladder."""
    return from_ladder(phi(FINER * TIMES), 1e-16, FINER)


def test_a_finer_ladder_for_what_changes_fast() -> None:
    """sin 1e8 t within steps of 1e-6 to 1e-14, where the first ladder is lost."""

    def fast(t: np.ndarray) -> np.ndarray:
        return np.sin(0.3 + 1e8 * t)

    assert not of(fast).central.converged
    assert finer(fast).central.converged
    assert is_within(finer(fast), 1e8 * np.cos(0.3))


def test_a_staircase_settles_on_no_finer_ladder() -> None:
    """Flat on its stairs, which is no slope of 0."""
    found = finer(lambda t: np.round(1e9 * np.sin(0.3 + t)) / 1e9)
    assert not found.central.converged


def test_the_smallest_numbers_have_a_floor() -> None:
    """Of gradients of 1e-306 the bound is the smallest normal's share, not 0."""
    found = of(lambda t: 1e-306 * np.sin(t))
    assert is_within(found, 1e-306)
    normal = float(np.finfo(np.float64).tiny)
    assert found.central.bound >= normal
    nothing = of(np.zeros_like)
    assert nothing.central.bound >= normal
    assert nothing.central.value == 0


def test_steps_outside_the_domain_are_left_out() -> None:
    """√(1e-3 + t) is NaN at large steps back; the finer ones give the slope."""
    with np.errstate(invalid="ignore"):
        found = of(lambda t: np.sqrt(1e-3 + t))
    assert is_within(found, 0.5 * 1e-3**-0.5)
    assert found.central.converged


def test_nothing_finite_gives_no_slope() -> None:
    """An infinite bound, and nothing converged."""
    found = of(lambda t: np.where(t == 0, 1.0, np.nan))
    assert found.central.bound == np.inf
    assert not found.central.converged


def test_noise_widens_the_bound_as_much_as_it_harms() -> None:
    """Of 200 noisy sines, every one lies within its bound, and few need half of it."""
    random = np.random.default_rng(3)
    for noise in (1e-12, 1e-6):
        excess = []
        for _ in range(200):
            values = np.sin(0.3 + TIMES) + noise * random.standard_normal(TIMES.size)
            found = from_ladder(values, noise).central
            excess.append(abs(found.value - np.cos(0.3)) / found.bound)
        assert max(excess) <= 4
        assert np.mean(np.array(excess) > 1) <= 0.02
        assert max(excess) > 0.01


def test_noise_that_is_not_told_is_caught_here() -> None:
    """The planted mistake: with noise taken as 0, noisy slopes leave their bounds."""
    random = np.random.default_rng(4)
    outside = 0
    for _ in range(100):
        values = np.sin(0.3 + TIMES) + 1e-6 * random.standard_normal(TIMES.size)
        found = from_ladder(values, 0.0).central
        outside += abs(found.value - np.cos(0.3)) > 4 * found.bound
    assert outside >= 1
