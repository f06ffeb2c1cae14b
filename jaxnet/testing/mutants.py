"""The canonical mistakes of a derivative rule, to find out whether a suite sees them.

Source of the idea: mutation testing (DeMillo, Lipton and Sayward 1978).
"""

from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, TypeAlias, TypeGuard

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.array_types import PyTree
from jaxnet.testing.by_position import named
from jaxnet.verification.function.cotangents import random_like
from jaxnet.verification.function.same_bits import fingerprint
from jaxnet.verification.point import floating_leaves, is_inexact, with_floating

Linear: TypeAlias = Callable[[PyTree, PyTree], PyTree]
"""A derivative: of the arguments and a cotangent or tangent, to what it makes of it."""

Mistake: TypeAlias = Callable[[Linear, PyTree, PyTree], PyTree]
"""What a wrong rule makes of the right one's derivative, arguments and direction."""


def mutants(rule: Callable[..., PyTree], *args: Any) -> dict[str, Callable[..., Any]]:
    """Wrong rules of the same function, one for each canonical mistake.

    A suite catches a mutant if a test fails with it in the place of `rule`; its score
    is how many it catches:

        for name, mutant in mutants(my_rule, x).items():
            with pytest.raises(AssertionError):
                assert_vjp(mutant, x)

    Args:
        rule: a `jax.custom_vjp` or `jax.custom_jvp`, or any function that JAX can
            differentiate, which then gets a rule of its own.
        args: where it is tested, if given: mutants that are right there are left out,
            such as a transposed gradient of a symmetric matrix.

    Returns:
        The name of the mistake -> a function with the values of `rule`; with a rule for
        forward mode if `rule` is a `jax.custom_jvp`, else for reverse mode.
    """
    chosen = MISTAKES
    if args:
        chosen = {name: m for name, m in MISTAKES.items() if _shows(rule, args, m)}
    return {name: mutated(rule, mistake) for name, mistake in chosen.items()}


def mutated(rule: Callable[..., PyTree], mistake: Mistake) -> Callable[..., PyTree]:
    """The function with one mistake in its rule, or in one that it gets."""
    if _is_rule(rule):
        return _with_mistake(rule, mistake, wraps(rule))

    @wraps(rule)
    def ruled(*args: Any, **kwargs: Any) -> PyTree:
        held = [i for i, x in enumerate(args) if _is_static(x)]
        still, moving = [args[i] for i in held], list(args)
        for i in reversed(held):
            del moving[i]

        def of_moving(*moving: Any) -> PyTree:
            return rule(*_merged(held, still, moving), **kwargs)

        return _with_mistake(of_moving, mistake, named(rule))(*moving)

    return ruled


def _with_mistake(
    rule: Callable[..., PyTree],
    mistake: Mistake,
    named: Callable[[Callable[..., PyTree]], Callable[..., PyTree]],
) -> Callable[..., PyTree]:
    held = _held(rule)

    def of_moving(still: Sequence[Any]) -> Callable[..., PyTree]:
        return lambda *moving: rule(*_merged(held, still, moving))

    def function(*args: Any) -> PyTree:
        return rule(*args)

    if isinstance(rule, jax.custom_jvp):

        def forward_mode(*given: Any) -> Any:
            *still, primals, tangents = given
            own = of_moving(still)
            return own(*primals), mistake(_jvp_of(own), primals, tangents)

        with_jvp = jax.custom_jvp(named(function), nondiff_argnums=held)
        with_jvp.defjvp(forward_mode)
        return with_jvp

    def forward(*args: Any) -> Any:
        return rule(*args), tuple(x for i, x in enumerate(args) if i not in held)

    def backward(*given: Any) -> Any:
        *still, moving, cotangent = given
        return mistake(_vjp_of(of_moving(still)), moving, cotangent)

    with_vjp = jax.custom_vjp(named(function), nondiff_argnums=held)
    with_vjp.defvjp(forward, backward)
    return with_vjp


def _scaled(linear: Linear, args: PyTree, direction: PyTree) -> PyTree:
    """A mean not taken: N times too large, N being the first axis."""
    shapes = [np.shape(x) for x in jax.tree.leaves((args, direction))]
    number = next((shape[0] for shape in shapes if shape and shape[0] > 1), 2)
    return _each(lambda x: number * x, linear(args, direction))


def _negated(linear: Linear, args: PyTree, direction: PyTree) -> PyTree:
    return _each(lambda x: -x, linear(args, direction))


def _zero(linear: Linear, args: PyTree, direction: PyTree) -> PyTree:
    return _each(jnp.zeros_like, linear(args, direction))


def _a_term_less(linear: Linear, args: PyTree, direction: PyTree) -> PyTree:
    """The last entry is not summed: of the direction, or of a result if it has one."""
    if max((np.size(x) for x in jax.tree.leaves(direction)), default=0) > 1:
        return linear(args, _each(_without_last, direction))
    return _each(_without_last, linear(args, direction))


def _transposed(linear: Linear, args: PyTree, direction: PyTree) -> PyTree:
    def turned(x: Any) -> Any:
        return jnp.swapaxes(x, -1, -2).reshape(x.shape) if x.ndim > 1 else x

    return _each(turned, linear(args, direction))


def _wrong_argument(linear: Linear, args: PyTree, direction: PyTree) -> PyTree:
    """The derivative is taken at other values: those of the next argument of a shape.

    Where there is none, at the entries in the opposite order.
    """
    leaves, structure = jax.tree.flatten(args)
    kinds = [(np.shape(x), jnp.result_type(x)) for x in leaves]

    def other(number: int) -> Any:
        leaf = leaves[number]
        if not is_inexact(leaf):
            return leaf
        turned = [*range(number + 1, len(leaves)), *range(number)]
        alike = (leaves[i] for i in turned if kinds[i] == kinds[number])
        return next(alike, jnp.ravel(leaf)[::-1].reshape(np.shape(leaf)))

    others = map(other, range(len(leaves)))
    return linear(jax.tree.unflatten(structure, others), direction)


def _ignores(linear: Linear, args: PyTree, direction: PyTree) -> PyTree:
    """The cotangent, or tangent, is taken to be 1."""
    return linear(args, _each(jnp.ones_like, direction))


def _wrong_under_vmap(linear: Linear, args: PyTree, direction: PyTree) -> PyTree:
    """Every example of a batch gets what is right for the first."""
    one = jax.custom_batching.custom_vmap(linear)

    @one.def_vmap
    def of_first(size: int, is_batched: Any, args: PyTree, direction: PyTree) -> Any:
        given = args, direction
        first = jax.tree.map(lambda x, b: x[0] if b else x, given, tuple(is_batched))
        result = linear(*first)
        spread = _each(lambda x: jnp.broadcast_to(x, (size, *x.shape)), result)
        return spread, jax.tree.map(is_inexact, result)

    return one(args, direction)


def _wrong_in_float32(linear: Linear, args: PyTree, direction: PyTree) -> PyTree:
    """On its way it is 2^-200 times as large: 0 in float32, and exact in float64."""

    def underflowing(x: Any) -> Any:
        small = x * 2.0**-100 * 2.0**-100
        return small * 2.0**100 * 2.0**100

    return _each(underflowing, linear(args, direction))


MISTAKES: dict[str, Mistake] = {
    "times N": _scaled,
    "sign": _negated,
    "zero": _zero,
    "a term less": _a_term_less,
    "transposed": _transposed,
    "wrong argument": _wrong_argument,
    "ignores the cotangent": _ignores,
    "wrong under vmap": _wrong_under_vmap,
    "wrong in float32": _wrong_in_float32,
}
"""Name -> mistake."""


def _shows(
    rule: Callable[..., PyTree], args: tuple[Any, ...], mistake: Mistake
) -> bool:
    """Whether it changes something: at the arguments, in float32, or under vmap."""
    right, wrong = (_situations(mutated(rule, x), args) for x in (_right, mistake))
    return list(right) != list(wrong)


def _right(linear: Linear, args: PyTree, direction: PyTree) -> PyTree:
    return linear(args, direction)


def _situations(
    rule: Callable[..., PyTree], args: tuple[Any, ...]
) -> Iterator[tuple[bytes, ...]]:
    """What the derivative gives along fixed random numbers, in each situation."""
    held = _held(rule)
    still = [args[i] for i in held]
    moving = [x for i, x in enumerate(args) if i not in held]

    def of_floats(floats: list[Any]) -> list[Any]:
        given = _merged(held, still, with_floating(moving, floats))
        return floating_leaves(rule(*given))

    def derivative(floats: list[Any]) -> Any:
        if isinstance(rule, jax.custom_jvp):
            tangents = _directions(floats)
            return jax.jvp(of_floats, (floats,), (tangents,))[1]
        outputs, pull = jax.vjp(of_floats, floats)
        return pull(_directions(outputs))[0]

    def single(x: Any) -> Any:
        return x.astype(np.float32) if x.dtype == np.float64 else x

    own = [jnp.asarray(x) for x in floating_leaves(moving)]
    yield fingerprint(derivative(own))
    yield fingerprint(derivative(list(map(single, own))))
    yield fingerprint(jax.vmap(derivative)([jnp.stack([x, 1.25 * x]) for x in own]))


def _directions(like: list[Any]) -> list[Any]:
    pairs = zip(random_like(like, [0]), like, strict=True)
    return [jnp.asarray(drawn, x.dtype) for drawn, x in pairs]


def _each(change: Callable[[Any], Any], tree: PyTree) -> PyTree:
    """Of every floating array; what is no float stays."""
    return jax.tree.map(lambda x: change(jnp.asarray(x)) if is_inexact(x) else x, tree)


def _without_last(x: Any) -> Any:
    return jnp.ravel(x).at[-1].set(0).reshape(x.shape) if x.size else x


def _held(rule: Callable[..., PyTree]) -> tuple[int, ...]:
    """The positions that a rule is not differentiated with respect to."""
    return tuple(rule.nondiff_argnums) if _is_rule(rule) else ()


def _is_rule(function: Any) -> TypeGuard[Any]:
    return isinstance(function, (jax.custom_vjp, jax.custom_jvp))


def _is_static(arg: Any) -> bool:
    """Whether it has no array and no float: a name, a function, a number of axes."""
    leaves = jax.tree.leaves(arg)
    return not any(is_inexact(x) or hasattr(x, "dtype") for x in leaves)


def _merged(
    held: Sequence[int], still: Sequence[Any], moving: Sequence[Any]
) -> list[Any]:
    """All arguments in their order."""
    given, rest = dict(zip(held, still, strict=True)), iter(moving)
    count = len(still) + len(moving)
    return [given[i] if i in given else next(rest) for i in range(count)]


def _jvp_of(function: Callable[..., PyTree]) -> Linear:
    return lambda args, tangents: jax.jvp(function, tuple(args), tuple(tangents))[1]


def _vjp_of(function: Callable[..., PyTree]) -> Linear:
    return lambda args, cotangent: jax.vjp(function, *args)[1](cotangent)
