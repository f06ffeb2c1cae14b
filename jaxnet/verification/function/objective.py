"""The function that is differentiated, at its point and along lines through it.

A function that JAX can trace is the caller's own program, widened to float64. Any other
function is called on NumPy arrays, one point after the other.
"""

import warnings
from collections.abc import Callable
from copy import copy
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Float

from jaxnet.array_types import PyTree, ScalarFunction
from jaxnet.differences.noise import ROUGH_TIMES, roughness
from jaxnet.float64 import host, in_float64
from jaxnet.input_checks import NoPair, complaint, describe
from jaxnet.jaxpr.evaluate import Hook
from jaxnet.jaxpr.lines import described, said
from jaxnet.precision import DOUBLE, SINGLE
from jaxnet.verification.directions import (
    AnyDirection,
    Direction,
    Together,
    parts_of,
    vector,
)
from jaxnet.verification.function.constants import trace
from jaxnet.verification.function.lines import Lines
from jaxnet.verification.function.program import Program, calls_out, same_program
from jaxnet.verification.function.rounding_noise import (
    more_rounds,
    rounded_runs,
    rounding_of,
    solvers,
)
from jaxnet.verification.function.widen import Widened
from jaxnet.verification.point import Leaf, Point, Reals

IMPLICIT = {"random_gamma"}
"""Primitives whose derivative JAX defines otherwise than by their values."""

KERNELS = {"ffi_call", "pallas_call"}
"""Primitives that are written for one platform."""

STAIR_RUNS = 16
"""How often a loss is run rounded anew: log(1 - x) leaves its stair in one of four."""

FURTHER = 16
"""So many rounds more leave nine tenths of an error to the power 16, a fifth; where
iterations are good, nothing."""

SOLVER_MOST = 0.1
"""One more round changes the loss by at most this share where it solves something."""


class Objective:
    """The loss of the moving leaves; how it is called is found once.

    given: the loss as its caller calls it, twice; None where that fails.
    widened: the caller's own program in float64; None if JAX cannot trace it.
    evaluations: how many values were computed so far; all else stays as it is.
    """

    def __init__(
        self,
        loss: ScalarFunction,
        point: Point,
        mesh: Mesh | None = None,
        whole: "Objective | None" = None,
    ) -> None:
        """`whole`: of whose program this one is a part, with the same constants."""
        self.loss, self.point, self._mesh = loss, point, mesh
        self._whole = whole.widened if whole else None
        self.evaluations = 0
        self.widened: Widened | None = None
        self._called_precision = SINGLE
        self.given = self._given_value(), self._given_value()
        try:
            self.widened = self.widen(self.of_leaves)
        except Exception as error:  # the caller's function: it may be no JAX at all
            self._check_call(error)
        else:
            _check_scalar(self.widened.out)
            self._lines = Lines(self.widened, point, mesh)

    @property
    def traceable(self) -> bool:
        """Whether JAX can trace it; else it is called on NumPy arrays."""
        return self.widened is not None

    @property
    def traced(self) -> Widened:
        """What JAX traced, of a loss that it can trace."""
        assert self.widened is not None
        return self.widened

    @property
    def is_of_device_only(self) -> bool:
        """Whether a kernel in it exists on the device alone, where the host is meant to
        compute what the device has no fast float64 for.
        """
        if self.widened is None or host() is None:
            return False
        if not any(e.primitive.name in KERNELS for e in self.widened.kept()):
            return False
        try:
            with in_float64():
                values = [jnp.asarray(leaf.wide) for leaf in self.point.leaves]
                jax.jit(self.widened).lower(values).compile()
        except Exception:  # whatever the compiler of another platform raises
            return True
        return False

    @property
    def program(self) -> Program | None:
        """The caller's own program, to be read."""
        return self.widened.own if self.widened else None

    @property
    def precision(self) -> float:
        """ε of the coarsest floating type that could not be widened.

        Of a function that is not traced: float32's, until a value needs float64.
        """
        return self.widened.precision() if self.widened else self._called_precision

    def precision_of(self, leaf: Leaf) -> float:
        """ε of the coarsest type that could not be widened, after one leaf."""
        if self.widened is None:
            return self._called_precision
        return self.widened.precision(leaf.number)

    def own_precision_of(self, leaf: Leaf) -> float:
        """ε of the coarsest floating type after one leaf, as the caller runs it."""
        program = self.program
        return program.precision(leaf.number) if program else self._called_precision

    def depends_on(self, leaf: Leaf) -> bool:
        """Whether the loss is computed from a leaf, as far as JAX shows."""
        return self.program is None or self.program.used[leaf.number]

    @cached_property
    def may_round_unseen(self) -> bool:
        """Whether something that JAX does not show may round to less than it says."""
        return self.program is None or calls_out(self.program)

    @property
    def rounds_as_shown(self) -> bool:
        """Whether it is computed in float64, in operations that JAX shows."""
        return not self.may_round_unseen and self.precision <= DOUBLE

    def implicit(self, leaf: Leaf) -> str:
        """What on a leaf's way has a derivative that is not that of its values."""
        moved = self.program.moved_by(leaf.number) if self.program else ()
        where = [described(e) for e in moved if e.primitive.name in IMPLICIT]
        by_design = "draws by rejection: its derivative is that of the distribution"
        return f"{where[0]} {by_design}, not of the draw" if where else ""

    def of_leaves(self, moved: list[Any]) -> Any:
        """The loss of the moving leaves."""
        return self.loss(self.point.rebuild(moved))

    def widen(self, function: Callable[[list[Any]], PyTree]) -> Widened:
        """A function of the moving leaves, traced as its caller runs it, widened."""
        is_part = self._whole is not None and self.widened is None
        before = self.widened or self._whole
        known = before.constants if before else ()
        widened = Widened.of(function, self.point.as_traced(), known, is_part)
        if widened.precision() <= DOUBLE:
            return widened
        return widened.finer(function, [leaf.wide for leaf in self.point.leaves])

    def rerun(self, hook: Hook) -> Widened:
        """The caller's program with what a hook gives in place of its equations."""
        return self.traced.rerun(hook, self.point.as_traced())

    def called_value(self) -> float:
        """The loss at the point, by a plain call on NumPy arrays in float64."""
        self.evaluations += 1
        with in_float64():
            return self._called([leaf.values for leaf in self.point.leaves])

    def traces_alike(self) -> bool:
        """Whether the loss is the same program when it is traced once more."""
        again, _ = trace(self.of_leaves, self.point.as_traced())
        return same_program(self.traced.own.closed, again)

    @cached_property
    def solver_noise(self) -> float:
        """How far iterations to a tolerance leave the loss from what they tend to.

        What one more round changes if the next changes less, or how rough the loss is
        as each leaf moves: a march by adaptive steps ends where it should, by other
        steps. 0 where one round changes much: `while sum(c) < 10: c *= 1.5`.
        """
        if self._rounds is None:
            return 0.0
        value, first, second = self._rounds
        if first > SOLVER_MOST * abs(value):
            return 0.0
        rough = [
            roughness(self.values_along(Direction(leaf, (0,)), ROUGH_TIMES, self.point))
            for leaf in self.point.leaves
            if leaf.size
        ]
        return max(*rough, first if second < first else 0.0)

    @cached_property
    def limit(self) -> "Objective | None":
        """The loss with its solvers run further: near what they tend to; None for none.

        Where a solver stops, its value is within a tolerance of that, and its slope may
        be of quite another: implicit derivatives are those of the limit.
        """
        if self.program is None or not solvers(self.program):
            return None
        further = copy(self)
        for name in set(vars(self)) & _cached_properties():
            delattr(further, name)
        further.limit = None
        further.widened = self.rerun(more_rounds(self.program, FURTHER))
        further._lines = Lines(further.widened, self.point, self._mesh)
        return further

    @property
    def unconverged(self) -> str:
        """What solves for something so near 0 that it stops long before it is there.

        In words: one more round changes the loss by much of itself, and the next by
        less. So does a loop that ends where it should, such as a halving: the two
        cannot be told apart, unless the gradient is that of the rounds that were run.
        """
        if self._rounds is None or self.program is None:
            return ""
        value, first, second = self._rounds
        if not second < first or first <= SOLVER_MOST * abs(value):
            return ""
        where = described(solvers(self.program)[0])
        share = f"changes the loss by {first / abs(value):.0%}" if value else "moves it"
        return f"one more round of {where} {share}: what it tends to is not reached"

    @cached_property
    def _rounds(self) -> tuple[float, float, float] | None:
        """The loss, and how far one more round of its solvers moves it, and the next.

        None if it solves nothing.
        """
        if self.widened is None or self.program is None or not solvers(self.program):
            return None
        values = [leaf.wide for leaf in self.point.leaves]
        found = []
        for rounds in range(3):
            self.evaluations += 1
            longer = self.rerun(more_rounds(self.program, rounds))
            with in_float64():
                found.append(float(longer.compiled(values)))
        first, second = map(float, np.abs(np.diff(found)))
        return found[0], first, second

    def compiled_as_run(self) -> float:
        """The loss at the point as its caller would run it within jit."""
        return float(self.traced.compiled_as_run(self.point.as_traced()))

    def rounding_spread(self) -> float:
        """How far rounding inside the loss may move its value as it is run."""
        if self.program is None:
            return 0.0
        values = [jnp.asarray(x) for x in self.point.as_traced()]
        runs = rounded_runs(self.program.closed, values)
        return float(np.ptp([float(run[0]) for run in runs]))

    def rounding_at(self, point: Point) -> float:
        """The standard deviation of rounding inside the loss in float64.

        What values near the point do not show where it rounds to stairs: 1 - x is 1
        for all x below 1e-16. 0 where what happens inside is not known.
        """
        if not self.rounds_as_shown or self.widened is None:
            return 0.0
        values = [jnp.asarray(leaf.wide) for leaf in point.leaves]
        closed = jax.make_jaxpr(self.widened)(values)
        self.evaluations += STAIR_RUNS
        return rounding_of(closed, values, STAIR_RUNS)[0]

    def values_along(
        self,
        direction: AnyDirection | Together,
        times: Float[np.ndarray, " times"],
        point: Point,
    ) -> Float[np.ndarray, " times"]:
        """The loss at x + t v for all times t, with v in the direction's leaves."""
        for part in parts_of(direction):
            point = point.with_leaf(part.leaf)
        self.evaluations += len(times)
        with in_float64():
            if self.widened is None:
                return self._called_along(direction, times, point)
            return self._lines.values(direction, times, point)

    def _given_value(self) -> float | None:
        """The loss called as its caller calls it; None where that fails."""
        self.evaluations += 1
        try:
            with warnings.catch_warnings():  # NumPy's float64 is cut to float32
                warnings.simplefilter("ignore")
                return float(self.loss(self.point.as_given()))
        except Exception:  # the caller's function
            return None

    def _check_call(self, tracing: Exception) -> None:
        """A function that JAX cannot trace gives a number when it is called.

        Raises:
            TypeError, ValueError: it does not.
        """
        try:
            with in_float64():
                result = self._called_on([leaf.values for leaf in self.point.leaves])
        except Exception as error:  # the caller's function
            if isinstance(tracing, NoPair):
                raise tracing from None
            fix = "call it on the parameters yourself to see where"
            got = said(tracing)
            raise ValueError(complaint("loss(params)", "a value", got, fix)) from error
        _check_scalar(result)

    def _called_along(
        self,
        direction: AnyDirection | Together,
        times: Float[np.ndarray, " times"],
        point: Point,
    ) -> Float[np.ndarray, " times"]:
        start = [np.array(leaf.values, np.float64) for leaf in point.leaves]
        values, steps = list(start), dict[int, Any]()
        for part in parts_of(direction):
            steps[part.leaf.number] = vector(part)
        results = []
        for t in times:
            for number, step in steps.items():
                values[number] = start[number] + t * step
            results.append(self._called_or_nan(values))
        return np.array(results)

    def _called_or_nan(self, values: list[Reals]) -> float:
        """NaN where the function raises: the point lies outside its domain."""
        try:
            return self._called(values)
        except Exception:  # the caller's function
            return float("nan")

    def _called(self, values: list[Reals]) -> float:
        result = float(self._called_on(values))
        with np.errstate(over="ignore"):  # it may be larger than any float32
            if float(np.float32(result)) != result:
                self._called_precision = DOUBLE
        return result

    def _called_on(self, values: list[Reals]) -> Any:
        """What the loss gives for NumPy arrays; it may write to them."""
        copies = [np.array(v, np.float64)[()] for v in values]
        return self.loss(self.point.rebuild(copies))


def _cached_properties() -> set[str]:
    """The names of those that an objective finds out when asked."""
    every = vars(Objective).items()
    return {name for name, value in every if isinstance(value, cached_property)}


def _check_scalar(result: Any) -> None:
    fix = "return one real number, such as a mean"
    leaves = jax.tree.leaves(result)
    if isinstance(result, (tuple, list, dict)) or len(leaves) != 1:
        got = f"{type(result).__name__} of {len(leaves)}"
        if result is None:
            got, fix = "None", "return it: a `return` is missing"
        elif isinstance(result, tuple) and len(result) == 2:
            fix = "return the loss alone, or say has_aux=True"
        else:
            fix = "return one number: the loss alone, not its gradient"
        raise TypeError(complaint("loss(params)", "a real scalar", got, fix))
    dtype = getattr(leaves[0], "dtype", np.dtype(type(leaves[0])))
    shape = getattr(leaves[0], "shape", ())
    if shape != () or not jnp.issubdtype(dtype, np.floating):
        text = complaint("loss(params)", "a real scalar", describe(leaves[0]), fix)
        raise ValueError(text) if shape else TypeError(text)
