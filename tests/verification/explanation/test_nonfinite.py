"""Who made the first NaN of a gradient is named, with its line; no innocent is."""

import inspect
import re
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnet import Verdict, check_gradients, check_vjp
from jaxnet.verification.candidates.autodiff import Autodiff
from jaxnet.verification.explanation import nonfinite
from jaxnet.verification.explanation.nonfinite import NonFinite
from jaxnet.verification.explanation.remedies import REMEDIES
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.point import Point

Loss = Callable[[Any], Any]

X = np.array([0.0, 1.0, 2.0], np.float32)
SEEDS = 20
TWICE = "(the double where)"


def sqrt(x: Any) -> Any:
    """A guarded root."""
    return jnp.where(x > 0, jnp.sqrt(x), 0)


def div(x: Any) -> Any:
    """A guarded division."""
    return jnp.where(x == 0, 1, jnp.sin(x) / x)


def log(x: Any) -> Any:
    """A guarded logarithm."""
    return jnp.where(x > 0, x * jnp.log(x), 0)


def power(x: Any) -> Any:
    """A guarded power."""
    return jnp.where(x > 0, x**-0.5, 0)


def root(x: Any) -> Any:
    """A root that is not guarded at all."""
    return jnp.sqrt(x)


def norm(x: Any) -> Any:
    """A norm at 0."""
    return jnp.linalg.norm(0 * x)


def norm_by_hand(x: Any) -> Any:
    """Rows of length 0, made 1 long."""
    rows = jnp.stack([0 * x, x + 1])
    return rows / (jnp.sqrt(jnp.sum(rows**2, axis=1, keepdims=True)) + 1e-6)


def angle(x: Any) -> Any:
    """An angle at the origin."""
    return jnp.arctan2(x, 2 * x)


def arc(x: Any) -> Any:
    """An arc at the end of its domain."""
    return jnp.arccos(1 - x**2 / 100)


def vectors(x: Any) -> Any:
    """Eigenvectors of equal eigenvalues."""
    return jnp.linalg.eigh(jnp.diag(0 * x + 1))[1][0] * x


def singular(x: Any) -> Any:
    """Singular vectors of equal singular values."""
    return jnp.linalg.svd(jnp.diag(0 * x + 1))[0][0] * x


def masked(x: Any) -> Any:
    """Attention with -inf in its mask, as it should be."""
    mask = jnp.tri(x.size, dtype=bool)
    return jax.nn.softmax(jnp.where(mask, jnp.outer(x, x), -jnp.inf)) @ x


def dropped(x: Any) -> Any:
    """A logarithm of 0 that no derivative passes."""
    return jnp.where(jnp.log(x) > 0, x**2, 2 * x)


def guarded_twice(x: Any) -> Any:
    """The double where."""
    return jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0)


def shifted(x: Any) -> Any:
    """What is not finite elsewhere."""
    return jnp.log(x + 1) + jnp.linalg.norm(x + 1) + 1 / (1 + x)


INNOCENT = (masked, dropped, guarded_twice, shifted)

GUILTY: dict[Loss, tuple[str, str]] = {
    sqrt: ("derivative of `sqrt`", "jnp.sqrt(jnp.where(ok, x, 1)), 0) " + TWICE),
    div: ("derivative of `div`", "1 / jnp.where(ok, x, 1), 0) " + TWICE),
    log: ("derivative of `log`", "jnp.log(jnp.where(ok, x, 1)), 0) " + TWICE),
    power: ("derivative of `pow`", "jnp.where(ok, x, 1) ** p, 0) " + TWICE),
    root: ("derivative of `sqrt`", "add a small constant under the root"),
    norm: ("derivative of `sqrt`", "guard the sum s of its squares twice"),
    norm_by_hand: ("derivative of `sqrt`", "guard the sum s of its squares twice"),
    angle: ("derivative of `atan2`", "is nan at (0, 0): an angle has none"),
    arc: ("derivative of `acos`", "is infinite at 1: clip the argument to within"),
}
"""What is said of each, and what helps."""

KINDS = (sqrt, div, log, norm, angle)


def cause(loss: Loss, candidate: Any = None, x: Any = X) -> str:
    """What is said of a gradient that is not finite."""
    row = check_gradients(loss, x, candidate).worst
    assert row.verdict is Verdict.MALFORMED
    return row.cause


def total(*parts: Loss) -> Loss:
    """A loss of parts."""
    return lambda x: sum(jnp.sum(part(x)) for part in parts)


def lines(function: Callable[..., Any]) -> range:
    """Where a function stands in this file."""
    found, first = inspect.getsourcelines(function)
    return range(first, first + len(found))


def named_lines(text: str) -> list[int]:
    """The numbers of the lines of this file that a cause names."""
    return [int(n) for n in re.findall(re.escape(__file__) + r":(\d+)", text)]


def names_only(text: str, guilty: Callable[..., Any]) -> bool:
    """Whether it names one line, in this function."""
    found = named_lines(text)
    return len(found) == 1 and found[0] in lines(guilty)


@pytest.mark.slow
@pytest.mark.parametrize("guilty", GUILTY, ids=lambda f: f.__name__)
def test_the_primitive_and_its_line(guilty: Loss) -> None:
    """And what helps."""
    text = cause(total(guilty))
    assert names_only(text, guilty)
    for words in GUILTY[guilty]:
        assert words in text


@pytest.mark.parametrize("name", sorted(REMEDIES.keys() - {"eigh", "svd"}))
def test_the_double_where_that_is_advised_is_finite(name: str) -> None:
    """As it is written, for every primitive; and a norm's."""
    remedy, y = REMEDIES[name], np.float32(0.5)
    inner = f"jnp.where(ok, x, {remedy.safe})"
    advised = f"jnp.where(ok, {remedy.written.format(inner)}, 0)"
    for x in (np.float32(0), np.float32(1), np.float32(100)):
        given = {"jnp": jnp, "jax": jax, "ok": False, "y": y, "p": -0.5, "n": -2}
        slope = jax.grad(lambda x, g=given: eval(advised, {**g, "x": x}))(x)
        assert slope == 0
    if name == "norm":
        advised = remedy.words.split("twice, ")[1]
        slope = jax.grad(lambda s: eval(advised, {"jnp": jnp, "s": s}))
        assert slope(0.0) == 0
        assert slope(4.0) == 0.25


@pytest.mark.slow
@pytest.mark.parametrize("guilty", [vectors, singular], ids=lambda f: f.__name__)
def test_a_decomposition_of_equal_values(guilty: Loss) -> None:
    """It is named, not what its rule divides by."""
    text = cause(total(guilty), x=X + 1)
    assert names_only(text, guilty)
    assert re.search("derivative of `(eigh|svd)` .* have none, the", text)


def said(loss: Loss, x: Any) -> str:
    """What is said of a gradient, with no check around it."""
    point = Point.of(x)
    objective = Objective(loss, point)
    widened = Autodiff(objective).widened
    assert widened is not None
    return NonFinite(objective, widened).of(point.leaves[0].path)


@pytest.mark.slow
@pytest.mark.parametrize("guilty", KINDS, ids=lambda f: f.__name__)
def test_among_innocents_wherever_it_stands(guilty: Loss) -> None:
    """In 20 of 20 random orders, at random points with a 0."""
    for seed in range(SEEDS):
        random = np.random.default_rng(seed)
        x = random.uniform(0.5, 2, 4).astype(np.float32)
        x[random.integers(4)] = 0
        parts = [guilty, *random.choice(np.array(INNOCENT), 2, replace=False)]
        random.shuffle(parts)
        assert names_only(said(total(*parts), x), guilty), seed


@pytest.mark.slow
def test_innocents_pass() -> None:
    """A mask of -inf, a logarithm of 0 that is dropped, a double where."""
    report = check_gradients(total(*INNOCENT), X + np.float32(0.5))
    assert report.passed
    assert not any(row.cause for row in report.leaves)


@pytest.mark.slow
def test_two_are_both_named() -> None:
    """Where each alone would do, and a remedy that serves both is said once."""
    text = cause(total(sqrt, log, masked))
    found = named_lines(text)
    assert len(found) == 2
    assert found[0] in lines(sqrt)
    assert found[1] in lines(log)
    text = cause(total(root, lambda x: jnp.sqrt(2 * x)))
    assert text.count("derivative of `sqrt`") == 2
    assert text.count("add a small constant") == 1


def test_a_zero_that_a_mask_made() -> None:
    """-inf gives 0, the root has no derivative there: the mask is right."""

    def loss(x: Any) -> Any:
        rows = jnp.where(jnp.tri(3, dtype=bool), jnp.outer(x, x), -jnp.inf)
        return jnp.sum(jnp.sqrt(jax.nn.softmax(rows)) @ x)

    text = cause(loss)
    assert named_lines(text) == [lines(loss)[2]]
    assert "derivative of `sqrt`" in text


@pytest.mark.slow
def test_a_row_that_is_masked_whole() -> None:
    """-inf less -inf: named where it is computed."""

    def loss(x: Any) -> Any:
        rows = jnp.where(jnp.diag(X > 0), jnp.outer(x, x), -jnp.inf)
        e = jnp.exp(rows - rows.max(axis=1, keepdims=True))
        return jnp.sum(jnp.where(X > 0, e @ x, 0))

    text = cause(loss)
    assert named_lines(text) == [lines(loss)[2]]
    assert "`sub`" in text


def test_one_entry_is_masked_and_another_is_not() -> None:
    """A double where would not help: the root itself is to be changed."""
    mask, x = np.array([False, True, True]), np.array([0.0, 0.0, 2.0], np.float32)
    report = check_gradients(lambda x: jnp.sum(jnp.where(mask, jnp.sqrt(x), 0)), x)
    assert "the derivative of `sqrt`" in report.worst.cause
    assert TWICE not in report.worst.cause
    report = check_gradients(lambda x: jnp.sum(jnp.sqrt(x)[2:]), x)
    assert "what leaves its value out multiplies it by 0" in report.worst.cause


@pytest.mark.parametrize(
    ("loss", "words"),
    [
        (lambda x: jnp.sum(x * jnp.log(x)), "`log` at .*: keep the argument above 0"),
        (lambda x: jnp.sum(jnp.exp(100 * x)), "`exp` at .*it overflows"),
        (lambda x: jnp.sum(jnp.arccos(x)), "`acos` at .* is nan at 2"),
    ],
)
def test_a_loss_that_is_not_finite_itself(loss: Loss, words: str) -> None:
    """The error names who makes it so, forward, and what to do."""
    with pytest.raises(ValueError, match=f"expected a finite value, .*{words}"):
        check_gradients(loss, 10 * X if "exp" in words else X)


@pytest.mark.slow
def test_in_a_scan() -> None:
    """The line of its body."""
    text = cause(lambda x: lax.scan(lambda c, r: (c + sqrt(r), None), 0.0, x)[0])
    assert names_only(text, sqrt)


@pytest.mark.slow
def test_in_jit_and_under_vmap_and_in_a_branch() -> None:
    """The line of the inner function."""
    assert names_only(cause(jax.jit(total(log, guarded_twice))), log)
    assert names_only(cause(total(jax.vmap(div))), div)
    branch = total(jax.checkpoint(sqrt))
    text = cause(lambda x: lax.cond(x[1] > 0, branch, total(log), x))
    assert names_only(text, sqrt)


def test_a_function_of_jax_that_was_traced_elsewhere() -> None:
    """JAX keeps its trace; the line is that of the call that is guilty."""
    jnp.linalg.norm(jnp.array(X))

    def loss(x: Any) -> Any:
        before = jnp.linalg.norm(x + 1)
        between = jnp.linalg.norm(0 * x)
        return before + between + jnp.linalg.norm(x + 2)

    assert named_lines(cause(loss)) == [lines(loss)[2]]


def with_rule(backward: Callable[..., Any]) -> Loss:
    """Sin, with this rule."""
    rule = jax.custom_vjp(jnp.sin)
    rule.defvjp(lambda x: (jnp.sin(x), x), backward)
    return rule


def wrong(x: Any, g: Any) -> tuple[Any]:
    """A backward pass that is 0 / 0 at 0."""
    slope = x * jnp.cos(x)
    return (g * (slope / x),)


def constant(x: Any, g: Any) -> tuple[Any]:
    """A backward pass that gives NaN."""
    return (g * jnp.nan,)


def outside(x: Any, g: Any) -> tuple[Any]:
    """A backward pass that calls NumPy."""
    shape = jax.ShapeDtypeStruct(x.shape, x.dtype)
    return (g * jax.pure_callback(lambda x: np.full_like(x, np.inf), shape, x),)


@pytest.mark.parametrize(
    ("backward", "primitive"),
    [(wrong, "div"), (constant, "mul"), (outside, "pure_callback")],
)
def test_in_the_backward_pass_of_a_rule(
    backward: Callable[..., Any], primitive: str
) -> None:
    """Its line, that of the rule, that of the call."""
    rule = with_rule(backward)
    text = cause(lambda x: jnp.sum(rule(2 * x) + guarded_twice(x)))
    at_rule, at_call, within = named_lines(text)
    assert at_rule in lines(backward)
    assert within in lines(backward)
    assert at_call in lines(test_in_the_backward_pass_of_a_rule)
    assert re.search(rf"the rule of .* gives (nan|inf) by `{primitive}`", text)


@pytest.mark.slow
def test_a_rule_within_a_scan_and_under_vmap() -> None:
    """And through check_vjp, where no line of the verifier is named."""
    rule = with_rule(wrong)
    text = cause(lambda x: lax.scan(lambda c, r: (c + rule(r), None), 0.0, x)[0])
    assert named_lines(text)[-1] in lines(wrong)
    text = cause(total(jax.vmap(lambda x: 2 * rule(x))))
    assert named_lines(text)[-1] in lines(wrong)
    text = check_vjp(rule, X).worst.cause
    assert named_lines(text)[-1] in lines(wrong)
    assert "jaxnet/verification" not in text.replace(__file__, "")


@jax.custom_jvp
def tangents(x: Any) -> Any:
    """Sin, with a rule for tangents that is 0 / 0 at 0."""
    return jnp.sin(x)


@tangents.defjvp
def tangents_rule(primals: tuple[Any], given: tuple[Any]) -> tuple[Any, Any]:
    """The rule."""
    (x,), (t,) = primals, given
    return tangents(x), x * jnp.cos(x) / x * t


def test_in_a_rule_for_tangents() -> None:
    """The line where it divides."""
    text = cause(total(tangents))
    found = named_lines(text)
    assert found[-1] in range(lines(tangents_rule)[0], lines(tangents_rule)[-1] + 1)
    assert "`div`" in text


def sigmoid(x: Any) -> Any:
    """It overflows in float32 only."""
    return 1 / (1 + jnp.exp(x))


@pytest.mark.slow
def test_what_overflows_as_it_is_run() -> None:
    """The exponential is named beside the dtype; in float64, nothing is."""
    x = np.array([1.0, 100.0], np.float32)
    text = cause(total(sigmoid, jnp.tanh), x=x)
    assert "as it is run, in float32, it is nan" in text
    assert "`exp`" in text
    assert "is infinite at 100: it overflows" in text
    assert names_only(text, sigmoid)
    with jax.enable_x64(True):
        assert check_gradients(total(sigmoid), x.astype(np.float64)).passed


def test_a_loss_that_overflows_as_it_is_run() -> None:
    """Logsumexp by hand: UNRESOLVED, and the exponential is named."""
    row = check_gradients(lambda x: jnp.log(jnp.sum(jnp.exp(x))), 100 + X).worst
    assert row.verdict is Verdict.UNRESOLVED
    assert "the loss is inf" in row.cause
    assert "`exp`" in row.cause


def test_a_candidate_that_is_traced() -> None:
    """The line of the candidate, not of the loss."""

    def by_hand(x: Any) -> Any:
        return 2 * x**2 / x

    text = cause(lambda x: jnp.sum(x**2), by_hand)
    assert named_lines(text) == [lines(by_hand)[1]]
    assert "`div`" in text


def test_only_the_leaf_that_it_reaches() -> None:
    """Each leaf has its own guilty; a finite one has none."""
    params = {"a": X, "b": X, "c": X}

    def loss(p: Any) -> Any:
        return jnp.sum(sqrt(p["a"]) + log(p["b"]) + p["c"] ** 2)

    rows = {row.path: row for row in check_gradients(loss, params).leaves}
    assert names_only(rows["['a']"].cause, sqrt)
    assert names_only(rows["['b']"].cause, log)
    assert rows["['c']"].verdict is Verdict.AGREE


@pytest.mark.slow
def test_arrays_and_what_cannot_be_traced_name_no_line() -> None:
    """They say nothing of the program."""

    def numpy(x: Any) -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(x) * 0 / np.asarray(x)

    for candidate in (X / np.float32(0.5) * np.nan, numpy):
        text = cause(total(sqrt), candidate)
        assert re.fullmatch("nan in [13] of 3 entries", text)


def test_a_program_that_is_too_long_says_nothing_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nor does one where too many lines give NaN."""
    with monkeypatch.context() as patched:
        patched.setattr(nonfinite, "MOST_STEPS", 3)
        assert cause(total(sqrt)) == "nan in 1 of 3 entries"
    monkeypatch.setattr(nonfinite, "MOST_BIRTHS", 0)
    assert cause(total(sqrt)) == "nan in 1 of 3 entries"


def test_an_explanation_that_fails_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """And changes no verdict."""

    def fails(*_: Any) -> str:
        raise ZeroDivisionError("on the way")

    monkeypatch.setattr(NonFinite, "of", fails)
    assert "; the explanation failed: ZeroDivisionError" in cause(total(sqrt))
