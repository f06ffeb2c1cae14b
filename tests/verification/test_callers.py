"""Mistakes of a caller: each is answered in one line that says what to write."""

import subprocess
import sys
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import checkify
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from jaxnet import audit
from jaxnet.input_checks import first_line
from jaxnet.verification import (
    GradientReport,
    Verdict,
    check_gradients,
    check_jvp,
    check_vjp,
)

PARAMS = {"W": np.full((3, 2), 0.3), "b": np.full(2, 0.1)}
GRADIENT = {"W": np.full((3, 2), 0.6), "b": np.full(2, 0.2)}


def loss(params: Any) -> Any:
    """Σ W² + Σ b²."""
    return jnp.sum(params["W"] ** 2) + jnp.sum(params["b"] ** 2)


def head(report: GradientReport) -> str:
    """The first sentence."""
    return " ".join(str(report).partition("\n\n")[0].split())


IN_PYTHON = """
import jax, jax.numpy as jnp, jaxnet
params, loss = {"b": jnp.ones(2)}, lambda p: jnp.sum(p["b"] ** 2)
for call in (
    lambda: jaxnet.check_gradients(params, loss),
    lambda: jaxnet.check_gradients(loss, jax.grad(loss), params),
    lambda: jaxnet.check_vjp(params["b"], jnp.tanh),
    lambda: jaxnet.audit(params["b"], jnp.tanh),
):
    try:
        call()
    except TypeError as error:
        print(error)
"""


@pytest.mark.slow
def test_swapped_arguments() -> None:
    """As they come without annotations that are executed: the call is written out."""
    done = subprocess.run(
        [sys.executable, "-c", IN_PYTHON], capture_output=True, text=True, check=True
    )
    first, second, third, fourth = done.stdout.splitlines()
    assert first.startswith("`loss`: expected a function, got dict")
    assert second.startswith("`params`: expected a pytree of arrays, got function")
    for line in (first, second):
        assert line.endswith("; write check_gradients(loss, params, candidates)")
    for line in (third, fourth):
        assert line.startswith("`function`: expected a function, got float32 of shape")
        assert line.endswith("; write the function first, then its arguments")


def test_a_loss_of_more_than_the_parameters() -> None:
    """Its data are to be bound; a default is no argument that is missing."""
    with pytest.raises(TypeError, match=r"^`loss`: .* one of \(p.*, x.*\); bind"):
        check_gradients(lambda p, x: loss(p), PARAMS)
    assert check_gradients(lambda p, x=1: loss(p), PARAMS, GRADIENT).passed


@pytest.mark.parametrize("name", ["tolerance", "atol", "eps"])
def test_a_tolerance(name: str) -> None:
    """There is none to be given, to any of the checks."""
    given = {name: 1e-3}
    match = f"^`{name}`: expected no tolerance and no step, got float 0.001; leave it"
    with pytest.raises(TypeError, match=match):
        check_gradients(loss, PARAMS, **given)
    for check in (check_vjp, check_jvp, audit):
        with pytest.raises(TypeError, match=match):
            check(jnp.tanh, np.ones(2), **given)


def test_an_option_that_is_misspelt() -> None:
    """The nearest is named, and all that there are."""
    match = r"^`saftey`: expected .*safety.*, got float 2.0; did you mean `safety`\?$"
    with pytest.raises(TypeError, match=match):
        check_gradients(loss, PARAMS, saftey=2.0)


@pytest.mark.parametrize("is_called", [False, True])
def test_value_and_grad(is_called: bool) -> None:
    """Its pair is known, as a function and as values; also beside a pair of arrays."""
    both = jax.value_and_grad(loss)
    report = check_gradients(loss, PARAMS, both if is_called else both(PARAMS))
    words = "a pair of value and gradient: pass jax.grad, not value_and_grad"
    assert head(report) == f"FAILED: candidate is MALFORMED in 2 leaves: {words}."
    pair = (PARAMS["b"], PARAMS["b"] + 1)

    def of_pair(p: Any) -> Any:
        return jnp.sum(p[0] * p[1] ** 2)

    found = check_gradients(of_pair, pair, jax.value_and_grad(of_pair))
    assert words in found.worst.cause
    assert check_gradients(of_pair, pair, jax.grad(of_pair)).passed


@jax.tree_util.register_dataclass
@dataclass
class Module:
    """A pytree that can be called."""

    layers: list[Any]

    def __call__(self, x: Any) -> Any:
        """A product."""
        return x @ self.layers[0]


def many(params: Any) -> Any:
    """Of 44 leaves."""
    return sum(map(jnp.sum, map(jnp.square, params)))


def test_another_tree() -> None:
    """One sentence, and one row, however many leaves there are."""
    params = [np.ones(3)] * 44
    report = check_gradients(many, params, PARAMS)
    text = str(report)
    assert head(report).startswith(
        "FAILED: candidate is MALFORMED in 44 leaves: another tree, ['W'], ['b']: "
        "expected leaves like those of params, [0], [1], [2] and 41 more"
    )
    assert len(text.splitlines()) < 14
    assert len(report.leaves) == 44


def test_the_loss_itself_in_the_place_of_its_gradient() -> None:
    """One number where a tree is due."""
    report = check_gradients(loss, PARAMS, loss)
    assert "is it the loss itself, or a sum of its gradient?" in head(report)


def test_a_module_where_a_gradient_is_due() -> None:
    """It is called, as any function; that it is a module is said."""
    report = check_gradients(loss, PARAMS, Module([np.ones(3)]))
    assert "Module is a module, which was called: pass a gradient" in head(report)
    assert "in 2 leaves: raised ValueError" in head(report)


def test_parameters_that_are_no_floats() -> None:
    """What they are is said."""
    with pytest.raises(ValueError, match=r"none among 1: int 3; differentiate"):
        check_gradients(lambda x: x**2, 3)


def test_a_random_loss_is_blamed_and_no_candidate() -> None:
    """One record: nothing is said of the gradients, which may be right."""
    random = np.random.default_rng(0)
    report = check_gradients(
        lambda p: loss(p) + random.normal(), PARAMS, {"one": GRADIENT, "two": GRADIENT}
    )
    (leaf,) = report.leaves
    assert (leaf.candidate, leaf.verdict) == ("the loss", Verdict.NONDETERMINISTIC)
    assert not report.passed
    assert report.odd_one_out is None
    said = head(report)
    assert said.startswith("FAILED: the loss is NONDETERMINISTIC: the loss gives ")
    assert said.endswith(
        "for one input: is it random? let it draw from a key that stays."
    )
    assert "one" not in said.replace("one input", "").split()


def test_a_loss_that_no_parameter_reaches() -> None:
    """It closes over another value, perhaps; a constant function may be meant."""
    report = check_gradients(lambda p: loss(PARAMS), PARAMS)
    assert not report.passed
    assert head(report).endswith("so is every other leaf: a constant loss?")
    assert check_gradients(lambda p: jnp.sum(p["b"] ** 2), PARAMS).passed
    assert check_vjp(jnp.zeros_like, PARAMS["b"]).passed


def test_a_reference_of_another_shape() -> None:
    """It would be broadcast against the cotangent, and a right rule called wrong."""
    words = r"^`reference\(\*args\)`: expected shapes like .* \(2,\), got \(\)"
    with pytest.raises(ValueError, match=words):
        check_vjp(jnp.sin, PARAMS["b"], reference=lambda x: jnp.sum(jnp.sin(x)))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"oder": 2}, "did you mean `order`"),
        ({"intended": ["f"]}, "one of the options reference, key, order"),
        ({"demands": "liner"}, "got 'liner'"),
        ({"reference": 3}, "expected a function"),
        ({"nondiff_argnums": "0"}, "expected positions, got str '0'"),
        ({"kwargs": [1]}, "expected keyword arguments, got list"),
        ({"every_coordinate": "yes"}, "expected one of None, True, False, got 'yes'"),
    ],
)
def test_options_of_a_rules_check(options: dict[str, Any], words: str) -> None:
    """Its own are listed, and a name is no list of letters."""
    with pytest.raises((TypeError, ValueError), match=words):
        check_vjp(jnp.sin, PARAMS["b"], **options)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"mesh": 2}, "`mesh`: expected a mesh, got int 2"),
        ({"intended": 3}, "`intended`: expected rules, got int 3"),
        ({"has_aux": "no"}, "`has_aux`: expected one of True, False, got 'no'"),
        ({"candidate": GRADIENT}, "did you mean `candidates`"),
    ],
)
def test_options_of_a_check(options: dict[str, Any], words: str) -> None:
    """Of another kind: one line, and nothing of Python's."""
    with pytest.raises((TypeError, ValueError), match=words):
        check_gradients(loss, PARAMS, **options)


def test_a_forward_rule_that_gives_no_pair() -> None:
    """It has a tangent, and no residuals."""
    rule = jax.custom_jvp(jnp.sin)
    rule.defjvp(lambda primals, tangents: tangents[0])
    assert "it gives no pair: write `return value, tangent`" in head(
        check_jvp(rule, PARAMS["b"])
    )


class Counted:
    """A loss that knows how often it was called, and tells in one way."""

    def __init__(self, tells: str) -> None:
        self.calls, self.tells = 0, tells

    def __call__(self, params: Any) -> Any:
        """The loss, with what does not change it."""
        self.calls += 1
        number = params["b"][0] * self.calls
        if self.tells == "a print":
            jax.debug.callback(lambda n: None, number)
        elif self.tells == "a name":

            def named(params: Any) -> Any:
                return loss(params)

            named.__name__ = f"step_{self.calls}"
            return jax.jit(named)(params)
        elif self.tells == "a print in a loop":

            def step(total: Any, x: Any) -> Any:
                jax.debug.callback(lambda n: None, self.calls)
                return total + x**2, x * self.calls

            return jax.lax.scan(step, 0.0, params["b"])[0] + jnp.sum(params["W"] ** 2)
        elif self.tells == "a check":
            return checkify.checkify(self.checked)(params)[1]
        return loss(params)

    def checked(self, params: Any) -> Any:
        """JAX numbers the checks that it sees."""
        checkify.check(params["b"][0] < 9, "too large")
        return loss(params)


@pytest.mark.parametrize(
    "tells", ["nothing", "a print", "a name", "a print in a loop", "a check"]
)
def test_what_changes_beside_the_value_is_not_read(tells: str) -> None:
    """The loss is one program: its gradients are right or wrong, as any."""
    params = jax.tree.map(np.float32, PARAMS)
    assert check_gradients(Counted(tells), params).verdict is Verdict.AGREE
    wrong = {**GRADIENT, "b": GRADIENT["b"] * 1.01}
    assert check_gradients(Counted(tells), params, wrong).verdict is Verdict.DISAGREE


def test_a_loss_that_spreads_itself_over_the_devices() -> None:
    """It cannot be spread once more, and what to leave out is said."""
    mesh = jax.make_mesh((1,), ("d",), axis_types=(AxisType.Auto,))
    rows = NamedSharding(mesh, PartitionSpec("d"))

    def spread(params: Any) -> Any:
        return loss(jax.lax.with_sharding_constraint(params, rows))

    assert check_gradients(spread, PARAMS).passed
    words = r"^`mesh`: expected a loss .* leave it out where the loss spreads itself"
    with pytest.raises(ValueError, match=words):
        check_gradients(spread, PARAMS, mesh=mesh)


def test_a_random_candidate_is_blamed_itself() -> None:
    """The loss is not."""
    random = np.random.default_rng(0)

    def gradient(params: Any) -> Any:
        return jax.tree.map(lambda x: 2 * x + random.normal(), params)

    report = check_gradients(loss, PARAMS, gradient)
    assert {x.candidate for x in report.leaves} == {"candidate"}
    assert "the candidate gives two values for one input" in head(report)


def test_a_message_of_jax_is_whole() -> None:
    """Its shapes stand at its end; what is very long is cut in the middle."""
    with pytest.raises(ValueError, match=r"got \(5,\) and \(3,\) at \S+; call it"):
        check_gradients(lambda p: jnp.sum(jnp.ones((7, 5)) @ p["W"]), PARAMS)
    long = first_line(ValueError("a shape " + "and more " * 100 + "of (5,)"))
    assert long.startswith("ValueError: a shape")
    assert long.endswith("of (5,)")
    assert len(long) < 330
    assert first_line(ValueError("x" * 290)) == "ValueError: " + "x" * 290


@pytest.mark.parametrize(
    ("dtype", "said"), [("float32", "1e-07"), ("bfloat16", "8e-03"), ("float64", "")]
)
def test_the_dtype_of_a_candidate_is_noted(dtype: str, said: str) -> None:
    """Arrays that are coarser than float64, with what their rounding is."""
    given = jax.tree.map(lambda x: x.astype(jnp.dtype(dtype)), GRADIENT)
    notes = check_gradients(loss, PARAMS, {"mine": given}).notes
    note = f"mine holds {dtype} numbers: its rounding, {said} of each term, is allowed"
    assert (note in notes) == bool(said)
    assert not any(
        " numbers: its rounding" in x for x in check_gradients(loss, PARAMS).notes
    )


def test_a_reference_that_is_no_function() -> None:
    """The loss is not blamed for it."""
    with pytest.raises(TypeError, match=r"^`reference`: expected a function.*gradient"):
        check_gradients(loss, PARAMS, reference=GRADIENT)


def test_arguments_in_a_tuple() -> None:
    """As other checkers take them."""
    with pytest.raises(ValueError, match=r"one by one, f, x, y: this is one tuple"):
        check_vjp(lambda x, y: x * y, (PARAMS["W"], PARAMS["W"]))


def test_arguments_that_are_donated() -> None:
    """JAX cannot differentiate such a call; the caller's arrays are not lost by it."""
    given = jnp.asarray(PARAMS["b"])
    donating = jax.jit(jnp.sin, donate_argnums=0)
    with pytest.raises(ValueError, match=r"keeps its arguments, got one that donates"):
        check_vjp(donating, given)
    assert check_vjp(jax.jit(lambda x: donating(x)), given).passed


def test_a_mode_that_a_rule_has_not() -> None:
    """What to ask for stands there."""
    rule = jax.custom_vjp(jnp.sin)
    rule.defvjp(lambda x: (jnp.sin(x), x), lambda x, g: (g * jnp.cos(x),))
    assert 'modes=["rev"]' in head(check_jvp(rule, PARAMS["b"]))


@pytest.mark.slow
def test_numbers_of_float32_in_an_array_of_float64() -> None:
    """A gradient that was computed before: by itself, or given by a function."""
    params = {"W": np.linspace(0.1, 0.7, 6, dtype=np.float32), "b": np.float32(0.3)}

    def squares(params: Any) -> Any:
        return jnp.sum(jnp.sin(params["W"]) ** 2) * params["b"]

    single = jax.grad(squares)(params)
    wide = {name: np.asarray(g, np.float64) for name, g in single.items()}
    for given in (single, wide, lambda p: single, lambda p: wide):
        report = check_gradients(squares, params, given)
        assert report.passed
        assert report.worst.resolution > 1e-8
    wide["W"][2] *= 1.0001
    assert not check_gradients(squares, params, wide).passed
    exact = {"W": np.zeros(6), "b": 0.5}  # it may be meant: so much is not rounding
    report = check_gradients(lambda p: p["b"] * (0.5 + 3e-8), params, exact)
    assert report.verdict is Verdict.DISAGREE


@pytest.mark.slow
def test_a_loss_that_reads_some_of_the_parameters() -> None:
    """The first sentence says so."""
    said = head(check_gradients(lambda p: jnp.sum(p["W"]), PARAMS))
    assert said.endswith("; no path to the loss from ['b'].")


@pytest.mark.slow
def test_what_raises_is_named_by_its_line() -> None:
    """Of the candidate; not that of a decorator, Python's or ours."""

    def of_two(params: Any, data: Any) -> Any:
        return params

    (said,) = {leaf.cause for leaf in check_gradients(loss, PARAMS, of_two).leaves}
    assert said.endswith("missing 1 required positional argument: 'data'")

    def raising(params: Any) -> Any:
        return params["none"]

    (said,) = {leaf.cause for leaf in check_gradients(loss, PARAMS, raising).leaves}
    assert f" at {__file__}:{raising.__code__.co_firstlineno + 1}" in said


TYPED_IN = """
import jax, jax.numpy as jnp, jaxnet
def stopped(x):
    return jnp.sum(x * jax.lax.stop_gradient(x))

x = jnp.arange(3.0)
print(jaxnet.check_gradients(stopped, x).worst.cause)
print(jaxnet.check_gradients(stopped, x, intended=["<stdin>:4"]).notes)
"""


@pytest.mark.slow
def test_lines_that_were_typed_in_are_named() -> None:
    """A shell's, and taken as intended."""
    run = [sys.executable, "-"]
    done = subprocess.run(run, input=TYPED_IN, text=True, capture_output=True)
    cause, notes, *_ = done.stdout.splitlines()
    assert "stop_gradient (called at <stdin>:4:" in cause
    assert "not judged, as intended: stop_gradient (called at <stdin>:4:" in notes
