"""Rules that are meant to be what they are: all else of a gradient is judged."""

from collections.abc import Callable, Collection, Iterable
from typing import Any

import jax

from jaxnet.array_types import PyTree, ScalarFunction
from jaxnet.input_checks import complaint, describe
from jaxnet.jaxpr.evaluate import bind, evaluate
from jaxnet.jaxpr.reader import around, every_equation
from jaxnet.verification.function.sites import (
    Site,
    backward,
    code_of,
    computed,
    has_derivative,
    outermost,
    sites,
    written,
)
from jaxnet.verification.point import floating_leaves, with_floating

Meant = str | Callable[..., Any]
"""A rule, by its name or itself; a line, "file.py:12", of a rule or a call; or the
function that a `stop_gradient` stands in."""

Intended = Meant | Collection[Meant]
"""One or several of these."""

NOT_JUDGED = "not judged, as intended"
"""What is said of them."""


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

    def every(closed: Any) -> list[Site]:
        return sites(closed, outermost(every_equation(closed)))

    def chosen(closed: Any) -> list[Site]:
        return [s for s in every(closed) if any(is_site(one, s) for one in meant)]

    def otherwise(params: PyTree) -> Any:
        closed = program(params)
        switched = {id(e) for site in chosen(closed) for e in site.equations}
        entered = around(closed, switched)

        def hook(equation: Any, inputs: list[Any]) -> list[Any] | None:
            if id(equation) in switched:
                return computed(equation, inputs, hook)
            return None if id(equation) in entered else bind(equation, inputs)

        return evaluate(closed, floating_leaves(params), hook)[0]

    meant, closed = several(intended), program(params)
    for one in meant:
        check_replaced(check_called(one, every(closed)), one)
    said = (f"{NOT_JUDGED}: {site.described}" for site in chosen(closed))
    return otherwise, tuple(said)


def several(intended: Intended) -> list[Meant]:
    """A list of one, if it is one.

    Raises:
        TypeError: it is neither a name, nor a rule, nor some of these.
    """
    if isinstance(intended, str) or callable(intended):
        return [intended]
    if not isinstance(intended, Iterable):
        fix = "name rules, or lines of a stop_gradient"
        raise TypeError(complaint("intended", "rules", describe(intended), fix))
    return list(intended)


def check_called(one: Meant, every: list[Site]) -> list[Site]:
    """The sites of one that is meant.

    Raises:
        ValueError: there are none.
    """
    found = [site for site in every if is_site(one, site)]
    if not found:
        there = ", ".join(dict.fromkeys(s.name or s.line for s in every)) or "no rules"
        fix = "name a rule, file.py:LINE, or the function of a stop_gradient"
        expected = f"rules that the loss calls: {there}"
        raise ValueError(complaint("intended", expected, _name(one), fix))
    return found


def check_replaced(found: list[Site], one: Meant) -> None:
    """Whether what they compute has a derivative to stand in their place.

    Raises:
        ValueError: it has none.
    """
    if not all(has_derivative(e) for site in found for e in site.equations):
        fix = "pass the function that it should be the derivative of as reference="
        expected = "rules of functions that JAX can differentiate"
        raise ValueError(complaint("intended", expected, _name(one), fix))


def _name(one: Meant) -> str:
    return one if isinstance(one, str) else getattr(one, "__name__", describe(one))


def is_named(one: str, name: str, places: Iterable[str]) -> bool:
    """Whether it is a name, or the file and line of one of some places."""
    lines = (":".join(place.split(":")[:2]) for place in places)
    return one == name or any(f"/{line}".endswith(f"/{one}") for line in lines)


def is_site(one: Meant, site: Site) -> bool:
    """Whether it names a site, is its rule, or the function that a stop stands in."""
    if isinstance(one, str):
        return is_named(one, site.name, (site.rule, site.line))
    is_rule = isinstance(one, jax.custom_vjp | jax.custom_jvp)
    if not (site.name or is_rule) and (code := code_of(one)):
        file, line, *_ = site.line.split(":") if site.line else ("", "0")
        numbers = [number for *_, number in code.co_lines() if number]
        inside = min(numbers) <= int(line) <= max(numbers)
        return inside and file == code.co_filename
    if isinstance(one, jax.custom_vjp):
        return any(backward(e) is one.bwd for e in site.equations)
    if isinstance(one, jax.custom_jvp):
        return site.function == f"{one.fun.__name__} at {written(one.fun)}"
    return False
