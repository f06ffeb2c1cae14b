"""A function with its derivative rule at a point, and its linear maps there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.array_types import PyTree
from jaxnet.input_checks import complaint, first_line
from jaxnet.verification.comparison import Comparison
from jaxnet.verification.leaves import (
    floating_leaves,
    is_inexact,
    only_floating,
    with_floating,
)
from jaxnet.verification.program import Program
from jaxnet.verification.seeds import seed_of

LARGEST_BASIS = 4096
"""Up to so many coordinates, a gradient is built from one jvp each."""


@dataclass(frozen=True)
class Rule:
    """A function of its differentiable arguments, and one random cotangent.

    reference: what differences are taken of: a function given by the user, the plain
        body of a custom rule, or the function itself.
    """

    function: Callable[..., PyTree]
    reference: Callable[..., PyTree]
    args: tuple[Any, ...]
    cotangent: list[Any]
    seed: tuple[int, ...]

    @classmethod
    def of(
        cls,
        function: Callable[..., PyTree],
        args: tuple[Any, ...],
        reference: Callable[..., PyTree] | None,
        nondiff_argnums: Sequence[int],
        key: Any,
    ) -> "Rule":
        """Bind the arguments that are not differentiated by, and draw a cotangent."""
        fixed = {*nondiff_argnums, *(getattr(function, "nondiff_argnums", None) or ())}
        fixed = {position % len(args) for position in fixed}
        plain = reference or getattr(function, "fun", None) or function
        moving = tuple(x for i, x in enumerate(args) if i not in fixed)
        bound = [_bound(f, args, fixed) for f in (function, plain)]
        seed = seed_of(key)
        output = _called(bound[0], moving)
        if not any(is_inexact(leaf) for leaf in jax.tree.leaves(output)):
            got = f"{len(jax.tree.leaves(output))} leaves, none floating"
            fix = "a rule needs something to differentiate"
            raise TypeError(complaint("function(*args)", "a floating output", got, fix))
        cotangent = random_like(floating_leaves(output), [*seed, 2])
        return cls(bound[0], bound[1], moving, cotangent, seed)

    def derivative(self) -> "Rule":
        """The function args -> vjp of the cotangent, whose rule is the second order."""

        def gradient(*args: Any) -> PyTree:
            return self._moving_vjp(args, self.cotangent)

        cotangent = random_like(gradient(*self.args), [*self.seed, 3])
        return replace(self, function=gradient, reference=gradient, cotangent=cotangent)

    @cached_property
    def precision(self) -> float:
        """ε of the coarsest floating type in the function and its gradient."""

        def both(moving: list[Any]) -> PyTree:
            args = with_floating(self.args, moving)
            return self._of(args, moving), self._moving_vjp(args, self.cotangent)

        try:
            traced = jax.make_jaxpr(both)(self.moving(self.args))
        except Exception:
            return 0.0
        return Program.of(traced).precision_anywhere

    @property
    def comparison(self) -> Comparison:
        """What may be called equal at that precision."""
        return Comparison(self.precision)

    def vjp(self, args: PyTree, cotangent: list[Any] | None = None) -> PyTree:
        """The gradient of <cotangent, function(args)>, like `args`; None where held."""
        cotangent = self.cotangent if cotangent is None else cotangent
        return only_floating(args, self._moving_vjp(args, cotangent))

    def interrupted_vjp(self, args: PyTree, between: PyTree) -> PyTree:
        """`vjp`, with a forward pass at another point before its backward pass."""
        outputs, pull = jax.vjp(lambda m: self._of(args, m), self.moving(args))
        jax.vjp(lambda m: self._of(between, m), self.moving(between))
        given = zip(self.cotangent, outputs, strict=True)
        slopes = pull([jnp.asarray(c, out.dtype) for c, out in given])[0]
        return only_floating(args, slopes)

    def jvp(self, args: PyTree, tangent: list[Any] | None = None) -> PyTree:
        """The function's change along a tangent: a list, of the floating leaves."""
        moving = self.moving(args)
        tangent = random_like(moving, [*self.seed, 4]) if tangent is None else tangent
        tangent = jax.tree.map(lambda t, x: jnp.asarray(t, x.dtype), tangent, moving)
        return self._jvp(args, moving, tangent)

    def gradient_by_jvp(self, args: PyTree) -> PyTree:
        """Σ over outputs of cotangent × jvp, by every coordinate of `args`."""
        moving = self.moving(args)
        if sum(x.size for x in moving) <= LARGEST_BASIS:
            gradient = self._gradient_by_basis(args, moving)
        else:
            gradient = jax.grad(lambda t: self._slope(args, moving, t))(
                jax.tree.map(jnp.zeros_like, moving)
            )
        return only_floating(args, gradient)

    def _gradient_by_basis(self, args: PyTree, moving: list[Any]) -> list[Any]:
        """By a complex number, ∂/∂x - i ∂/∂y: one jvp along 1 and one along i."""
        sizes = [x.size for x in moving]

        @partial(jax.jit, static_argnames="step")
        def slope(coordinate: Any, step: float | complex) -> jax.Array:
            tangent, before = [], 0
            for x, size in zip(moving, sizes, strict=True):
                unit = jnp.arange(before, before + size) == coordinate
                own = step if np.iscomplexobj(x) else 1.0
                tangent.append((unit.astype(x.dtype) * own).reshape(x.shape))
                before += size
            return self._slope(args, moving, tangent)

        def slopes(step: float | complex) -> list[np.ndarray]:
            found = np.array([slope(i, step) for i in range(sum(sizes))])
            return np.split(found, np.cumsum(sizes)[:-1])

        by_real = slopes(1.0)
        by_imaginary = slopes(1j) if any(map(np.iscomplexobj, moving)) else by_real
        gradient = [
            a - 1j * b if np.iscomplexobj(x) else a
            for a, b, x in zip(by_real, by_imaginary, moving, strict=True)
        ]
        return [
            g.reshape(x.shape).astype(x.dtype)
            for g, x in zip(gradient, moving, strict=True)
        ]

    def _slope(self, args: PyTree, moving: list[Any], tangent: list[Any]) -> jax.Array:
        """<cotangent, J tangent>."""
        return inner(self.cotangent, self._jvp(args, moving, tangent))

    def value(self, args: PyTree) -> PyTree:
        """The function's floating outputs, without its rule."""
        return floating_leaves(self.function(*args))

    def value_by_rule(self, args: PyTree) -> PyTree:
        """The floating outputs that the forward pass of the rule gives."""
        moving = self.moving(args)
        outputs, _ = jax.vjp(lambda m: self._of(args, m), moving)
        return outputs

    @staticmethod
    def moving(args: PyTree) -> list[jax.Array]:
        """The floating leaves of the arguments, as JAX arrays."""
        return [jnp.asarray(x) for x in floating_leaves(args)]

    def _of(self, args: PyTree, moving: list[Any]) -> list[Any]:
        """The floating outputs as a function of the floating leaves."""
        return floating_leaves(self.function(*with_floating(args, moving)))

    def _moving_vjp(self, args: PyTree, cotangent: list[Any]) -> list[Any]:
        outputs, pull = jax.vjp(lambda m: self._of(args, m), self.moving(args))
        given = zip(cotangent, outputs, strict=True)
        return pull([jnp.asarray(c, out.dtype) for c, out in given])[0]

    def _jvp(self, args: PyTree, moving: list[Any], tangent: list[Any]) -> list[Any]:
        return jax.jvp(lambda m: self._of(args, m), (moving,), (tangent,))[1]


def random_like(leaves: list[Any], seed: Sequence[int]) -> list[Any]:
    """Standard normal numbers, one for each number of the leaves."""
    random = np.random.default_rng(list(seed))

    def draw(leaf: Any) -> Any:
        shape = np.shape(leaf)
        drawn = random.standard_normal(shape)
        if np.iscomplexobj(leaf):
            drawn = drawn + 1j * random.standard_normal(shape)
        return np.asarray(drawn)

    return [draw(leaf) for leaf in leaves]


def inner(one: list[Any], other: list[Any]) -> jax.Array:
    """Re Σ aᵢ bᵢ, with aᵢ rounded to the dtype of bᵢ and summed as finely as may be.

    A sum in bfloat16 would hide what one entry of many changes.
    """
    wide = jax.dtypes.canonicalize_dtype(np.float64)
    total = jnp.zeros((), wide)
    for a, b in zip(one, other, strict=True):
        a = jnp.asarray(a, b.dtype)
        parts = [(jnp.real(a), jnp.real(b))]
        if jnp.iscomplexobj(b):
            parts.append((-jnp.imag(a), jnp.imag(b)))
        for x, y in parts:
            total = total + jnp.sum(x.astype(wide) * y.astype(wide))
    return total


def _bound(
    function: Callable[..., PyTree], args: tuple[Any, ...], fixed: set[int]
) -> Callable[..., PyTree]:
    if not fixed:
        return function

    def of_the_rest(*moving: Any) -> PyTree:
        rest = iter(moving)
        return function(*(x if i in fixed else next(rest) for i, x in enumerate(args)))

    return of_the_rest


def _called(function: Callable[..., PyTree], args: tuple[Any, ...]) -> PyTree:
    try:
        return function(*args)
    except Exception as error:
        fix = "call it on the arguments yourself to see where"
        text = complaint("function(*args)", "a value", first_line(error), fix)
        raise ValueError(text) from error
