"""A function with its derivative rule at a point, and its linear maps there."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.array_types import PyTree
from jaxnet.float64 import in_float64
from jaxnet.input_checks import (
    NoPair,
    check_callable,
    complaint,
    describe,
    is_traced,
)
from jaxnet.jaxpr.compiled import compiled
from jaxnet.jaxpr.dependence import dependence
from jaxnet.jaxpr.lines import said
from jaxnet.jaxpr.reader import dtypes_of
from jaxnet.precision import DOUBLE, eps
from jaxnet.verification.candidates.callables import UNTRACEABLE
from jaxnet.verification.function.cotangents import Arrays, inner, random_like
from jaxnet.verification.function.once import once
from jaxnet.verification.function.program import Program
from jaxnet.verification.function.rounding_noise import rounding_of
from jaxnet.verification.function.widen import Widened
from jaxnet.verification.point import (
    OfLeaves,
    floating_leaves,
    is_inexact,
    with_floating,
)
from jaxnet.verification.report.numbers import listed
from jaxnet.verification.rules.arguments import Arguments
from jaxnet.verification.rules.closeness import Closeness
from jaxnet.verification.seeds import seed_of

LARGEST_BASIS = 4096
"""Up to so many coordinates, a gradient is built from one jvp each."""

GROUPS = 4
"""Into how many groups arguments and outputs are split, each of which is used alone."""

ROUGHLY = 100.0
"""Where rounding cannot be measured: so many ulps of the largest entry."""

Map: TypeAlias = Callable[[Arrays], Arrays]
Mode: TypeAlias = Literal["vjp", "jvp"]

NAMES: dict[Mode, str] = {"vjp": "cotangent", "jvp": "tangent"}
"""What the linear map of each mode is applied to."""


@dataclass(frozen=True)
class Rule:
    """A function of the floating leaves of its arguments, which are flattened once.

    function: to its floating outputs, with its derivative rule.
    reference: what differences are taken of: a function given by the user, or the
        function itself.
    args: the arguments as the caller knows them, None for those held fixed.
    moving: their floating leaves.
    cotangent: random, one number for each floating output.
    held: the arguments that are held fixed.
    left_out: the outputs that no argument reaches.
    mode: which of its two linear maps is asked about.
    """

    function: Map
    reference: Map
    args: Arguments
    moving: Arrays
    cotangent: Arrays
    seed: tuple[int, ...]
    held: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    mode: Mode = "vjp"

    @classmethod
    def of(
        cls,
        function: Callable[..., PyTree],
        reference: Callable[..., PyTree] | None,
        args: tuple[Any, ...],
        nondiff_argnums: Sequence[int],
        key: Any,
        mode: Mode = "vjp",
    ) -> "Rule":
        """Bind the arguments that are held fixed, and draw a cotangent."""
        fix = "write the function first, then its arguments"
        check_callable("function", function, fix)
        if not floating_leaves(args):
            given = listed(list(map(describe, args)))
            got = f"none among {given}" if args else "no arguments"
            fix = "pass floats: what is differentiated is real or complex"
            raise TypeError(complaint("args", "a floating argument", got, fix))
        if reference is not None:
            fix = "pass a function of the same arguments"
            check_callable("reference", reference, fix)
        held = _held(function, nondiff_argnums, len(args))
        moved = tuple(None if i in held else x for i, x in enumerate(args))
        bound = [_bound(f, args, held) for f in (function, reference or function)]
        seed, output = seed_of(key), _called(bound[0], moved)
        flat = jax.tree_util.tree_leaves_with_path(output)
        paths = [jax.tree_util.keystr(path) for path, leaf in flat if is_inexact(leaf)]
        if not paths:
            got = f"{len(flat)} leaves, none floating"
            fix = "a rule needs something to differentiate"
            raise TypeError(complaint("function(*args)", "a floating output", got, fix))
        moving = [jnp.asarray(x) for x in floating_leaves(moved)]
        chosen = _reached(_of_leaves(bound[0], moved, range(len(paths))), moving)
        own, other = (_of_leaves(f, moved, chosen) for f in bound)
        outputs = floating_leaves(output)
        if reference is not None:
            _check_alike(outputs, floating_leaves(_called(bound[1], moved)))
        cotangent = random_like([outputs[i] for i in chosen], [*seed, 2])
        left_out = tuple(paths[i] for i in range(len(paths)) if i not in chosen)
        named = Arguments.of(function, moved)
        rest = seed, tuple(named.names[i] for i in sorted(held)), left_out, mode
        return cls(own, other, named, moving, cotangent, *rest)

    def derivative(self, mode: Mode) -> "Rule":
        """The function (args, direction) -> what the linear map gives.

        Its rule, by a mode of its own, is that of one order more.
        """
        count = len(self.moving)

        def applied(moving: Arrays) -> Arrays:
            return self.linear_map(moving[:count], moving[count:])

        like = self.moving
        if self.mode == "vjp":
            like = jax.eval_shape(self.function, self.moving)
        pairs = zip(self.direction, like, strict=True)
        own = [jnp.asarray(d, x.dtype) for d, x in pairs]
        moving = [*self.moving, *own]
        return replace(
            self,
            function=applied,
            reference=applied,
            args=self.args.and_one(NAMES[self.mode], own),
            moving=moving,
            cotangent=random_like(applied(moving), [*self.seed, 3]),
            mode=mode,
        )

    @cached_property
    def close(self) -> Closeness:
        """What may be called equal of what the linear map gives."""
        return self.close_of(self.linear_map)

    def close_of(self, *functions: Map) -> Closeness:
        """What may be called equal of what functions give that compute one thing."""

        def measure() -> list[float]:
            found = [self._rounding(function) for function in functions]
            return [max(each) for each in zip(*found, strict=True)]

        return Closeness(measure)

    @once
    def _rounding(self, function: Map) -> list[float]:
        try:
            traced = jax.make_jaxpr(function)(self.moving)
            return rounding_of(traced, self.moving)
        except Exception:  # the caller's function cannot be traced
            outputs = map(np.asarray, function(self.moving))
            sizes = [(eps(x.dtype), np.max(np.abs(x), initial=0.0)) for x in outputs]
            return [float(ROUGHLY * one * size) for one, size in sizes]

    @cached_property
    def close_outputs(self) -> Closeness:
        """What may be called equal of outputs, of the function or of its rule."""
        return self.close_of(self.function, self.value_by_rule)

    @cached_property
    def precision(self) -> float:
        """ε of the coarsest dtype of its arguments and outputs."""
        return max(eps(x.dtype) for x in (*self.moving, *self.outputs))

    def in_float64(self, function: Callable[..., Arrays], *args: Any) -> Arrays | None:
        """What a function of these arrays gives, widened; None where it is not."""
        leaves, tree = jax.tree.flatten(args)

        def of_leaves(leaves: list[Any]) -> Arrays:
            return function(*jax.tree.unflatten(tree, leaves))

        try:
            widened = Widened.of(of_leaves, leaves)
            if widened.precision() > DOUBLE:
                return None
            with in_float64():
                found: Arrays = jax.tree.map(np.asarray, widened.compiled(leaves))
                return found
        except Exception:  # the caller's rule
            return None

    @cached_property
    def ranges(self) -> list[Any]:
        """What the floating types hold that the function computes in."""
        found = {x.dtype for x in self.moving}
        try:
            traced = jax.make_jaxpr(self.function)(self.moving)
        except Exception:  # the caller's function cannot be traced
            found.update(x.dtype for x in self.outputs)
        else:
            found.update(aval.dtype for aval in traced.out_avals)
            for equation in Program(traced).equations:
                found.update(dtypes_of(equation))
        return [jnp.finfo(dtype) for dtype in found]

    @property
    def linear_map(self) -> Callable[..., Arrays]:
        """The map that is asked about: vjp or jvp."""
        return self.vjp if self.mode == "vjp" else self.jvp

    @cached_property
    def outputs(self) -> Arrays:
        """The floating outputs, of one call as its caller makes it."""
        return self.function(self.moving)

    @cached_property
    def mapped(self) -> Arrays:
        """What that map gives, of one call as its caller makes it."""
        return self.linear_map(self.moving)

    def call_first(self) -> None:
        """Call it as its caller does, before a trace does: that may be another call."""
        with suppress(Exception):  # the caller's rule: the leaves say what it raises
            _ = self.mapped

    @once
    def compiled_map(self, mode: Mode) -> Callable[[Arrays, Arrays], Arrays]:
        """A linear map within jit; raises what JAX raises where it cannot trace it."""
        if mode == "vjp":
            return compiled(self.vjp, self.moving, self.cotangent)
        return compiled(self.jvp, self.moving, self.tangent)

    def applied(self, direction: Arrays, at: Arrays | None = None) -> Arrays:
        """What the map gives for a direction, within jit where JAX can trace it.

        at: another point than that of the rule.
        """
        moving = self.moving if at is None else at
        try:
            jitted = self.compiled_map(self.mode)
        except Exception:  # the caller's rule
            return self.linear_map(moving, direction)
        return jitted(moving, direction)

    @property
    def direction(self) -> Arrays:
        """What that map is applied to by default: a cotangent, or a tangent."""
        return self.cotangent if self.mode == "vjp" else self.tangent

    @cached_property
    def tangent(self) -> Arrays:
        """Random, one number for each floating argument."""
        return random_like(self.moving, [*self.seed, 4])

    def as_gradient(self, args: PyTree) -> OfLeaves:
        """The gradient of <cotangent, function(args)> by the mode."""
        moving = [jnp.asarray(x) for x in floating_leaves(args)]
        gradient = self.vjp if self.mode == "vjp" else self.gradient_by_jvp
        return OfLeaves(gradient(moving))

    def objective(self, args: PyTree) -> Any:
        """<cotangent, reference(args)>, whose differences are taken."""
        return inner(self.cotangent, self.reference(floating_leaves(args)))

    def vjp(self, moving: Arrays, cotangent: Arrays | None = None) -> Arrays:
        """The gradient of <cotangent, function>."""
        return self.value_and_vjp(moving, cotangent or self.cotangent)[1]

    def value_and_vjp(self, moving: Arrays, cotangent: Arrays) -> tuple[Arrays, Arrays]:
        """The outputs that the forward pass of the rule gives, and that gradient."""
        outputs, pull = jax.vjp(self.function, moving)
        return outputs, _pulled(pull, outputs, cotangent)

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

    def by_arguments(self) -> Iterator[tuple[Arrays, Arrays]]:
        """Some arguments at a time: zeros for the others, and the others held.

        Nothing if there is one argument.
        """
        groups = _groups(len(self.moving))
        if len(groups) < 2:
            return

        def of_some(group: list[int], some: Arrays) -> Arrays:
            return self.function(_with(self.moving, group, some))

        if self.mode == "vjp":
            parts = []
            for group in groups:
                some = [self.moving[i] for i in group]
                outputs, pull = jax.vjp(partial(of_some, group), some)
                parts += _pulled(pull, outputs, self.cotangent)
            yield self.mapped, parts
            return
        zeros = [np.zeros_like(t) for t in self.tangent]
        for group in groups:
            some = [self.moving[i] for i in group]
            own = [self.tangent[i] for i in group]
            cast = [jnp.asarray(t, x.dtype) for t, x in zip(own, some, strict=True)]
            alone = jax.jvp(partial(of_some, group), (some,), (cast,))[1]
            yield self.jvp(self.moving, _with(zeros, group, own)), alone

    def by_outputs(self) -> Iterator[tuple[Arrays, Arrays]]:
        """Some outputs at a time: cotangent 0 for the others, and the others not used.

        Nothing if there is one output.
        """
        groups = _groups(len(self.cotangent))
        zeros = [np.zeros_like(c) for c in self.cotangent]
        for group in groups if len(groups) > 1 else ():

            def some_of(moving: Arrays, group: list[int] = group) -> Arrays:
                outputs = self.function(moving)
                return [outputs[i] for i in group]

            own = [self.cotangent[i] for i in group]
            outputs, pull = jax.vjp(some_of, self.moving)
            alone = _pulled(pull, outputs, own)
            yield self.vjp(self.moving, _with(zeros, group, own)), alone

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
            def slope(coordinate: Any) -> Any:
                tangent, before = [], 0
                for x, size in zip(moving, sizes, strict=True):
                    unit = jnp.arange(before, before + size) == coordinate
                    own = step if np.iscomplexobj(x) else 1.0
                    tangent.append((unit.astype(x.dtype) * own).reshape(x.shape))
                    before += size
                return self._slope(moving, tangent)

            coordinates = jnp.arange(sum(sizes))
            try:
                found = jax.lax.map(slope, coordinates)
            except UNTRACEABLE:  # a rule by NumPy
                found = jnp.stack([slope(i) for i in coordinates])
            return jnp.split(found, np.cumsum(sizes)[:-1])

        by_real = slopes(1.0)
        by_imaginary = slopes(1j) if any(map(np.iscomplexobj, moving)) else by_real
        return [
            (a - 1j * b if np.iscomplexobj(x) else a).reshape(x.shape).astype(x.dtype)
            for a, b, x in zip(by_real, by_imaginary, moving, strict=True)
        ]

    def _slope(self, moving: Arrays, tangent: Arrays) -> Any:
        """<cotangent, J tangent>."""
        return inner(self.cotangent, jax.jvp(self.function, (moving,), (tangent,))[1])

    def value_by_rule(self, moving: Arrays) -> Arrays:
        """The floating outputs that the forward pass of the rule gives."""
        outputs: Arrays = jax.vjp(self.function, moving)[0]
        return outputs


def _groups(count: int) -> list[list[int]]:
    """The numbers below `count` in at most GROUPS groups, in order."""
    groups = np.array_split(np.arange(count), min(count, GROUPS))
    return [[int(i) for i in group] for group in groups]


def _with(values: Arrays, where: list[int], others: Arrays) -> Arrays:
    """The list with other values at some places."""
    given = dict(zip(where, others, strict=True))
    return [given.get(i, value) for i, value in enumerate(values)]


def _pulled(pull: Any, outputs: Arrays, cotangent: Arrays) -> Arrays:
    pairs = zip(cotangent, outputs, strict=True)
    gradient: Arrays = pull([jnp.asarray(c, out.dtype) for c, out in pairs])[0]
    return gradient


def _of_leaves(
    function: Callable[..., PyTree], args: tuple[Any, ...], chosen: Sequence[int]
) -> Map:
    """The chosen floating outputs of the floating leaves of the arguments."""

    def of_leaves(moving: Arrays) -> Arrays:
        outputs = floating_leaves(function(*with_floating(args, moving)))
        return [jnp.asarray(outputs[i]) for i in chosen]

    return of_leaves


def _reached(function: Map, moving: Arrays) -> list[int]:
    """The outputs that some argument reaches; all, if none does or JAX cannot tell."""
    try:
        traced = jax.make_jaxpr(function)(moving)
    except Exception:  # the caller's function
        return list(range(len(function(moving))))
    reached = dependence(traced, [True] * len(traced.in_avals)).outputs
    return [i for i, is_reached in enumerate(reached) if is_reached or not any(reached)]


def _held(
    function: Callable[..., PyTree], nondiff_argnums: Sequence[int], count: int
) -> set[int]:
    """The positions that are held: those asked for, and those of a rule itself.

    Raises:
        ValueError: there is no argument at a position.
    """
    for position in nondiff_argnums:
        if not isinstance(position, (int, np.integer)):
            fix = "write (0,) for the first"
            got = describe(position)
            raise TypeError(complaint("nondiff_argnums", "positions", got, fix))
        if not -count <= position < count:
            fix = "count from 0, or from -1 at the end"
            got = f"{position} of {count} arguments"
            raise ValueError(complaint("nondiff_argnums", "positions", got, fix))
    of_rule = getattr(function, "nondiff_argnums", ()) if _is_rule(function) else ()
    given = (p for p in of_rule if p < count)  # a default may stand for the others
    return {*(p % count for p in nondiff_argnums), *given}


def _is_rule(function: Callable[..., PyTree]) -> bool:
    """Whether it is a rule itself: what functools.wraps makes has its attributes."""
    return isinstance(function, (jax.custom_vjp, jax.custom_jvp))


def _bound(
    function: Callable[..., PyTree], args: tuple[Any, ...], held: set[int]
) -> Callable[..., PyTree]:
    if not held:
        return function

    def of_the_rest(*moving: Any) -> PyTree:
        pairs = enumerate(zip(args, moving, strict=True))
        return function(*(own if i in held else x for i, (own, x) in pairs))

    return of_the_rest


def _called(function: Callable[..., PyTree], args: tuple[Any, ...]) -> PyTree:
    copies = jax.tree.map(_copy, args)
    try:
        output = function(*copies)
    except NoPair:
        raise
    except Exception as error:  # the caller's function
        fix = "call it on the arguments yourself to see where"
        if len(args) == 1 and isinstance(args[0], tuple):
            fix = "write the arguments one by one, f, x, y: this is one tuple"
        text = complaint("function(*args)", "a value", said(error), fix)
        raise ValueError(text) from None
    if any(x.is_deleted() for x in jax.tree.leaves(copies) if _is_held(x)):
        got = "one that donates them (`donate_argnums`)"
        fix = "check jax.jit(lambda *args: function(*args)), which keeps them"
        expected = "a function that keeps its arguments"
        raise ValueError(complaint("function(*args)", expected, got, fix))
    return output


def _check_alike(outputs: Sequence[Any], others: Sequence[Any]) -> None:
    """A reference has the floating outputs of the function.

    Raises:
        ValueError: it has others, or in other shapes.
    """
    own, other = ([np.shape(x) for x in leaves] for leaves in (outputs, others))
    if own != other:
        expected = f"shapes like the function's, {listed(list(map(str, own)))}"
        fix = "let it give what the function should"
        got = listed(list(map(str, other))) or "no floating output"
        raise ValueError(complaint("reference(*args)", expected, got, fix))


def _copy(value: Any) -> Any:
    """The same array in memory of its own, which a function may be given for good."""
    return jax.device_put(value, may_alias=False) if _is_held(value) else value


def _is_held(value: Any) -> bool:
    """Whether it is an array of JAX's with values, and no tracer."""
    return isinstance(value, jax.Array) and not is_traced(value)
