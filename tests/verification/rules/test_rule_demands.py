"""What check_vjp and check_jvp demand of a rule beside being right.

Each demand is one row of the report; a right rule passes it, and of a rule that breaks
it, that row says how.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.custom_derivatives import linear_call

from jaxnet import GradientReport, Verdict, check_jvp, check_vjp
from jaxnet.verification import DemandReport
from jaxnet.verification.rules.closeness import Closeness

Rule = Callable[..., Any]

RNG = np.random.default_rng(1)
X = jnp.asarray(RNG.standard_normal(5), jnp.float32)
ROWS = jnp.asarray(RNG.standard_normal((4, 3)), jnp.float32)


def row(report: GradientReport, name: str) -> DemandReport:
    """The record of one demand."""
    (found,) = (demand for demand in report.demands if demand.name == name)
    return found


def reverse(backward: Rule, forward: Rule | None = None) -> Rule:
    """Sin with a backward pass of (x, g)."""
    f = jax.custom_vjp(lambda x: jnp.sin(x))
    f.defvjp(forward or (lambda x: (f(x), x)), lambda x, g: (backward(x, g),))
    return f


def tangent(rule: Rule) -> Rule:
    """Sin with a tangent of (x, t)."""
    f = jax.custom_jvp(lambda x: jnp.sin(x))
    f.defjvp(lambda p, t: (f(p[0]), rule(p[0], t[0])))
    return f


@pytest.mark.slow
@pytest.mark.parametrize(
    ("check", "rule", "word"),
    [(check_vjp, reverse, "cotangent"), (check_jvp, tangent, "tangent")],
)
def test_a_rule_is_linear(check: Rule, rule: Callable[[Rule], Rule], word: str) -> None:
    """Right; ignoring what it is given; |t|, t² and t + 1/1000 in place of t."""
    doubled = f"linear in {word}"
    right = check(rule(lambda x, t: jnp.cos(x) * t), X)
    assert right.passed
    assert row(right, doubled).passed
    ignores = check(rule(lambda x, t: jnp.cos(x)), X)
    for path in (f"0 for {word} 0", doubled):
        assert row(ignores, path).verdict is Verdict.DISAGREE
        assert row(ignores, path).cause == f"the rule ignores its {word}"
    for bent in (jnp.abs, jnp.square, lambda t: t + 1e-3):
        report = check(rule(lambda x, t, bent=bent: jnp.cos(x) * bent(t)), X)
        assert row(report, doubled).cause == f"not linear in the {word}"


@pytest.mark.slow
def test_the_forward_pass_of_a_rule_gives_the_value() -> None:
    """A forward pass that adds 0.1 differs from the function by it."""
    right = reverse(lambda x, g: g * jnp.cos(x))
    wrong = reverse(lambda x, g: g * jnp.cos(x), lambda x: (jnp.sin(x) + 0.1, x))
    assert check_vjp(right, X).passed
    report = check_vjp(wrong, X)
    assert [x.name for x in report.demands if not x.passed] == ["forward value"]
    assert report.worst.error == pytest.approx(0.1, rel=1e-5)
    assert "forward pass gives another value" in report.worst.cause


def sine_with_transpose(factor: float) -> Rule:
    """A right forward mode, with a transposition by hand that may be wrong."""

    def rule(x: Any, t: Any) -> Any:
        def forth(c: Any, t: Any) -> Any:
            return c * t

        return linear_call(forth, lambda c, g: factor * c * g, jnp.cos(x), t)

    return tangent(rule)


@pytest.mark.slow
def test_forward_and_reverse_mode_are_transposes() -> None:
    """A jvp that is right by itself fails for its transposition."""
    right = check_jvp(sine_with_transpose(1.0), X)
    assert right.passed
    assert row(right, "adjoint identity").passed
    wrong = check_jvp(sine_with_transpose(1.5), X)
    assert [x.name for x in wrong.demands if not x.passed] == ["adjoint identity"]
    assert "not each other's transpose" in wrong.worst.cause
    both = check_vjp(sine_with_transpose(1.5), X)
    assert not both.leaves[0].passed
    assert not row(both, "adjoint identity").passed


def test_without_two_modes_there_is_no_adjoint_identity() -> None:
    """A custom_vjp has no forward mode: the demand is left out, not passed."""
    report = check_vjp(reverse(lambda x, g: g * jnp.cos(x)), X)
    assert "adjoint identity" not in [demand.name for demand in report.demands]


@pytest.mark.slow
def test_second_order_is_checked_on_request() -> None:
    """cos x g is right; its own derivative, given as +sin x, is not."""

    def sine(sign: float) -> Rule:
        cosine = jax.custom_jvp(lambda x: jnp.cos(x))
        cosine.defjvps(lambda t, y, x: sign * jnp.sin(x) * t)
        return reverse(lambda x, g: g * cosine(x))

    assert check_vjp(sine(-1.0), X, order=2).passed
    assert check_vjp(sine(1.0), X).passed
    report = check_vjp(sine(1.0), X, order=2)
    (wrong,) = (x for x in report.records if not x.passed)
    assert wrong.candidate == "vjp of vjp"
    assert "sign flipped" in wrong.cause
    with pytest.raises(ValueError, match="one of 1, 2, 3, 4, got 5"):
        check_vjp(jnp.sin, X, order=5)


def host_sine(divisor: Callable[[Any], float]) -> Rule:
    """Σ sin x; the backward asks the host for cos x / divisor, batches and all."""

    def on_host(x: Any) -> Any:
        return np.asarray(np.cos(x) / divisor(x), x.dtype)

    def backward(x: Any, g: Any) -> Any:
        shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
        cosine = jax.pure_callback(on_host, shape, x, vmap_method="broadcast_all")
        return (g * cosine,)

    f = jax.custom_vjp(lambda x: jnp.sum(jnp.sin(x)))
    f.defvjp(lambda x: (f(x), x), backward)
    return f


@pytest.mark.slow
def test_a_callback_that_divides_by_its_shape_breaks_under_vmap() -> None:
    """Right for one example of 5, since it multiplies by 5; under vmap it sees 3."""
    assert check_vjp(host_sine(lambda x: 1.0), X).passed
    report = check_vjp(host_sine(lambda x: x.shape[0] / 5), X)
    (wrong,) = (x for x in report.records if not x.passed)
    assert wrong.name == "vmap = loop"
    assert "×5/3: the rule divides by a shape such as x.shape[0]" in wrong.cause


def test_a_callback_without_vmap_is_not_accused() -> None:
    """What cannot be batched at all has no row about batches."""

    def backward(x: Any, g: Any) -> Any:
        return g * jax.pure_callback(lambda x: np.cos(x), x, x)

    report = check_vjp(reverse(backward), X)
    assert report.passed, str(report)
    assert "vmap = loop" not in [demand.name for demand in report.demands]


@pytest.mark.slow
def test_a_rule_that_divides_by_the_batch_is_named() -> None:
    """It is right for each example alone, and a fourth of that for all four."""
    right = check_vjp(reverse(lambda x, g: g * jnp.cos(x)), ROWS)
    assert right.passed
    assert row(right, "batch = examples").passed
    wrong = check_vjp(reverse(lambda x, g: g * jnp.cos(x) / x.shape[0]), ROWS)
    cause = row(wrong, "batch = examples").cause
    assert "×1/4: the rule divides by a shape such as x.shape[0]" in cause
    assert row(wrong, "vmap = loop").passed


@pytest.mark.slow
def test_a_function_that_mixes_examples_is_not_asked_for_them() -> None:
    """A mean over the batch is no map of examples."""
    report = check_vjp(lambda x: x - jnp.mean(x, axis=0, keepdims=True), ROWS)
    assert report.passed
    assert "batch = examples" not in [demand.name for demand in report.demands]


@pytest.mark.slow
def test_a_branch_on_tracing_makes_jit_another_function() -> None:
    """Eagerly cos x, traced 2 cos x."""

    def factor(x: Any) -> float:
        return 2.0 if isinstance(x, jax.core.Tracer) else 1.0

    report = check_vjp(reverse(lambda x, g: factor(x) * g * jnp.cos(x)), X)
    assert "jit gives another value" in row(report, "jit = eager").cause


@pytest.mark.slow
def test_a_value_that_jit_froze_is_named() -> None:
    """A rule compiled with scale 1, checked when scale is 2."""
    scale = [1.0]
    f = jax.jit(reverse(lambda x, g: scale[0] * g * jnp.cos(x)))
    assert check_vjp(f, X).passed
    scale[0] = 2.0
    cause = row(check_vjp(f, X), "jit = eager").cause
    assert cause == "a closed-over Python value is another than when jit froze it"


def stateful(keeps_residuals: bool) -> Rule:
    """Sin of an object that remembers its last argument; its rule may rely on it."""
    kept: dict[str, Any] = {}

    def forward(x: Any) -> Any:
        kept["x"] = x
        return jnp.sin(x), x

    return reverse(
        lambda x, g: g * jnp.cos(x if keeps_residuals else kept["x"]), forward
    )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_state_outside_the_residuals_is_named(dtype: Any) -> None:
    """Right by itself, wrong as soon as another forward pass comes between."""
    x = X.astype(dtype)
    right = check_vjp(stateful(True), x)
    assert right.passed, str(right)
    assert row(right, "two calls at once").passed
    report = check_vjp(stateful(False), x)
    (wrong,) = (x for x in report.records if not x.passed)
    assert wrong.name == "two calls at once"
    assert "state is kept on an object or a global" in wrong.cause


def test_a_function_that_draws_is_random_and_not_wrong() -> None:
    """Its forward value differs from the rule's because it differs from itself."""
    random = np.random.default_rng()
    report = check_vjp(lambda x: jnp.sin(x) * float(random.uniform(1, 2)), X)
    assert report.verdict is Verdict.NONDETERMINISTIC


@pytest.mark.slow
def test_demands_are_as_coarse_as_what_the_rule_computes_in() -> None:
    """A product in bfloat16 of float32 arrays: jit, vmap and transposes round too."""

    def product(factor: float) -> Rule:
        def low(a: Any, b: Any) -> Any:
            return (a.astype(jnp.bfloat16) @ b.astype(jnp.bfloat16)).astype(a.dtype)

        f = jax.custom_vjp(low)
        f.defvjp(
            lambda a, b: (low(a, b), (a, b)),
            lambda kept, g: (factor * low(g, kept[1].T), low(kept[0].T, g)),
        )
        return f

    matrix = jnp.asarray(RNG.standard_normal((3, 2)), jnp.float32)
    report = check_vjp(product(1.0), ROWS, matrix)
    assert report.passed, str(report)
    assert not check_vjp(product(1.5), ROWS, matrix).passed


@pytest.mark.parametrize("factor", [lambda n: n, lambda n: 1 + (n == 1)])
def test_a_rule_gives_the_same_bits_twice(factor: Any) -> None:
    """A backward that counts its calls: two values, which jit hides.

    All may be different, or the very first alone.
    """
    calls = [0]

    def backward(x: Any, g: Any) -> Any:
        calls[0] += 1
        return g * jnp.cos(x) * factor(calls[0])

    report = check_vjp(reverse(backward), X)
    assert report.verdict is Verdict.NONDETERMINISTIC
    cause = row(report, "same bits twice").cause
    assert cause.startswith("two values for one input: a closed-over Python value")
    assert row(check_vjp(jnp.sin, X), "same bits twice").passed


HALF = jnp.asarray([0.3, -1.2, 0.7, 2.0], jnp.bfloat16)


@jax.custom_batching.custom_vmap
def slope(x: Any, g: Any) -> Any:
    """Of a sine."""
    return g * jnp.cos(x)


@slope.def_vmap
def _slopes(size: int, batched: Any, x: Any, g: Any) -> Any:
    """The first example's, for all of them."""
    return g * jnp.cos(x[:1]) * jnp.ones_like(x), True


def sine(forward: Any, backward: Any) -> Rule:
    """With a rule by hand."""
    f = jax.custom_vjp(jnp.sin)
    f.defvjp(lambda x: (forward(x), x), lambda x, g: (backward(x, g),))
    return f


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16, jnp.float16])
def test_demands_see_more_than_a_coarse_dtype_shows(dtype: Any) -> None:
    """A forward pass 3 % off, and a vmap that takes one example for all.

    In bfloat16 the first is 4 ulps, and examples 1 % apart are 1: both ways are held
    against each other in float64.
    """
    x, right = HALF.astype(dtype), lambda x, g: g * jnp.cos(x)
    assert check_vjp(sine(jnp.sin, right), x).passed
    off = sine(lambda x: jnp.sin(x) * jnp.asarray(1.03, x.dtype), right)
    assert not row(check_vjp(off, x), "forward value").passed
    assert not row(check_vjp(sine(jnp.sin, slope), x), "vmap = loop").passed


def test_a_forward_pass_has_the_dtype_of_the_function() -> None:
    """Within jit JAX refuses another; outside it, the caller gets it.

    It is said first: that the gradient is not linear at every scale follows from it.
    """

    def coarse(x: Any) -> Any:
        return jnp.sin(x).astype(jnp.float16)

    rule = sine(coarse, lambda x, g: g.astype(x.dtype) * jnp.cos(x))
    report = check_vjp(rule, X)
    assert not row(report, "linear in cotangent").passed
    assert report.worst == row(report, "forward value")
    cause = "the rule's forward pass gives float16, the function float32"
    assert report.worst.cause == cause


SQUARE = jnp.asarray(RNG.standard_normal((3, 3)), jnp.float32)


@pytest.mark.parametrize(
    ("function", "second"),
    [
        (lambda x, b: x + b[None], jnp.zeros(3)),
        (lambda x, s: x * s[None], jnp.ones(3)),
        (lambda x, w: x + jnp.tanh(jnp.sum(x)) * w[None], jnp.zeros(3)),
        (lambda x, b: jnp.tanh(x + b[None]), jnp.full(3, 0.1)),
    ],
)
def test_parameters_as_many_as_examples_are_none(function: Any, second: Any) -> None:
    """A bias of zeros, or a scale of ones, has the values of one that is an example."""
    report = check_vjp(function, SQUARE, second)
    assert report.passed, str(report)
    assert "batch = examples" not in [record.name for record in report.demands]


def test_examples_one_by_one_are_one_program() -> None:
    """The rule is traced for one of them, however many there are."""
    calls = list[int]()

    def backward(x: Any, g: Any) -> Any:
        calls.append(x.size)
        return g * jnp.cos(x)

    many = jnp.linspace(0.1, 1.0, 500)
    report = check_vjp(sine(jnp.sin, backward), many, demands=["batch_is_examples"])
    assert row(report, "batch = examples").passed
    assert 1 <= calls.count(1) <= 3


def test_a_function_of_examples_that_wants_jax_arrays_is_asked() -> None:
    """As its caller gives it: NumPy's have no `at`."""
    report = check_vjp(lambda x: jnp.sin(x).at[:].add(x.at[:].get()), ROWS)
    assert row(report, "batch = examples").passed


def test_examples_outside_the_domain_are_alike() -> None:
    """NaN by both ways is no difference; by one it is."""
    close = Closeness(lambda: [0.0])
    nan, number = [np.array([1.0, np.nan, np.inf])], [np.array([1.0, 2.0, np.inf])]
    assert close.holds(nan, nan)
    assert close.demanded("", nan, nan, "").passed
    assert not close.holds(nan, number)
    assert close.demanded("", number, nan, "").worst_index == (1,)


@pytest.mark.slow
def test_no_demands_or_some() -> None:
    """The derivative alone, for an inner loop; a chosen demand alone; a wrong name."""

    @jax.custom_vjp
    def forgetful(x: Any) -> Any:
        return jnp.sin(x)

    forgetful.defvjp(
        lambda x: (jnp.sin(x), jnp.cos(x)), lambda cosine, c: (cosine * jnp.sign(c),)
    )
    x = np.array([0.3, 1.2], np.float32)
    quick = check_vjp(forgetful, x, demands=())
    assert not quick.demands
    assert not quick.passed, "the derivative is wrong too: c is not ±1"
    some = check_vjp(forgetful, x, demands=("linear", "jit_is_eager"))
    found = {record.name: record.passed for record in some.demands}
    assert found["jit = eager"]
    assert not found["linear in cotangent"]
    assert "vmap = loop" not in found
    with pytest.raises(ValueError, match="'linaer'"):
        check_vjp(forgetful, x, demands=("linaer",))
