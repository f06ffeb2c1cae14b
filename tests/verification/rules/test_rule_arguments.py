"""What check_vjp and check_jvp make of whatever a caller's function takes and gives."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.experimental import sparse

from jaxnet import Verdict, check_gradients, check_jvp, check_vjp
from jaxnet.verification.rules.arguments import Arguments, names_of

X = np.random.default_rng(0).normal(size=4).astype(np.float32)


def rule_of(factor: float) -> Callable[..., Any]:
    """Sin, with a backward pass that may be off by a factor."""
    f = jax.custom_vjp(lambda x: jnp.sin(x))
    f.defvjp(lambda x: (jnp.sin(x), x), lambda x, c: (factor * jnp.cos(x) * c,))
    return f


def attention(factor: float) -> Callable[..., Any]:
    """The signature of flash attention: two options that are not differentiated."""

    def plain(q: Any, k: Any, v: Any, causal: bool = False, scale: float = 1.0) -> Any:
        return jnp.sum(jnp.tanh(scale * q * k) * v)

    def backward(causal: bool, scale: float, kept: Any, c: Any) -> Any:
        q, k, v = kept
        t = jnp.tanh(scale * q * k)
        d = c * scale * v * (1 - t**2)
        return factor * d * k, factor * d * q, c * t

    f = jax.custom_vjp(plain, nondiff_argnums=(3, 4))
    f.defvjp(lambda q, k, v, *options: (plain(q, k, v, *options), (q, k, v)), backward)
    return f


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), (True, 2.0)])
def test_positions_held_by_a_rule_are_not_taken_modulo_the_arguments(
    options: tuple[Any, ...],
) -> None:
    """Called with three arguments, none of q, k and v is held; with five, two are."""
    args = (X, X + 1, X + 2, *options)
    right = check_vjp(attention(1.0), *args)
    assert right.passed, str(right)
    assert right.held == (("causal", "scale") if options else ())
    wrong = check_vjp(attention(0.0), *args)
    assert [x.path for x in wrong.leaves if not x.passed] == ["q", "k"]


def test_a_position_without_an_argument_is_refused() -> None:
    """-1 is the last one, 1 of one is none."""
    with pytest.raises(ValueError, match="1 of 1 arguments"):
        check_vjp(jnp.sin, X, nondiff_argnums=(1,))


def test_arguments_keep_their_names() -> None:
    """With the first one held, the second is still x."""
    report = check_vjp(lambda n, x: n * x**2, 2.0, X, nondiff_argnums=(0,))
    assert report.passed
    assert [x.path for x in report.leaves] == ["x"]
    assert report.held == ("n",)


NAMED: dict[str, tuple[Callable[..., Any], tuple[Any, ...], list[str]]] = {
    "by name": (lambda x, y: x * y, (X, X), ["x", "y"]),
    "pytree": (lambda p: p["w"] * 2, ({"w": X},), ["p['w']"]),
    "several": (lambda x, *rest: x * rest[1], (X, X, X), ["x", "rest[0]", "rest[1]"]),
    "rule": (rule_of(1.0), (X,), ["x"]),
    "partial": (partial(lambda x, y: x * y, y=2.0), (X,), ["x"]),
    "not Python": (np.sum, (X,), ["a"]),
    "no signature": (
        type("F", (), {"__call__": max, "__signature__": 1})(),
        (X,),
        [""],
    ),
}


@pytest.mark.parametrize("name", NAMED)
def test_arguments_are_called_what_the_function_calls_them(name: str) -> None:
    """By its signature; a leaf of a pytree has the rest of its path behind it."""
    function, args, names = NAMED[name]
    if name == "no signature":
        assert names_of(function, 2) == ("[0]", "[1]")
        return
    paths = jax.tree_util.tree_leaves_with_path(Arguments.of(function, args))
    assert [jax.tree_util.keystr(path) for path, _ in paths] == names


@pytest.mark.slow
def test_the_place_of_a_mistake_begins_with_the_arguments_name() -> None:
    """`x[2]`, and not `[0][2]`."""
    wrong = jax.custom_vjp(lambda x: jnp.sin(x))
    slopes = jnp.array([1.0, 1.0, 2.0, 1.0])
    wrong.defvjp(lambda x: (wrong(x), x), lambda x, c: (slopes * jnp.cos(x) * c,))
    assert check_vjp(wrong, X, demands=()).worst.place == "x[2]"


def test_an_argument_that_is_called_cotangent() -> None:
    """The one that a second order adds has a name of its own."""
    named = Arguments.of(lambda cotangent: cotangent, (X,))
    twice = named.and_one("cotangent", [X]).and_one("cotangent", [X])
    assert twice.names == ("cotangent", "cotangent2", "cotangent3")


@pytest.mark.slow
@pytest.mark.parametrize("wrap", [jax.vmap, jax.jit, jax.checkpoint])
def test_what_functools_wraps_made_is_not_its_body(wrap: Callable[..., Any]) -> None:
    """`.fun` of jax.vmap(f) is f, another function; the rule within is still seen."""
    assert check_vjp(wrap(rule_of(1.0)), X).passed
    assert check_vjp(wrap(rule_of(1.1)), X).verdict is Verdict.DISAGREE


def test_a_gradient_is_a_function_too() -> None:
    """jax.grad(f) has the attributes of f."""
    report = check_vjp(jax.grad(lambda x: jnp.sum(jnp.sin(x))), X)
    assert report.passed
    assert report.leaves[0].resolution < 1e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    "function",
    [
        jnp.round,
        lambda x: jax.nn.relu(-1.5 - jnp.abs(x)),
        lambda x: jax.lax.cond(True, lambda x: 0 * x + 1, lambda x: x**2, x),
    ],
)
def test_a_derivative_that_is_rightly_zero_agrees(function: Any) -> None:
    """Here and nearby, by autodiff as by differences; the report says that it is 0."""
    report = check_vjp(function, X)
    assert report.verdict is Verdict.AGREE
    assert "exactly 0 here, as the differences are" in report.leaves[0].cause
    given = check_gradients(lambda x: jnp.sum(function(x)), X, np.ones(4, np.float32))
    assert given.verdict is Verdict.DISAGREE


@pytest.mark.slow
def test_a_zero_that_hides_a_gradient_is_not_right() -> None:
    """A rule that gives 0 where the function moves is wrong."""
    assert check_vjp(rule_of(0.0), X).verdict is Verdict.DISAGREE


@pytest.mark.slow
def test_a_linear_function_has_a_second_order() -> None:
    """It is 0 with respect to the argument, and not to the cotangent."""
    report = check_vjp(lambda x: 3 * x, X, order=2)
    assert report.passed, str(report)
    paths = [x.path for x in report.leaves]
    assert paths == ["x", "x", "cotangent[0]"]


@pytest.mark.slow
def test_the_second_order_is_also_with_respect_to_the_cotangent() -> None:
    """stop_gradient(c) in a backward pass breaks the gradient of a gradient."""
    stopped = jax.custom_vjp(lambda x: jnp.sin(x))
    stopped.defvjp(
        lambda x: (jnp.sin(x), x),
        lambda x, c: (jnp.cos(x) * jax.lax.stop_gradient(c),),
    )
    assert check_vjp(rule_of(1.0), X, order=2).passed
    report = check_vjp(stopped, X, order=2)
    assert report.verdict is Verdict.DISAGREE
    assert report.worst.path == "cotangent[0]"


def test_outputs_that_no_argument_reaches_are_left_out_and_listed() -> None:
    """NaN, infinities, large constants and Python numbers say nothing of a rule."""

    def function(x: Any) -> Any:
        mask = jnp.array([jnp.nan, jnp.inf, -jnp.inf])
        return jnp.sin(x), 1.5, {"mask": mask, "aux": jnp.full(3, 1e9)}

    report = check_vjp(function, X)
    assert report.passed, str(report)
    assert report.leaves[0].resolution < 1e-8
    for path in ("[1]", "[2]['mask']", "[2]['aux']"):
        assert f"output {path} is left out: no argument reaches it" in report.notes


CHECKS = pytest.mark.parametrize("check", [check_vjp, check_jvp])


@pytest.mark.slow
@CHECKS
def test_rounding_dust_is_not_judged(check: Any) -> None:
    """The determinant of a matrix of rank 1 is 1e-8 for one and -1e-9 for another."""
    assert check(jnp.linalg.det, np.outer(X[:3], X[1:])).passed


@pytest.mark.slow
@CHECKS
def test_a_cast_to_eight_bits_is_right(check: Any) -> None:
    """Its cotangent stays within what eight bits hold."""
    assert check(lambda x: x.astype(jnp.float8_e4m3fn).astype(x.dtype), X).passed


@pytest.mark.parametrize("argument", [float("nan"), np.array([1, np.inf], np.float32)])
def test_an_argument_that_is_not_finite_is_a_failing_report(argument: Any) -> None:
    """Nothing is raised: a suite goes on."""
    for check in (check_vjp, check_jvp):
        report = check(jnp.sin, argument)
        assert report.verdict is Verdict.MALFORMED
        assert "the argument is" in report.worst.cause


@pytest.mark.slow
def test_keyword_and_static_arguments() -> None:
    """By `kwargs`; strings and static integers are held."""
    rows = np.ones((3, 2), np.float32)
    assert check_vjp(jnp.sum, rows, kwargs={"axis": 0}).passed
    assert check_jvp(jnp.sum, rows, kwargs={"axis": 0}).passed
    power = jax.jit(lambda x, n: x**n, static_argnums=1)
    assert check_vjp(power, X, 3).passed
    assert check_vjp(lambda x, name: x * len(name), X, "four").passed


@pytest.mark.slow
def test_sparse_arrays_and_modules_are_arguments() -> None:
    """Trees that take nothing but arrays in their leaves."""
    matrix = sparse.BCOO.fromdense(np.array([[1.0, 0, 2], [0, 3, 0]], np.float32))
    assert check_vjp(lambda m, v: m @ v, matrix, X[:3]).passed
    assert check_gradients(lambda m: jnp.sum((m @ X[:3]) ** 2), matrix).passed
    module = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    graph, state = nnx.split(module)
    rows = np.ones((4, 3), np.float32)

    def loss(state: Any) -> Any:
        return jnp.sum(nnx.merge(graph, state)(rows) ** 2)

    assert check_gradients(loss, state).passed
    assert check_gradients(loss, state, jax.grad(loss)).passed
    assert check_vjp(lambda s, x: nnx.merge(graph, s)(x), state, rows).passed


@pytest.mark.slow
def test_guards_of_the_caller_are_kept_from_the_check() -> None:
    """jax.transfer_guard("disallow") is about his arrays, jax_enable_checks holds."""
    x = jnp.asarray(X)
    with jax.transfer_guard("disallow"):
        assert check_vjp(jnp.sin, x).passed
        assert check_gradients(lambda x: jnp.sum(jnp.sin(x)), x).passed
    with jax.enable_checks(True):
        assert check_vjp(jnp.sin, x).passed


@pytest.mark.slow
def test_a_sampler_by_rejection_is_not_called_wrong() -> None:
    """JAX's gradient of a gamma draw is that of its distribution, by design."""

    def loss(p: Any) -> Any:
        return jnp.sum(jax.random.gamma(jax.random.key(0), jnp.exp(p), (4,)))

    report = check_gradients(loss, X)
    assert report.verdict is Verdict.UNRESOLVED
    assert "`random_gamma` draws by rejection" in report.worst.cause
    noise = check_gradients(lambda p: jnp.sum(p * loss(jnp.ones(4))), X)
    assert noise.passed
