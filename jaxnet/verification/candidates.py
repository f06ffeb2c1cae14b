"""The gradients to be checked, fitted to the parameters, and how finely they can be."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from zlib import crc32

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.array_types import PyTree
from jaxnet.input_checks import complaint, describe
from jaxnet.verification.evaluation import Function, call_in_float64, in_float64
from jaxnet.verification.leaves import Leaf, Parameters, is_inexact, real_view
from jaxnet.verification.report import LeafReport
from jaxnet.verification.verdict import Verdict

DOUBLE = float(np.finfo(np.float64).eps)


@dataclass
class Candidate:
    """One gradient: an array of reals for each moving leaf, None where it has none.

    faults: a MALFORMED record for each place where it does not fit.
    repeats: whether a callable gave the same bits twice.
    """

    name: str
    source: Any
    gradient: list[np.ndarray | None]
    dtypes: list[Any]
    faults: tuple[LeafReport, ...] = ()
    repeats: bool = True
    _nearby: dict[int, "Candidate"] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, source: Any, function: Function) -> "Candidate":
        """Evaluate (a callable, twice) and fit to the moving leaves."""
        parameters = function.parameters
        if not callable(source):
            return cls._fitted(name, source, source, parameters)
        try:
            first = _digest(_called(source, parameters, function))
            tree = _called(source, parameters, function)
        except Exception as error:
            return cls._raising(name, source, error, parameters)
        candidate = cls._fitted(name, source, tree, parameters)
        candidate.repeats = first == _digest(tree)
        return candidate

    def at(self, parameters: Parameters, function: Function) -> "Candidate | None":
        """The candidate at another point; None if it is not a callable."""
        if not callable(self.source):
            return None
        key = id(parameters)
        if key not in self._nearby:
            tree = _called(self.source, parameters, function)
            self._nearby[key] = self._fitted(self.name, self.source, tree, parameters)
        return self._nearby[key]

    def eps(self, number: int) -> float:
        """ε of the dtype that leaf `number` of the gradient came in."""
        return float(jnp.finfo(self.dtypes[number]).eps)

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
        first = (str(error).strip().splitlines() or [""])[0]
        cause = f"raised {type(error).__name__}: {first[:200]}"
        faults = [_malformed(name, x.path, x.shape, cause) for x in parameters.leaves]
        none: list[Any] = [None] * len(faults)
        return cls(name, source, none, [np.float64] * len(faults), tuple(faults))


def named(candidates: Any, function: Function) -> dict[str, Any]:
    """Candidates by name: a bare pytree or callable is one, autodiff the default."""
    if candidates is None:
        return {"autodiff": Autodiff(function)}
    is_named = isinstance(candidates, dict) and (
        any(callable(value) for value in candidates.values())
        or all(
            jax.tree.structure(value) == function.parameters.structure
            for value in candidates.values()
        )
        or not _shares_paths(candidates, function.parameters)
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


class Autodiff:
    """jax.grad of the function, by its moving leaves alone."""

    def __init__(self, function: Function) -> None:
        self.function = function
        self._gradient = jax.jit(jax.grad(function._of)) if function.traceable else None

    def __call__(self, params: PyTree, dtype: Any = np.float64) -> PyTree:
        """The gradient at `params`, each leaf computed in `dtype`."""
        if self._gradient is None:
            raise TypeError("jax.grad cannot trace the loss; pass a candidate of yours")
        flat = jax.tree.leaves(params)
        moving = []
        for leaf in self.function.parameters.leaves:
            value = flat[leaf.position]
            if leaf.is_complex:
                value = jnp.stack([value.real, value.imag], axis=-1)
            moving.append(jnp.asarray(value, dtype))
        slopes = self._gradient(moving)
        tree: list[Any] = [None] * len(flat)
        for leaf, slope in zip(self.function.parameters.leaves, slopes, strict=True):
            back = slope[..., 0] - 1j * slope[..., 1] if leaf.is_complex else slope
            tree[leaf.position] = back
        return self.function.parameters.structure.unflatten(tree)


class Conditioning:
    """How far rounding alone moves a gradient: measured by float32 beside float64.

    The difference of jax.grad in the two, divided by float32's ε, is the size of the
    terms that the gradient is summed from. It scales the rounding that a candidate is
    allowed, never by more than 1e-8 of that difference where it computes in float64.
    """

    def __init__(self, function: Function) -> None:
        self.function = function
        self.autodiff = Autodiff(function)
        self._gradients: dict[Any, list[np.ndarray] | None] = {}

    def gradient(self, dtype: Any = np.float64) -> list[np.ndarray] | None:
        """jax.grad by leaf, computed in `dtype`; None where it cannot be had."""
        if dtype not in self._gradients:
            self._gradients[dtype] = self._compute(dtype)
        return self._gradients[dtype]

    def terms(self, number: int) -> float:
        """The size of what a leaf's entries are summed from; 0.0 if unknown."""
        single, double = self.gradient(np.float32), self.gradient()
        if single is None or double is None:
            return 0.0
        difference = np.abs(single[number] - double[number])
        largest = float(np.max(difference, initial=0.0))
        return (
            largest / float(np.finfo(np.float32).eps) if np.isfinite(largest) else 0.0
        )

    def _compute(self, dtype: Any) -> list[np.ndarray] | None:
        parameters = self.function.parameters
        try:
            with in_float64(), np.errstate(all="ignore"):
                params = parameters.rebuild(
                    [jnp.asarray(x.values) for x in parameters.leaves]
                )
                tree = jax.tree.map(np.asarray, self.autodiff(params, dtype))
        except Exception:
            return None
        fitted = Candidate._fitted("autodiff", None, tree, parameters)
        return None if fitted.faults else fitted.gradient  # type: ignore[return-value]


def _called(
    source: Callable[..., Any], parameters: Parameters, function: Function
) -> Any:
    try:
        return call_in_float64(source, parameters, function.own_dtype)
    except Exception:
        if function.own_dtype:
            raise
        return call_in_float64(source, parameters, True)


def _digest(tree: PyTree) -> list[int]:
    return [
        crc32(np.ascontiguousarray(leaf).tobytes()) for leaf in jax.tree.leaves(tree)
    ]


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
