"""What on the way from the parameters may break a derivative, with source lines."""

from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnet.jaxpr import opened, source_line, sub_jaxprs
from jaxnet.precision import eps
from jaxnet.verification.function.program import Program

SUSPICIOUS = {
    "stop_gradient": "stop_gradient",
    "custom_vjp_call": "a custom_vjp rule",
    "custom_vjp_call_jaxpr": "a custom_vjp rule",
    "custom_jvp_call": "a custom_jvp rule",
    "round": "rounding",
    "floor": "rounding",
    "ceil": "rounding",
    "sign": "sign",
    "argmax": "argmax",
    "argmin": "argmin",
    "pure_callback": "a callback",
    "io_callback": "a callback",
}
"""What is said of each primitive that may."""

OWN = str(Path(__file__).parent.parent)
"""The verifier casts too, to call a function in its own dtype; that is no suspect."""

LIBRARY = (
    "/jax/_src/nn/",
    "/jax/_src/ops/",
    "/jax/_src/scipy/",
    "/jax/_src/numpy/linalg",
    "/jax/_src/lax/linalg",
    "/optax/",
)
"""Where rules are of a library, tested by its own authors."""


def suspects(program: Program) -> list[str]:
    """Each suspect once, with its source line."""
    found = []
    for equation in program.equations:
        name, line = equation.primitive.name, source_line(equation)
        at = f" at {line}" if line else ""
        if OWN in line:
            continue
        if name in SUSPICIOUS and not _is_of_library(equation):
            found.append(SUSPICIOUS[name] + _rule(equation) + at)
        elif name == "convert_element_type" and _casts_down(equation):
            found.append(f"a cast to {equation.params['new_dtype']}{at}")
    return list(dict.fromkeys(found))


def axis_sizes(program: Program) -> dict[int, str]:
    """Axis sizes of the arrays that the function closes over."""
    sizes: dict[int, str] = {}
    for constant in program.closed.consts:
        shape = tuple(np.shape(constant))
        text = "×".join(map(str, shape))
        for axis, size in enumerate(shape):
            sizes.setdefault(size, f"axis {axis} of the {text} data")
    return sizes


def _is_of_library(equation: Any) -> bool:
    """Whether a rule or stop_gradient is JAX's own, as in jax.nn.relu and softmax."""
    if any("jax/_src/" in _made_at(inner) for inner in sub_jaxprs(equation)):
        return True
    frames = getattr(equation.source_info.traceback, "frames", ())
    return any(part in frame.file_name for frame in frames for part in LIBRARY)


def _rule(equation: Any) -> str:
    names = [_made_at(inner).split(" at ")[0] for inner in sub_jaxprs(equation)]
    return f" `{names[0]}`" if names and names[0] else ""


def _made_at(jaxpr: Any) -> str:
    info = getattr(opened(jaxpr), "debug_info", None)
    return str(getattr(info, "func_src_info", ""))


def _casts_down(equation: Any) -> bool:
    old = getattr(equation.invars[0].aval, "dtype", None)
    new = equation.params["new_dtype"]
    if old is None or not jnp.issubdtype(old, np.floating):
        return False
    if not jnp.issubdtype(new, np.inexact):
        return True
    return eps(new) > eps(old)
