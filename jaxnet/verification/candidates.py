"""The gradients to be checked, fitted to the parameters, and how finely they can be."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.array_types import PyTree
from jaxnet.input_checks import complaint, describe, first_line
from jaxnet.verification.called_gradient import Gradient, LeafByLeaf
from jaxnet.verification.evaluation import Function
from jaxnet.verification.leaves import Leaf, Parameters, is_inexact, real_view
from jaxnet.verification.program import Program
from jaxnet.verification.report import LeafReport
from jaxnet.verification.verdict import Verdict

DOUBLE = float(np.finfo(np.float64).eps)


@dataclass
class Candidate:
    """One gradient: an array of reals for each moving leaf, None where it has none.

    faults: a MALFORMED record for each place where it does not fit.
    is_autodiff: whether it is the default: jax.grad of the loss by the verifier itself.
    repeats: whether a callable gave the same bits twice.
    program: what a callable computes, where it could be traced.
    """

    name: str
    source: Any
    gradient: Sequence[np.ndarray | None]
    dtypes: list[Any]
    faults: tuple[LeafReport, ...] = ()
    is_autodiff: bool = False
    repeats: bool = True
    program: Program | None = None
    _nearby: dict[int, "Candidate"] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, source: Any, function: Function) -> "Candidate":
        """Evaluate (a callable, twice) and fit to the moving leaves."""
        parameters = function.parameters
        if not is_function(source, parameters):
            return cls._fitted(name, source, source, parameters)
        gradient = Gradient(source, function)
        try:
            tree, repeats = gradient.twice()
        except Exception as error:
            return cls._raising(name, source, error, parameters)
        candidate = cls._fitted(name, source, tree, parameters)
        candidate.repeats, candidate.program = repeats, gradient.program
        if parameters.are_many and repeats:

            def again() -> Sequence[np.ndarray | None]:
                tree = gradient.again()
                if tree is None:
                    candidate.repeats = False
                    return [None] * len(parameters.leaves)
                return cls._fitted(name, source, tree, parameters).gradient

            candidate.gradient = LeafByLeaf(again, len(parameters.leaves))
        return candidate

    def at(self, parameters: Parameters, function: Function) -> "Candidate | None":
        """The candidate at another point; None if it is not a callable."""
        if not is_function(self.source, parameters):
            return None
        key = id(parameters)
        if key not in self._nearby:
            try:
                tree = Gradient(self.source, function).at(parameters)
                fitted = self._fitted(self.name, self.source, tree, parameters)
            except Exception as error:
                fitted = self._raising(self.name, self.source, error, parameters)
            self._nearby[key] = replace(fitted, program=self.program)
        return self._nearby[key]

    def eps(self, number: int) -> float:
        """ε of the dtype that leaf `number` came in, or of a coarser one inside."""
        inside = self.program.precision if self.program else 0.0
        return max(float(jnp.finfo(self.dtypes[number]).eps), inside)

    @classmethod
    def _fitted(
        cls, name: str, source: Any, tree: PyTree, parameters: Parameters
    ) -> "Candidate":
        flat = jax.tree_util.tree_flatten_with_path(tree)[0]
        given = {jax.tree_util.keystr(path): value for path, value in flat}
        gradient, dtypes, faults = [], [], []
        for leaf in parameters.leaves:
            value = given.pop(leaf.path, None)
            fault = _fault(name, leaf, value)
            faults += [fault] if fault else []
            gradient.append(None if fault else _reals(leaf, value))
            dtypes.append(np.float64 if fault else np.asarray(value).dtype)
        for path in given.keys() - set(parameters.held):
            cause = f"a leaf that params do not have: {describe(given[path])}"
            faults.append(_malformed(name, path, np.shape(given[path]), cause))
        return cls(name, source, gradient, dtypes, tuple(faults))

    @classmethod
    def _raising(
        cls, name: str, source: Any, error: Exception, parameters: Parameters
    ) -> "Candidate":
        cause = f"raised {first_line(error, 200)}"
        faults = [_malformed(name, x.path, x.shape, cause) for x in parameters.leaves]
        none: list[Any] = [None] * len(faults)
        return cls(name, source, none, [np.float64] * len(faults), tuple(faults))


def named(candidates: Any, autodiff: Any, parameters: Parameters) -> dict[str, Any]:
    """Candidates by name: a bare pytree or callable is one, autodiff the default."""
    if candidates is None:
        return {"autodiff": autodiff}
    is_named = isinstance(candidates, dict) and (
        any(is_function(value, parameters) for value in candidates.values())
        or all(
            jax.tree.structure(value) == parameters.structure
            for value in candidates.values()
        )
        or not _shares_paths(candidates, parameters)
    )
    if not is_named:
        return {"candidate": candidates}
    if not candidates:
        fix = "name at least one gradient, or pass None for jax.grad"
        raise ValueError(complaint("candidates", "name -> gradient", "{}", fix))
    return {str(name): value for name, value in candidates.items()}


def _shares_paths(candidates: Any, parameters: Parameters) -> bool:
    """Whether a dict is itself the gradient: it has a path of the parameters."""
    flat = jax.tree_util.tree_flatten_with_path(candidates)[0]
    given = {jax.tree_util.keystr(path) for path, _ in flat}
    top = {leaf.path.split("]")[0] for leaf in parameters.leaves}
    return bool(given & {leaf.path for leaf in parameters.leaves}) or bool(
        {path.split("]")[0] for path in given} & (top - {""})
    )


def is_function(source: Any, parameters: Parameters) -> bool:
    """Whether a candidate is to be called: a gradient may be a callable pytree."""
    flat = jax.tree_util.tree_leaves_with_path(source)
    given = {jax.tree_util.keystr(path): leaf for path, leaf in flat}
    is_gradient = all(is_inexact(given.get(leaf.path)) for leaf in parameters.leaves)
    return callable(source) and not is_gradient


def _reals(leaf: Leaf, value: Any) -> np.ndarray:
    """Derivatives by each real number: by x and y, g is ∂/∂x - i ∂/∂y."""
    return real_view(np.conj(value)) if leaf.is_complex else np.asarray(value)


def _fault(name: str, leaf: Leaf, value: Any) -> LeafReport | None:
    if value is None:
        return _malformed(name, leaf.path, leaf.shape, "missing: no gradient here")
    array = np.asarray(value)
    if not is_inexact(array) or (np.iscomplexobj(array) != leaf.is_complex):
        wanted = "complex" if leaf.is_complex else "real floating"
        cause = f"dtype {array.dtype}, expected {wanted} numbers"
        return _malformed(name, leaf.path, leaf.shape, cause)
    if array.shape != leaf.shape:
        cause = f"shape {array.shape}, expected {leaf.shape}"
        return _malformed(name, leaf.path, leaf.shape, cause)
    wide = array if array.dtype.itemsize >= 4 else array.astype(np.float32)
    bad = np.argwhere(~np.isfinite(wide))
    if len(bad):
        index = tuple(int(i) for i in bad[0])
        cause = f"{wide[index]} in {len(bad)} of {array.size} entries"
        return _malformed(name, leaf.path, leaf.shape, cause, index)
    return None


def _malformed(
    name: str,
    path: str,
    shape: tuple[int, ...],
    cause: str,
    index: tuple[int, ...] | None = None,
) -> LeafReport:
    return LeafReport(
        path,
        name,
        tuple(shape),
        Verdict.MALFORMED,
        False,
        worst_index=index,
        cause=cause,
    )
