"""A large leaf's probes, with its kinks kept apart.

A probe through a kink bounds no gradient, so kinked coordinates are left out of the
probes and probed one by one, then together: a gradient may be allowed at each of
several tied coordinates and be none of their sum.
"""

from dataclasses import dataclass

import numpy as np

from jaxnet.verification.context import Context
from jaxnet.verification.directions import Coordinate
from jaxnet.verification.leaf.noise import LeafNoise
from jaxnet.verification.leaf.probe import (
    Probe,
    probe,
    random_probes,
    suspicious_coordinates,
)
from jaxnet.verification.point import Leaf

MOST_PROBED = 256
"""How many kinked coordinates are probed: 8,000 evaluations."""

MOST_SEARCHED = 32
"""How many kinks are searched for where no zero or tie gives them away."""


@dataclass(frozen=True)
class Kinks:
    """What of a leaf lies at kinks.

    left_out: coordinates that the random probes leave out.
    unprobed: those of them that are too many to be probed.
    are_mixed: whether the random probes still cross kinks that could not be told apart.
    """

    left_out: tuple[int, ...] = ()
    unprobed: tuple[int, ...] = ()
    are_mixed: bool = False


NO_KINKS = Kinks()


def kept_apart(
    context: Context, noise: LeafNoise, leaf: Leaf, crossing: tuple[Probe, ...]
) -> tuple[tuple[Probe, ...], Kinks]:
    """Probes beside the kinks, then of each kink; `crossing` are those that met any."""
    left_out = _zeros_and_ties(leaf)
    probes = crossing
    if left_out:
        probes = random_probes(context, noise, leaf, left_out)
    if any(map(_is_kinked, probes)):
        more = suspicious_coordinates(context, noise, leaf, _is_kinked, MOST_SEARCHED)
        left_out = tuple(sorted({*left_out, *more}))
        probes = random_probes(context, noise, leaf, left_out)
    chosen = left_out
    if len(left_out) > MOST_PROBED:
        random = np.random.default_rng(list(context.seed))
        some = random.choice(left_out, MOST_PROBED, replace=False)
        chosen = tuple(sorted(int(i) for i in some))
    unprobed = tuple(set(left_out) - set(chosen))
    kinks = Kinks(left_out, unprobed, any(map(_is_kinked, probes)))
    alone = (probe(context, noise, Coordinate(leaf, i)) for i in chosen)
    return (*probes, *alone), kinks


def _is_kinked(one: Probe) -> bool:
    return not one.derivative.is_smooth


def _zeros_and_ties(leaf: Leaf) -> tuple[int, ...]:
    """Where abs, relu and max have their kinks; none if that is everywhere."""
    values = leaf.values.reshape(-1)
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    tied = (counts[inverse.reshape(-1)] > 1) | (values == 0)
    return tuple(int(i) for i in np.flatnonzero(tied)) if not tied.all() else ()
