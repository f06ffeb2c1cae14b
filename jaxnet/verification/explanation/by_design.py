"""Derivatives that are not those of the values, and mostly meant: what they are."""

from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxnet.jaxpr import described, opened, sub_jaxprs
from jaxnet.verification.function.sites import Site, inside, outermost

ROUNDING = {
    "round",
    "floor",
    "ceil",
    "sign",
    "argmax",
    "argmin",
    "eq",
    "ge",
    "gt",
    "le",
    "lt",
}
"""Primitives whose values are steps: their derivative is 0, where it is not meant."""


def straight_through(closed: Any, site: Site) -> str:
    """What rounds the value that a site stops, or what a rule rounds; in words."""
    if site.name:
        own = outermost(inside(site.equations[0]))
        rounded = (e for e in own if has_no_slope(e))
        found = next(rounded, None)
        words = "a straight-through estimator of"
        return f"{words} {described(found)}" if found is not None else ""
    for equation in _before(closed, site.equations[0]):
        for one in (equation, *inside(equation)):
            if one.primitive.name in ROUNDING:
                return f"a straight-through estimator of {described(one, equation)}"
    return ""


def has_no_slope(equation: Any) -> bool:
    """Whether it gives steps: integers, or what is rounded; no booleans."""
    name, output = equation.primitive.name, equation.outvars[0].aval.dtype
    if name != "convert_element_type":
        return name in ROUNDING and output != np.bool_
    is_float = jnp.issubdtype(equation.invars[0].aval.dtype, np.inexact)
    return bool(is_float and not jnp.issubdtype(output, np.inexact))


def _before(jaxpr: Any, chosen: Any) -> list[Any]:
    """The equations that one depends on, in the jaxpr that it stands in; last first."""
    equations = opened(jaxpr).eqns
    number = next((i for i, e in enumerate(equations) if e is chosen), None)
    if number is None:
        inner = [j for e in equations for j in sub_jaxprs(e)]
        return next(filter(None, (_before(j, chosen) for j in inner)), [])
    needed, found = set(map(id, chosen.invars)), []
    for equation in reversed(equations[:number]):
        if not needed.isdisjoint(map(id, equation.outvars)):
            found.append(equation)
            needed.update(map(id, equation.invars))
    return found
