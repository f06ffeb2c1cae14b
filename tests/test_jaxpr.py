"""One reader and one interpreter serve every use of a traced program."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxnet.jaxpr.dependence import dependence, dependent
from jaxnet.jaxpr.evaluate import bind, enter, evaluate
from jaxnet.jaxpr.lines import source_line
from jaxnet.jaxpr.reader import MOST_ROUNDS, enclosing, every_equation, is_literal, work

X = jnp.array([0.3, -0.7, 1.1, 0.2])
KEY = jax.random.key(0)


@jax.custom_jvp
def jvp_rule(x: Any) -> Any:
    """A rule whose derivative is 3, whatever it computes."""
    return jnp.log(x + 1e-7)


jvp_rule.defjvp(lambda primals, tangents: (jvp_rule(*primals), 3.0 * tangents[0]))


@jax.custom_vjp
def vjp_rule(x: Any) -> Any:
    """A rule whose derivative is 5, whatever it computes."""
    return jnp.log(x + 1e-7)


vjp_rule.defvjp(lambda x: (vjp_rule(x), None), lambda _, c: (5.0 * c,))


def scanned(x: Any) -> Any:
    """Rows backwards, with what is carried and what is given by rows."""

    def body(h: Any, row: Any) -> Any:
        return jnp.tanh(h * x[0] + row), h**2

    last, rows = jax.lax.scan(body, x[1], x, reverse=True, unroll=2)
    return last + jnp.sum(rows * jnp.arange(4.0))


def looped(x: Any) -> Any:
    """A while loop with constants in its test and its body, and a for loop."""
    end = jax.lax.while_loop(
        lambda s: (s[0] < 9.0) & (s[1] < 40),
        lambda s: (s[0] + x[2], s[1] + 1),
        (x[0], 0),
    )
    return end[0] * end[1] + jax.lax.fori_loop(0, 3, lambda i, h: h * x[3] + i, x[1])


def branched(x: Any) -> Any:
    """Branches by a value, by a number, and by the platform."""
    y = jax.lax.cond(x[0] > 0, jnp.sin, jnp.cos, x)
    z = jax.lax.switch(7, [jnp.sin, jnp.cos, jnp.tanh], x)
    p = jax.lax.platform_dependent(x, cpu=jnp.exp, cuda=jnp.exp)
    return jnp.sum(y * z * p)


def solved(x: Any) -> Any:
    """A solve with its rule for derivatives."""
    return jnp.sum(jnp.linalg.solve(jnp.outer(x, x) + jnp.eye(4), x))


def called(x: Any) -> Any:
    """Calls in calls: jit, checkpoint, custom rules, vmap, random keys."""
    drawn = jax.jit(lambda k: jax.random.normal(k, (4,)))(KEY)
    y = jax.checkpoint(lambda v: jnp.sin(jax.nn.relu(v)) * v)(x + drawn)
    return jnp.sum(jax.jit(jax.vmap(jax.nn.softplus))(y) + vjp_rule(x**2))


def sharded(x: Any) -> Any:
    """A shard_map with a collective."""
    mesh = Mesh(np.array(jax.devices()[:1]), ("i",))
    spec = PartitionSpec("i")
    body = jax.shard_map(
        lambda y: y * jax.lax.psum(y, "i"), mesh=mesh, in_specs=spec, out_specs=spec
    )
    return jnp.sum(body(x))


def keys_in_scan(x: Any) -> Any:
    """Typed keys as what is carried and as rows."""

    def body(key: Any, row: Any) -> Any:
        key, use = jax.random.split(key)
        return key, jax.random.uniform(use) + jax.random.uniform(row)

    rows = jax.lax.scan(body, KEY, jax.random.split(KEY, 4))[1]
    return jnp.sum(rows * x)


PROGRAMS = [scanned, looped, branched, solved, called, sharded, keys_in_scan]


def as_it_is(equation: Any, inputs: list[Any]) -> None:
    """A hook that changes nothing."""


@pytest.mark.slow
@pytest.mark.parametrize("function", PROGRAMS)
def test_unchanged(function: Any) -> None:
    """Evaluated with an idle hook, eagerly, jitted or in Python: the same value."""
    closed = jax.make_jaxpr(function)(X)
    expected = jax.jit(function)(X)

    def again(x: Any) -> Any:
        return evaluate(closed, [x], as_it_is)[0]

    in_python = evaluate(closed, [X], as_it_is, in_python=True)[0]
    for value in (again(X), jax.jit(again)(X), in_python):
        np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("function", [scanned, branched, solved, sharded, keys_in_scan])
def test_differentiable(function: Any) -> None:
    """What is built anew has the derivative of the original, a solve by its rule."""
    closed = jax.make_jaxpr(function)(X)
    gradient = jax.grad(lambda x: evaluate(closed, [x], as_it_is)[0])(X)
    np.testing.assert_allclose(gradient, jax.grad(function)(X), rtol=1e-5)
    batched = jax.vmap(lambda x: evaluate(closed, [x], as_it_is)[0])
    if function is not sharded:
        points = jnp.stack([X, 2 * X])
        np.testing.assert_allclose(
            batched(points), jax.vmap(function)(points), rtol=1e-5
        )


def test_consts_in_place() -> None:
    """Other constants take the place of the program's own."""
    data = jnp.arange(4.0)
    closed = jax.make_jaxpr(lambda x: jnp.sum(x * data))(X)
    assert len(closed.consts) == 1
    (value,) = evaluate(closed, [X], as_it_is, consts=[data + 1])
    np.testing.assert_allclose(value, jnp.sum(X * (data + 1)), rtol=1e-6)


# ------------------------------------------------------------------------- the reader


def names(equations: Any) -> list[str]:
    """The primitives of equations."""
    return [e.primitive.name for e in equations]


@pytest.mark.parametrize(
    ("function", "outputs", "inner", "still"),
    [
        (lambda a, b: (jnp.sin(a), jnp.cos(b)), [True, False], "sin", "cos"),
        (jax.jit(lambda a, b: (jnp.sin(a), jnp.cos(b))), [True, False], "sin", "cos"),
        (  # what is carried depends from the second round on
            lambda a, b: jax.lax.fori_loop(
                0, 3, lambda i, s: (jnp.sin(s[1]), s[1] * a, jnp.cos(s[2])), (b, b, b)
            ),
            [True, True, False],
            "sin",
            "cos",
        ),
        (
            lambda a, b: jax.lax.scan(
                lambda h, r: (h + r[0], (jnp.sin(r[0]), jnp.cos(r[1]))), a[0], (a, b)
            )[1],
            [True, False],
            "sin",
            "cos",
        ),
        (  # the number of rounds depends
            lambda a, b: jax.lax.while_loop(
                lambda s: jnp.sin(s[0]) < 0.5,
                lambda s: (s[0] + a[0], s[1] + 1.0),
                (b[0], b[1]),
            ),
            [True, True],
            "sin",
            "cos",
        ),
        (  # the index of the branch alone
            lambda a, b: jax.lax.cond(a[0] > 0, jnp.sin, jnp.cos, b),
            [True],
            "cond",
            "sin",
        ),
        (
            lambda a, b: jax.lax.cond(
                b[0] > 0,
                lambda u, v: (u, v),
                lambda u, v: (jnp.sin(u), jnp.cos(v)),
                a,
                b,
            ),
            [True, False],
            "sin",
            "cos",
        ),
        (
            lambda a, b: jax.lax.reduce(a, b[0], lambda x, y: x * y, (0,)),
            [True],
            "mul",
            "cos",
        ),
    ],
)
def test_dependence(function: Any, outputs: list[bool], inner: str, still: str) -> None:
    """What depends on the first input, inside calls, loops and branches too."""
    closed = jax.make_jaxpr(function)(X, X)
    found = names(dependent(closed, [True, False]))
    assert dependence(closed, [True, False]).outputs == outputs
    assert inner in found
    assert still not in found
    assert not dependent(closed, [False, False])


def test_work() -> None:
    """Numbers computed: in a scan once a round, in a while loop once each it may have.

    The loops here compute a flag, a counter and the like beside what they are for.
    """

    def rounds(length: int) -> Any:
        return lambda x: jax.lax.scan(lambda c, _: (c * x, None), x, None, length)[0]

    sizes = [work(jax.make_jaxpr(rounds(n))(np.ones(7, np.float32))) for n in (3, 5)]
    assert sizes[1] - sizes[0] == 2 * 7
    assert work(jax.make_jaxpr(jnp.sin)(np.ones((2, 3), np.float32))) == 6
    assert work(jax.make_jaxpr(looped)(X)) >= MOST_ROUNDS


def test_outer_before_inner() -> None:
    """The order of the program, each equation once, with the one it stands in."""
    closed = jax.make_jaxpr(looped)(X)
    found = dependent(closed, [True])
    everything = [id(e) for e in every_equation(closed)]
    positions = [everything.index(id(e)) for e in found]
    assert positions == sorted(set(positions))
    outer = enclosing(closed)
    tests = [e for e in every_equation(closed) if e.primitive.name == "lt"]
    assert {outer[id(e)].primitive.name for e in tests} == {"while"}
    assert "test_jaxpr.py" in source_line(tests[0])


# ------------------------------------------------------------------- the interpreter


def narrow_sum(x: Any) -> Any:
    """A sum in float32 that loses 1e-8 in a loop, a branch and a rule."""

    def body(h: Any, row: Any) -> Any:
        return jax.lax.cond(row > 0, lambda a: a + 1e-8, lambda a: a, h), None

    return jax.lax.scan(body, x[0] * 0.0 + 1.0, jnp.ones(4, jnp.float32))[0]


def test_widens() -> None:
    """(1) A hook with another dtype for every equation, through loop and branch."""
    closed = jax.make_jaxpr(narrow_sum)(X)

    def widened(x: Any) -> Any:
        narrow = getattr(x, "dtype", None) == np.float32
        return jnp.asarray(x, np.float64) if narrow else x

    def wide(equation: Any, inputs: list[Any]) -> Any:
        return enter(
            equation,
            [widened(x) for x in inputs],
            lambda jaxpr, values: evaluate(jaxpr, values, wide),
        )

    with jax.enable_x64(True):
        (value,) = evaluate(closed, [jnp.asarray(X, np.float64)], wide)
    assert evaluate(closed, [X], as_it_is)[0] == 1.0
    np.testing.assert_allclose(float(value), 1.0 + 4e-8, rtol=1e-14)


def test_records_decisions() -> None:
    """(2) What a program decides on two sides of a kink, in order, with its choices."""

    @jax.jit
    def kinked(x: Any) -> Any:
        y = jax.lax.fori_loop(0, 2, lambda i, h: jnp.maximum(h, 0.25 * i), x)
        y = jax.lax.while_loop(lambda s: s < 1.0, lambda s: 2 * s, y)
        return jax.lax.cond(x > 0, lambda a: jnp.abs(a), lambda a: a, y - 1.5)

    closed = jax.make_jaxpr(kinked)(0.5)

    def decisions(x: float) -> list[tuple[str, Any]]:
        found: list[tuple[str, Any]] = []

        def seen(equation: Any, inputs: list[Any]) -> None:
            if equation.primitive.name in ("max", "abs", "lt", "gt"):
                found.append(
                    (equation.primitive.name, np.sign(np.subtract(*[*inputs, 0.0][:2])))
                )

        def chosen(equation: Any, choice: Any) -> None:
            found.append((equation.primitive.name, choice))

        evaluate(closed, [jnp.float32(x)], seen, in_python=True, chosen=chosen)
        return found

    below, above = decisions(0.2), decisions(0.3)
    assert [n for n, _ in above] == [
        *("max", "max", "lt", "while", "lt", "while", "lt", "while"),
        *("gt", "cond", "abs"),
    ]
    assert [c for n, c in above if n in ("while", "cond")] == [True, True, False, 1]
    assert below[0] == above[0]
    assert below[1] != above[1]


def test_most_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    """An endless loop ends in Python."""
    closed = jax.make_jaxpr(
        lambda x: jax.lax.while_loop(lambda s: s > 0, lambda s: s + 1, x)
    )(1.0)
    monkeypatch.setattr("jaxnet.jaxpr.evaluate.MOST_ROUNDS", 7)
    (value,) = evaluate(closed, [1.0], as_it_is, in_python=True)
    assert value == 8.0


GUARDED = {
    "plain": lambda x: jnp.log(x + 1e-7),
    "jit": jax.jit(lambda x: jnp.log(x + 1e-7)),
    "scan": lambda x: jax.lax.scan(
        lambda h, r: (h * jnp.log(x + 1e-7), None), 1.0, jnp.arange(1.0)
    )[0],
    "carried": lambda x: jnp.log(jax.lax.fori_loop(0, 2, lambda i, h: h + 1e-7, x)),
    "while": lambda x: jax.lax.while_loop(
        lambda s: s > 0, lambda s: jnp.log(s + 1e-7), x
    ),
    "cond": lambda x: jax.lax.cond(x < 1, lambda a: jnp.log(a + 1e-7), jnp.sin, x),
    "jvp rule": jvp_rule,
    "vjp rule": vjp_rule,
    "checkpoint": jax.checkpoint(lambda x: jnp.log(x + 1e-7)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", GUARDED)
def test_drops_a_guard(name: str) -> None:
    """(3) Without a small constant that is added, wherever it stands."""
    closed = jax.make_jaxpr(GUARDED[name])(jnp.float32(1e-7))

    def unguarded(equation: Any, inputs: list[Any]) -> Any:
        small = [is_literal(v) and abs(v.val) <= 1e-4 for v in equation.invars]
        if equation.primitive.name == "add" and any(small):
            return [inputs[small.index(False)]]
        return None

    def without(x: Any) -> Any:
        return evaluate(closed, [x], unguarded)[0]

    x = jnp.float32(1e-7)
    assert abs(evaluate(closed, [x], as_it_is)[0] - without(x)) > 0.5
    np.testing.assert_allclose(without(x), np.log(1e-7), rtol=1e-6)
    if name != "while":
        np.testing.assert_allclose(jax.grad(without)(x), 1e7, rtol=1e-5)
    else:
        np.testing.assert_allclose(
            jax.jvp(without, (x,), (jnp.float32(1.0),))[1], 1e7, rtol=1e-5
        )


def test_off_by_an_ulp() -> None:
    """(4) Every result off by an ulp at random: the value spreads by some ulps."""
    closed = jax.make_jaxpr(jax.jit(scanned))(X)
    random = np.random.default_rng(0)

    def off(equation: Any, inputs: list[Any]) -> Any:
        if equation.primitive.name in ("jit", "scan"):
            return None
        ulps = random.integers(-1, 2, equation.outvars[0].aval.shape) * 2.0**-23
        return [
            y * jnp.asarray(1 + ulps, y.dtype)
            if jnp.issubdtype(y.dtype, np.floating)
            else y
            for y in bind(equation, inputs)
        ]

    values = [float(evaluate(closed, [X], off, in_python=True)[0]) for _ in range(4)]
    assert 0 < np.ptp(values) < 1e-5


def test_one_more_round() -> None:
    """(5) A solver inside a scan inside jit gets a round more, a counted loop none."""

    @jax.jit
    def roots(x: Any) -> Any:
        def root(a: Any) -> Any:
            return jax.lax.while_loop(
                lambda s: jnp.abs(s * s - a) > 0.1, lambda s: (s + a / s) / 2, a
            )

        def counted(a: Any) -> Any:
            return jax.lax.while_loop(
                lambda s: s[0] < 3, lambda s: (s[0] + 1, 2 * s[1]), (0, a)
            )[1]

        return jax.lax.scan(lambda h, a: (h + root(counted(a)), None), 0.0, x)[0]

    points = jnp.array([2.0, 3.0])
    closed = jax.make_jaxpr(roots)(points)

    def longer(equation: Any, inputs: list[Any]) -> Any:
        if equation.primitive.name != "while":
            return None
        test = equation.params["cond_jaxpr"]
        floats = [jnp.issubdtype(v.aval.dtype, np.floating) for v in test.jaxpr.invars]
        if not dependence(test, floats).outputs[0]:
            return None
        n, m = equation.params["cond_nconsts"], equation.params["body_nconsts"]
        state = bind(equation, inputs)
        return evaluate(
            equation.params["body_jaxpr"], [*inputs[n : n + m], *state], longer
        )

    expected = np.sum(np.sqrt(8 * np.asarray(points)))
    plain = abs(float(roots(points)) - expected)
    (value,) = evaluate(closed, [points], longer)
    assert abs(float(value) - expected) < 0.1 * plain


@pytest.mark.parametrize("kept", [jvp_rule, vjp_rule])
def test_switches_one_rule_off(kept: Any) -> None:
    """(6) One rule replaced by what it computes; the others keep their derivative."""

    @jax.jit
    def both(x: Any) -> Any:
        def body(h: Any, row: Any) -> Any:
            return h + jvp_rule(x) + vjp_rule(x) + jax.lax.stop_gradient(2 * x), None

        return jax.lax.scan(body, 0.0, jnp.arange(2.0))[0]

    closed = jax.make_jaxpr(both)(1.0)
    kind = "custom_jvp_call" if kept is jvp_rule else "custom_vjp_call"

    def off(equation: Any, inputs: list[Any]) -> Any:
        return bind(equation, inputs) if equation.primitive.name == kind else None

    def moved(equation: Any, inputs: list[Any]) -> Any:
        if equation.primitive.name == "stop_gradient":
            return inputs
        return bind(equation, inputs) if "custom" in equation.primitive.name else None

    rule = 3.0 if kept is jvp_rule else 5.0
    gradient = jax.grad(lambda x: evaluate(closed, [x], off)[0])
    np.testing.assert_allclose(gradient(1.0), 2 * (rule + 1), rtol=1e-6)
    gradient = jax.grad(lambda x: evaluate(closed, [x], moved)[0])
    np.testing.assert_allclose(gradient(1.0), 2 * (3 + 5 + 2), rtol=1e-6)
    assert jax.grad(both)(1.0) == 2 * (3 + 5)
