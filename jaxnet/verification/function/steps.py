"""What ends a derivative: primitives that give steps, and casts to integers."""

from typing import Any

import numpy as np

from jaxnet.jaxpr.reader import sub_jaxprs
from jaxnet.verification.point import is_inexact

STEPS = ("round", "floor", "ceil")
"""Steps as fine as their caller scales them, so that they follow a slope…"""

ROUNDING = (*STEPS, "sign", "argmax", "argmin", "eq", "ge", "gt", "le", "lt")
"""…and all primitives whose values are steps: their derivative is 0."""


def has_no_slope(equation: Any) -> bool:
    """Whether it gives steps: integers, or what is rounded; no booleans."""
    name, output = equation.primitive.name, equation.outvars[0].aval.dtype
    if name != "convert_element_type":
        return name in ROUNDING and output != np.bool_
    before, after = (v.aval for v in (equation.invars[0], equation.outvars[0]))
    return is_inexact(before) and not is_inexact(after)


def carries(equation: Any, output: Any) -> bool:
    """Whether a derivative may flow to an output: not to integers, nor to steps."""
    ends = equation.primitive.name in (*ROUNDING, "stop_gradient")
    return not ends and is_inexact(output.aval)


def ends_derivatives(equation: Any) -> bool:
    """Whether a float goes in, and its derivative ends at some of what comes out."""
    if next(sub_jaxprs(equation), None) is not None:
        return False
    taken = any(is_inexact(v.aval) for v in equation.invars)
    return taken and not all(carries(equation, v) for v in equation.outvars)
