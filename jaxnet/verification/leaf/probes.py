"""The probes of one leaf: what a right gradient must pass, whatever the candidate."""

import math
from dataclasses import dataclass

import numpy as np

from jaxnet.verification.context import Context
from jaxnet.verification.directions import Coordinate, GivenDirection
from jaxnet.verification.leaf.kinks import NO_KINKS, Kinks, kept_apart
from jaxnet.verification.leaf.noise import NO_NOISE, LeafNoise, measure_noise
from jaxnet.verification.leaf.probe import Probe, probe, random_probes
from jaxnet.verification.point import Leaf, Reals

COARSEST_ZERO = 0.01
"""A derivative of 0 says nothing where its bound is above this share of the loss."""


@dataclass(frozen=True)
class LeafProbes:
    """One leaf, and the derivatives along its probes.

    noise: of the objective as the leaf moves.
    by_coordinates: whether there is a probe of every coordinate.
    probes: of every coordinate; or along random directions beside the kinks, then of
        kinked coordinates.
    joint: along several kinked coordinates together.
    shared: evaluations of probes through other leaves too.
    """

    leaf: Leaf
    noise: LeafNoise
    by_coordinates: bool
    probes: tuple[Probe, ...]
    joint: tuple[Probe, ...] = ()
    kinks: Kinks = NO_KINKS
    shared: int = 0

    @property
    def loss_by_unit(self) -> float:
        """The size of the loss in the smallest unit of the leaf."""
        return max(one.derivative.size for one in self.probes) / self.leaf.floor

    @property
    def show_two_slopes(self) -> bool:
        """Whether any of them shows a slope between jumps, or at fine steps, apart."""
        every = (one.derivative for one in self.probes)
        return any(d.on_stairs or not math.isnan(d.central.rests) for d in every)

    def are_zero(self, safety: float) -> bool:
        """Whether the derivatives along all probes are 0 but for rounding."""
        return all(_is_zero(one, safety) for one in self.probes)


def probe_leaf(
    context: Context, leaf: Leaf, noise: LeafNoise | None = None
) -> LeafProbes:
    """Every coordinate if the leaf is small, else random directions.

    noise: of the objective as the leaf moves; measured if it is not given.
    """
    by_coordinates = context.by_coordinates(leaf)
    if by_coordinates and not leaf.size:
        return LeafProbes(leaf, NO_NOISE, by_coordinates, ())
    noise, kinks = noise or measure_noise(context, leaf), NO_KINKS
    if by_coordinates:
        every = (Coordinate(leaf, i) for i in range(leaf.size))
        probes = tuple(probe(context, noise, one) for one in every)
    else:
        probes = random_probes(context, noise, leaf)
        if not all(one.derivative.is_smooth for one in probes):
            probes, kinks = kept_apart(context, noise, leaf, probes)
    ones = np.ones(leaf.values.shape)
    joint = _along_kinks(context, noise, leaf, probes, ones)
    return LeafProbes(leaf, noise, by_coordinates, probes, joint, kinks)


def along_signs(
    context: Context, probes: LeafProbes, gradient: Reals
) -> tuple[Probe, ...]:
    """One more joint probe, along the signs of a gradient at the kinks.

    None if they are all the same: that is the joint probe.
    """
    where = _kinked(probes.probes)
    signs = np.sign(gradient)
    if not where or len(set(signs.reshape(-1)[where])) == 1:
        return ()
    leaf, noise = probes.leaf, probes.noise
    return _along_kinks(context, noise, leaf, probes.probes, signs)


def _along_kinks(
    context: Context,
    noise: LeafNoise,
    leaf: Leaf,
    probes: tuple[Probe, ...],
    signs: Reals,
) -> tuple[Probe, ...]:
    """A probe along all kinked coordinates together, if they are several."""
    where = _kinked(probes)
    if len(where) < 2:
        return ()
    chosen = np.zeros(signs.size)
    chosen[where] = signs.reshape(-1)[where]
    direction = GivenDirection(leaf, chosen.reshape(signs.shape))
    return (probe(context, noise, direction),)


def _kinked(probes: tuple[Probe, ...]) -> list[int]:
    return [
        one.direction.flat
        for one in probes
        if isinstance(one.direction, Coordinate) and one.derivative.has_kink
    ]


def _is_zero(one: Probe, safety: float) -> bool:
    central, size = one.derivative.central, one.derivative.size
    if not (one.derivative.is_smooth and central.converged):
        return False
    is_exact = central.bound <= COARSEST_ZERO * size
    return central.value == 0 or (
        is_exact and abs(central.value) <= safety * central.bound
    )
