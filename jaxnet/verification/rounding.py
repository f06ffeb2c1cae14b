"""How far rounding alone may move a gradient: measured, entry by entry.

The same gradient in float32 and in float64, at a few points a hair apart, differs by
float32's ε times the size of the terms each entry is summed from. That size, times the
ε in which a candidate was computed, is what its rounding may do. In float64 this allows
2e-9 of what float32 got wrong, so it hides no mistake.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.array_types import PyTree
from jaxnet.float64 import Traced, in_float64
from jaxnet.verification.called_gradient import LeafByLeaf
from jaxnet.verification.candidates import Candidate
from jaxnet.verification.directions import AnyDirection, norm_along
from jaxnet.verification.evaluation import Function

SINGLE = float(np.finfo(np.float32).eps)

SAMPLES = 6
"""At how many points the two are compared."""

JITTER = 1e-6
"""How far apart these points are, relative to each coordinate."""

OWN_ULPS = 2.0
"""How many ulps of itself an entry may be off, however it was computed…"""

TERM_ULPS = 6.0
"""…and how many ulps of the terms it is summed from."""

ROUGH_ULPS = 8.0
"""Where the terms cannot be known: ulps of the leaf's largest entry."""

TOO_LARGE = 1e3
"""Terms above this many losses are no terms: float32 has lost the function."""


class Rounding:
    """What rounding may do to gradients of one function; computed when first needed."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self._jitted: dict[Any, Any] = {}
        self._terms: list[np.ndarray] | bool | None = False
        self._gradient: Sequence[Any] | bool | None = False

    def gradient(self) -> Sequence[Any] | None:
        """jax.grad by leaf, in float64; None where it cannot be had."""
        if self._gradient is False:
            gradient, parameters = self._at_point(), self.function.parameters
            if gradient is not None and parameters.are_many:
                gradient = LeafByLeaf(self._at_point, len(parameters.leaves))
            self._gradient = gradient
        return self._gradient  # type: ignore[return-value]

    def _at_point(self) -> Any:
        return self._computed(self.function.parameters.wide(), np.float64)

    def jitted(self, dtype: Any) -> Any:
        """jax.grad of the loss by the moving leaves in `dtype`, compiled.

        In float32, the loss is traced without float64: what it closes over and computes
        of constants is then rounded too, as it was for a float32 candidate.
        """
        if dtype not in self._jitted:
            leaves = self.function.parameters.leaves
            shapes = [jax.ShapeDtypeStruct(x.values.shape, dtype) for x in leaves]
            traced = self.function.traced
            if dtype != np.float64:
                with jax.enable_x64(False):
                    traced = Traced(self.function._of, shapes)
            gradient = jax.grad(traced)
            self._jitted[dtype] = jax.jit(  # no copy in `dtype` outside the program
                lambda values: gradient([v.astype(dtype) for v in values])
            )
        return self._jitted[dtype]

    def own_along(
        self, gradient: np.ndarray, eps: float, direction: AnyDirection
    ) -> float:
        """What is allowed along a direction before the terms are looked at."""
        if self.function.traceable:
            return OWN_ULPS * eps * norm_along(gradient, direction)
        return norm_along(self.own(gradient, eps), direction)

    def own(self, gradient: np.ndarray, eps: float) -> np.ndarray:
        """The same by each entry."""
        size = np.abs(gradient.astype(np.float64))
        if not self.function.traceable:
            return np.full(size.shape, ROUGH_ULPS * eps * np.max(size, initial=0.0))
        return np.asarray(OWN_ULPS * eps * size)

    def of_terms(self, number: int, eps: float, largest: float) -> np.ndarray | float:
        """What is allowed for the terms of a leaf's entries.

        largest: the loss by the smallest unit of the leaf's coordinates.
        """
        terms = self.terms(number)
        if terms is None:
            return 0.0
        return TERM_ULPS * eps * np.where(terms <= TOO_LARGE * largest, terms, 0.0)

    def most_of_terms(self, eps: float, largest: float) -> float:
        """What `of_terms` allows at most."""
        return TERM_ULPS * eps * TOO_LARGE * largest

    def terms(self, number: int) -> np.ndarray | None:
        """The size of the terms that each entry of a leaf's gradient is summed from."""
        if self._terms is False:
            self._terms = self._measured()
        return None if self._terms is None else self._terms[number]  # type: ignore

    def _measured(self) -> list[np.ndarray] | None:
        """The root mean square, over points nearby, of what rounding changed.

        That is float32's difference from float64. A function that rounds to less has no
        float64: there it is the spread of the gradient over points an ulp apart.
        """
        random = np.random.default_rng(0)
        eps = max(SINGLE, self.function.precision)
        coarse = eps > SINGLE
        squares, shift = [np.zeros(x.shape) for x in self._values()], None
        for _ in range(SAMPLES):
            values = self._beside(random, eps if coarse else JITTER)
            gradient = self._computed(values, np.float32)
            other = shift if coarse else self._computed(values, np.float64)
            shift = gradient if shift is None else shift
            if gradient is None or (other is None and not coarse):
                return None
            with np.errstate(all="ignore"):
                for total, a, b in zip(
                    squares, gradient, other or gradient, strict=True
                ):
                    total += (a - b) ** 2
        roots = [np.sqrt(total / SAMPLES) / eps for total in squares]
        return [np.where(np.isfinite(r), r, np.inf) for r in roots]

    def _beside(self, random: np.random.Generator, step: float) -> list[np.ndarray]:
        with np.errstate(over="ignore"):
            return [
                np.asarray(x * (1 + step * random.standard_normal(x.shape)), np.float32)
                for x in self._values()
            ]

    def _computed(self, values: list[Any], dtype: Any) -> list[np.ndarray] | None:
        if not self.function.traceable:
            return None
        try:
            with in_float64(), np.errstate(all="ignore"):
                gradient = self.jitted(dtype)
                with jax.enable_x64(dtype == np.float64):
                    slopes = gradient(values)
                return [np.asarray(g, np.float64) for g in slopes]
        except Exception:
            return None

    def _values(self) -> list[np.ndarray]:
        leaves = self.function.parameters.leaves
        return [leaf.values.astype(np.float64) for leaf in leaves]


class Autodiff:
    """jax.grad of the function as a candidate, by its moving leaves alone."""

    def __init__(self, rounding: Rounding) -> None:
        self.rounding = rounding

    def __call__(self, params: PyTree) -> PyTree:
        """The gradient at `params`; None for held leaves."""
        function = self.rounding.function
        if function.as_given:
            return function.gradient_as_given(params)
        if not function.traceable:
            raise TypeError("jax.grad cannot trace the loss; pass a candidate of yours")
        parameters = self.rounding.function.parameters
        flat = jax.tree.leaves(params)
        moving = []
        for leaf in parameters.leaves:
            value = flat[leaf.position]
            if leaf.is_complex:
                value = jnp.stack([value.real, value.imag], axis=-1)
            moving.append(jnp.asarray(value, np.float64))
        tree: list[Any] = [None] * len(flat)
        slopes = self.rounding.jitted(np.float64)(moving)
        for leaf, slope in zip(parameters.leaves, slopes, strict=True):
            back = slope[..., 0] - 1j * slope[..., 1] if leaf.is_complex else slope
            tree[leaf.position] = back
        return parameters.structure.unflatten(tree)


def eps_of(candidate: Candidate, number: int, function: Function) -> float:
    """ε of the coarser of what computed the candidate and what computes the loss."""
    return max(candidate.eps(number), function.precision_of(number))
