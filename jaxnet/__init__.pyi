# ruff: noqa: I001 in the order in which data flows
from jaxnet.mnist import Mnist as Mnist, load_mnist as load_mnist
from jaxnet.losses import one_hot as one_hot, from_one_hot as from_one_hot
from jaxnet.network import (
    Network as Network,
    Dense as Dense,
    Params as Params,
    init_params as init_params,
)
from jaxnet.activations import sigmoid as sigmoid, relu as relu, tanh as tanh
from jaxnet.losses import softmax as softmax
from jaxnet.network import (
    logits as logits,
    predict as predict,
    loss as loss,
    accuracy as accuracy,
)
from jaxnet.losses import (
    sum_squared_error as sum_squared_error,
    cross_entropy_error as cross_entropy_error,
)
from jaxnet.differences.numerical_gradient import (
    numerical_gradient as numerical_gradient,
)
from jaxnet.differences.gradient_descent import gradient_descent as gradient_descent
from jaxnet import gradients as gradients
from jaxnet.verification.check import check_gradients as check_gradients
from jaxnet.taps import tap as tap
from jaxnet.verification.rules.check_rule import (
    check_vjp as check_vjp,
    check_jvp as check_jvp,
)
from jaxnet.verification.audit import audit as audit
from jaxnet.verification.report.audit_report import (
    AuditReport as AuditReport,
    RuleReport as RuleReport,
)
from jaxnet.verification.report.gradient_report import GradientReport as GradientReport
from jaxnet.verification.report.leaf_report import LeafReport as LeafReport
from jaxnet.verification.report.shown import GradientMismatch as GradientMismatch
from jaxnet.verification.report.verdict import Verdict as Verdict
from jaxnet.training.loop import train as train
from jaxnet.training.state import (
    init_state as init_state,
    State as State,
    History as History,
)
from jaxnet.training.checkpoint import (
    save_checkpoint as save_checkpoint,
    load_checkpoint as load_checkpoint,
)

__all__: list[str]
__version__: str
DISTRIBUTION: str
