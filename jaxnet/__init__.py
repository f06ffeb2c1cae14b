"""A digit classifier in JAX whose every gradient is proved three ways.

The public names, in the order in which data flows.
"""

from jaxnet import gradients
from jaxnet.activations import relu, sigmoid, tanh
from jaxnet.differences.gradient_descent import gradient_descent
from jaxnet.differences.numerical_gradient import numerical_gradient
from jaxnet.losses import (
    cross_entropy_error,
    from_one_hot,
    one_hot,
    softmax,
    sum_squared_error,
)
from jaxnet.mnist import Mnist, load_mnist
from jaxnet.network import (
    Dense,
    Network,
    Params,
    accuracy,
    init_params,
    logits,
    loss,
    predict,
)
from jaxnet.tap import tap
from jaxnet.training import History, State, init_state, train
from jaxnet.training.checkpoint import load_checkpoint, save_checkpoint
from jaxnet.verification import (
    AuditReport,
    GradientMismatch,
    GradientReport,
    LeafReport,
    RuleReport,
    Verdict,
    audit,
    check_gradients,
    check_jvp,
    check_vjp,
)

__all__ = [  # noqa: RUF022 in the order in which data flows
    "Mnist",
    "load_mnist",
    "one_hot",
    "from_one_hot",
    "Network",
    "Dense",
    "Params",
    "init_params",
    "sigmoid",
    "relu",
    "tanh",
    "softmax",
    "logits",
    "predict",
    "loss",
    "accuracy",
    "sum_squared_error",
    "cross_entropy_error",
    "numerical_gradient",
    "gradient_descent",
    "gradients",
    "check_gradients",
    "tap",
    "check_vjp",
    "check_jvp",
    "audit",
    "AuditReport",
    "RuleReport",
    "GradientReport",
    "LeafReport",
    "Verdict",
    "GradientMismatch",
    "train",
    "init_state",
    "State",
    "History",
    "save_checkpoint",
    "load_checkpoint",
]
