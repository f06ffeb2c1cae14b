"""What XLA's CPU compiler is told about one program."""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import jax

from jaxnet.float64 import platform

Options: TypeAlias = dict[str, str | bool]

IN_HASTE: Options = {
    "xla_backend_optimization_level": "0",
    "xla_cpu_use_fusion_emitters": False,  # the older generator is faster
}
"""For what runs once or twice: optimising it would take longer than it does."""

BY_EIGEN: Options = {"xla_cpu_experimental_ynn_fusion_type": ""}
"""For products of few rows: XLA would take YNNPACK, which packs the weights anew."""


def in_haste(
    function: Callable[..., Any], platform: str, **options: Any
) -> Callable[..., Any]:
    """jax.jit of what runs a few times on a platform: on a CPU, it is not optimised.

    options: of jax.jit.
    """
    told = _known(IN_HASTE) if platform == "cpu" else None
    return jax.jit(function, compiler_options=told, **options)


def _known(options: Options) -> Options:
    """Those that the XLA of this jaxlib takes."""
    return {name: value for name, value in options.items() if _takes(name, value)}


@cache
def _takes(name: str, value: str | bool) -> bool:
    try:
        jax.jit(lambda: 0).lower().compile({name: value})
    except jax.errors.JaxRuntimeError:  # an XLA without that option
        return False
    return True


_WITHOUT_JIT = "jax_disable_jit"


def compiled(
    function: Callable[..., Any], options: Options, *args: Any
) -> Callable[..., Any]:
    """The program for such args, on a CPU by those options that this XLA knows.

    Under jax.disable_jit, the function itself.
    """
    if getattr(jax.config, _WITHOUT_JIT):
        return function
    told = _known(options) if platform() == "cpu" else None
    return jax.jit(function).lower(*args).compile(told)
