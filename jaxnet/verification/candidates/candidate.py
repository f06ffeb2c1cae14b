"""The gradients to be checked, fitted to the point, and how finely they can be."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from jaxnet.array_types import PyTree
from jaxnet.float64 import in_float64
from jaxnet.input_checks import complaint, describe
from jaxnet.jaxpr import evaluate, said
from jaxnet.precision import DOUBLE, eps
from jaxnet.verification.candidates.autodiff import Autodiff
from jaxnet.verification.candidates.callables import CalledGradient, LeafByLeaf
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.function.program import Program
from jaxnet.verification.function.rounding_noise import more_rounds
from jaxnet.verification.function.widen import Widened
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


@dataclass(frozen=True, eq=False)
class Run:
    """What a candidate that is called gives its caller, in his own mode and dtypes.

    gradient, faults: as of a candidate.
    program: what was run.
    """

    gradient: Gradient
    faults: tuple[LeafReport, ...]
    program: Program

    def fault_of(self, leaf: Leaf) -> LeafReport | None:
        """Where it does not fit a leaf: a shape, a NaN."""
        return next((f for f in self.faults if f.path == leaf.path), None)


ROUND = 2.0**16
"""A number of so few bits of mantissa may be exact, whatever it was computed in."""

NO_FORWARD = "can't apply forward-mode"
"""What JAX says of a custom_vjp."""


@dataclass(frozen=True, eq=False)
class Candidate:
    """One gradient: an array of reals for each moving leaf.

    gradient: None for a leaf that it does not fit, or where it gives two values.
    dtypes: of each leaf as it came.
    faults: a MALFORMED record for each place where it does not fit.
    is_autodiff: whether it is the default, jax.grad of the loss by the verifier.
    run: what its caller gets of a callable, where that is coarser than float64.
    not_run: what it raised when it was called like that.
    widened: what a callable computes, where it could be traced.
    """

    name: str
    source: Any
    gradient: Gradient
    dtypes: tuple[Any, ...]
    faults: tuple[LeafReport, ...] = ()
    is_autodiff: bool = False
    widened: Widened | None = None
    run: Run | None = None
    not_run: str = ""

    @classmethod
    def of(
        cls, name: str, source: Any, objective: Objective, is_autodiff: bool = False
    ) -> "Candidate":
        """Evaluate (a callable, twice) and fit to the moving leaves."""
        point = objective.point
        if not is_function(source, point):
            return cls(name, source, *_fitted(name, source, point, is_fixed=True))
        known = source.widened if is_autodiff else None
        called = CalledGradient(source, objective, known)
        try:
            tree, repeats = called.twice()
        except Exception as error:  # the caller's function
            return cls(name, source, *_raising(name, source, error, point))
        own = called.widened.own if called.widened and not is_autodiff else None
        is_fixed = own is not None and not any(own.used)
        gradient, dtypes, faults = _fitted(name, tree, point, is_fixed)
        rest = is_autodiff, called.widened
        nothing = [None] * len(point.leaves)
        if not repeats:
            return cls(name, source, nothing, dtypes, faults, *rest)
        run, not_run = _run(name, called, point)
        if point.are_many:

            def again() -> Gradient:
                tree = called.again()
                return nothing if tree is None else _fitted(name, tree, point)[0]

            gradient = LeafByLeaf(again, len(point.leaves))
        fitted = gradient, dtypes, faults, *rest
        return cls(name, source, *fitted, run=run, not_run=not_run)

    def at(self, point: Point, objective: Objective) -> "Candidate | None":
        """The candidate at another point; None if it is not a callable."""
        if not is_function(self.source, point):
            return None
        try:
            tree = CalledGradient(self.source, objective, self.widened).at(point)
            fitted = _fitted(self.name, tree, point)
        except Exception as error:  # the caller's function
            fitted = _raising(self.name, self.source, error, point)
        rest = self.is_autodiff, self.widened
        return Candidate(self.name, self.source, *fitted, *rest)

    def array(self, leaf: Leaf) -> Reals:
        """The gradient with respect to one leaf that has one."""
        gradient: Reals | None = self.gradient[leaf.number]
        assert gradient is not None
        return gradient

    def gives(self, leaf: Leaf) -> bool:
        """Whether it has an array of the leaf's shape and kind, the same each time."""
        return self.gradient[leaf.number] is not None

    def changing(self, leaf: Leaf) -> list[LeafReport]:
        """A report if it has an array of the leaf, but not the same each time."""
        if self.gives(leaf) or any(fault.path == leaf.path for fault in self.faults):
            return []
        rest = self.name, leaf.shape, Verdict.NONDETERMINISTIC, False
        cause = "the candidate gives two values for one input"
        return [LeafReport(leaf.path, *rest, cause=cause)]

    def shifts(self, objective: Objective) -> list[Gradient]:
        """How it changes if inexact constants of its own, not the loss's, are moved."""
        if self.widened is None:
            return []
        known = objective.widened.constants if objective.widened else ()
        with in_float64():
            found = self.widened.shifts(objective.point.wide(), known)
            return [_fitted(self.name, tree, objective.point)[0] for tree in found]

    def after_another_round(self, objective: Objective) -> Gradient:
        """What it gives if each of its own iterations to a tolerance runs once more."""
        assert self.widened is not None
        own, out_tree = self.widened.own, self.widened.out_tree

        def longer(moved: list[Any]) -> PyTree:
            outputs = evaluate(own.closed, moved, more_rounds(own, 1))
            return jax.tree.unflatten(out_tree, outputs)

        known = self.widened.constants
        args = objective.point.as_traced()
        widened = Widened.of(longer, args, known, is_rerun=True)
        with in_float64():
            tree = jax.tree.map(np.asarray, widened.compiled(objective.point.wide()))
        return _fitted(self.name, tree, objective.point)[0]

    def is_derived(self, autodiff: Autodiff) -> bool:
        """Whether it is what JAX derives from the loss, by whatever name."""
        return self.is_autodiff or autodiff.gave(self.widened)

    def eps(self, number: int) -> float:
        """ε of the dtype that leaf `number` came in, or of a coarser one inside."""
        inside = self.widened.precision() if self.widened else 0.0
        return max(eps(self.dtypes[number]), inside)


def claims(
    candidates: Any, objective: Objective, autodiff: Autodiff
) -> list[Candidate]:
    """The candidates of a call, evaluated; by default autodiff."""
    if candidates is None:
        return [Candidate.of("autodiff", autodiff, objective, is_autodiff=True)]
    named = _named(candidates, objective.point)
    return [Candidate.of(name, source, objective) for name, source in named.items()]


def _named(candidates: Any, point: Point) -> dict[str, Any]:
    """Candidates by name: a bare pytree or callable is one."""
    is_named = isinstance(candidates, dict) and (
        any(is_function(value, point) for value in candidates.values())
        or all(
            jax.tree.structure(value) == point.structure
            for value in candidates.values()
        )
        or not (_shares_paths(candidates, point) or _are_arrays(candidates))
    )
    if not is_named:
        return {"candidate": candidates}
    if not candidates:
        fix = "name at least one gradient, or pass None for jax.grad"
        raise ValueError(complaint("candidates", "name -> gradient", "{}", fix))
    return {str(name): value for name, value in candidates.items()}


def _are_arrays(candidates: dict[str, Any]) -> bool:
    """Whether these are one gradient of another tree, not gradients by name."""
    return bool(candidates) and jax.tree_util.all_leaves(candidates.values())


def is_function(source: Any, point: Point) -> bool:
    """Whether a candidate is to be called: a gradient may be a callable pytree."""
    flat = jax.tree_util.tree_leaves_with_path(source)
    given = {jax.tree_util.keystr(path): leaf for path, leaf in flat}
    is_gradient = all(is_inexact(given.get(leaf.path)) for leaf in point.leaves)
    return callable(source) and not is_gradient


def _shares_paths(candidates: Any, point: Point) -> bool:
    """Whether a dict is itself the gradient: it has a path of the parameters."""
    flat = jax.tree_util.tree_flatten_with_path(candidates)[0]
    given = {jax.tree_util.keystr(path) for path, _ in flat}
    top = {leaf.path.split("]")[0] for leaf in point.leaves}
    return bool(given & {leaf.path for leaf in point.leaves}) or bool(
        {path.split("]")[0] for path in given} & (top - {""})
    )


def _run(name: str, called: CalledGradient, point: Point) -> tuple[Run | None, str]:
    """What the caller gets, or what it raises; neither if that is float64 anyway."""
    if called.widened is None or called.widened.own.precision() <= DOUBLE:
        return None, ""

    def once() -> tuple[Gradient, tuple[LeafReport, ...]]:
        gradient, _, faults = _fitted(name, called.as_run(), point)
        return gradient, faults

    try:
        gradient, faults = once()
    except Exception as error:  # the caller's function
        return None, said(error)
    if point.are_many:
        gradient = LeafByLeaf(lambda: once()[0], len(gradient))
    return Run(gradient, faults, called.widened.own), ""


Fitted = tuple[Gradient, tuple[Any, ...], tuple[LeafReport, ...]]
"""The arrays, their dtypes, and where the tree does not fit."""


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


def _fitted(name: str, tree: PyTree, point: Point, is_fixed: bool = False) -> Fitted:
    """is_fixed: whether it was computed before, as it may be in float32."""
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
    return gradient, tuple(dtypes), tuple(faults)


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


def _raising(name: str, source: Any, error: Exception, point: Point) -> Fitted:
    cause = f"raised {said(error)}"
    if NO_FORWARD in cause:
        cause += '; ask for its reverse mode, by assert_vjp or modes=["rev"]'
    if floating_leaves(source):
        kind = type(source).__name__
        cause += f"; {kind} is a module, which was called: pass a gradient"
    return _nowhere(name, cause, point)


def _nowhere(name: str, cause: str, point: Point) -> Fitted:
    """What fits no leaf, for one cause."""
    faults = [_malformed(name, x.path, x.shape, cause) for x in point.leaves]
    return [None] * len(faults), (np.float64,) * len(faults), tuple(faults)


def _other_tree(tree: PyTree, given: dict[str, Any], point: Point) -> str:
    """What a candidate is that has no leaf of the parameters, in words."""
    wanted = [leaf.path for leaf in point.leaves]
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
    wide = array if array.dtype.itemsize >= 4 else array.astype(np.float32)
    bad = np.argwhere(~np.isfinite(wide))
    if len(bad):
        index = tuple(int(i) for i in bad[0])
        cause = f"{wide[index]} in {len(bad)} of {array.size} entries"
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
