"""What a candidate gives, fitted to the leaves that move, and where it does not fit."""

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from jaxnet.array_types import PyTree
from jaxnet.input_checks import describe
from jaxnet.jaxpr.lines import said
from jaxnet.verification.point import (
    Leaf,
    OfLeaves,
    Point,
    Reals,
    floating_leaves,
    is_inexact,
)
from jaxnet.verification.report.leaf_report import LeafReport
from jaxnet.verification.report.numbers import listed
from jaxnet.verification.report.verdict import Verdict

Gradient = Sequence[Any]
"""An array of reals for each moving leaf, or None; to read one may compute it."""

ROUND = 2.0**16
"""A number of so few bits of mantissa may be exact, whatever it was computed in."""

PAIR = "must produce a pair (list or tuple of length two)"
"""What JAX says of a forward pass, or of a custom_jvp…"""

TANGENT = "primal and tangent outputs"
"""…which this tells from one another…"""

BACKWARD = re.compile(r"bwd output structure PyTreeDef\((.*?)\) for primal input")
"""…and of a backward pass."""

NO_FORWARD = "can't apply forward-mode"
"""What JAX says of a custom_vjp."""


class Fitted(NamedTuple):
    """The arrays, their dtypes, and where the tree does not fit."""

    gradient: Gradient
    dtypes: tuple[Any, ...]
    faults: tuple[LeafReport, ...]


def by_path(tree: PyTree, point: Point) -> dict[str, Any]:
    """What a candidate gives, by the paths of the leaves."""
    if isinstance(tree, OfLeaves):
        pairs = zip(point.leaves, tree.values, strict=True)
        return {leaf.path: value for leaf, value in pairs}
    flat = jax.tree_util.tree_leaves_with_path(tree)
    given = {jax.tree_util.keystr(path): value for path, value in flat}
    if given.keys() & {leaf.path for leaf in point.leaves}:
        return given
    numbered = point.structure.unflatten(range(point.structure.num_leaves))
    known = {
        _names(path): jax.tree_util.keystr(path)
        for path, _ in jax.tree_util.tree_leaves_with_path(numbered)
    }
    if {_names(path) for path, _ in flat} <= known.keys():
        return {known[_names(path)]: value for path, value in flat}
    return given


def _names(path: Any) -> str:
    """Of a leaf: attributes, as those of a module, or keys, as those of its state."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def fitted(name: str, tree: PyTree, point: Point, is_fixed: bool = False) -> Fitted:
    """What a candidate gave, fitted to the leaves that move.

    is_fixed: whether it was computed before, as it may be in float32.
    """
    given = by_path(tree, point)
    if cause := _other_tree(tree, given, point):
        return _nowhere(name, cause, point)
    gradient, dtypes, faults = list[Reals | None](), [], []
    for leaf in point.leaves:
        value = given.pop(leaf.path, None)
        fault = _fault(name, leaf, value)
        faults += [fault] if fault else []
        gradient.append(None if fault else leaf.derivatives(value))
        of_numbers = _dtype_of if is_fixed else np.result_type
        dtypes.append(np.float64 if fault else of_numbers(np.asarray(value)))
    for path in given.keys() - set(point.held):
        cause = f"a leaf that params do not have: {describe(given[path])}"
        faults.append(_malformed(name, path, np.shape(given[path]), cause))
    return Fitted(gradient, tuple(dtypes), tuple(faults))


def _dtype_of(array: Any) -> Any:
    """That of its numbers: float32's in an array of float64 are float32's.

    Unless they are so round that they may be exact.
    """
    if array.dtype != np.float64 or not np.isfinite(array).all():
        return array.dtype
    with np.errstate(over="ignore", under="ignore"):
        is_single = bool((array.astype(np.float32) == array).all())
    digits = np.frexp(array)[0] * ROUND
    return np.dtype(np.float32) if is_single and (digits % 1).any() else array.dtype


def raising(name: str, source: Any, error: Exception, point: Point) -> Fitted:
    cause = _slip(str(error)) or f"raised {said(error)}"
    if NO_FORWARD in cause:
        cause += '; ask for its reverse mode, by assert_vjp or modes=["rev"]'
    if floating_leaves(source):
        kind = type(source).__name__
        cause += f"; {kind} is a module, which was called: pass a gradient"
    return _nowhere(name, cause, point)


def _slip(message: str) -> str:
    """What is wrong with a rule that gives nothing of the form that JAX wants."""
    if PAIR in message:
        if TANGENT in message:
            return "it gives no pair: write `return value, tangent`"
        return "its forward pass gives no pair: write `return value, residuals`"
    found = BACKWARD.search(" ".join(message.split()))
    if not found:
        return ""
    if found[1] == "None":
        return "its backward pass gives None: a `return` is missing"
    got = "an array" if found[1] == "*" else f"the structure {found[1]}"
    wanted = "expected a tuple, of a gradient for each argument: `return (…,)`"
    return f"its backward pass gives {got}, {wanted}"


def _nowhere(name: str, cause: str, point: Point) -> Fitted:
    """What fits no leaf, for one cause."""
    faults = [_malformed(name, x.path, x.shape, cause) for x in point.leaves]
    nothing = [None] * len(faults)
    return Fitted(nothing, (np.float64,) * len(faults), tuple(faults))


def _other_tree(tree: PyTree, given: dict[str, Any], point: Point) -> str:
    """What a candidate is that has no leaf of the parameters, in words."""
    wanted = [leaf.path for leaf in point.leaves]
    if tree is None:
        return "it gives None: a `return` is missing"
    if isinstance(tree, tuple) and len(tree) == 2:
        value, gradient = tree
        is_number = jax.tree_util.all_leaves([value]) and np.shape(value) == ()
        if is_number and set(wanted) <= by_path(gradient, point).keys():
            return "a pair of value and gradient: pass jax.grad, not value_and_grad"
    if given.keys() & set(wanted) or not given:
        return ""
    expected = f"leaves like those of params, {listed(wanted)}"
    several = tree if isinstance(tree, (list, tuple)) and len(tree) > 1 else ()
    if several and all(jax.tree.structure(x) == point.structure for x in several):
        return f"{len(several)} gradients: expected one, or a dict of them by name"
    if len(given) > 1 or "" not in given:
        return f"another tree, {listed(sorted(given))}: expected {expected}"
    is_scalar = np.shape(given[""]) == ()
    is_loss = " (is it the loss itself, or a sum of its gradient?)" * is_scalar
    return f"one array, {describe(given[''])}{is_loss}: expected {expected}"


def _fault(name: str, leaf: Leaf, value: Any) -> LeafReport | None:
    if value is None:
        return _malformed(name, leaf.path, leaf.shape, "missing: no gradient here")
    array = np.asarray(value)
    if not is_inexact(array) or (np.iscomplexobj(array) != leaf.is_complex):
        wanted = "complex" if leaf.is_complex else "real floating"
        cause = f"dtype {array.dtype}, expected {wanted} numbers: cast it"
        return _malformed(name, leaf.path, leaf.shape, cause)
    if array.shape != leaf.shape:
        cause = f"shape {array.shape}, expected {leaf.shape}"
        cause += _of_shapes(array.shape, leaf.shape)
        return _malformed(name, leaf.path, leaf.shape, cause)
    bad = np.argwhere(~np.isfinite(array))
    if len(bad):
        index = tuple(int(i) for i in bad[0])
        cause = f"{array[index]} in {len(bad)} of {array.size} entries"
        return _malformed(name, leaf.path, leaf.shape, cause, index)
    return None


def _of_shapes(got: tuple[int, ...], expected: tuple[int, ...]) -> str:
    """What may have been forgotten, if an array has another shape."""
    more = len(got) - len(expected)
    if more > 0 and got[more:] == expected:
        axes = "axis 0" if more == 1 else f"the first {more} axes"
        return f": sum over {axes}, along which it was broadcast"
    if len(got) > 1 and got == expected[::-1]:
        return ": transposed?"
    if len(got) == len(expected) == 1:
        return ": a sum over another axis?"
    return ""


def _malformed(
    name: str,
    path: str,
    shape: tuple[int, ...],
    cause: str,
    index: tuple[int, ...] | None = None,
) -> LeafReport:
    verdict = Verdict.MALFORMED
    return LeafReport(path, name, tuple(shape), verdict, False, index, cause=cause)
