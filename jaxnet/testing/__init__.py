"""Assertions for test suites: a failed one shows the whole table.

from jaxnet.testing import assert_vjp

def test_my_kernel():
    assert_vjp(my_kernel, x, y)
"""

from jaxnet.testing.assertions import (
    assert_gradients,
    assert_jvp,
    assert_rules,
    assert_vjp,
)
from jaxnet.testing.drop_in import (
    assert_numerical_grads,
    check_grads,
    check_jvp,
    check_vjp,
)
from jaxnet.testing.mutants import mutants
from jaxnet.verification import GradientMismatch

__all__ = [
    "GradientMismatch",
    "assert_gradients",
    "assert_jvp",
    "assert_numerical_grads",
    "assert_rules",
    "assert_vjp",
    "check_grads",
    "check_jvp",
    "check_vjp",
    "mutants",
]
