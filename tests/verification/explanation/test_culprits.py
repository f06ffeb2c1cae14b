"""The rule that is wrong is convicted, by numbers; no innocent is named."""

import inspect
import re
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.experimental import pallas as pl
from jax.sharding import Mesh, PartitionSpec

from jaxnet import Verdict, check_gradients, check_vjp
from jaxnet.jaxpr.lines import VERIFIER
from jaxnet.verification.explanation.calls import ANOTHER_VALUE
from jaxnet.verification.explanation.culprits import NOBODY

Loss = Callable[[Any], Any]
Rule = Callable[[Any], Any]

X = np.array([1.2, 0.4, -1.3], np.float32)
MENDED = "with the true derivative in its place, this leaf agrees"


def sine(factor: float) -> Rule:
    """Sin by a custom_vjp, whose gradient is so many times too large."""

    @jax.custom_vjp
    def sine(x: Any) -> Any:
        return jnp.sin(x)

    sine.defvjp(lambda x: (sine(x), x), lambda x, g: (factor * g * jnp.cos(x),))
    return sine


@jax.custom_jvp
def cube(x: Any) -> Any:
    """x³, with a tangent of 2 x²."""
    return x**3


cube.defjvp(lambda x, t: (x[0] ** 3, 2 * x[0] ** 2 * t[0]))


@jax.custom_vjp
def good(x: Any) -> Any:
    """Tanh, with a right rule."""
    return jnp.tanh(x)


good.defvjp(lambda x: (good(x), good(x)), lambda y, g: (g * (1 - y * y),))


def cause(loss: Loss, candidate: Any = None, x: Any = X) -> str:
    """What is said of a gradient that is wrong."""
    row = check_gradients(loss, x, candidate).worst
    assert row.verdict is Verdict.DISAGREE
    return row.cause


def lines(function: Callable[..., Any]) -> range:
    """Where a function stands in this file."""
    found, first = inspect.getsourcelines(function)
    return range(first, first + len(found))


def named_lines(text: str) -> list[int]:
    """The numbers of the lines of this file that a cause names."""
    return [int(n) for n in re.findall(re.escape(__file__) + r":(\d+)", text)]


@pytest.mark.slow
@pytest.mark.parametrize("place", range(5))
def test_one_among_five(place: int) -> None:
    """Wherever it stands: its file and line, those of the call, the factor."""
    rules = [sine(1.1 if i == place else 1.0) for i in range(5)]

    def loss(x: Any) -> Any:
        x = rules[0](1.1 * x)
        x = rules[1](1.1 * x)
        x = rules[2](1.1 * x)
        x = rules[3](1.1 * x)
        return jnp.sum(rules[4](1.1 * x))

    text = cause(loss)
    assert text.count("the rule of") == 1
    assert text.endswith(f"is wrong in its input: ×1.1 on every entry; {MENDED}")
    rule, call = named_lines(text)
    assert rule in lines(sine)
    assert call == lines(loss)[1 + place]


@pytest.mark.slow
def test_a_rule_for_tangents_beside_right_rules() -> None:
    """JAX's own relu and silu, a right rule of ours: only the wrong one is named."""
    text = cause(lambda x: jnp.sum(cube(good(x)) + jax.nn.relu(x) * jax.nn.silu(x)))
    assert text.count("the rule of") == 1
    assert "the rule of `cube` (" in text
    assert text.endswith(MENDED)


@pytest.mark.slow
def test_in_a_scan_over_layers() -> None:
    """One call site, whatever the number of rounds."""
    wrong = sine(1.5)

    @jax.jit
    def loss(x: Any) -> Any:
        return jnp.sum(lax.scan(lambda c, w: (good(wrong(w * c)), None), x, x)[0])

    text = cause(loss)
    assert text.count("the rule of `sine`") == 1
    assert "good" not in text


@pytest.mark.slow
def test_in_a_layer_that_is_jitted_once() -> None:
    """One program that is called three times: the rule is switched off in each call."""
    wrong = sine(1.5)
    layer = jax.jit(lambda x, w: good(wrong(w * x)))
    text = cause(lambda x: jnp.sum(layer(layer(layer(x, 1.1), 1.2), 0.9)))
    assert text.count("the rule of `sine`") == 1
    assert "called 3 times" in text
    assert text.endswith(MENDED)


@pytest.mark.slow
def test_inside_vmap_and_shard_map() -> None:
    """A rule that vmap batches; one that each device runs."""
    wrong, mesh = sine(0.5), Mesh(np.array(jax.devices()[:1]), ("i",))
    by_vmap = jax.vmap(lambda x: good(wrong(x)) ** 2)
    spread = jax.shard_map(
        by_vmap, mesh=mesh, in_specs=PartitionSpec("i"), out_specs=PartitionSpec("i")
    )
    for function in (by_vmap, spread):
        text = cause(lambda x, f=function: jnp.sum(f(x)))
        assert text.count("the rule of `sine`") == 1
        assert "good" not in text
        assert text.endswith(MENDED)


def spread(function: Rule, *, check_vma: bool) -> Rule:
    """The same on a mesh of one device."""
    mesh, spec = Mesh(np.array(jax.devices()[:1]), ("i",)), PartitionSpec("i")
    specs = {"in_specs": spec, "out_specs": spec}
    return jax.shard_map(function, mesh=mesh, **specs, check_vma=check_vma)


@pytest.mark.slow
@pytest.mark.parametrize("check_vma", [True, False])
def test_a_rule_whose_body_holds_numbers_in_a_shard_map(check_vma: bool) -> None:
    """With check_vma, a number is a collective there: no derivative without a mesh."""

    @jax.custom_vjp
    def wrong(x: Any) -> Any:
        return jnp.tanh(3 * x)

    wrong.defvjp(
        lambda x: (wrong(x), x), lambda x, g: (g * (1 - jnp.tanh(3 * x) ** 2),)
    )
    inside = spread(lambda x: good(wrong(x)), check_vma=check_vma)
    text = cause(lambda x: jnp.sum(inside(x) ** 2))
    assert text.count("the rule of `wrong`") == 1
    assert "good" not in text
    assert text.endswith(MENDED)


@pytest.mark.slow
def test_a_kernels_rule_in_a_shard_map() -> None:
    """Verified for what each device gives it; a right one is not named."""
    wrong, right = kernel(jnp.sin, halved_cosine), kernel(jnp.exp, right_exp)
    inside = spread(lambda x: wrong(right(x)), check_vma=False)
    text = cause(lambda x: jnp.sum(inside(x) ** 2))
    assert text.count("the rule of") == text.count("the rule of `run`") == 1
    assert text.endswith("is wrong in its input: ×½")
    inside = spread(right, check_vma=False)
    assert check_gradients(lambda x: jnp.sum(inside(x) ** 2), X).passed


@pytest.mark.parametrize("step", [jnp.round, jnp.floor, jnp.ceil])
@pytest.mark.slow
def test_steps_too_fine_to_be_seen(step: Rule) -> None:
    """In float32 they are no steps: the loss moves, and its derivative is 0."""

    def loss(x: Any) -> Any:
        fine = step(x * 1e12)
        return jnp.sum((fine / 1e12) ** 2)

    text = cause(loss)
    assert f"`{step.__name__}` (called at {__file__}:" in text
    assert named_lines(text) == [lines(loss)[1]]
    assert text.endswith(
        "stops a part of it; with 1 for its derivative, this leaf agrees"
    )


@pytest.mark.slow
def test_steps_that_are_no_fault_are_not_named() -> None:
    """Beside a wrong rule, and where a stop_gradient hides them on purpose."""
    wrong = sine(1.5)

    def loss(x: Any) -> Any:
        rounded = x + lax.stop_gradient(jnp.round(4 * x) / 4 - x)
        return jnp.sum(wrong(x) + 0.1 * rounded * lax.stop_gradient(rounded))

    text = cause(loss)
    assert "the rule of `sine`" in text
    assert "`round` (called" not in text


@pytest.mark.slow
def test_a_stop_gradient_before_what_has_no_derivative() -> None:
    """Differences with respect to what it gives show that the loss moves with it."""
    shape = jax.ShapeDtypeStruct(X.shape, X.dtype)

    def loss(x: Any) -> Any:
        idle = lax.stop_gradient(x)
        fixed = lax.stop_gradient(x)
        called = jax.pure_callback(np.sin, shape, fixed)
        return jnp.sum(called) + jnp.sum(x**2) + 0 * jnp.sum(idle)

    text = cause(loss)
    assert text.count("stop_gradient (called") == 1
    assert named_lines(text) == [lines(loss)[2]]
    assert text.endswith("stops a part of it")


def log_1_plus_exp(x: Any) -> Any:
    """Given with its derivative, 1 % too large."""
    e = jnp.exp(x)
    return jnp.log(1 + e), lambda g: g * e / (1 + e) * 1.01


@pytest.mark.slow
def test_a_rule_by_custom_gradient() -> None:
    """The function that has it is named, not what JAX makes of it; also under vmap."""
    lines, first = inspect.getsourcelines(log_1_plus_exp)
    rule = jax.custom_gradient(log_1_plus_exp)
    for wrapped in (rule, jax.vmap(rule), jax.jit(rule)):
        cause = check_gradients(total_of_squares(wrapped), X).worst.cause
        (line,) = re.findall(rf"rule of `log_1_plus_exp` \({__file__}:(\d+),", cause)
        assert 0 < int(line) - first < len(lines)
        assert "×1.01" in cause
        assert "custom_derivatives" not in cause


def total_of_squares(rule: Rule) -> Loss:
    """A loss that calls it at other values than its own arguments."""
    return lambda x: jnp.sum(jnp.sin(rule(2 * x)) ** 2)


@pytest.mark.slow
def test_a_rule_inside_a_rule() -> None:
    """The outer uses the inner's, which is wrong. Then the outer itself is."""
    inner = sine(1.5)

    @jax.custom_vjp
    def outer(x: Any) -> Any:
        return inner(x) ** 2

    def backward(x: Any, g: Any) -> Any:
        return (jax.vjp(lambda x: inner(x) ** 2, x)[1](g)[0],)

    outer.defvjp(lambda x: (outer(x), x), backward)
    text = cause(lambda x: jnp.sum(outer(x)))
    assert text.count("the rule of") == 1
    assert "the rule of `sine`" in text

    right = sine(1.0)

    @jax.custom_vjp
    def halved(x: Any) -> Any:
        return right(x) ** 2

    halved.defvjp(lambda x: (halved(x), x), lambda x, g: (g * jnp.sin(x) * jnp.cos(x),))
    text = cause(lambda x: jnp.sum(halved(x)))
    assert "halved" in text
    assert "`sine`" not in text


@pytest.mark.slow
def test_a_wrong_rule_that_no_gradient_uses_is_not_named() -> None:
    """The outer rule has a derivative of its own; what else is wrong is named alone."""
    inner, other = sine(1.5), sine(3.0)

    @jax.custom_vjp
    def outer(x: Any) -> Any:
        return inner(x) ** 2

    outer.defvjp(
        lambda x: (outer(x), x), lambda x, g: (2 * g * jnp.sin(x) * jnp.cos(x),)
    )

    def loss(x: Any) -> Any:
        return jnp.sum(outer(x)) + jnp.sum(
            other(x)  # here
        )

    text = cause(loss)
    assert text.count("the rule of") == 1
    assert named_lines(text)[1] in lines(loss)
    assert text.endswith(MENDED)


@pytest.mark.slow
def test_two_wrong_ones_that_partly_cancel() -> None:
    """Each is wrong alone: both are named."""
    first, second = sine(1.25), sine(0.75)
    text = cause(lambda x: jnp.sum(first(x)) + jnp.sum(second(2 * x)))
    assert text.count("the rule of `sine`") == 2
    assert text.endswith(MENDED)


def kernel(body: Rule, backward: Callable[[Any, Any], Any]) -> Rule:
    """A Pallas kernel with a rule by hand: its body has no derivative."""

    def run(x: Any) -> Any:
        def of_refs(x_ref: Any, y_ref: Any) -> None:
            y_ref[...] = body(x_ref[...])

        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        return pl.pallas_call(of_refs, out_shape=shape, interpret=True)(x)

    rule = jax.custom_vjp(run)
    rule.defvjp(lambda x: (run(x), x), backward)
    return rule


def halved_cosine(x: Any, g: Any) -> Any:
    """The backward of a kernel for sin, too small."""
    return (0.5 * g * jnp.cos(x),)


def right_exp(x: Any, g: Any) -> Any:
    """The backward of a kernel for exp."""
    return (g * jnp.exp(x),)


@pytest.mark.slow
def test_of_several_kernels_the_wrong_one() -> None:
    """Each is held against differences, for what the program gives it."""
    wrong, right = kernel(jnp.sin, halved_cosine), kernel(jnp.exp, right_exp)
    text = cause(lambda x: jnp.sum(good(right(wrong(right(0.3 * x)))) ** 2))
    assert text.count("the rule of") == 1
    assert "is wrong in its input: ×½" in text
    assert named_lines(text)[0] in lines(halved_cosine)


@pytest.mark.slow
def test_a_kernel_in_a_scan() -> None:
    """Some rounds are verified, each with its own inputs."""
    wrong = kernel(jnp.sin, halved_cosine)
    text = cause(lambda x: lax.scan(lambda c, w: (wrong(c * w), None), x, x)[0].sum())
    assert text.count("the rule of") == 1
    assert "is wrong in its input: ×½" in text


@pytest.mark.slow
def test_a_kernel_that_uses_other_rules_keeps_its_own() -> None:
    """Its body has no derivative, whatever else can be switched in it."""
    exp = kernel(jnp.exp, right_exp)
    right = jax.custom_vjp(lambda x: exp(jax.nn.relu(x)))
    right.defvjp(
        lambda x: (right(x), x),
        lambda x, g: (g * jnp.where(x > 0, jnp.exp(x), 0.0),),
    )
    wrong = sine(1.5)
    text = cause(lambda x: jnp.sum(right(x) + wrong(x)))
    assert text.count("the rule of `") == 1
    assert "the rule of `sine`" in text


@pytest.mark.slow
def test_a_wrong_kernel_within_a_right_rule() -> None:
    """The outer uses the inner one's derivative, which is wrong."""
    inner = kernel(jnp.sin, halved_cosine)
    outer = jax.custom_vjp(lambda x: 3 * inner(x))
    outer.defvjp(
        lambda x: (outer(x), x), lambda x, g: (3 * jax.vjp(inner, x)[1](g)[0],)
    )
    text = cause(lambda x: jnp.sum(outer(x)))
    assert text.count("the rule of `") == 1
    assert named_lines(text)[0] in lines(halved_cosine)


@pytest.mark.slow
def test_a_wrong_rule_that_nothing_comes_back_to() -> None:
    """It is wrong, and not the reason; a key among its arguments is no hindrance."""
    idle, wrong = kernel(jnp.sin, halved_cosine), kernel(jnp.exp, halved_cosine)

    @jax.custom_vjp
    def dropped(x: Any, key: Any) -> Any:
        return jnp.where(jax.random.bernoulli(key, 0.5, x.shape), x, 0)

    def backward(key: Any, g: Any) -> Any:
        return jnp.where(jax.random.bernoulli(key, 0.5, g.shape), g, 0), None

    dropped.defvjp(lambda x, key: (dropped(x, key), key), backward)
    key = jax.random.key(0)
    text = cause(lambda x: jnp.sum(0 * idle(x) + wrong(x) + dropped(x, key)))
    assert text.count("the rule of `") == 1


@pytest.mark.slow
def test_stop_gradients_that_are_harmless_together() -> None:
    """The fewest are named without which the leaf agrees."""
    wrong = sine(1.5)

    def logsumexp(x: Any) -> Any:
        shifted = x - lax.stop_gradient(jnp.max(x))
        return jnp.log(jnp.sum(jnp.exp(shifted))) + lax.stop_gradient(jnp.max(x))

    assert check_gradients(logsumexp, X).passed
    text = cause(lambda x: logsumexp(x) + jnp.sum(wrong(x)))
    assert "stop_gradient (" not in text
    assert text.endswith(MENDED)


@pytest.mark.slow
def test_the_line_of_a_call_by_jit() -> None:
    """What has no line of its own has that of what it is in; vmap keeps the rule's."""
    wrong = sine(1.5)

    def loss(x: Any) -> Any:
        return jnp.sum(jax.jit(wrong)(x))

    rule, call = named_lines(cause(loss))
    assert call == lines(loss)[1]
    batched, _ = named_lines(cause(lambda x: jnp.sum(jax.vmap(wrong)(x))))
    assert batched == rule


@pytest.mark.slow
def test_a_right_kernel_is_not_named() -> None:
    """What is wrong is JAX's own derivative of digamma, behind the kernel."""
    right = kernel(jnp.exp, right_exp)
    loss = lambda x: jnp.sum(jax.scipy.special.digamma(-right(x)))  # noqa: E731
    text = cause(loss, x=np.log(np.array([11.21, 3.5], np.float32)))
    assert NOBODY in text
    assert "the rule of" not in text


@pytest.mark.slow
def test_a_kernel_on_the_way_of_another_leaf_is_not_named() -> None:
    """Each leaf names what lies on its own way to the loss."""
    wrong = kernel(jnp.sin, halved_cosine)
    other = kernel(jnp.sin, lambda x, g: (3 * g * jnp.cos(x),))
    report = check_gradients(
        lambda p: jnp.sum(wrong(p["a"]) + other(p["b"])), {"a": X, "b": 2 * X}
    )
    said = {leaf.path: leaf.cause for leaf in report.leaves}
    assert "wrong in its input: ×½" in said["['a']"]
    assert "wrong in its input: ×3" in said["['b']"]
    assert all(text.count("the rule of") == 1 for text in said.values())


def test_which_argument_of_a_rule() -> None:
    """And what of it; the others, and what no parameter moves, are not named."""

    @jax.custom_vjp
    def product(a: Any, b: Any, c: Any) -> Any:
        return a * b * c

    def backward(saved: Any, g: Any) -> Any:
        a, b, c = saved
        return g * b * c, -g * a * c, 0 * g

    product.defvjp(lambda *all: (product(*all), all), backward)
    text = cause(lambda x: jnp.sum(product(jnp.sin(x), x**2, jnp.asarray(X))))
    assert "is wrong in its input 1: sign flipped, ×-1; with" in text


@pytest.mark.slow
def test_of_one_value_in_two_places_both_are_named() -> None:
    """They move together; one that does not move has a number all the same."""

    @jax.custom_vjp
    def product(a: Any, b: Any) -> Any:
        return a * b

    product.defvjp(
        lambda a, b: (a * b, (a, b)), lambda ab, g: (g * ab[1], 2 * g * ab[0])
    )
    text = cause(lambda x: jnp.sum(product(x, x)))
    assert "is wrong in its inputs 0 and 1: ×1.5 on every entry; with" in text
    text = cause(lambda x: jnp.sum(product(jnp.asarray(X), x)))
    assert "is wrong in its input 1: ×2" in text


@pytest.mark.slow
def test_a_forward_pass_of_another_value() -> None:
    """The derivative itself is right."""
    rule = jax.custom_vjp(jnp.sin)
    rule.defvjp(lambda x: (1.5 * jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))
    text = cause(lambda x: jnp.sum(rule(x) ** 2))
    assert f"is wrong in its output: {ANOTHER_VALUE}; {MENDED}" in text


@pytest.mark.slow
def test_a_rule_of_an_object_that_is_called() -> None:
    """Its class is named, and where that is called."""

    class Wave:
        def __call__(self, x: Any) -> Any:
            return jnp.sin(x)

    class Slope:
        def __call__(self, x: Any, g: Any) -> Any:
            return (1.5 * g * jnp.cos(x),)

    rule = jax.custom_vjp(Wave())
    rule.defvjp(lambda x: (jnp.sin(x), x), Slope())
    text = cause(lambda x: jnp.sum(rule(x)))
    assert re.search(r"the rule of `Wave` \(", text)
    assert named_lines(text)[0] == Slope.__call__.__code__.co_firstlineno


@pytest.mark.slow
def test_rules_by_equinox() -> None:
    """The function and the lines are the caller's, also where a layer calls it."""
    equinox = pytest.importorskip("equinox")

    @equinox.filter_custom_vjp
    def wave(x: Any) -> Any:
        return jnp.sin(x)

    @wave.def_fwd
    def forward(perturbed: Any, x: Any) -> Any:
        return jnp.sin(x), x

    @wave.def_bwd
    def backward(x: Any, g: Any, perturbed: Any, _: Any) -> Any:
        return 1.5 * g * jnp.cos(x)

    mlp = equinox.nn.MLP(3, 2, 4, 1, activation=wave, key=jax.random.key(0))

    def loss(x: Any) -> Any:
        return jnp.sum(mlp(x))

    for each in (lambda x: jnp.sum(wave(x)), loss):
        text = cause(each)
        assert "the rule of `wave` (" in text
        assert "equinox/" not in text
        assert len(named_lines(text)) == 2


@pytest.mark.slow
def test_a_stop_gradient_of_a_librarys_own_is_not_named() -> None:
    """What is wrong is a linear solve by hand; jnp.linalg.solve stops its factors."""
    matrix = jnp.array([[3, 0.8, 0.1], [0.2, 2, 0.3], [0.9, 0.3, 4]], jnp.float32)

    def halved(p: Any) -> Any:
        return lax.custom_linear_solve(
            lambda v: p * v, jnp.ones(3), lambda _, b: b / p, lambda _, b: 2 * b / p
        )

    def loss(p: Any) -> Any:
        return jnp.sum(jnp.linalg.solve(matrix + jnp.diag(p), halved(p)) ** 2)

    text = cause(loss, x=X + 2)
    assert text.endswith(NOBODY)


def test_no_line_of_the_verifier_is_named() -> None:
    """It calls the rule that check_vjp is given; that is nothing to look at."""
    text = check_vjp(sine(1.5), X).leaves[0].cause
    assert not any(place in text for place in VERIFIER)
    assert named_lines(text)[0] in lines(sine)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["plain", "jit", "scan"])
def test_a_forgotten_stop_gradient(how: str) -> None:
    """Beside JAX's own, in softmax, that changes nothing."""

    def stopped(x: Any) -> Any:
        return jnp.sum(jax.nn.softmax(x) * lax.stop_gradient(x))

    def by_scan(x: Any) -> Any:
        step = lambda c, row: (c + row * lax.stop_gradient(row), None)  # noqa: E731
        return lax.scan(step, jnp.zeros((), x.dtype), x)[0]

    loss = {"plain": stopped, "jit": jax.jit(stopped), "scan": by_scan}[how]
    text = cause(loss)
    assert text.count("stop_gradient (called at") == 1
    assert named_lines(text)[0] in lines(by_scan if how == "scan" else stopped)


@pytest.mark.slow
def test_in_modules_of_flax_and_equinox() -> None:
    """A stop_gradient in a layer is named where it stands."""
    eqx = pytest.importorskip("equinox")
    nnx = pytest.importorskip("flax.nnx")

    class Layer(eqx.Module):
        weight: Any

        def __call__(self, x: Any) -> Any:
            return lax.stop_gradient(jnp.tanh(self.weight * x)) * self.weight

    text = cause(lambda m: jnp.sum(m(jnp.asarray(X))), x=Layer(jnp.asarray(X)))
    assert named_lines(text)[0] in lines(Layer)

    class Net(nnx.Module):
        def __init__(self) -> None:
            self.weight = nnx.Param(jnp.asarray(X))

        def __call__(self, x: Any) -> Any:
            return lax.stop_gradient(jnp.tanh(self.weight[...] * x)) * self.weight[...]

    graph, state = nnx.split(Net())
    text = cause(lambda s: jnp.sum(nnx.merge(graph, s)(jnp.asarray(X))), x=state)
    assert named_lines(text)[0] in lines(Net)


@pytest.mark.slow
def test_nobody_is_blamed_for_a_candidate_of_another_hand() -> None:
    """The program is right, or not what the candidate was derived from."""
    wrong, text = 2 * np.cos(X), ""
    for loss in (
        lambda x: jnp.sum(good(x) + jnp.sin(x)),
        lambda x: jnp.sum(sine(1.5)(x)),
        lambda x: jnp.sum(jnp.sin(x)),
    ):
        text = cause(loss, wrong)
        assert "rule" not in text
        assert "stop_gradient" not in text


def test_where_nobody_can_be_convicted_it_is_said() -> None:
    """A wrong derivative of JAX's own, that is no rule in the program."""
    digamma = jax.scipy.special.digamma
    text = cause(lambda x: jnp.sum(digamma(x)), x=np.array([-11.21]))
    assert NOBODY in text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backward", "said"),
    [
        (lambda x, g: (), "expected a tuple"),
        (lambda x, g: (g[:1],), "shapes do not match"),
        (lambda x, g: (g * x["a"],), "raised"),
    ],
)
def test_a_rule_that_raises_is_named(backward: Any, said: str) -> None:
    """JAX does not say which of all rules it was; of jax.grad by the caller, too."""
    raising = jax.custom_vjp(jnp.sin)
    raising.defvjp(lambda x: (jnp.sin(x), x), backward)

    def loss(x: Any) -> Any:
        return jnp.sum(good(x) + raising(x))

    for candidates in (None, {"mine": jax.grad(loss)}):
        report = check_gradients(loss, X, candidates)
        assert report.verdict is Verdict.MALFORMED
        assert report.worst.cause.startswith("the rule of `sin` (")
        assert said in report.worst.cause
        assert "good" not in report.worst.cause


def test_a_rule_that_is_checked_by_itself() -> None:
    """check_vjp names it as well."""
    report = check_vjp(sine(1.5), X)
    assert "the rule of `sine`" in report.leaves[0].cause


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_guilty_named_and_innocent_not(seed: int) -> None:
    """A random program of right rules and a wrong one, in a random order."""
    random = np.random.default_rng(seed)
    place, factor = random.integers(4), 1 + 10 ** random.uniform(-4, 0)
    rules = [sine(1.0), good, jax.nn.silu, jax.nn.softplus]
    random.shuffle(rules)
    wrong, x = sine(factor), random.normal(size=5).astype(np.float32)

    def loss(x: Any) -> Any:
        for i, rule in enumerate(rules):
            x = 0.3 * x + rule(x)
            if i == place:
                x = partial(wrong)(x)  # here
        return jnp.sum(x**2)

    text = cause(loss, x=x)
    assert text.count("the rule of") == 1
    source, first = inspect.getsourcelines(loss)
    (number,) = (i for i, line in enumerate(source) if "# here" in line)
    assert named_lines(text)[1] == first + number
    assert text.endswith(MENDED)
