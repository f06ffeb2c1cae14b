"""The gradients to be checked, fitted to the point, and how finely they can be."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from jaxnet.float64 import in_float64
from jaxnet.input_checks import complaint
from jaxnet.jaxpr.lines import said
from jaxnet.precision import DOUBLE, eps
from jaxnet.verification.candidates.autodiff import Autodiff
from jaxnet.verification.candidates.callables import CalledGradient, LeafByLeaf
from jaxnet.verification.candidates.fitted import Gradient, fitted, raising
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.function.once import once
from jaxnet.verification.function.program import Program
from jaxnet.verification.function.rounding_noise import more_rounds
from jaxnet.verification.function.widen import Widened
from jaxnet.verification.point import (
    Leaf,
    Point,
    Reals,
    is_inexact,
)
from jaxnet.verification.report.leaf_report import LeafReport
from jaxnet.verification.report.verdict import Verdict


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
            return cls(name, source, *fitted(name, source, point, is_fixed=True))
        known = source.widened if is_autodiff else None
        called = CalledGradient(source, objective, known)
        try:
            tree, repeats = called.twice()
        except Exception as error:  # the caller's function
            return cls(name, source, *raising(name, source, error, point))
        own = called.widened.own if called.widened and not is_autodiff else None
        is_fixed = own is not None and not any(own.used)
        given, nothing = fitted(name, tree, point, is_fixed), [None] * len(point.leaves)
        rest = is_autodiff, called.widened
        if not repeats:
            return cls(name, source, *given._replace(gradient=nothing), *rest)
        run, not_run = _run(name, called, point)
        if point.are_many:

            def again() -> Gradient:
                tree = called.again()
                return nothing if tree is None else fitted(name, tree, point).gradient

            given = given._replace(gradient=LeafByLeaf(again, len(nothing)))
        return cls(name, source, *given, *rest, run, not_run)

    def at(self, point: Point, objective: Objective) -> "Candidate | None":
        """The candidate at another point; None if it is not a callable."""
        if not is_function(self.source, point):
            return None
        try:
            tree = CalledGradient(self.source, objective, self.widened).at(point)
            given = fitted(self.name, tree, point)
        except Exception as error:  # the caller's function
            given = raising(self.name, self.source, error, point)
        rest = self.is_autodiff, self.widened
        return Candidate(self.name, self.source, *given, *rest)

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

    @once
    def shifts(self, objective: Objective) -> list[Gradient]:
        """How it changes if inexact constants of its own, not the loss's, are moved."""
        if self.widened is None:
            return []
        known = objective.widened.constants if objective.widened else ()
        with in_float64():
            found = self.widened.shifts(objective.point.wide(), known)
            return [fitted(self.name, tree, objective.point).gradient for tree in found]

    def run_as_traced(self, objective: Objective) -> Gradient:
        """What the program that JAX sees of it gives, one equation after the other."""
        assert self.widened is not None
        tree = self.widened.as_run(objective.point.as_traced())
        return fitted(self.name, tree, objective.point).gradient

    def after_another_round(self, objective: Objective) -> Gradient:
        """What it gives if each of its own iterations to a tolerance runs once more."""
        assert self.widened is not None
        longer = more_rounds(self.widened.own, 1)
        widened = self.widened.rerun(longer, objective.point.as_traced())
        with in_float64():
            tree = jax.tree.map(np.asarray, widened.compiled(objective.point.wide()))
        return fitted(self.name, tree, objective.point).gradient

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

    try:
        given = fitted(name, called.as_run(), point)
    except Exception as error:  # the caller's function
        return None, said(error)
    gradient = given.gradient
    if point.are_many:
        again = partial(fitted, name, point=point)
        gradient = LeafByLeaf(lambda: again(called.as_run()).gradient, len(gradient))
    return Run(gradient, given.faults, called.widened.own), ""
