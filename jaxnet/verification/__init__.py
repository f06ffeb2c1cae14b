"""The verifier: whether a gradient is right, and if not, where and why."""

from jaxnet.verification.check import check_gradients
from jaxnet.verification.report import GradientMismatch, GradientReport, LeafReport
from jaxnet.verification.rules import check_jvp, check_vjp
from jaxnet.verification.verdict import Verdict

__all__ = [
    "GradientMismatch",
    "GradientReport",
    "LeafReport",
    "Verdict",
    "check_gradients",
    "check_jvp",
    "check_vjp",
]
