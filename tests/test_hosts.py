"""The algebra on the host where the device has no fast float64; the run on the device.

Two devices of the CPU stand for them.
"""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.slow

ON_TWO = """
import jax, jax.numpy as jnp, numpy as np
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 2)
from jaxnet import check_gradients, check_vjp, float64
from jaxnet.float64 import in_float64
from jaxnet.verification import check
from jaxnet.verification.function import objective
device, host = jax.devices()
assert float64.host() is None

def is_meant():
    return None if jax.config.jax_default_device else host

float64.host = objective.host = is_meant
seen, algebra = [], []
compute = objective.Objective.values_along

def values_along(self, *args):
    algebra.append(jnp.ones(()).devices() if not algebra else None)
    with in_float64():
        algebra[-1] = jnp.ones(()).devices()
    return compute(self, *args)

objective.Objective.values_along = values_along
"""

SPLIT = """
def loss(p):
    if not isinstance(p, jax.core.Tracer) and isinstance(p, jax.Array):
        seen.append(p.devices())
    return jnp.sum(jnp.sin(p) ** 2)

p = jnp.linspace(0.1, 1.0, 5)
for wrong in (0.0, 1e-3):
    report = check_gradients(loss, p, lambda p: jnp.sin(2 * p) + wrong)
    assert report.passed is not bool(wrong), str(report)
assert all(where == {host} for where in algebra) and algebra
assert all(where == {device} for where in seen) and seen
assert check_vjp(jnp.tanh, p).passed
with jax.default_device(device):  # the caller's own choice
    algebra.clear()
    assert check_gradients(loss, p).passed
assert all(where == {device} for where in algebra) and algebra
"""

KERNEL = """
import jax.experimental.pallas as pl

def kernel(x, y):
    y[...] = jnp.sin(x[...])

@jax.custom_jvp
def f(x):
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return pl.pallas_call(kernel, out_shape=shape, interpret=True)(x)

f.defjvp(lambda x, t: (f(x[0]), jnp.cos(x[0]) * t[0]))
p = jnp.linspace(0.1, 1.0, 5)
assert check.ON_DEVICE not in check_gradients(lambda p: jnp.sum(f(p)), p).notes
real = jax.jit

def jit(function, **rest):
    if jax.config.jax_default_device is host and "Widened" in repr(function):
        raise ValueError("Only interpret mode is supported on CPU backend.")
    return real(function, **rest)

jax.jit = jit
report = check_gradients(lambda p: jnp.sum(f(p)), p)
assert report.passed and report.notes[0] == check.ON_DEVICE, str(report)
assert all(where == {device} for where in algebra[-5:])
"""


@pytest.mark.parametrize("asked", [SPLIT, KERNEL])
def test_the_host_computes_in_float64(asked: str) -> None:
    """The caller's runs stay on the device; a kernel that only it has, goes there."""
    done = subprocess.run(
        [sys.executable, "-c", ON_TWO + asked], capture_output=True, text=True
    )
    assert not done.returncode, done.stderr
