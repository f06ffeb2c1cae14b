"""What XLA's CPU compiler is told about one program."""

from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import jax

Options: TypeAlias = dict[str, str | bool]

BY_EIGEN: Options = {"xla_cpu_experimental_ynn_fusion_type": ""}
"""For what has to be right: by YNNPACK, which XLA takes else, the vmapped product with
a matrix that a program makes, as `x @ jnp.ones((3, 1000))`, is wrong (jaxlib 0.10 to
0.12). Products of few rows are faster, too: it packs the weights anew."""

IN_HASTE: Options = {
    "xla_backend_optimization_level": "0",
    "xla_cpu_use_fusion_emitters": False,  # the older generator is faster
    **BY_EIGEN,
}
"""For what runs once or twice: optimising it would take longer than it does."""


def in_haste(
    function: Callable[..., Any], platform: str, **options: Any
) -> Callable[..., Any]:
    """jax.jit of what runs a few times on a platform: on a CPU, it is not optimised.

    options: of jax.jit.
    """
    return _told(IN_HASTE, function, platform, **options)


def by_eigen(function: Callable[..., Any], platform: str) -> Callable[..., Any]:
    """jax.jit of what runs often on a platform."""
    return _told(BY_EIGEN, function, platform)


def _told(
    told: Options, function: Callable[..., Any], platform: str, **options: Any
) -> Callable[..., Any]:
    known = _known(told) if platform == "cpu" else None
    return jax.jit(function, compiler_options=known, **options)


def _known(options: Options) -> Options:
    """Those that the XLA of this jaxlib takes."""
    if _takes(*options.items()):
        return options
    return {name: value for name, value in options.items() if _takes((name, value))}


@cache
def _takes(*options: tuple[str, str | bool]) -> bool:
    try:
        jax.jit(lambda: 0).lower().compile(dict(options))
    except jax.errors.JaxRuntimeError:  # an XLA without one of them
        return False
    return True
