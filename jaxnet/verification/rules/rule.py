"""A function with its derivative rule at a point, and its linear maps there."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.array_types import PyTree
from jaxnet.input_checks import complaint, first_line
from jaxnet.verification.function.program import Program
from jaxnet.verification.point import (
    floating_leaves,
    is_inexact,
    only_floating,
    with_floating,
)
from jaxnet.verification.rules.closeness import Closeness
from jaxnet.verification.seeds import seed_of

LARGEST_BASIS = 4096
"""Up to so many coordinates, a gradient is built from one jvp each."""

Arrays: TypeAlias = list[Any]
"""The floating leaves of arguments or outputs, in order."""

Map: TypeAlias = Callable[[Arrays], Arrays]
Mode: TypeAlias = Literal["vjp", "jvp"]


@dataclass(frozen=True)
class Rule:
    """A function of the floating leaves of its arguments, which are flattened once.

    function: to its floating outputs, with its derivative rule.
    reference: what differences are taken of: a function given by the user, the plain
        body of a custom rule, or the function itself.
    args: the arguments as the caller knows them, less those held fixed.
    moving: their floating leaves.
    cotangent: random, one number for each floating output.
    mode: which of its two linear maps is asked about.
    """

    function: Map
    reference: Map
    args: tuple[Any, ...]
    moving: Arrays
    cotangent: Arrays
    seed: tuple[int, ...]
    mode: Mode = "vjp"

    @classmethod
    def of(
        cls,
        function: Callable[..., PyTree],
        args: tuple[Any, ...],
        reference: Callable[..., PyTree] | None,
        nondiff_argnums: Sequence[int],
        key: Any,
        mode: Mode = "vjp",
    ) -> "Rule":
        """Bind the arguments that are held fixed, and draw a cotangent."""
        fixed = {*nondiff_argnums, *(getattr(function, "nondiff_argnums", None) or ())}
        fixed = {position % len(args) for position in fixed}
        plain = reference or getattr(function, "fun", None) or function
        rest = tuple(x for i, x in enumerate(args) if i not in fixed)
        bound = [_bound(f, args, fixed) for f in (function, plain)]
        seed, output = seed_of(key), _called(bound[0], rest)
        if not any(is_inexact(leaf) for leaf in jax.tree.leaves(output)):
            got = f"{len(jax.tree.leaves(output))} leaves, none floating"
            fix = "a rule needs something to differentiate"
            raise TypeError(complaint("function(*args)", "a floating output", got, fix))
        cotangent = random_like(floating_leaves(output), [*seed, 2])
        own, other = (_of_leaves(f, rest) for f in bound)
        moving = [jnp.asarray(x) for x in floating_leaves(rest)]
        return cls(own, other, rest, moving, cotangent, seed, mode)

    def derivative(self) -> "Rule":
        """The function args -> vjp of the cotangent, whose rule is the second order."""

        def gradient(moving: Arrays) -> Arrays:
            return self.vjp(moving)

        cotangent = random_like(gradient(self.moving), [*self.seed, 3])
        return replace(self, function=gradient, reference=gradient, cotangent=cotangent)

    @cached_property
    def precision(self) -> float:
        """ε of the coarsest floating type in the function and its gradient."""

        def both(moving: Arrays) -> PyTree:
            return self.function(moving), self.vjp(moving)

        try:
            traced = jax.make_jaxpr(both)(self.moving)
        except Exception:  # the caller's function, or it has no reverse mode
            return 0.0
        return Program(traced).precision_anywhere

    @property
    def closeness(self) -> Closeness:
        """What may be called equal at that precision."""
        return Closeness(self.precision)

    @property
    def linear_map(self) -> Callable[..., Arrays]:
        """The map that is asked about: vjp or jvp."""
        return self.vjp if self.mode == "vjp" else self.jvp

    @property
    def direction(self) -> Arrays:
        """What that map is applied to by default: a cotangent, or a tangent."""
        return self.cotangent if self.mode == "vjp" else self.tangent

    @cached_property
    def tangent(self) -> Arrays:
        """Random, one number for each floating argument."""
        return random_like(self.moving, [*self.seed, 4])

    def as_gradient(self, args: PyTree) -> PyTree:
        """The gradient of <cotangent, function(args)> by the mode; None where held."""
        moving = [jnp.asarray(x) for x in floating_leaves(args)]
        gradient = self.vjp if self.mode == "vjp" else self.gradient_by_jvp
        return only_floating(args, gradient(moving))

    def objective(self, args: PyTree) -> jax.Array:
        """<cotangent, reference(args)>, whose differences are taken."""
        return inner(self.cotangent, self.reference(floating_leaves(args)))

    def vjp(self, moving: Arrays, cotangent: Arrays | None = None) -> Arrays:
        """The gradient of <cotangent, function>."""
        outputs, pull = jax.vjp(self.function, moving)
        return _pulled(pull, outputs, cotangent or self.cotangent)

    def interrupted_vjp(self, moving: Arrays, between: Arrays) -> Arrays:
        """`vjp`, with a forward pass at another point before its backward pass."""
        outputs, pull = jax.vjp(self.function, moving)
        jax.vjp(self.function, between)
        return _pulled(pull, outputs, self.cotangent)

    def jvp(self, moving: Arrays, tangent: Arrays | None = None) -> Arrays:
        """The function's change along a tangent."""
        pairs = zip(tangent or self.tangent, moving, strict=True)
        cast = [jnp.asarray(t, x.dtype) for t, x in pairs]
        outputs: Arrays = jax.jvp(self.function, (moving,), (cast,))[1]
        return outputs

    def gradient_by_jvp(self, moving: Arrays) -> Arrays:
        """Σ over outputs of cotangent × jvp, with respect to every coordinate."""
        if sum(x.size for x in moving) <= LARGEST_BASIS:
            return self._gradient_by_basis(moving)
        zeros = [jnp.zeros_like(x) for x in moving]
        gradient: Arrays = jax.grad(lambda t: self._slope(moving, t))(zeros)
        return gradient

    def _gradient_by_basis(self, moving: Arrays) -> Arrays:
        """With respect to a complex number, ∂/∂x - i ∂/∂y: jvps along 1 and i."""
        sizes = [x.size for x in moving]

        def slopes(step: float | complex) -> list[Any]:
            def slope(coordinate: Any) -> jax.Array:
                tangent, before = [], 0
                for x, size in zip(moving, sizes, strict=True):
                    unit = jnp.arange(before, before + size) == coordinate
                    own = step if np.iscomplexobj(x) else 1.0
                    tangent.append((unit.astype(x.dtype) * own).reshape(x.shape))
                    before += size
                return self._slope(moving, tangent)

            found = jax.lax.map(slope, jnp.arange(sum(sizes)))
            return jnp.split(found, np.cumsum(sizes)[:-1])

        by_real = slopes(1.0)
        by_imaginary = slopes(1j) if any(map(np.iscomplexobj, moving)) else by_real
        return [
            (a - 1j * b if np.iscomplexobj(x) else a).reshape(x.shape).astype(x.dtype)
            for a, b, x in zip(by_real, by_imaginary, moving, strict=True)
        ]

    def _slope(self, moving: Arrays, tangent: Arrays) -> jax.Array:
        """<cotangent, J tangent>."""
        return inner(self.cotangent, jax.jvp(self.function, (moving,), (tangent,))[1])

    def value_by_rule(self) -> Arrays:
        """The floating outputs that the forward pass of the rule gives."""
        outputs: Arrays = jax.vjp(self.function, self.moving)[0]
        return outputs


def random_like(leaves: Sequence[Any], seed: Sequence[int]) -> Arrays:
    """Standard normal numbers, one for each number of the leaves.

    They are sixteenths and none is 0: hardly any floating dtype would round them.
    """
    random = np.random.default_rng(list(seed))

    def normal(shape: tuple[int, ...]) -> Any:
        sixteenths = np.round(16 * random.standard_normal(shape))
        return np.asarray(np.where(sixteenths == 0, 1, sixteenths) / 16)

    def draw(leaf: Any) -> Any:
        shape = np.shape(leaf)
        real = normal(shape)
        return real + 1j * normal(shape) if np.iscomplexobj(leaf) else real

    return [draw(leaf) for leaf in leaves]


def inner(one: Arrays, other: Arrays) -> jax.Array:
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


def _pulled(pull: Any, outputs: Arrays, cotangent: Arrays) -> Arrays:
    pairs = zip(cotangent, outputs, strict=True)
    gradient: Arrays = pull([jnp.asarray(c, out.dtype) for c, out in pairs])[0]
    return gradient


def _of_leaves(function: Callable[..., PyTree], args: tuple[Any, ...]) -> Map:
    """The floating outputs as a function of the floating leaves of the arguments."""

    def of_leaves(moving: Arrays) -> Arrays:
        return floating_leaves(function(*with_floating(args, moving)))

    return of_leaves


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
    except Exception as error:  # the caller's function
        fix = "call it on the arguments yourself to see where"
        text = complaint("function(*args)", "a value", first_line(error), fix)
        raise ValueError(text) from error
