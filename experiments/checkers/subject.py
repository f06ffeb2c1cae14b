"""What a rival checks: a function of floating arrays, counted, with a derivative."""

import functools
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.checkers.question import (
    LossTask,
    Question,
    RuleTask,
    is_float0,
    is_floating,
)


class NotApplicable(Exception):
    """The question cannot be put to this checker; the message says why."""


class Memory:
    """Values of one loss in one dtype, with the seconds that each of them took.

    For losses so large that a checker which takes each coordinate in turn needs
    minutes, and asks for the same values again at each candidate. Only the last loss
    is remembered.
    """

    last: "Memory | None" = None

    def __init__(self, owner: tuple[Any, np.dtype[Any]]) -> None:
        self.owner = owner
        self.values: dict[Any, tuple[Any, float]] = {}

    @classmethod
    def of(cls, loss: Any, dtype: np.dtype[Any]) -> "Memory":
        """What is remembered of this loss."""
        if cls.last is None or cls.last.owner != (loss, dtype):
            cls.last = cls((loss, dtype))
        return cls.last


class Subject:
    """A question in one dtype: `value` and `pull` as functions of floating leaves.

    Integer leaves are closed over. A loss that can be is compiled, unless `eager`, and
    compiled beforehand, so that no rival's seconds hold any compilation. Use it within
    `jax.enable_x64` where the dtype is float64.
    """

    def __init__(self, question: Question, dtype: str, eager: bool = False) -> None:
        task = question.task
        endless = isinstance(task, LossTask) and not task.ends_in_float32
        if endless and dtype == "float32":
            raise NotApplicable("its solver never ends in float32")
        self.task, self.dtype, self.evaluations = task, np.dtype(dtype), 0
        self.memory: Memory | None = None
        self.seconds_saved = 0.0
        given = task.params if isinstance(task, LossTask) else list(task.args)
        leaves, self.structure = jax.tree.flatten(given)
        self._all = leaves
        self._moving = [i for i, leaf in enumerate(leaves) if is_floating(leaf)]
        self.leaves = [self._rounded(leaves[i]) for i in self._moving]
        self._gradient: Any = None
        function = task.loss if isinstance(task, LossTask) else self._rule
        traced = not isinstance(task, LossTask) or (task.traceable and task.repeatable)
        self._function = jax.jit(function) if traced and not eager else function
        self.value(self.leaves)
        if isinstance(task, LossTask):
            self.gradient()
        else:
            self.pull(np.ones(np.shape(self.value(self.leaves))))
        self.evaluations = 0

    @property
    def size(self) -> int:
        """How many numbers there are to differentiate by."""
        return sum(leaf.size for leaf in self.leaves)

    @property
    def floating_tree(self) -> Any:
        """The parameters, with None for every leaf that is not floating."""
        return self._tree(self.leaves, dict.fromkeys(range(len(self._all))))

    def of_tree(self, tree: Any) -> Any:
        """The value at a tree like `floating_tree`."""
        return self.value(jax.tree.leaves(tree))

    def value(self, leaves: Sequence[Any]) -> jax.Array:
        """The value of the loss or function: one evaluation."""
        self.evaluations += 1
        if self.memory is None:
            return self._value(leaves)
        return self.recalled(self._place(leaves), lambda: self._value(leaves))

    def remember(self) -> None:
        """From now on, compute no value twice."""
        self.memory = Memory((None, self.dtype))

    def recalled(self, key: Any, compute: Callable[[], Any]) -> Any:
        """What is remembered under this key; the seconds it took are noted as saved."""
        if self.memory is None:
            return compute()
        if key in self.memory.values:
            found, seconds = self.memory.values[key]
            self.seconds_saved += seconds
            return found
        began = time.perf_counter()
        found = jax.block_until_ready(compute())
        self.memory.values[key] = found, time.perf_counter() - began
        return found

    def untimed(self, prepare: Callable[[], Any]) -> None:
        """Prepare something, such as a compilation, that is not to be counted."""
        began = time.perf_counter()
        prepare()
        self.seconds_saved -= time.perf_counter() - began

    def _place(self, leaves: Sequence[Any]) -> tuple[bytes, ...]:
        """Where and to what these leaves are moved from the point."""
        moved = []
        for leaf, here in zip(leaves, self.leaves, strict=True):
            there = np.asarray(leaf)
            where = np.flatnonzero(there != here)
            moved += [where.tobytes(), there.ravel()[where].tobytes()]
        return tuple(moved)

    def gradient(self) -> Any:
        """The candidate's tree in this dtype, None for leaves that are not floating."""
        assert isinstance(self.task, LossTask)
        if self._gradient is not None and self.task.repeatable:
            return self._gradient
        candidate = self.task.candidate
        if callable(candidate):
            candidate = candidate(self._tree(self.leaves, dict(enumerate(self._all))))
        self._gradient = jax.tree.map(
            lambda g: None if is_float0(g) else self._entry(g), candidate
        )
        return self._gradient

    def checked_gradient(self) -> list[np.ndarray]:
        """The candidate's leaves, for a checker that knows no trees.

        Raises:
            NotApplicable: the candidate's tree is another than the parameters'.
        """
        gradient: Any = self.gradient()
        structures = map(jax.tree.structure, (gradient, self.floating_tree))
        if len(set(structures)) > 1:
            raise NotApplicable("knows no trees: structure cannot be wrong")
        return [np.asarray(leaf) for leaf in jax.tree.leaves(gradient)]

    def pull(self, cotangent: Any) -> list[np.ndarray]:
        """cotangentᵀ J by the derivative in question, at the point."""
        if isinstance(self.task, LossTask):
            return [np.asarray(cotangent * g) for g in self.checked_gradient()]
        return [np.asarray(d) for d in self._pull(self.leaves, cotangent)]

    def require_floats(self) -> None:
        """Refuse what is lost on the way to this checker.

        Raises:
            NotApplicable: an integer gradient, which a product with a cotangent makes
                a float, or numbers that this dtype does not have.
        """
        if not isinstance(self.task, LossTask):
            return
        gradient = [np.asarray(g) for g in jax.tree.leaves(self.gradient())]
        if any(g.dtype.kind in "iu" for g in gradient):
            raise NotApplicable("an integer gradient is float once multiplied")
        exact = [np.asarray(self._all[i]) for i in self._moving]
        same = all(map(_survives, exact, self.leaves))
        if self.dtype == np.float32 and not (same and self._normal(gradient)):
            raise NotApplicable("its numbers are 0 or infinite in float32")

    def _normal(self, gradient: list[np.ndarray]) -> bool:
        """Whether the gradient, where it is not 0 in float64, is not 0 here either."""
        assert isinstance(self.task, LossTask)
        candidate = self.task.candidate
        if callable(candidate):
            if not self.task.repeatable:
                return True
            with jax.enable_x64(True):
                point = [
                    jnp.asarray(x) if is_floating(x) else x
                    for x in map(_plain, self._all)
                ]
                candidate = candidate(jax.tree.unflatten(self.structure, point))
        exact = [np.asarray(g) for g in jax.tree.leaves(candidate) if not is_float0(g)]
        return len(exact) != len(gradient) or all(map(_survives, exact, gradient))

    def _tree(self, leaves: Sequence[Any], rest: dict[int, Any]) -> Any:
        entries = rest | dict(zip(self._moving, leaves, strict=True))
        return jax.tree.unflatten(self.structure, list(entries.values()))

    def _value(self, leaves: Sequence[Any]) -> jax.Array:
        if isinstance(self.task, LossTask) and not self.task.traceable:
            given: list[Any] = [np.asarray(leaf) for leaf in leaves]
        else:
            given = [jnp.asarray(leaf) for leaf in leaves]
        tree = self._tree(given, {i: _plain(x) for i, x in enumerate(self._all)})
        return jnp.asarray(self._function(tree))

    def traced(self, leaves: Sequence[Any]) -> Any:
        """The value of a loss JAX can trace, not counted."""
        tree = self._tree(leaves, {i: _plain(x) for i, x in enumerate(self._all)})
        return self._function(tree)

    def _rule(self, args: list[Any]) -> Any:
        assert isinstance(self.task, RuleTask)
        return self.task.function(*args)

    @functools.cached_property
    def _pull(self) -> Callable[[Any, Any], Any]:
        """The rule's cotangentᵀ J, compiled."""

        def pull(leaves: Any, cotangent: Any) -> Any:
            assert isinstance(self.task, RuleTask)
            value, rule = jax.vjp(self.task.function, *leaves)
            return rule(jnp.asarray(cotangent, value.dtype))

        return jax.jit(pull)

    def _rounded(self, leaf: Any) -> Any:
        return np.asarray(leaf, self.dtype)

    def _entry(self, leaf: Any) -> Any:
        """A leaf of the candidate, in this dtype if it is floating."""
        array = np.asarray(leaf)
        return self._rounded(array) if array.dtype.kind == "f" else array


def _plain(leaf: Any) -> Any:
    return leaf if isinstance(leaf, jax.Array) else np.asarray(leaf)


def _survives(exact: np.ndarray, rounded: np.ndarray) -> bool:
    if exact.size == 0 or not np.all(np.isfinite(exact)):
        return True
    return bool(np.all(np.isfinite(rounded)) and np.any(exact) == np.any(rounded))
