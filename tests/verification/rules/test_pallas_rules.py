"""Pallas kernels with backward kernels by hand, interpreted on the CPU.

What a kernel's author adds to a test is `assert_vjp(kernel, x)`. The kernels here give
x σ(x) and its gradient; a factor on the second makes it wrong.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl

from jaxnet.testing import GradientMismatch, assert_vjp

pytestmark = pytest.mark.slow

Kernel = Callable[[Any], Any]

ROWS = 4
"""How many rows of a batch one program of the grid takes."""


def silu(x: Any) -> Any:
    """What the kernels should compute."""
    return x * jax.nn.sigmoid(x)


def forward_kernel(x_ref: Any, y_ref: Any) -> None:
    """One block of x σ(x)."""
    y_ref[...] = silu(x_ref[...])


@functools.cache
def backward_kernel(factor: float) -> Callable[..., None]:
    """One block of g (σ + x σ (1 - σ)), times a factor that should be 1."""

    def kernel(x_ref: Any, g_ref: Any, d_x_ref: Any) -> None:
        x = x_ref[...]
        s = jax.nn.sigmoid(x)
        d_x_ref[...] = factor * g_ref[...] * (s + x * s * (1 - s))

    return kernel


@functools.partial(jax.jit, static_argnums=0)
def run(kernel: Callable[..., None], *arrays: Any) -> Any:
    """One program for an array without rows, else one for each ROWS rows."""
    shape = jax.ShapeDtypeStruct(arrays[0].shape, arrays[0].dtype)
    if len(shape.shape) < 2:
        return pl.pallas_call(kernel, out_shape=shape, interpret=True)(*arrays)
    block = pl.BlockSpec((ROWS, shape.shape[1]), lambda i: (i, 0))
    call = pl.pallas_call(
        kernel,
        out_shape=shape,
        grid=(shape.shape[0] // ROWS,),
        in_specs=[block] * len(arrays),
        out_specs=block,
        interpret=True,
    )
    return call(*arrays)


def kernel(factor: float = 1.0, dtype: Any = None) -> Kernel:
    """Silu with both kernels; of one dtype only, where it is given."""

    @jax.custom_vjp
    def f(x: Any) -> Any:
        if dtype is not None and x.dtype != dtype:
            raise TypeError(f"a kernel for {np.dtype(dtype)}, got {x.dtype}")
        return run(forward_kernel, x)

    f.defvjp(lambda x: (f(x), x), lambda x, g: (run(backward_kernel(factor), x, g),))
    return f


def sample(shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Normal numbers."""
    return jnp.asarray(np.random.default_rng(0).standard_normal(shape), dtype)


dtypes = pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
shapes = pytest.mark.parametrize("shape", [(), (2 * ROWS, 3)], ids=["scalar", "batch"])


@dtypes
@shapes
def test_a_kernel_of_any_dtype(shape: tuple[int, ...], dtype: Any) -> None:
    """Right to 1e-3 only is told from right, whatever the dtype of the arguments."""
    x = sample(shape, dtype)
    report = assert_vjp(kernel(), x)
    assert report.worst.resolution < 1e-3
    with pytest.raises(GradientMismatch, match=r"×1\.001 on every entry"):
        assert_vjp(kernel(1.001), x)


@shapes
def test_a_kernel_for_float32_only(shape: tuple[int, ...]) -> None:
    """Differences of the kernel itself are as good as float32 allows."""
    x = sample(shape, jnp.float32)
    report = assert_vjp(kernel(dtype=jnp.float32), x)
    for name, note in zip(("the loss", "vjp"), report.notes, strict=True):
        kept = f"{name} computes in float32 what cannot be widened: `pallas_call` at "
        assert note.startswith(kept)
    with pytest.raises(GradientMismatch, match=r"×1\.001"):
        assert_vjp(kernel(1.001, jnp.float32), x)


@shapes
@pytest.mark.parametrize("reference", [silu, None], ids=["by silu", "alone"])
def test_a_kernel_for_bfloat16_only(shape: tuple[int, ...], reference: Any) -> None:
    """Errors above bfloat16's own rounding show, by a plain function or by itself.

    Eight bits of mantissa: alone, the kernel is known to a tenth.
    """
    x = sample(shape, jnp.bfloat16)
    report = assert_vjp(kernel(dtype=jnp.bfloat16), x, reference=reference)
    ulp = float(jnp.finfo(jnp.bfloat16).eps)
    assert 1e-3 < report.worst.resolution < (8 * ulp if reference else 0.2)
    for factor in (1.5, -1.0, 0.0):
        with pytest.raises(GradientMismatch, match="DISAGREE"):
            assert_vjp(kernel(factor, jnp.bfloat16), x, reference=reference)


def test_a_sign_in_one_block_is_found_there() -> None:
    """The last program of the grid negates its block: rows 4 to 7."""

    def negated(x_ref: Any, g_ref: Any, d_x_ref: Any) -> None:
        backward_kernel(1.0)(x_ref, g_ref, d_x_ref)
        sign = jnp.where(pl.program_id(0) == 1, -1.0, 1.0)
        d_x_ref[...] = sign.astype(d_x_ref.dtype) * d_x_ref[...]

    f = jax.custom_vjp(lambda x: run(forward_kernel, x))
    f.defvjp(lambda x: (f(x), x), lambda x, g: (run(negated, x, g),))
    with pytest.raises(GradientMismatch, match="DISAGREE") as caught:
        assert_vjp(f, sample((2 * ROWS, 3), jnp.float32))
    assert "at x[" in str(caught.value)
    row = int(str(caught.value).split("at x[")[1].split(",")[0])
    assert row >= ROWS
