"""The gradient checks of `jax.test_util` and of chex, with their signatures.

A suite that calls these is verified by changing the line that imports them, or none:
see `jaxnet.pytest_plugin`. Their tolerances and steps are accepted and not needed.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from typing import Any

import jax

from jaxnet.array_types import PyTree
from jaxnet.input_checks import check_callable, check_choice
from jaxnet.testing.asserted import passed
from jaxnet.testing.by_position import named
from jaxnet.verification import GradientReport
from jaxnet.verification.function.stopped import with_stopped_held
from jaxnet.verification.point import floating_leaves, with_floating
from jaxnet.verification.rules.check_rule import check_modes, together
from jaxnet.verification.rules.demands import DEMANDS
from jaxnet.verification.rules.rule import Mode

MODES: dict[str, Mode] = {"fwd": "jvp", "rev": "vjp"}
"""JAX's names of the modes, and ours."""

LINEARIZE = "lin"
"""JAX's name of the forward mode by `jax.linearize`."""

TRACED = ("jit_is_eager", "vmap_is_loop", "batch_is_examples")
"""Demands on a rule that JAX has to trace."""

NOT_NEEDED = "not needed, the bound is derived: "
"""What a report says, once, of tolerances and steps that were given."""


def check_grads(
    f: Callable[..., PyTree],
    args: Sequence[Any],
    order: int,
    modes: Sequence[str] = ("fwd", "rev"),
    atol: Any = None,
    rtol: Any = None,
    eps: float | None = None,
    **options: Any,
) -> GradientReport:
    """As `jax.test_util.check_grads`, by the verifier.

    Args:
        f: of arrays or pytrees, to an array or pytree.
        args: its arguments. Those that are no floating arrays are held fixed.
        order: up to 4; each mode's derivative is differentiated by each of the modes.
        modes: of "fwd", "rev" and "lin".
        atol, rtol, eps: accepted, and not needed.
        options: of `jaxnet.check_vjp`, such as `kwargs`, `has_aux`, `nondiff_argnums`.

    Returns:
        The report, where all of it passed.

    Raises:
        GradientMismatch: otherwise, an AssertionError whose message is the table.
        ValueError: there is no such mode or order.
    """
    modes = [modes] if isinstance(modes, str) else list(modes)
    for mode in modes or [""]:
        check_choice("modes", mode, (*MODES, LINEARIZE))
    f, options = _bound(f, options)
    ours = [MODES[mode] for mode in modes if mode != LINEARIZE]
    asked = [(f, ours)] if ours else []
    if LINEARIZE in modes:
        asked.append((with_jvp(f, partial(_jvp_by_linearize, f)), ["jvp"]))
    found = [
        check_modes(function, *args, modes=own, order=order, **options)
        for function, own in asked
    ]
    return passed(together(found), _given(atol=atol, rtol=rtol, eps=eps))


def check_vjp(
    f: Callable[..., PyTree],
    f_vjp: Callable[..., Any],
    args: Sequence[Any],
    atol: Any = None,
    rtol: Any = None,
    eps: float | None = None,
    err_msg: str = "",
    **options: Any,
) -> GradientReport:
    """As `jax.test_util.check_vjp`, by the verifier.

    Args:
        f: of arrays or pytrees, to an array or pytree.
        f_vjp: of the same arguments, to what `f` gives and a function from a cotangent
            to the gradients, as `partial(jax.vjp, f)`.
        args, atol, rtol, eps, options: as of `check_grads`.
        err_msg: is put before the message of a failure.

    Raises:
        GradientMismatch: the rule is wrong, or `f_vjp` gives another value than `f`.
    """
    check_callable("f_vjp", f_vjp, "write check_vjp(f, f_vjp, args), or assert_vjp")
    f, options = _bound(f, options)
    if not _is_jaxs(f_vjp, jax.vjp, f):

        def pulled(*args: Any) -> Any:
            value, pull = f_vjp(*args)[:2]
            return pull(value)

        options = _askable(pulled, args) | options
        f = with_vjp(f, f_vjp)
    report = check_modes(f, *args, modes=("vjp",), **options)
    return passed(report, _given(atol=atol, rtol=rtol, eps=eps), err_msg)


def check_jvp(
    f: Callable[..., PyTree],
    f_jvp: Callable[..., Any],
    args: Sequence[Any],
    atol: Any = None,
    rtol: Any = None,
    eps: float | None = None,
    err_msg: str = "",
    **options: Any,
) -> GradientReport:
    """As `jax.test_util.check_jvp`, by the verifier.

    Args:
        f: of arrays or pytrees, to an array or pytree.
        f_jvp: of a tuple of arguments and one of their tangents, to what `f` gives and
            its tangent, as `partial(jax.jvp, f)`.
        args, atol, rtol, eps, err_msg, options: as of `check_vjp`.

    Raises:
        GradientMismatch: the rule is wrong, or `f_jvp` gives another value than `f`.
    """
    check_callable("f_jvp", f_jvp, "write check_jvp(f, f_jvp, args), or assert_jvp")
    f, options = _bound(f, options)
    if not _is_jaxs(f_jvp, jax.jvp, f):
        options = _askable(lambda *args: f_jvp(args, args), args) | options
        f = with_jvp(f, f_jvp)
    report = check_modes(f, *args, modes=("jvp",), **options)
    return passed(report, _given(atol=atol, rtol=rtol, eps=eps), err_msg)


def assert_numerical_grads(
    f: Callable[..., PyTree],
    f_args: Sequence[Any],
    order: int,
    atol: float | None = None,
    **check_kwargs: Any,
) -> GradientReport:
    """As `chex.assert_numerical_grads`, by the verifier: `check_grads` with its names.

    What a `stop_gradient` in `f` gives is a constant here, as it is there: a gradient
    without it is right.
    """
    f, options = _bound(f, check_kwargs)
    held = with_stopped_held(f, tuple(f_args))
    return check_grads(held, f_args, order, atol=atol, **options)


def with_vjp(
    f: Callable[..., PyTree], f_vjp: Callable[..., Any]
) -> Callable[..., PyTree]:
    """The function with the rule of `f_vjp(*args) -> value, pullback`."""
    ruled = jax.custom_vjp(named(f)(f))

    def forward(*args: Any) -> Any:
        return f_vjp(*args)[0], args

    @wraps(f_vjp)
    def backward(args: Any, cotangent: Any) -> Any:
        return tuple(f_vjp(*args)[1](cotangent))

    ruled.defvjp(forward, backward)
    return ruled


def with_jvp(
    f: Callable[..., PyTree], f_jvp: Callable[..., Any]
) -> Callable[..., PyTree]:
    """The function with the rule of `f_jvp(args, tangents) -> value, tangent`."""
    ruled = jax.custom_jvp(named(f)(f))

    @wraps(f_jvp)
    def forward(args: Any, tangents: Any) -> Any:
        return tuple(f_jvp(args, tangents))

    ruled.defjvp(forward)
    return ruled


def _bound(
    f: Callable[..., PyTree], options: Mapping[str, Any]
) -> tuple[Callable[..., PyTree], dict[str, Any]]:
    """The function of positions alone, and the options without `kwargs`."""
    rest = dict(options)
    kwargs = rest.pop("kwargs", {})
    return (partial(f, **kwargs) if kwargs else f), rest


def _jvp_by_linearize(f: Callable[..., PyTree], args: Any, tangents: Any) -> Any:
    value, linear = jax.linearize(f, *args)
    return value, linear(*tangents)


def _is_jaxs(rule: Any, of_jax: Any, f: Any) -> bool:
    """Whether it is JAX's own derivative of `f`: the rule stands in `f` itself."""
    return isinstance(rule, partial) and (rule.func, rule.args) == (of_jax, (f,))


def _askable(rule: Callable[..., Any], args: Sequence[Any]) -> dict[str, Any]:
    """The demands on a rule by hand, as an option: it need not be traceable by JAX."""

    def of_floating(floats: list[Any]) -> Any:
        return rule(*with_floating(tuple(args), floats))

    try:
        jax.make_jaxpr(of_floating)(floating_leaves(tuple(args)))
    except Exception:  # the caller's rule: by NumPy, or with branches of Python
        return {"demands": [name for name in DEMANDS if name not in TRACED]}
    return {}


def _given(**settings: Any) -> str:
    """Which tolerances and steps were given, in words."""
    names = ", ".join(name for name, value in settings.items() if value is not None)
    return NOT_NEEDED + names if names else ""
