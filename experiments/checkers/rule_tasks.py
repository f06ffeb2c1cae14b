"""Functions with derivative rules written by hand, each right and with a slip."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.checkers.question import Question, RuleTask
from experiments.gradient_cases.case import like, normal

Rule = Callable[..., Any]

MATRIX = normal(201, 3, 5)
ROWS = np.array([0, 2, 2], np.int32)


def rule_questions() -> list[Question]:
    """Right and wrong rules, half of them custom_vjp and half custom_jvp."""
    x, y = normal(202, 5), normal(203, 5)
    many = normal(204, 1000)
    away = np.array([0.4, -2.3, 0.8, 1.7, -0.6])
    return [
        *_pair("tanh_layer", (x,), _tanh_layer(1.0), _tanh_layer(1.001)),
        *_pair("gather", (x,), _gather(True), _gather(False)),
        *_pair("power", (x,), _power(0), _power(1)),
        *_pair("softmax", (x,), _softmax(True), _softmax(False)),
        *_pair("clip", (away,), _clip(True), _clip(False)),
        *_pair("divide", (x, 2 + y**2), _divide(-1.0), _divide(1.0)),
        *_pair("two_uses", (x,), _doubled(1.0), _doubled(2.0)),
        *_pair("cotangent", (x,), _cotangent(lambda g: g), _cotangent(jnp.abs)),
        *_pair("cut", (x,), _cotangent(lambda g: g), _cotangent(_cut)),
        *_pair("clipped", (x,), _cotangent(lambda g: g), _cotangent(_clipped)),
        *_pair("sin_1000", (many,), _sine(1.0), _sine(-1.0), "jvp"),
        *_pair("logsumexp", (x,), _log_sum(0.0), _log_sum(1e-3), "jvp"),
        *_pair("softplus", (4 * x,), _softplus(1.0), _softplus(0.5), "jvp"),
        *_pair("product", (x, y), _product(True), _product(False), "jvp"),
    ]


def _pair(
    name: str, args: tuple[np.ndarray, ...], right: Rule, wrong: Rule, mode: str = "vjp"
) -> list[Question]:
    small = tuple(x.astype(np.float32) for x in args)
    return [
        Question(f"rule_{name}_{kind}", "rules", kind, RuleTask(function, small, mode))
        for kind, function in (("right", right), ("wrong", wrong))
    ]


def _vjp(function: Rule, backward: Callable[[tuple[Any, ...], Any], Any]) -> Rule:
    """A custom_vjp that keeps its arguments for `backward(arguments, cotangent)`."""
    ruled = jax.custom_vjp(function)
    ruled.defvjp(lambda *args: (ruled(*args), args), backward)
    return ruled


def _tanh_layer(factor: float) -> Rule:
    def backward(kept: Any, g: Any) -> Any:
        matrix = like(MATRIX, g)
        slope = 1 - jnp.tanh(matrix @ kept[0]) ** 2
        return (factor * (g * slope) @ matrix,)

    return _vjp(lambda x: jnp.tanh(like(MATRIX, x) @ x), backward)


def _gather(added: bool) -> Rule:
    """x[[0, 2, 2]]: what comes back for 2 is to be added, not written twice."""

    def backward(kept: Any, g: Any) -> Any:
        zeros = jnp.zeros_like(kept[0]).at[ROWS]
        return (zeros.add(g) if added else zeros.set(g),)

    return _vjp(lambda x: x[ROWS], backward)


def _power(late: int) -> Rule:
    """x³, its exponent not lowered; the 3 is a nondiff argument."""

    @partial(jax.custom_vjp, nondiff_argnums=(0,))
    def power(n: int, x: Any) -> Any:
        return x**n

    power.defvjp(
        lambda n, x: (power(n, x), x),
        lambda n, x, g: (g * n * x ** (n - 1 + late),),
    )
    return lambda x: power(3, x)


def _softmax(whole: bool) -> Rule:
    """Its off-diagonal terms forgotten."""

    def backward(kept: Any, g: Any) -> Any:
        y = jax.nn.softmax(kept[0])
        return (y * (g - jnp.sum(g * y)) if whole else y * (1 - y) * g,)

    return _vjp(lambda x: jax.nn.softmax(x), backward)


def _clip(masked: bool) -> Rule:
    """Straight through: slope 1 where it is clipped."""

    def backward(kept: Any, g: Any) -> Any:
        return (jnp.where(jnp.abs(kept[0]) < 1, g, 0) if masked else g,)

    return _vjp(lambda x: jnp.clip(x, -1, 1), backward)


def _divide(sign: float) -> Rule:
    """The sign of the denominator's slope."""

    def backward(kept: Any, g: Any) -> Any:
        x, y = kept
        return g / y, sign * g * x / y**2

    return _vjp(lambda x, y: x / y, backward)


def _doubled(factor: float) -> Rule:
    """A forward pass that is not the function: 2 sin x with 2 cos x, for sin x."""

    @jax.custom_vjp
    def sine(x: Any) -> Any:
        return jnp.sin(x)

    sine.defvjp(
        lambda x: (factor * jnp.sin(x), x),
        lambda x, g: (factor * g * jnp.cos(x),),
    )
    return sine


def _cotangent(change: Rule) -> Rule:
    """A rule that is not linear in the cotangent."""
    return _vjp(jnp.sin, lambda kept, g: (change(g) * jnp.cos(kept[0]),))


def _cut(g: Any) -> Any:
    """Without the small cotangents, which the mean of a large batch gives."""
    return jnp.where(jnp.abs(g) < 1e-3, jnp.zeros_like(g), g)


def _clipped(g: Any) -> Any:
    """Never above 10."""
    return jnp.clip(g, -10, 10)


def _jvp(function: Rule, *slopes: Rule) -> Rule:
    """A custom_jvp by one `slope(tangent, value, *arguments)` for each argument."""
    ruled = jax.custom_jvp(function)
    ruled.defjvps(*slopes)
    return ruled


def _sine(sign: float) -> Rule:
    """Of 1000 numbers, which is where float32 forward checks pass a flipped sign."""
    return _jvp(lambda x: jnp.sin(x), lambda t, _, x: sign * jnp.cos(x) * t)


def _log_sum(excess: float) -> Rule:
    def slope(t: Any, _: Any, x: Any) -> Any:
        return jnp.sum((jax.nn.softmax(x) + excess) * t)

    return _jvp(lambda x: jax.nn.logsumexp(x), slope)


def _softplus(scale: float) -> Rule:
    return _jvp(
        lambda x: jnp.logaddexp(x, 0), lambda t, _, x: jax.nn.sigmoid(scale * x) * t
    )


def _product(both: bool) -> Rule:
    """x sin y, its second term forgotten."""
    weight = 1.0 if both else 0.0
    return _jvp(
        lambda x, y: x * jnp.sin(y),
        lambda t, _, x, y: t * jnp.sin(y),
        lambda t, _, x, y: weight * t * x * jnp.cos(y),
    )
