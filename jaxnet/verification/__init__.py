"""The verifier: whether a gradient is right, and if not, where and why."""

from jaxnet.verification.audit import audit
from jaxnet.verification.check import check_gradients
from jaxnet.verification.report.audit_report import AuditReport, RuleReport
from jaxnet.verification.report.demand_report import DemandReport
from jaxnet.verification.report.gradient_report import GradientReport
from jaxnet.verification.report.leaf_report import LeafReport
from jaxnet.verification.report.shown import GradientMismatch
from jaxnet.verification.report.verdict import Verdict
from jaxnet.verification.rules.check_rule import check_jvp, check_vjp

__all__ = [
    "AuditReport",
    "DemandReport",
    "GradientMismatch",
    "GradientReport",
    "LeafReport",
    "RuleReport",
    "Verdict",
    "audit",
    "check_gradients",
    "check_jvp",
    "check_vjp",
]
