"""jax.grad of the loss: the default candidate, and a second opinion on any other."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.array_types import PyTree
from jaxnet.float64 import in_float64
from jaxnet.jaxpr.lines import said
from jaxnet.verification.candidates.callables import UNTRACEABLE, LeafByLeaf
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.function.once import once
from jaxnet.verification.function.program import same_program
from jaxnet.verification.function.widen import Widened
from jaxnet.verification.point import Leaf, OfLeaves, Reals

Wanted = Sequence[int] | None
"""The numbers of the leaves that are asked for; all by default."""


@dataclass(frozen=True)
class Autodiff:
    """jax.grad of one objective, with respect to its moving leaves alone."""

    objective: Objective

    def __call__(self, params: PyTree) -> OfLeaves:
        """The gradient at `params`, as its caller would run it.

        Raises:
            TypeError: JAX cannot differentiate the loss. It can where a loss reads its
                values, as `if` does, if JAX has them: not under jit.
        """
        objective = self.objective
        flat = jax.tree.leaves(params)
        moving = [_pair(flat[leaf.position], leaf) for leaf in objective.point.leaves]
        try:
            slopes = self._of_leaves(moving)
        except UNTRACEABLE as error:
            why = f"jax.grad cannot trace the loss: {said(error)}"
            fix = "write it in jax.numpy, or pass a candidate"
            raise TypeError(f"{why}; {fix}") from None
        pairs = zip(objective.point.leaves, slopes, strict=True)
        return OfLeaves(
            [x[..., 0] - 1j * x[..., 1] if leaf.is_complex else x for leaf, x in pairs]
        )

    @once
    def gave(self, widened: Widened | None) -> bool:
        """Whether a traced candidate is the very program that JAX derives here."""
        own = self.widened if widened else None
        if own is None or widened is None:
            return False
        return same_program(own.own.closed, widened.own.closed)

    def array(self, leaf: Leaf) -> Reals | None:
        """The gradient with respect to one leaf, in float64; None where it fails."""
        return None if self._gradient is None else self._gradient[leaf.number]

    @cached_property
    def _gradient(self) -> Sequence[Any] | None:
        gradient: list[Reals] | None = self._at_point()
        if gradient is not None and self.objective.point.are_many:
            return LeafByLeaf(self._at_point, len(gradient))
        return gradient

    def _at_point(self) -> Any:
        return self.in_double(self.objective.point.wide())

    def in_double(
        self, values: Sequence[Reals], wanted: Wanted = None
    ) -> list[Reals] | None:
        """The gradient at other values of the leaves, widened."""
        if self.widened is None:
            return None
        with in_float64(), np.errstate(all="ignore"):
            return self.reals(self.widened.compiled(values), wanted)

    def as_run(
        self, values: Sequence[Reals], wanted: Wanted = None
    ) -> list[Reals] | None:
        """The gradient at other values of the leaves, as its caller runs it."""
        if self.widened is None:
            return None
        with np.errstate(all="ignore"):
            return self.reals(self.widened.compiled_as_run(values), wanted)

    @cached_property
    def shifts(self) -> list[Sequence[Reals]]:
        """How the gradient changes if constants that are not exact are moved."""
        if self.widened is None:
            return []
        with in_float64():
            values = self.objective.point.wide()
            return [self.reals(each) for each in self.widened.shifts(values)]

    def in_single(
        self, values: Sequence[Reals], wanted: Wanted = None
    ) -> list[Reals] | None:
        """The gradient at other values, of the loss as it would be in float32."""
        try:
            with jax.enable_x64(False), np.errstate(all="ignore"):
                single = [jnp.asarray(v, np.float32) for v in values]
                gradient = self._single(single)
                numbers = range(len(gradient)) if wanted is None else wanted
                return [np.asarray(gradient[i], np.float64) for i in numbers]
        except Exception:  # the caller's function, in a mode that is not his
            return None

    @cached_property
    def _single(self) -> Any:
        return jax.jit(jax.grad(self.objective.of_leaves))

    @cached_property
    def widened(self) -> Widened | None:
        """The gradient's program; None where JAX cannot derive it."""
        if not self.objective.traceable:
            return None
        try:
            return self.objective.widen(self._of_moving)
        except Exception:  # the caller's rules
            return None

    def _of_moving(self, moved: list[Any]) -> OfLeaves:
        return self(self.objective.point.rebuild(moved))

    def reals(self, gradient: OfLeaves, wanted: Wanted = None) -> list[Reals]:
        """Arrays of real numbers, in float64, of what it gives."""
        pairs = list(zip(self.objective.point.leaves, gradient.values, strict=True))
        chosen = pairs if wanted is None else [pairs[i] for i in wanted]
        return [
            leaf.derivatives(g).astype(np.float64, copy=False) for leaf, g in chosen
        ]

    def _of_leaves(self, moved: list[Any]) -> list[Any]:
        slopes: list[Any] = jax.grad(self.objective.of_leaves)(moved)
        return slopes


def _pair(value: Any, leaf: Leaf) -> Any:
    """A complex leaf as pairs of reals."""
    value = jnp.asarray(value)
    return jnp.stack([value.real, value.imag], axis=-1) if leaf.is_complex else value
