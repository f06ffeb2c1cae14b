"""Rules that are meant to be what they are: all else of a gradient is judged."""

from collections.abc import Callable, Collection
from typing import Any

import jax

from jaxnet.array_types import PyTree, ScalarFunction
from jaxnet.input_checks import complaint
from jaxnet.jaxpr import around, bind, evaluate, every_equation
from jaxnet.verification.function.sites import Site, computed, has_derivative, sites
from jaxnet.verification.point import floating_leaves, with_floating

Intended = Collection[str | Callable[..., Any]]
"""Rules, by their names or themselves; or lines, "file.py:12", of a rule or a call."""


def without_intended(
    loss: ScalarFunction, params: PyTree, intended: Intended
) -> tuple[ScalarFunction, tuple[str, ...]]:
    """The loss with the derivative of what they compute in the place of some rules.

    Its values are those of the loss. Also says which rules these are.

    Raises:
        ValueError: the loss calls no such rule, or what one computes has no derivative.
        Whatever JAX raises if it cannot trace the loss.
    """

    def program(params: PyTree) -> Any:
        def of_floating(moved: list[Any]) -> Any:
            return loss(with_floating(params, moved))

        return jax.make_jaxpr(of_floating)(floating_leaves(params))

    def chosen(closed: Any) -> list[Site]:
        every = sites(every_equation(closed))
        return [site for site in every if any(_is(site, one) for one in intended)]

    def otherwise(params: PyTree) -> Any:
        closed = program(params)
        meant = {id(e) for site in chosen(closed) for e in site.equations}
        entered = around(closed, meant)

        def hook(equation: Any, inputs: list[Any]) -> list[Any] | None:
            if id(equation) in meant:
                return computed(equation, inputs, hook)
            return None if id(equation) in entered else bind(equation, inputs)

        return evaluate(closed, floating_leaves(params), hook)[0]

    closed = program(params)
    for one in intended:
        _check(one, sites(every_equation(closed)))
    said = (f"not judged, as intended: {site.described}" for site in chosen(closed))
    return otherwise, tuple(said)


def _check(one: Any, every: list[Site]) -> None:
    """One that is meant.

    Raises:
        ValueError: the program does not call it, or it cannot be replaced.
    """
    found = [site for site in every if _is(site, one)]
    name = getattr(one, "__name__", str(one))
    if not found:
        there = ", ".join(dict.fromkeys(s.name or s.line for s in every)) or "no rules"
        fix = "name a rule, or file.py:LINE where it stands or is called"
        expected = f"rules that the loss calls: {there}"
        raise ValueError(complaint("intended", expected, name, fix))
    if not all(has_derivative(e) for site in found for e in site.equations):
        fix = "pass the function that it should be the derivative of as reference="
        expected = "rules of functions that JAX can differentiate"
        raise ValueError(complaint("intended", expected, name, fix))


def _is(site: Site, one: Any) -> bool:
    name = getattr(one, "__name__", one)
    lines = (":".join(place.split(":")[:2]) for place in (site.rule, site.line))
    return site.name == name or any(f"/{line}".endswith(f"/{name}") for line in lines)
