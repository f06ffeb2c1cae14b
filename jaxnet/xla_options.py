"""What XLA's CPU compiler is told about one program."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax

from jaxnet.float64 import platform

Options: TypeAlias = dict[str, str | bool]

IN_HASTE: Options = {"xla_backend_optimization_level": "0"}
"""For what runs once or twice: optimising it would take longer than it does."""
if jax.__version_info__ < (0, 12):
    IN_HASTE["xla_cpu_use_fusion_emitters"] = False  # the older generator is faster

BY_EIGEN: Options = {"xla_cpu_experimental_ynn_fusion_type": ""}
"""For products of few rows: XLA would take YNNPACK, which packs the weights anew."""


def in_haste(
    function: Callable[..., Any], platform: str, **options: Any
) -> Callable[..., Any]:
    """jax.jit of what runs a few times on a platform: on a CPU, it is not optimised.

    options: of jax.jit.
    """
    told = IN_HASTE if platform == "cpu" else None
    return jax.jit(function, compiler_options=told, **options)


_WITHOUT_JIT = "jax_disable_jit"


def compiled(
    function: Callable[..., Any], options: Options, *args: Any
) -> Callable[..., Any]:
    """The program for such args, on a CPU by these options if this XLA knows them all.

    Under jax.disable_jit, the function itself.
    """
    if getattr(jax.config, _WITHOUT_JIT):
        return function
    lowered = jax.jit(function).lower(*args)
    if platform() != "cpu":
        return lowered.compile()
    try:
        return lowered.compile(options)
    except jax.errors.JaxRuntimeError:  # an XLA without that option
        return lowered.compile()
