"""The words behind a verdict: what the numbers confirm, then what the program shows."""

from dataclasses import dataclass, field, replace

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.float64 import in_float64
from jaxnet.verification.candidates import Candidate
from jaxnet.verification.decisions import at_kink
from jaxnet.verification.diagnosis import Diagnosis
from jaxnet.verification.evaluation import Function
from jaxnet.verification.leaf_check import LeafCheck
from jaxnet.verification.program import axis_sizes, source_line, suspects
from jaxnet.verification.report import LeafReport
from jaxnet.verification.rerun import guards, without_small_constants
from jaxnet.verification.rounding import Rounding
from jaxnet.verification.verdict import Verdict

KINK_STEP = 1e-6
"""How far from a kink, in units of the coordinate, the program is run on both sides."""


@dataclass
class Explanation:
    """Explains reports about one function; what it computes once, it keeps."""

    function: Function
    rounding: Rounding
    _unguarded: list[list[np.ndarray] | None] = field(default_factory=list)

    def of(
        self, report: LeafReport, check: LeafCheck, candidate: Candidate
    ) -> LeafReport:
        """The report, with its cause filled in."""
        if report.verdict is Verdict.NONDIFFERENTIABLE:
            parts = [report.cause, *self._switches(report, check)]
        elif report.verdict is Verdict.DISAGREE:
            parts = [report.cause, *self._mistake(check, candidate)]
        else:
            return report
        return replace(report, cause="; ".join(part for part in parts if part))

    def _mistake(self, check: LeafCheck, candidate: Candidate) -> list[str]:
        diagnosis = Diagnosis(check, candidate, self._sizes())
        cause = self._forgotten_guard(diagnosis) or diagnosis.cause()
        program = self.function.program
        listed = suspects(program)[:3] if program else []
        return [cause, "suspect " + " and ".join(listed) if listed else ""]

    def _sizes(self) -> dict[int, str]:
        program = self.function.program
        sizes = axis_sizes(program) if program else {}
        for leaf in self.function.parameters.leaves:
            for axis, size in enumerate(leaf.shape):
                sizes.setdefault(size, f"axis {axis} of {leaf.path or 'params'}")
        return {size: where for size, where in sizes.items() if size > 1}

    def _forgotten_guard(self, diagnosis: Diagnosis) -> str:
        """Whether the candidate forgets the small constants of the loss."""
        gradient = self._without_guards()
        if gradient is None or self.function.program is None:
            return ""
        given, other = diagnosis.gradient, gradient[diagnosis.check.number]
        true = self.rounding.gradient()
        if true is None:
            return ""
        gap = np.max(np.abs(true[diagnosis.check.number] - other))
        if not (np.isfinite(gap) and np.max(np.abs(given - other)) <= 1e-2 * gap):
            return ""
        equation = guards(self.function.program)[0]
        constant = next(float(v.val) for v in equation.invars if hasattr(v, "val"))
        return (
            f"the loss adds {constant:.3g} ({source_line(equation)}) and the candidate "
            f"is the gradient without it, error ~{constant:.0e}/p"
        )

    def _without_guards(self) -> list[np.ndarray] | None:
        if not self._unguarded:
            self._unguarded.append(self._compute_without_guards())
        return self._unguarded[0]

    def _compute_without_guards(self) -> list[np.ndarray] | None:
        program = self.function.program
        if program is None or not guards(program):
            return None
        try:
            with in_float64():
                values = [jnp.asarray(x) for x in self._values()]
                gradient = jax.grad(lambda v: without_small_constants(program, v))(
                    values
                )
                return [np.asarray(g) for g in gradient]
        except Exception:
            return None

    def _switches(self, report: LeafReport, check: LeafCheck) -> list[str]:
        program = self.function.program
        if program is None or report.worst_index is None:
            return []
        with in_float64():
            move = np.zeros(check.leaf.values.shape)
            flat = check.flat_index(report.worst_index)
            move.reshape(-1)[flat] = KINK_STEP * check.leaf.size(flat)
            values = [jnp.asarray(x) for x in self._values()]
            found = at_kink(program.closed, values, check.number, move)
        return ["switching: " + ", ".join(found[:3])] if found else []

    def _values(self) -> list[np.ndarray]:
        return [x.values.astype(np.float64) for x in self.function.parameters.leaves]
