"""What XLA's CPU compiler is told about one program."""

from collections.abc import Callable
from typing import Any, TypeAlias

import jax
from jax.sharding import NamedSharding

Options: TypeAlias = dict[str, str | bool]

QUICK: Options = {"xla_backend_optimization_level": "2"}
"""LLVM's level 3 takes longer to compile than 2 and runs no faster."""

UNOPTIMISED: Options = {"xla_backend_optimization_level": "0"}
"""For what runs a few times only: optimising it would take longer than it does."""

_OLDER: Options = {"xla_cpu_use_fusion_emitters": False}
IN_HASTE: Options = UNOPTIMISED | (_OLDER if jax.__version_info__ < (0, 12) else {})
"""The same by XLA's older code generator, where it has one: half the time again."""

BY_EIGEN: Options = {"xla_cpu_experimental_ynn_fusion_type": ""}
"""For products of few rows: XLA would take YNNPACK, which packs the weights anew.

Not for the numeric gradient, whose many small sums it makes half as fast again."""


_WITHOUT_JIT = "jax_disable_jit"


def compiled(
    function: Callable[..., Any],
    options: Options,
    *args: Any,
    sharding: NamedSharding | None = None,
) -> Any:
    """The program for such args, on a CPU by these options if this XLA knows them all.

    sharding: of its results. Under jax.disable_jit, the function itself.
    """
    if getattr(jax.config, _WITHOUT_JIT):
        return function
    lowered = jax.jit(function, out_shardings=sharding).lower(*args)
    if jax.default_backend() != "cpu":
        return lowered.compile()
    try:
        return lowered.compile({**QUICK, **options})
    except jax.errors.JaxRuntimeError:  # an XLA without that option
        return lowered.compile(QUICK)
