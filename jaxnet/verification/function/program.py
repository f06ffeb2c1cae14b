"""A traced function: which of its equations depend on the parameters, how finely."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
from jax.interpreters.partial_eval import dce_jaxpr

from jaxnet.jaxpr.dependence import dependent
from jaxnet.jaxpr.evaluate import evaluate
from jaxnet.jaxpr.lines import described
from jaxnet.jaxpr.reader import PRINTS, coarsest, coarsest_of, every_equation
from jaxnet.verification.function.constants import every_constant, trace
from jaxnet.verification.function.once import once
from jaxnet.verification.function.same_bits import fingerprint


@dataclass(frozen=True, eq=False)
class Program:
    """A closed jaxpr, read through jit, scan, while, cond and custom rules."""

    closed: Any

    @cached_property
    def equations(self) -> tuple[Any, ...]:
        """The equations that depend on its inputs, an outer one before its inner."""
        return tuple(self.moved_by(None))

    @once
    def moved_by(self, number: int | None) -> list[Any]:
        """The equations that one input moves; None: that any does."""
        inputs = range(len(self.closed.jaxpr.invars))
        return dependent(self.closed.jaxpr, [number in (None, i) for i in inputs])

    def may_not_end(self, number: int | None) -> bool:
        """Whether inputs move a while loop of it: it ends here, and perhaps not there.

        number: of the one input that is moved; None for all.
        """
        return any(e.primitive.name == "while" for e in self.moved_by(number))

    @once
    def precision(self, number: int | None = None) -> float:
        """ε of the coarsest floating type that one input passes through, or any."""
        return coarsest(self.moved_by(number))

    @cached_property
    def used(self) -> tuple[bool, ...]:
        """Which inputs there is a path from, to its outputs."""
        jaxpr = self.closed.jaxpr
        return tuple(dce_jaxpr(jaxpr, [True] * len(jaxpr.outvars))[1])

    @cached_property
    def needed(self) -> "Program":
        """Without what its outputs do not need."""
        outputs = [True] * len(self.closed.jaxpr.outvars)
        jaxpr, _ = dce_jaxpr(self.closed.jaxpr, outputs, instantiate=True)
        return Program(self.closed.replace(jaxpr=jaxpr))

    @property
    def precision_anywhere(self) -> float:
        """ε of the coarsest floating type, constant parts included."""
        return coarsest(every_equation(self.closed.jaxpr))

    def describe_coarsest(self) -> str:
        """Where the function computes most coarsely, with the source line."""
        dtype, equation = coarsest_of(self.equations)
        return f"computes in {dtype}: {described(equation)}"

    def runs(self, *primitives: str) -> bool:
        """Whether one of these primitives stands anywhere in it."""
        return any(
            e.primitive.name in primitives for e in every_equation(self.closed.jaxpr)
        )


def calls_out(program: Program) -> bool:
    """Whether anything is computed outside the program, where it may be at random."""
    return program.runs("pure_callback", "io_callback", "ffi_call", "rng_uniform")


def same_program(one: Any, other: Any) -> bool:
    """Whether two closed jaxprs compute the same: one function's should, twice.

    What only a print or an auxiliary output needs, the number of a step say, is not
    read.
    """
    return _are_alike(one, other) or _are_alike(_bare(one), _bare(other))


def _are_alike(one: Any, other: Any) -> bool:
    if str(one.jaxpr) != str(other.jaxpr):
        return False
    held, others = (list(every_constant(x)) for x in (one, other))
    return fingerprint(held) == fingerprint(others)


def _bare(closed: Any) -> Any:
    """Without prints, what its outputs do not need, and the names of what it calls."""

    def silent(equation: Any, inputs: list[Any]) -> list[Any] | None:
        return [] if equation.primitive.name in PRINTS else None

    def run(values: list[Any]) -> list[Any]:
        return evaluate(closed, values, silent)

    shapes = [jax.ShapeDtypeStruct(a.shape, a.dtype) for a in closed.in_avals]
    return Program(trace(run, shapes)[0]).needed.closed
