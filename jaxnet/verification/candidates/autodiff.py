"""jax.grad of the loss: the default candidate, and a second opinion on any other."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.array_types import PyTree
from jaxnet.float64 import Traced, in_float64
from jaxnet.verification.candidates.callables import LeafByLeaf
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.point import Leaf, Reals


@dataclass(frozen=True)
class Autodiff:
    """jax.grad of one objective, with respect to its moving leaves alone."""

    objective: Objective

    def __call__(self, params: PyTree) -> PyTree:
        """The gradient at `params`; None for held leaves."""
        objective = self.objective
        if objective.as_given:
            return objective.gradient_as_given(params)
        if not objective.traceable:
            raise TypeError("jax.grad cannot trace the loss; pass a candidate of yours")
        flat = jax.tree.leaves(params)
        moving = []
        for leaf in objective.point.leaves:
            value = flat[leaf.position]
            if leaf.is_complex:
                value = jnp.stack([value.real, value.imag], axis=-1)
            moving.append(jnp.asarray(value, np.float64))
        tree: list[Any] = [None] * len(flat)
        for leaf, slope in zip(objective.point.leaves, self._wide(moving), strict=True):
            back = slope[..., 0] - 1j * slope[..., 1] if leaf.is_complex else slope
            tree[leaf.position] = back
        return objective.point.structure.unflatten(tree)

    def array(self, leaf: Leaf) -> Reals | None:
        """The gradient with respect to one leaf, in float64; None where it fails."""
        return None if self._gradient is None else self._gradient[leaf.number]

    @cached_property
    def _gradient(self) -> Sequence[Any] | None:
        gradient, point = self._at_point(), self.objective.point
        if gradient is not None and point.are_many:
            return LeafByLeaf(self._at_point, len(point.leaves))
        return gradient

    def _at_point(self) -> Any:
        return self.computed(self.objective.point.wide(), np.float64)

    def computed(self, values: Sequence[Reals], dtype: Any) -> list[Reals] | None:
        """The gradient at other values of the leaves, computed in `dtype`."""
        if not self.objective.traceable:
            return None
        try:
            with in_float64(), np.errstate(all="ignore"):
                gradient = self._wide if dtype == np.float64 else self._narrow
                with jax.enable_x64(dtype == np.float64):
                    slopes = gradient(values)
                return [np.asarray(g, np.float64) for g in slopes]
        except Exception:  # the caller's function
            return None

    @cached_property
    def _wide(self) -> Any:
        """Compiled, in float64."""
        return self._compiled(self.objective.traced, np.float64)

    @cached_property
    def _narrow(self) -> Any:
        """Compiled, in float32.

        The loss is traced without float64: what it closes over and computes of
        constants is then rounded too, as it was for a float32 candidate.
        """
        leaves = self.objective.point.leaves
        shapes = [jax.ShapeDtypeStruct(x.values.shape, np.float32) for x in leaves]
        with jax.enable_x64(False):
            traced = Traced(self.objective.of_leaves, shapes)
        return self._compiled(traced, np.float32)

    def _compiled(self, traced: Traced, dtype: Any) -> Any:
        gradient = jax.grad(traced)  # no copy in `dtype` outside the program
        return jax.jit(lambda values: gradient([v.astype(dtype) for v in values]))
