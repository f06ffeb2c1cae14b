"""The gradient with respect to one leaf entry by entry, where it can be known."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from jaxnet.verification.candidates.candidate import Candidate
from jaxnet.verification.context import Context
from jaxnet.verification.directions import step_size
from jaxnet.verification.leaf.compare import hypothetical
from jaxnet.verification.leaf.locate import autodiff_beside, same_as_autodiff
from jaxnet.verification.leaf.probes import LeafProbes


class Reference(NamedTuple):
    """Every derivative, and how far another may be off to be the same."""

    values: Float[np.ndarray, "*shape"]
    bounds: Float[np.ndarray, "*shape"]


def reference_of(
    context: Context, probes: LeafProbes, candidate: Candidate
) -> Reference | None:
    """The differences themselves where every coordinate was probed; else autodiff.

    None where autodiff fails a probe, or one coordinate has no derivative.
    """
    if not probes.by_coordinates:
        array = autodiff_beside(context, candidate, probes)
        if array is None:
            return None
        findings = hypothetical(context, probes, candidate, array)
        if not all(found.passed for found in findings):
            return None
        bounds = same_as_autodiff(context, candidate, probes, array)
        return Reference(np.asarray(array, np.float64), bounds)
    return _by_differences(context, probes, candidate)


def _by_differences(
    context: Context, probes: LeafProbes, candidate: Candidate
) -> Reference | None:
    leaf = probes.leaf
    units = np.array([step_size(probe.direction) for probe in probes.probes])
    central = [probe.derivative.central for probe in probes.probes]
    values = np.array([estimate.value for estimate in central]) / units
    bounds = context.safety * np.array([estimate.bound for estimate in central]) / units
    if not np.isfinite(values + bounds).all():
        return None
    values = values.reshape(leaf.values.shape)
    eps = context.rounding.eps_of(candidate, leaf)
    own = context.rounding.own(values, eps)
    terms = context.rounding.of_terms(leaf, eps, probes.loss_by_unit)
    constants = context.rounding.fixed(candidate, leaf)
    return Reference(values, bounds.reshape(values.shape) + own + terms + constants)
