"""Derivatives of tapped values by hand: the first wrong link of the chain is named."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jaxnet import GradientReport, Verdict, check_gradients, tap

RANDOM = np.random.default_rng(0)
X = RANDOM.standard_normal((6, 5)).astype(np.float32)
W1 = RANDOM.standard_normal((5, 4)).astype(np.float32)
W2 = RANDOM.standard_normal((4, 4)).astype(np.float32)
T = np.eye(4, dtype=np.float32)[RANDOM.integers(0, 4, 6)]
PARAMS = {"W1": W1, "W2": W2}


def loss(params: Any) -> Any:
    """Two layers, tanh between, squared error."""
    a1 = tap("a1", X @ params["W1"])
    z1 = tap("z1", jnp.tanh(a1))
    a2 = tap("a2", z1 @ params["W2"])
    return jnp.mean(jnp.sum((a2 - T) ** 2, 1))


def by_hand(mistake: str = "") -> dict[str, Any]:
    """The derivatives of the three values, with one mistake."""
    a1 = X @ W1
    z1 = np.tanh(a1)
    d_a2 = 2 * (z1 @ W2 - T) / (1 if mistake == "no mean" else len(X))
    d_z1 = d_a2 @ (W2 if mistake == "not transposed" else W2.T)
    slope = {
        "no slope": np.ones_like(a1),
        "slope of z1": 1 - np.tanh(z1) ** 2,
        "1 %": 1.01 * (1 - z1**2),
    }
    return {"a1": d_z1 * slope.get(mistake, 1 - z1**2), "z1": d_z1, "a2": d_a2}


def checked(
    intermediates: Any, function: Callable[[Any], Any] = loss
) -> GradientReport:
    """The report of jax.grad, and of the derivatives by hand."""
    return check_gradients(function, PARAMS, intermediates=intermediates)


def links(report: GradientReport) -> dict[str, Any]:
    """The records of the tapped values, in their order."""
    return {x.path: x for x in report.leaves if x.candidate == "by hand"}


@pytest.mark.slow
@pytest.mark.parametrize("function", [loss, jax.jit(loss), jax.checkpoint(loss)])
def test_right_ones_agree(function: Callable[[Any], Any]) -> None:
    """From the loss on, and so finely that a mistake in the sixth digit is seen."""
    report = checked(by_hand(), function)
    assert report.verdict is Verdict.AGREE
    assert list(links(report)) == ["d_a2", "d_z1", "d_a1"]
    assert report.notes[0] == "by hand: d_a2 agrees, d_z1 agrees, d_a1 agrees"
    assert all(link.resolution < 1e-5 for link in links(report).values())


@pytest.mark.parametrize(
    ("mistake", "first", "words"),
    [
        (
            "no mean",
            "d_a2",
            "×6; did you forget to divide by the batch size (6)?; the mistake lies "
            "between a2 and the loss",
        ),
        (
            "not transposed",
            "d_z1",
            "the mistake lies between z1 and a2; d_a2 is multiplied by what should be "
            "transposed",
        ),
        (
            "no slope",
            "d_a1",
            "the mistake lies between a1 and z1; it is d_z1: the derivative between "
            "them is missing",
        ),
        (
            "slope of z1",
            "d_a1",
            "the mistake lies between a1 and z1; the derivative between them is taken "
            "at z1, not at a1",
        ),
        ("1 %", "d_a1", "×1.01 on every entry; the mistake lies between a1 and z1"),
    ],
)
def test_the_first_wrong_one(mistake: str, first: str, words: str) -> None:
    """It is named, with what it is; what comes after it follows from it."""
    report = checked(by_hand(mistake))
    found = links(report)
    assert not report.passed
    assert found[first].cause == words
    assert report.notes[0].endswith(f"{first} is the first that is wrong")
    order = list(found)
    assert all(found[name].passed for name in order[: order.index(first)])
    for before, after in zip(order[order.index(first) :], order[1:], strict=False):
        if before != after and order.index(after) > order.index(first):
            assert found[after].cause.endswith(f"it follows from {before}")


def test_a_second_mistake_is_its_own() -> None:
    """It does not follow from the first one, and is named too."""
    wrong = by_hand("no mean")
    wrong["a1"] = wrong["z1"]
    text = links(checked(wrong))["d_a1"].cause
    assert "the mistake lies between a1 and z1, too" in text
    assert "the derivative between them is missing" in text


@pytest.mark.slow
def test_leaves_beside_the_links() -> None:
    """A wrong leaf follows from a wrong link, is made of another one, or neither."""
    right, wrong = by_hand(), by_hand("no slope")
    gradient = {"W1": X.T @ right["a1"], "W2": np.tanh(X @ W1).T @ right["a2"]}

    def cause(w1: Any, intermediates: Any) -> str:
        candidate = {"mine": {**gradient, "W1": w1}}
        report = check_gradients(loss, PARAMS, candidate, intermediates=intermediates)
        (leaf,) = (x for x in report.leaves if x.path == "['W1']")
        assert leaf.verdict is Verdict.DISAGREE
        return leaf.cause

    assert cause(X.T @ wrong["a1"], wrong).endswith("it follows from d_a1")
    text = cause(X.T @ right["z1"], right)
    assert text.endswith("it is made of d_z1 where d_a1 should be")
    text = cause(1.5 * gradient["W1"], right)
    assert text == "×1.5 on every entry"
    for near in (1 + 1e-4, 1 - 1e-4):  # the link is right, so it follows from nothing
        assert "follows" not in cause(near * X.T @ right["a1"], right)
    gradient["W1"] = X.T @ right["a1"]
    report = check_gradients(loss, PARAMS, {"mine": gradient}, intermediates=right)
    assert report.verdict is Verdict.AGREE


def test_what_is_malformed_says_nothing_of_others() -> None:
    """No sentence is made of a NaN, or of another shape."""
    for bad in (np.full((6, 4), np.nan, np.float32), np.ones(4, np.float32)):
        wrong = {"a2": bad, "z1": 2 * by_hand()["z1"]}
        found = links(checked(wrong))
        assert found["d_a2"].verdict is Verdict.MALFORMED
        assert found["d_z1"].cause.endswith(
            "d_a2 is malformed: nothing more can be said"
        )


@pytest.mark.slow
def test_half_precision_makes_no_sentence_of_noise() -> None:
    """In bfloat16 a formula holds within two per cent, not within anything."""
    w = jnp.asarray(W2, jnp.bfloat16)

    def coarse(w: Any) -> Any:
        return jnp.sum(tap("z", jnp.tanh(tap("a", 2 * w))) ** 2)

    d_z = 2 * jnp.tanh(2 * w)
    junk = jnp.asarray(RANDOM.standard_normal((4, 4)), jnp.bfloat16)
    given = {"z": 2 * d_z, "a": junk}
    found = links(check_gradients(coarse, w, intermediates=given))
    assert "follows" not in found["d_a"].cause
    missing = {"z": d_z, "a": d_z}
    found = links(check_gradients(coarse, w, intermediates=missing))
    assert "it is d_z: the derivative between them is missing" in found["d_a"].cause


def test_none_of_them() -> None:
    """Nothing is tapped for it, and nothing said."""
    assert not links(checked({}))


def test_some_of_them() -> None:
    """What is not given is not looked at, and the neighbour is the next one given."""
    wrong = by_hand("no slope")
    report = checked({"a1": wrong["a1"], "a2": wrong["a2"]})
    assert list(links(report)) == ["d_a2", "d_a1"]
    assert "between a1 and a2" in links(report)["d_a1"].cause


def rounds(w: Any) -> Any:
    """A recurrence of three rounds, each tapped."""

    def one(h: Any, x: Any) -> Any:
        h = tap("h", jnp.tanh(h @ w + x))
        return h, h**2

    last, squares = lax.scan(one, jnp.zeros(4, w.dtype), X[:3, :4])
    return jnp.sum(last) + jnp.sum(squares)


def through_time(reach: int) -> np.ndarray:
    """Of each round's h; later rounds, as many as `reach`, are taken into account."""
    h, seen = np.zeros(4, np.float32), []
    for x in X[:3, :4]:
        h = np.tanh(h @ W2 + x)
        seen.append(h)
    own = [2 * h for h in seen]
    own[2] = own[2] + 1
    total = [np.zeros(4)] * 4
    for t in (2, 1, 0):
        later = total[t + 1] if t + 1 < min(3, t + 1 + reach) else np.zeros(4)
        following = seen[t + 1] if t < 2 else np.zeros(4)
        total[t] = own[t] + (later * (1 - following**2)) @ W2.T
    return np.stack(total[:3]).astype(np.float32)


@pytest.mark.slow
def test_in_a_scan() -> None:
    """An index a round: the whole derivative, by way of later rounds too."""
    report = check_gradients(rounds, W2, intermediates={"h": through_time(3)})
    assert report.passed
    assert links(report)["d_h"].shape == (3, 4)
    truncated = check_gradients(rounds, W2, intermediates={"h": through_time(0)})
    assert links(truncated)["d_h"].verdict is Verdict.DISAGREE
    assert links(truncated)["d_h"].worst_index is not None


@pytest.mark.slow
def test_a_right_line_in_a_scan_is_not_blamed() -> None:
    """The derivative of h is the whole one: a link is one step, not all rounds."""

    def loss(w: Any) -> Any:
        def one(h: Any, x: Any) -> Any:
            h = tap("h", jnp.tanh(tap("a", h @ w + x)))
            return h, h**2

        last, squares = lax.scan(one, jnp.zeros(4, w.dtype), X[:3, :4])
        return jnp.sum(last) + jnp.sum(squares)

    h, seen = np.zeros(4, np.float32), []
    for x in X[:3, :4]:
        h = np.tanh(h @ W2 + x)
        seen.append(h)
    slope = 1 - np.stack(seen) ** 2
    half = 0.5 * through_time(3)
    report = check_gradients(loss, W2, intermediates={"h": half, "a": half * slope})
    found = links(report)
    assert found["d_a"].cause.endswith("it follows from d_h")
    assert "the mistake lies between h and a and the loss, too" in found["d_h"].cause
    right = through_time(3)
    missing = check_gradients(loss, W2, intermediates={"h": right, "a": right})
    assert links(missing)["d_h"].passed
    text = links(missing)["d_a"].cause
    assert "the mistake lies between a and h; it is d_h" in text


def test_the_first_wrong_link_is_the_headline() -> None:
    """What follows from it may be off by more, and is not what to read first."""
    given = by_hand()
    later, *before = [name for name in reversed(given)]
    wrong = {name: 2 * given[name] for name in (later, *before[:1])}
    report = check_gradients(loss, PARAMS, intermediates={**given, **wrong})
    assert report.worst.path == f"d_{later}"
    assert f"d_{later}[" in str(report).split(":")[1] + str(report).split(":")[2]


def test_a_name_as_the_report_writes_it_is_answered() -> None:
    """The tap is "z1", its derivative d_z1."""
    name = next(iter(by_hand()))
    with pytest.raises(ValueError, match=f'did you mean "{name}"'):
        check_gradients(loss, PARAMS, intermediates={f"d_{name}": np.ones(1)})
    with pytest.raises(ValueError, match=r'write jaxnet\.tap\("nowhere"'):
        check_gradients(loss, PARAMS, intermediates={"nowhere": np.ones(1)})


@pytest.mark.slow
def test_two_ways_to_the_loss() -> None:
    """A residual branch: both that follow are named, and each is taken into account."""

    def loss(params: Any) -> Any:
        a = tap("a", X @ params["W1"])
        b = tap("b", jnp.sin(a))
        c = tap("c", a + b @ params["W2"])
        return jnp.sum(c**2)

    a = X @ W1
    d_c = 2 * (a + np.sin(a) @ W2)
    d_b = d_c @ W2.T
    right = {"c": d_c, "b": d_b, "a": d_c + d_b * np.cos(a)}
    assert check_gradients(loss, PARAMS, intermediates=right).passed
    cut = check_gradients(loss, PARAMS, intermediates={**right, "a": d_b * np.cos(a)})
    assert "between a and b and c" in links(cut)["d_a"].cause
    later = {"c": d_c, "b": 2 * d_b, "a": d_c + 2 * d_b * np.cos(a)}
    text = links(check_gradients(loss, PARAMS, intermediates=later))["d_a"].cause
    assert text.endswith("it follows from d_b")


@pytest.mark.slow
def test_under_vmap_and_in_a_branch() -> None:
    """Examples are on the first axis; of a branch, what is taken counts."""

    def of_one(w: Any, x: Any) -> Any:
        return tap("a", x @ w)

    def batched(w: Any) -> Any:
        a = jax.vmap(of_one, (None, 0))(w, jnp.asarray(X))
        return lax.cond(w[0, 0] > -9, lambda a: jnp.sum(a**2), jnp.sum, a)

    right = 2 * X @ W1
    assert check_gradients(batched, W1, intermediates={"a": right}).passed
    wrong = np.where(np.arange(6)[:, None] == 2, 3 * right, right)
    report = check_gradients(batched, W1, intermediates={"a": wrong})
    assert "row 2 alone: ×3" in links(report)["d_a"].cause


def test_another_shape_is_malformed() -> None:
    """As of a leaf: what was broadcast is not summed."""
    report = checked({"a2": by_hand()["a2"].sum(0)})
    link = links(report)["d_a2"]
    assert link.verdict is Verdict.MALFORMED
    assert "shape (4,), expected (6, 4)" in link.cause


@pytest.mark.parametrize("name", ["z'", "W['x']", "a\\b", "z'\"", "é"])
def test_any_text_is_a_name(name: str) -> None:
    """Quotes and brackets, as paths have them."""
    report = check_gradients(
        lambda x: jnp.sum(tap(name, jnp.sin(x)) ** 2),
        X[0],
        intermediates={name: 2 * np.sin(X[0])},
    )
    assert report.passed
    assert list(links(report)) == [f"d_{name}"]


def test_a_link_that_was_not_looked_at_is_no_headline() -> None:
    """What is wrong is: here, the gradient."""
    wrong = jax.tree.map(lambda g: 2 * g, jax.grad(loss)(PARAMS))
    rest = {"intermediates": by_hand(), "budget": 1}
    report = check_gradients(loss, PARAMS, wrong, **rest)
    assert links(report)["d_a2"].verdict is Verdict.UNRESOLVED
    assert not report.first_wrong


def test_the_caller_s_safety_is_for_all() -> None:
    """A link that is off by 1 % is not called wrong where more is allowed."""
    given = by_hand("1 %")
    report = check_gradients(loss, PARAMS, intermediates=given, safety=1e13)
    assert links(report)["d_a1"].verdict is Verdict.UNRESOLVED
    assert links(checked(given))["d_a1"].verdict is Verdict.DISAGREE


def test_a_loss_that_changes_has_no_links() -> None:
    """It is said of the loss, and of nothing else."""
    calls = [0]

    def changing(params: Any) -> Any:
        calls[0] += 1
        return loss(params) * calls[0]

    report = checked(by_hand(), changing)
    assert report.verdict is Verdict.NONDETERMINISTIC
    assert not links(report)


def test_a_budget_is_for_all() -> None:
    """What was not looked at for it is not called wrong."""
    report = check_gradients(loss, PARAMS, intermediates=by_hand(), budget=700)
    assert not report.passed
    assert report.evaluations <= 700 + 200  # what is needed to begin
    undecided = [link for link in links(report).values() if not link.passed]
    assert {link.verdict for link in undecided} == {Verdict.UNRESOLVED}
    assert report.notes[0].endswith("is UNRESOLVED")


def twice(params: Any) -> Any:
    """One name at two places."""
    return tap("a", jnp.sum(params["W1"])) * tap("a", jnp.sum(params["W2"]))


def until(params: Any) -> Any:
    """A value in a loop that has no derivative."""
    start = jnp.sum(params["W1"] ** 2)
    return lax.while_loop(lambda x: x < 3.0, lambda x: tap("a", 2.0 * x), start)


@pytest.mark.parametrize(
    ("function", "name", "words"),
    [
        (loss, "z", "names that the loss taps: a1, z1, a2, got 'z'"),
        (twice, "a", "expected one place, got 2 places"),
        (until, "a", "got one in a while loop"),
        (lambda p: float(np.sum(np.asarray(p["W1"]))), "a", "one that JAX can trace"),
    ],
)
def test_names_and_places_are_checked(
    function: Callable[[Any], Any], name: str, words: str
) -> None:
    """One line each, before anything is probed."""
    with pytest.raises(ValueError, match=words):
        checked({name: np.float32(1)}, function)


@pytest.mark.slow
def test_a_tap_is_the_identity() -> None:
    """Alone, in jit, grad, vmap, jvp and under x64; of Python's own floats too."""
    assert tap("a", 1.5) == 1.5
    assert tap("a", X) is X
    (turned,) = jax.linear_transpose(lambda x: 2 * tap("a", x), X)(X)
    np.testing.assert_array_equal(turned, 2 * X)
    np.testing.assert_array_equal(jax.jit(lambda x: tap("a", x))(X), X)
    np.testing.assert_array_equal(jax.vmap(lambda x: tap("a", x), 1, 1)(X), X)
    tapped = jax.grad(lambda x: jnp.sum(tap("a", x) ** 2))
    np.testing.assert_array_equal(jax.jit(tapped)(X), 2 * X)
    np.testing.assert_array_equal(jax.hessian(lambda x: tap("a", x) ** 3)(2.0), 12.0)
    _, moved = jax.jvp(lambda x: tap("a", x), (X,), (2 * X,))
    np.testing.assert_array_equal(moved, 2 * X)
    with jax.enable_x64(True):
        assert jax.jit(lambda x: tap("a", x))(np.float64(0.1)).dtype == np.float64


def test_what_cannot_be_tapped() -> None:
    """A name that is empty, a value that is no float."""
    with pytest.raises(TypeError, match=r'write jaxnet.tap\("z1", z1\)'):
        tap("", X)
    for value in (np.arange(3, dtype=np.int32), None, "s", {"x": X}, True):
        with pytest.raises(TypeError, match="expected real floats, got "):
            tap("a", value)
    with pytest.raises(TypeError, match="expected name -> derivative, got list"):
        checked([X])


@pytest.mark.slow
def test_an_exact_constant_does_not_accuse() -> None:
    """0.1 is another number in float32: float64 derivatives by hand stand."""
    x = np.array([0.3, 0.7])

    def constants(x: Any) -> Any:
        return jnp.sum(jnp.exp(0.1 * tap("y", 0.3 * x)))

    right = 0.1 * np.exp(0.1 * (0.3 * x))
    report = check_gradients(constants, x, intermediates={"y": right})
    assert report.passed
    assert links(report)["d_y"].verdict is Verdict.AGREE
    off = check_gradients(constants, x, intermediates={"y": right * (1 + 1e-5)})
    assert links(off)["d_y"].verdict is Verdict.DISAGREE
