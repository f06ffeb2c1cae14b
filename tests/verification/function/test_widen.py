"""A widened program is its caller's own, in float64, and leaves him as he was."""

import contextlib
import gc
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import pallas as pl
from jax.sharding import Mesh, PartitionSpec

from jaxnet import Verdict, check_gradients, numerical_gradient
from jaxnet.precision import DOUBLE
from jaxnet.verification.function.widen import Widened

pytestmark = pytest.mark.slow

R = np.random.default_rng(0)
A, B = (R.normal(size=s).astype(np.float32) * 0.4 for s in ((8, 16), (16, 4)))
X = R.normal(size=(10, 8))
X32 = X.astype(np.float32)
Y = R.integers(4, size=10)
KEY = jax.random.key(0)
F32, BF16 = jnp.float32, jnp.bfloat16
EPS32, EPS16 = float(np.finfo(np.float32).eps), 2.0**-7

FORMULA = 1e-15
"""A value in float64 against its formula in NumPy: some roundings."""

DERIVATIVE = 1e-8
"""A widened gradient against differences of the widened program: what extrapolated
central differences reach in float64, whatever the dtypes as run."""


def in_float64(widened: Widened, values: list[Any], *moved: Any) -> Any:
    """The widened function as its user calls it: compiled, under x64."""
    with jax.enable_x64(True):
        result = jax.jit(lambda v: widened(v, *moved))(
            [np.asarray(v, np.float64) for v in values]
        )
        return jax.tree.map(np.asarray, result)


# ----------------------------------------------------------------- nineteen programs


def mlp(p: Any) -> Any:
    """A classifier in float32."""
    logits = jnp.tanh(jnp.asarray(X, F32) @ p["a"]) @ p["b"]
    return -jnp.mean(jax.nn.log_softmax(logits)[jnp.arange(10), Y])


@jax.jit
def jitted_over_float64(p: Any) -> Any:
    """A jitted loss that closes over NumPy's float64 data."""
    return jnp.mean(jnp.tanh(X @ p["a"] @ p["b"]) ** 2)


def bfloat16_net(p: Any) -> Any:
    """Parameters in float32, computed with in bfloat16."""
    hidden = jax.nn.gelu(jnp.asarray(X, BF16) @ p["a"].astype(BF16))
    return jnp.mean((hidden @ p["b"].astype(BF16)).astype(F32) ** 2)


def dropout(p: Any) -> Any:
    """Dropout and noise from a typed key, in bfloat16."""
    h = jax.nn.relu(jnp.asarray(X, BF16) @ p["a"].astype(BF16))
    h = jnp.where(jax.random.bernoulli(KEY, 0.8, h.shape), h / 0.8, 0)
    noise = jax.random.normal(KEY, (10, 4))
    return jnp.mean(((h @ p["b"].astype(BF16)).astype(F32) + noise) ** 2)


def finfo_eps(p: Any) -> Any:
    """A guard that depends on the dtype."""
    return jnp.sum(jnp.sqrt(p["a"] ** 2 + jnp.finfo(p["a"].dtype).eps))


def rnn(p: Any) -> Any:
    """A scan that starts from zeros in float32: it cannot be traced under x64."""

    def step(h: Any, x: Any) -> Any:
        return jnp.tanh(h @ p["a"][:, :8] + x), h

    return jnp.sum(jax.lax.scan(step, jnp.zeros(8, F32), jnp.asarray(X, F32))[0] ** 2)


def cond(p: Any) -> Any:
    """A branch."""
    branches = lambda q: jnp.sum(jnp.sin(q)), lambda q: jnp.sum(jnp.cos(q))
    return jax.lax.cond(p["a"][0, 0] > 0, *branches, p["a"])


def fori(p: Any) -> Any:
    """A counted loop."""

    def step(_: Any, h: Any) -> Any:
        return jnp.tanh(h @ p["a"][:, :8])

    return jnp.sum(jax.lax.fori_loop(0, 4, step, jnp.asarray(X, F32)))


def checkpoint(p: Any) -> Any:
    """A rematerialised part."""
    inner = jax.checkpoint(lambda q: jnp.sin(jnp.asarray(X, F32) @ q))
    return jnp.sum(inner(p["a"]) ** 2)


def vmapped(p: Any) -> Any:
    """A vmap."""
    rows = jax.vmap(lambda x: jnp.linalg.norm(x @ p["a"]))
    return jnp.sum(rows(jnp.asarray(X, F32)))


def linalg(p: Any) -> Any:
    """Factorisations and solves."""
    matrix = p["a"] @ p["a"].T + jnp.eye(8)
    solution = jnp.linalg.solve(matrix, jnp.ones(8))
    return jnp.linalg.slogdet(matrix)[1] + jnp.sum(solution)


def conv(p: Any) -> Any:
    """A convolution."""
    image, kernel = jnp.asarray(X, F32)[None, None], p["a"][None, None, :3, :3]
    result = jax.lax.conv_general_dilated(image, kernel, (1, 1), "SAME")
    return jnp.sum(result**2)


def order(p: Any) -> Any:
    """Sort, cumulative sum, gather and scatter."""
    rows = jnp.cumsum(jnp.sort(p["a"], 0), 0)[jnp.array([0, 3, 3])]
    return jnp.sum(rows**2) + jnp.sum(p["b"].at[jnp.array([1, 1])].add(1.0) ** 2)


def special(p: Any) -> Any:
    """Special functions."""
    gamma = jax.scipy.special.gammaln(jnp.abs(p["a"]) + 1)
    log_sum = jax.scipy.special.logsumexp(p["a"], 0)[None]
    return jnp.sum(gamma + jax.scipy.special.erf(p["a"]) + log_sum)


def fft(p: Any) -> Any:
    """Complex numbers."""
    return jnp.sum(jnp.abs(jnp.fft.fft(p["a"], axis=0)) ** 2)


def attention(p: Any) -> Any:
    """Attention in bfloat16."""
    q = (jnp.asarray(X, BF16) @ p["a"].astype(BF16)).reshape(10, 2, 8)
    mixed = jax.nn.dot_product_attention(q, q * 0.9, q * 1.1)
    return jnp.sum(mixed.astype(F32) ** 2)


@jax.custom_vjp
def wrong_in_float32(v: Any) -> Any:
    """A rule that is twice too large in float32 only."""
    return jax.nn.softplus(v)


wrong_in_float32.defvjp(
    lambda v: (wrong_in_float32(v), v),
    lambda v, c: ((2 if v.dtype == F32 else 1) * c * jax.nn.sigmoid(v),),
)


def wrong_rule(p: Any) -> Any:
    """The rule that is wrong as its user runs it."""
    return jnp.sum(wrong_in_float32(p["a"]))


def gamma_noise(p: Any) -> Any:
    """Noise whose draws differ under x64."""
    noise = jax.random.gamma(jax.random.PRNGKey(0), 2.0, (8, 16))
    return jnp.sum((p["a"] * noise) ** 2)


class Block(nn.Module):
    """A transformer block of flax in bfloat16."""

    @nn.compact
    def __call__(self, x: Any) -> Any:
        """Dense, layer norm, attention, gelu, dense."""
        x = nn.LayerNorm(dtype=BF16)(nn.Dense(16, dtype=BF16)(x))
        x = x + nn.MultiHeadDotProductAttention(2, dtype=BF16)(x)
        return nn.Dense(4, dtype=BF16)(nn.gelu(x)).astype(F32)


def block(p: Any) -> Any:
    """The loss of the block."""
    return jnp.mean(Block().apply(p, jnp.asarray(X, F32)[None]) ** 2)


AS_RUN = {
    mlp: 1e-6,
    jitted_over_float64: 2e-6,
    bfloat16_net: 2e-2,
    dropout: 2e-2,
    finfo_eps: 1e-6,
    rnn: 1e-5,
    cond: 1e-6,
    fori: 2e-6,
    checkpoint: 1e-6,
    vmapped: 1e-6,
    linalg: 1e-5,
    conv: 1e-6,
    order: 1e-6,
    special: 2e-6,
    fft: 1e-6,
    attention: 3e-2,
    wrong_rule: 1e-6,
    gamma_noise: 2e-6,
    block: 2e-2,
}
"""How far each gradient as run may lie from the widened one: some ε of its dtype."""


@pytest.mark.parametrize("loss", AS_RUN, ids=lambda f: f.__name__)
def test_nineteen_programs(loss: Callable[[Any], Any]) -> None:
    """Differences, the widened gradient and the gradient as run say the same."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        params = {"a": A, "b": B}
        if loss is block:
            params = jax.jit(Block().init)(KEY, jnp.asarray(X, F32)[None])
        flat, tree = jax.tree.flatten(params)

        def of_leaves(leaves: list[Any]) -> Any:
            return loss(jax.tree.unflatten(tree, leaves))

        program = Widened.of(of_leaves, flat)
        gradient = Widened.of(jax.grad(of_leaves), flat, known=program.constants)
        as_run = jax.tree.leaves(jax.jit(jax.grad(loss))(params))
    point = [np.asarray(x, np.float64) for x in flat]
    random = np.random.default_rng(1)
    ray = [random.normal(size=x.shape) * np.maximum(np.abs(x), 0.1) for x in point]

    @jax.jit
    @jax.vmap
    def along(t: Any) -> Any:
        return program([x + t * v for x, v in zip(point, ray, strict=True)])

    steps = 1e-3 * 2.0 ** -np.arange(0, 8)
    with jax.enable_x64(True):
        up, down = np.asarray(along(steps)), np.asarray(along(-steps))
    assert up.dtype == np.float64
    central = (up - down) / (2 * steps)
    once = (4 * central[1:] - central[:-1]) / 3  # Richardson
    twice = (16 * once[1:] - once[:-1]) / 15
    best = int(np.argmin(np.abs(np.diff(twice))))

    def directional(leaves: Any) -> float:
        pairs = zip(leaves, ray, strict=True)
        return float(sum(np.sum(np.asarray(d, np.float64) * v) for d, v in pairs))

    widened = directional(in_float64(gradient, point))
    assert directional(as_run) == pytest.approx(widened, rel=AS_RUN[loss])
    assert program.precision() == DOUBLE
    if loss is wrong_rule:  # the widened rule is wrong as its user's is
        assert widened == pytest.approx(2 * twice[best], rel=DERIVATIVE)
    else:
        assert widened == pytest.approx(twice[best], rel=DERIVATIVE)
        assert gradient.precision() == DOUBLE or loss is special
    is_half = loss in (bfloat16_net, dropout, attention, block)
    assert program.own.precision() == (EPS16 if is_half else EPS32)


# ---------------------------------------------------------------------- the constants


def test_numbers_are_exact() -> None:
    """0.1 is the caller's 0.1, not float32's or bfloat16's."""
    for dtype, miss in ((np.float32, 1e-9), (jnp.bfloat16, 1e-4)):
        p = jnp.asarray([0.3, 0.7], dtype)
        program = Widened.of(lambda v: jnp.sum(v[0] * 0.1) / 3.0, [p])
        value = np.asarray(p, np.float64)
        expected = np.sum(value * 0.1) / 3.0
        assert not program.inexact
        assert in_float64(program, [value]) == pytest.approx(expected, rel=FORMULA)
        own = np.sum(value * float(np.asarray(0.1, dtype))) / 3.0
        assert abs(own - expected) > miss * expected


def test_the_own_epsilon_stays() -> None:
    """finfo(dtype).eps is float32's: no number under x64 rounds to it."""
    program = Widened.of(lambda v: v[0] + jnp.finfo(v[0].dtype).eps, [jnp.float32(0)])
    assert in_float64(program, [0.0]) == EPS32


def closing_over(data: np.ndarray) -> dict[str, Callable[[Any], Any]]:
    """Functions that hold NumPy data in each way that JAX remembers differently."""
    last, row, scale = np.array([-1, 0, 2]), data[0], np.array(0.1)

    def times(p: Any) -> Any:
        return data * p[None]

    inner, again = jax.jit(times), jax.checkpoint(times)
    rule = jax.custom_vjp(times)
    rule.defvjp(lambda p: (times(p), None), lambda _, c: (jnp.sum(data * c, 0),))
    return {
        "plain": lambda p: jnp.sum(times(p)),
        "asarray": lambda p: jnp.sum(jnp.asarray(data) * p[None]),
        "jit": jax.jit(lambda p: jnp.sum(times(p))),
        "inner jit": lambda p: jnp.sum(inner(p)),
        "checkpoint": lambda p: jnp.sum(again(p)),
        "rule": lambda p: jnp.sum(rule(p)),
        "cond": lambda p: jax.lax.cond(
            p[0] > 0, lambda q: jnp.sum(times(q)), lambda q: jnp.sum(q), p
        ),
        "scan": lambda p: jax.lax.scan(
            lambda h, x: (h + jnp.sum(x * p), None), jnp.sum(p) * 0, data
        )[0],
        "view": jax.jit(lambda p: jnp.sum(data[:3] * p[None])),
        "index": lambda p: jnp.sum(jnp.asarray(p)[last] * row),
        "jitted index": jax.jit(lambda p: jnp.sum(p[last] * row)),
        "0-d": jax.jit(lambda p: jnp.sum(p) * scale),
    }


KINDS = list(closing_over(X))


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [(kind, np.float64) for kind in KINDS]
    + [(kind, np.float32) for kind in ("plain", "jit", "view", "jitted index")],
)
@pytest.mark.parametrize("is_called_before", [False, True])
def test_data_are_exact_and_the_caller_is_left_alone(
    kind: str, is_called_before: bool, dtype: Any
) -> None:
    """float64 data come out exact, and the function gives its owner what it gave.

    Its gradient too, while the first program lives.
    """
    data = np.random.default_rng(3).normal(size=(3, 3)).astype(dtype)
    p = np.array([0.1, 0.2, 0.3], np.float32)
    expected_as_run = closing_over(data)[kind](p)
    f = closing_over(data)[kind]
    if is_called_before:
        f(p)
    program = Widened.of(lambda v: f(v[0]), [p])
    gradient = Widened.of(jax.grad(lambda v: f(v[0])), [p], known=program.constants)
    assert f(p) == expected_as_run

    rows = data.astype(np.float64)
    slope = {"0-d": np.full(3, 0.1)}.get(kind, rows.sum(0))
    if "index" in kind:
        slope = np.array([rows[0, 1], 0.0, rows[0, 0] + rows[0, 2]])
    value = in_float64(program, [p])
    assert value == pytest.approx(p.astype(np.float64) @ slope, rel=FORMULA)
    (widened,) = in_float64(gradient, [p])
    np.testing.assert_allclose(widened, slope, rtol=FORMULA)
    assert not program.inexact
    assert not gradient.inexact
    if dtype == np.float64:
        cut = slope.astype(np.float32).astype(np.float64)
        assert abs(p.astype(np.float64) @ (cut - slope)) > 1e-10
    np.testing.assert_allclose(jax.grad(f)(p), slope, rtol=1e-6)


def test_caches_are_cleared_only_where_needed(monkeypatch: Any) -> None:
    """His functions compile anew only where a cache holds his data in another dtype."""
    cleared: list[int] = []
    clear = jax.clear_caches

    def count() -> None:
        cleared.append(1)
        clear()

    monkeypatch.setattr(jax, "clear_caches", count)

    def times(data: np.ndarray, kind: str, is_called: bool) -> int:
        f = closing_over(data)[kind]
        if is_called:
            f(np.ones(3, np.float32))
        cleared.clear()
        Widened.of(lambda v: f(v[0]), [np.ones(3, np.float32)])
        return len(cleared)

    narrow, wide = X32[:3, :3].copy(), X[:3, :3].copy()
    for kind in KINDS:
        for is_called in (False, True):
            if kind not in ("jitted index", "0-d"):
                assert times(narrow, kind, is_called) == 0
                assert times(X32[:3, :3], kind, is_called) == 0
    for kind in ("plain", "asarray", "cond", "scan", "index"):
        assert times(wide, kind, False) == times(wide, kind, True) == 0
    for kind in ("jit", "inner jit", "checkpoint"):
        assert times(wide, kind, False) >= 1
        assert times(wide, kind, True) >= 1


@pytest.mark.parametrize(("words", "times"), [("out of range", 0), ("no float64", 1)])
def test_caches_are_not_cleared_for_what_is_raised_anyway(
    monkeypatch: Any, words: str, times: int
) -> None:
    """In both modes alike, unless it may be of a dtype."""
    cleared: list[int] = []
    monkeypatch.setattr(jax, "clear_caches", lambda: cleared.append(1))

    def raising(v: list[Any]) -> Any:
        raise ValueError(words)

    with pytest.raises(ValueError, match=words):
        Widened.of(raising, [X32[0]])
    assert len(cleared) == times


def test_the_whole_heap_is_searched_only_where_data_are_held(
    monkeypatch: Any,
) -> None:
    """The garbage of a trace is young; a model and its libraries are not gone through.

    The collector is afterwards as it was.
    """
    searched: list[int | None] = []
    search = gc.get_objects

    def searching(generation: int | None = None) -> list[Any]:
        searched.append(generation)
        return search(generation)

    def collecting(phase: str, info: dict[str, int]) -> None:
        if phase == "start":
            searched.append(info["generation"])

    def in_old(f: Callable[[Any], Any], error: Any = ()) -> int:
        searched.clear()
        with contextlib.suppress(error):
            Widened.of(lambda v: f(v[0]), [np.ones(3, np.float32)])
        return sum(generation in (None, 2) for generation in searched)

    def in_one_mode(p: Any) -> Any:
        if p.dtype != np.float32:
            raise TypeError("float32 only")
        return jnp.sum(p)

    def in_bfloat16(p: Any) -> Any:
        return jnp.sum(jnp.asarray(X[0, :3], BF16) * p.astype(BF16))

    monkeypatch.setattr(gc, "get_objects", searching)
    gc.callbacks.append(collecting)
    try:
        for data in (X32[:3, :3].copy(), X[:3, :3].copy()):
            functions = closing_over(data)
            assert in_old(functions["plain"]) == in_old(functions["asarray"]) == 0
        assert in_old(functions["jit"]) >= 1
        assert in_old(in_bfloat16) == 0
        assert in_old(in_one_mode) == 0
        for is_collecting in (True, False):
            (gc.enable if is_collecting else gc.disable)()
            assert in_old(lambda p: float(p[0]), jax.errors.JAXTypeError) == 0
            assert 1 in searched
            assert gc.isenabled() == is_collecting
    finally:
        gc.enable()
        gc.callbacks.remove(collecting)


def test_numbers_that_stay_inexact() -> None:
    """Without a trace under x64 a full mantissa is a rounding; its effect is measured.

    So is a number that meets an array cast to bfloat16, and data cast on the way.
    """

    def from_float32(v: list[Any]) -> Any:
        def step(h: Any, _: Any) -> Any:
            return h * 0.3 + v[0] * 0.5, None

        return jax.lax.scan(step, jnp.zeros((), F32), None, length=2)[0]

    program = Widened.of(from_float32, [jnp.float32(0.7)])
    (constant,) = program.inexact
    assert constant.value == np.float32(0.3)
    assert constant.uncertainty == 2.0**-26  # 0.3 lies between 2^-2 and 2^-1
    value = in_float64(program, [0.7])
    with jax.enable_x64(True):
        change = np.array([*program.shifts([np.float64(0.7)])]) / (0.35 * 2.0**-26)
        assert not [*program.shifts([np.float64(0.7)], program.constants)]
    assert set(np.round(change, 6)) == {-1.0, 1.0}
    exact = 0.35 * 0.3 + 0.35
    assert 1e-10 < abs(value - exact) <= 0.35 * 2.0**-26

    cast = Widened.of(lambda v: jnp.sum(jnp.asarray(X, BF16) * v[0]), [BF16(1.0)])
    assert [c.value.shape for c in cast.inexact] == [X.shape]
    assert np.all(np.abs(cast.inexact[0].value - X) <= cast.inexact[0].uncertainty)
    scaled = Widened.of(lambda v: v[0].astype(BF16) * 0.1, [jnp.float32(1.0)])
    assert [float(c.uncertainty) for c in scaled.inexact] == [2.0**-12]


def test_float32_data_are_exact() -> None:
    """What the caller holds in float32 himself has no uncertainty, as NumPy or JAX."""
    data = jnp.asarray(X32) + 0
    for f in (lambda v: jnp.sum(X32 * v[0]), lambda v: jnp.sum(data * v[0])):
        program = Widened.of(f, [jnp.float32(1.0)])
        assert not program.inexact
        expected = np.sum(X32.astype(np.float64))
        assert in_float64(program, [1.0]) == pytest.approx(expected, rel=1e-14)


def test_bytes_are_divided_exactly() -> None:
    """What is computed from constants alone is computed in float64: images / 255."""
    images = np.arange(12, dtype=np.uint8).reshape(4, 3)
    program = Widened.of(
        lambda v: jnp.sum(jnp.asarray(images, F32) / 255.0 @ v[0]), [jnp.ones(3)]
    )
    expected = np.sum(images / 255.0)
    assert in_float64(program, [np.ones(3)]) == pytest.approx(expected, rel=FORMULA)
    own = np.sum((images / np.float32(255.0)).astype(np.float64))
    assert abs(own - expected) > 1e-9


# ------------------------------------------------------------------------ random draws


def test_draws_of_a_loop_are_known_as_its_caller_s_dtype() -> None:
    """A loss and its gradient may draw them an ulp of float32 apart; not more."""
    for seed in range(4):
        keys = jax.random.split(jax.random.key(seed), 5)

        def loss(p: Any, keys: Any = keys) -> Any:
            def step(c: Any, key: Any) -> Any:
                return c + p * 0.1 * jax.random.normal(key), None

            return jax.lax.scan(step, 1.0, keys)[0] ** 2

        p = np.float32(0.3)
        report = check_gradients(loss, p)
        assert report.passed, str(report)
        assert report.leaves[0].resolution < 1e-5
        slope = np.float32(jax.grad(loss)(p) * (1 + 3e-5))
        off = check_gradients(loss, p, {"off": slope})
        assert not off.passed or off.leaves[0].resolution >= 3e-5


def test_dropout_in_a_recurrent_net() -> None:
    """Masks are drawn in a scan, and integers are counted there."""
    random = np.random.default_rng(3)
    params = {"W": random.normal(size=(4, 4)) * 0.5, "b": random.normal(size=4)}
    params = jax.tree.map(np.float32, params)

    def loss(p: Any) -> Any:
        def step(c: Any, i: Any) -> Any:
            mask = jax.random.bernoulli(jax.random.fold_in(KEY, i), 0.7, c.shape)
            h = jnp.where(mask, c / 0.7, 0)
            return jnp.tanh(h @ p["W"] + p["b"]), jnp.sum(c**2)

        last, losses = jax.lax.scan(step, jnp.ones(4, jnp.float32), jnp.arange(5))
        return jnp.sum(last**2) + jnp.sum(losses)

    assert check_gradients(loss, params).passed
    right = jax.grad(loss)(params)
    wrong = {**right, "b": right["b"] * np.float32([1, 1, 1, 1.001])}
    report = check_gradients(loss, params, {"right": right, "wrong": wrong})
    found = {x.candidate: x.passed for x in report.leaves if x.path == "['b']"}
    assert found == {"right": True, "wrong": False}


# --------------------------------------------------- numbers of a loop, of no parameter


def cosine_steps(p: Any) -> Any:
    """Steps down a sine, each at its rate."""

    def step(q: Any, i: Any) -> Any:
        return q - 0.05 * (1 + jnp.cos(jnp.pi * i / 10)) * jnp.sin(q), None

    return jnp.sum(jax.lax.scan(step, p, jnp.arange(10))[0])


def discounted(p: Any) -> Any:
    """Rewards, each less than the one before by a power."""

    def step(t: Any, total: Any) -> Any:
        return total + 0.97**t * jnp.sum(jnp.tanh(p * X32[0, :4]) / (t + 3))

    return jax.lax.fori_loop(0, 6, step, jnp.float32(0))


def bias_corrected(p: Any) -> Any:
    """Adam, whose moments are corrected by powers of the step."""

    def step(c: Any, i: Any) -> Any:
        q, m, v = c
        g = 2 * (q - X32[0, :4])
        m, v, t = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g**2, i + 1
        rate = (m / (1 - 0.9**t)) / jnp.sqrt(v / (1 - 0.99**t) + 1e-3)
        return (q - 0.1 * rate, m, v), None

    zero = jnp.zeros(4, F32)
    return jnp.sum(jax.lax.scan(step, (p, zero, zero), jnp.arange(4))[0][0] ** 2)


def in_loops_of_loops(p: Any) -> Any:
    """Two counters, and what one of them gives is stacked."""

    def outer(x: Any, i: Any) -> Any:
        inner = lambda j, x: jnp.sin(x * p + (3 * i + j) / 11)  # noqa: E731
        return jax.lax.fori_loop(0, 3, inner, x), jnp.float32(i) / 3

    last, stacked = jax.lax.scan(outer, jnp.ones(4, F32), jnp.arange(3))
    return jnp.sum(last**2) * jnp.sum(stacked)


def in_half_precision(p: Any) -> Any:
    """A counter cast to bfloat16, in a net of that dtype."""

    def step(h: Any, i: Any) -> Any:
        return jnp.tanh(h * p.astype(BF16) + (i / 7).astype(BF16)), None

    return jnp.sum(jax.lax.scan(step, jnp.ones(4, BF16), jnp.arange(4))[0].astype(F32))


@pytest.mark.parametrize(
    "loss",
    [
        cosine_steps,
        discounted,
        bias_corrected,
        in_loops_of_loops,
        in_half_precision,
    ],
)
def test_numbers_that_a_loop_computes_are_known_in_float64(loss: Any) -> None:
    """Of a counter, which the loss and its gradient compute in two programs."""
    with jax.numpy_dtype_promotion("standard"):
        p = np.array([0.3, 0.9, 1.2, 0.6], np.float32)
        report = check_gradients(loss, p, {"jax": jax.grad(loss)})
        assert report.passed, str(report)
        assert report.leaves[0].error < 1e-9
        off = np.asarray(jax.grad(loss)(p)) * np.float32([1, 1.3, 1, 1])
        assert not check_gradients(loss, p, {"off": off}).passed


def test_what_a_loop_decides_is_decided_as_its_caller_runs_it() -> None:
    """0.1 ten times is 1 in float32, and less in float64."""

    def scanned(p: Any) -> Any:
        def step(c: Any, _: Any) -> Any:
            x, t = c
            t = t + jnp.float32(0.1)
            late = lambda x: x * jnp.cos(p)  # noqa: E731
            return (jax.lax.cond(t >= 1, late, lambda x: x + jnp.sin(p), x), t), None

        return jax.lax.scan(step, (p, jnp.float32(0)), None, length=10)[0][0]

    def counted(p: Any) -> Any:
        def body(c: Any) -> Any:
            return c[0] + 0.1 * jnp.sin(p * c[0]), c[1] + jnp.float32(0.1)

        start = p, jnp.float32(0)
        return jax.lax.while_loop(lambda c: c[1] < 1, body, start)[0]

    p = np.float32(0.7)
    assert check_gradients(scanned, p, {"jax": jax.grad(scanned)}).passed
    without = np.float32(1 + 10 * np.cos(0.7))
    assert not check_gradients(scanned, p, {"never late": without}).passed
    forward = jax.jacfwd(counted)
    assert check_gradients(counted, p, {"forward": forward}).passed


def test_draws_that_no_gradient_depends_on_excuse_nothing() -> None:
    """A number of bfloat16 in a branch, added to the loss."""

    def loss(x: Any) -> Any:
        def drawn() -> Any:
            return jax.random.normal(KEY, (), jnp.bfloat16)

        added = jax.lax.cond(x[0] > 0, drawn, lambda: jnp.bfloat16(0))
        return jnp.sum(x**2) + jax.lax.stop_gradient(added.astype(jnp.float32))

    x = np.array([0.5, -0.7, 1.3], np.float32)
    assert check_gradients(loss, x).passed
    report = check_gradients(loss, x, lambda x: 1.001 * jax.grad(loss)(x))
    assert report.verdict is Verdict.DISAGREE


def keyed_scan(p: Any, key: Any) -> Any:
    """A scan that carries a typed key."""

    def step(carry: Any, _: Any) -> Any:
        key, total = carry
        key, use = jax.random.split(key)
        return (key, total + p * jax.random.normal(use)), None

    return jax.lax.scan(step, (key, 0 * p), None, length=3)[0][1]


def draws_of_scan() -> float:
    """The sum of the draws of `keyed_scan`, in float32."""
    key, total = KEY, 0.0
    for _ in range(3):
        key, use = jax.random.split(key)
        total += float(jax.random.normal(use))
    return total


DRAWS: dict[str, tuple[Callable[[Any], Any], Callable[[], Any]]] = {
    "normal": (
        lambda p: jnp.sum(p * jax.random.normal(KEY, (5,))),
        lambda: jax.random.normal(KEY, (5,)),
    ),
    "uniform": (
        lambda p: jnp.sum(p * jax.random.uniform(KEY, (5,), minval=0.1, maxval=0.7)),
        lambda: jax.random.uniform(KEY, (5,), minval=0.1, maxval=0.7),
    ),
    "gamma": (
        lambda p: jnp.sum(p * jax.random.gamma(KEY, 2.3, (5,))),
        lambda: jax.random.gamma(KEY, 2.3, (5,)),
    ),
    "jitted argument": (
        lambda p: jax.jit(lambda k: p * jax.random.normal(k))(KEY),
        lambda: jax.random.normal(KEY),
    ),
    "raw key": (
        lambda p: p * jax.random.normal(jax.random.PRNGKey(1)),
        lambda: jax.random.normal(jax.random.PRNGKey(1)),
    ),
    "carried": (lambda p: keyed_scan(p, KEY), draws_of_scan),
    "permutation": (
        lambda p: jnp.sum(p * jax.random.permutation(KEY, jnp.arange(5.0))[:2]),
        lambda: jax.random.permutation(KEY, jnp.arange(5.0))[:2],
    ),
}


@pytest.mark.parametrize("name", DRAWS)
def test_draws_are_the_callers(name: str) -> None:
    """Random numbers are those of float32, to the last bit."""
    function, drawn = DRAWS[name]
    program = Widened.of(lambda v: function(v[0]), [jnp.float32(0.7)])
    p = float(np.float32(0.7))
    expected = p * np.sum(np.asarray(drawn(), np.float64))
    assert in_float64(program, [p]) == pytest.approx(expected, rel=FORMULA)
    assert program.precision() == DOUBLE


def test_draws_in_a_dropout_mask() -> None:
    """The same units are dropped, and the kept ones scaled by the exact 0.8."""
    program = Widened.of(
        lambda v: jnp.where(jax.random.bernoulli(KEY, 0.8, (9,)), v[0] / 0.8, 0.0),
        [jnp.float32(0.3)],
    )
    mask = np.asarray(jax.random.bernoulli(KEY, 0.8, (9,)))
    assert 0 < mask.sum() < 9
    np.testing.assert_allclose(
        in_float64(program, [0.3]), mask * (0.3 / 0.8), rtol=FORMULA
    )


def test_linear_in_the_parameters() -> None:
    """A gradient that no parameter moves is computed in float64 all the same.

    In loops, from draws, and from data.
    """

    def loss(v: list[Any]) -> Any:
        drawn = jax.random.normal(KEY, (7,)) / 3.0
        rows = jax.lax.scan(lambda h, x: (h + v[0] * x / 7.0, x), v[0], drawn)
        return rows[0] + jnp.mean(drawn) * v[0]

    point = [jnp.float32(0.7)]
    program, gradient = Widened.of(loss, point), Widened.of(jax.grad(loss), point)
    noise = np.asarray(jax.random.normal(KEY, (7,)), np.float64) / 3.0
    slope = 1 + 2 * np.sum(noise) / 7.0
    value = float(np.float32(0.7)) * slope
    assert in_float64(program, point) == pytest.approx(value, rel=FORMULA)
    assert in_float64(gradient, point)[0] == pytest.approx(slope, rel=FORMULA)


# ---------------------------------------------------------------- what can be widened

POINT = np.array([0.31, -0.72, 1.13, 0.24])


def segment(x: Any) -> Any:
    """A scatter-add."""
    return jax.ops.segment_sum(x, jnp.array([0, 1, 0, 1]), 2)


WIDENED: dict[str, Callable[[Any], Any]] = {
    "reducer": lambda x: jax.lax.reduce(x, 1.0, lambda a, b: a * b + 0 * a, (0,)),
    "window": lambda x: jax.lax.reduce_window(
        x, 0.0, lambda a, b: a + jnp.sin(b), (2,), (1,), "VALID"
    ),
    "max pool": jax.grad(
        lambda x: jnp.sum(nn.max_pool(x[None, :, None], (2,), (1,))[0] ** 3)
    ),
    "scatter-add": segment,
    "scatter-mul": lambda x: x.at[jnp.array([1, 1])].mul(x[:2]),
    "scatter-max": lambda x: x.at[jnp.array([1, 1])].max(x[:2]),
    "cumulative": lambda x: jax.lax.cumlogsumexp(x) + jax.lax.cumprod(x),
    "associative scan": lambda x: jax.lax.associative_scan(jnp.multiply, x),
    "sort by key": lambda x: jax.lax.sort((jnp.sin(x), x), num_keys=1)[1],
    "top_k": lambda x: jax.lax.top_k(x, 2)[0],
    "argmax": lambda x: x[jnp.argmax(x)] * jnp.argmin(x).astype(x.dtype),
    "integers of it": lambda x: jnp.floor(x * 7).astype(jnp.int32) / 7.0 * x,
    "reduce_precision": lambda x: jax.lax.reduce_precision(x, 8, 7),
    "accumulated": lambda x: jax.lax.dot(
        x.astype(BF16), x.astype(BF16), preferred_element_type=F32
    ),
    "algorithm": lambda x: jax.lax.dot(
        x, x, precision=jax.lax.DotAlgorithmPreset.BF16_BF16_F32
    ),
    "while": lambda x: jax.lax.while_loop(
        lambda s: jnp.sum(s) < 50.0, lambda s: s * 1.7 + 0.1, jnp.abs(x)
    ),
    "float32 carry": lambda x: jax.lax.fori_loop(
        0, 3, lambda i, h: h * 0.5 + x * i, jnp.zeros(4, x.dtype)
    ),
    "nested rules": lambda x: jax.nn.softplus(jax.nn.silu(jax.nn.relu(x) * x)),
    "solve": lambda x: jax.scipy.sparse.linalg.cg(
        lambda v: (2.0 + x**2) * v, x, maxiter=9
    )[0],
    "triangular": lambda x: jax.scipy.linalg.solve_triangular(
        jnp.eye(4) * (1.0 + x**2), x, lower=True
    ),
    "complex": lambda x: jnp.real(jnp.exp(1j * x) * (0.1 + 0.3j)),
    "platform": lambda x: jax.lax.platform_dependent(x, cpu=jnp.sin, default=jnp.cos),
    "vmapped scan": lambda x: jax.vmap(
        lambda a: jax.lax.scan(lambda h, b: (jnp.sin(h + b), h), a, x)[1]
    )(x),
    "gradient of a scan": jax.grad(
        lambda x: jnp.sum(jax.lax.scan(lambda h, b: (jnp.sin(h * b), h), x[0], x)[1])
    ),
    "gradient of a remat": jax.grad(
        lambda x: jnp.sum(jax.checkpoint(lambda y: jnp.sin(jnp.sin(y)))(x))
    ),
    "print": lambda x: (jax.debug.print("{x}", x=x), x * 0.1)[1],
}


@pytest.mark.parametrize("name", WIDENED)
def test_widened(name: str, capfd: Any) -> None:
    """Each primitive with a dtype, a reducer or a program in it, against x64.

    All 32 points at once, compiled, as a ladder evaluates it.
    """
    function = WIDENED[name]
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        own = POINT.astype(np.float32)
        program = Widened.of(lambda v: function(v[0]), [own])
        scales = np.linspace(0.5, 1.5, 32)[:, None]
        as_run = jax.jit(lambda x: program.as_run([x]))(own)
        np.testing.assert_array_equal(as_run, jax.jit(function)(own))
        with jax.enable_x64(True):
            points = own.astype(np.float64) * scales
            values = jax.jit(jax.vmap(lambda x: program([x])))(points)
            reference = {
                "reduce_precision": lambda x: x,
                "accumulated": lambda x: x @ x,
                "algorithm": lambda x: x @ x,
            }.get(name, function)
            expected = [reference(jnp.asarray(x)) for x in points]
    np.testing.assert_allclose(values, expected, rtol=1e-12, atol=1e-14)
    assert values.dtype == np.float64
    assert program.precision() == DOUBLE
    assert program.own.precision() >= EPS32
    if name == "print":
        assert capfd.readouterr().out.count("\n") <= 34  # as run, and for reference


def double_in_place(x: Any, y: Any) -> None:
    """A Pallas kernel."""
    y[...] = x[...] * 2


CALLBACK = jax.ShapeDtypeStruct((4,), np.float32)

OWN: dict[str, Callable[[Any], Any]] = {
    "callback": lambda x: jax.pure_callback(
        lambda a: np.sin(a).astype(np.float32), CALLBACK, x
    ),
    "pallas": lambda x: pl.pallas_call(double_in_place, CALLBACK, interpret=True)(x),
    "nextafter": lambda x: jnp.nextafter(x, 2 * x),
    "bits": lambda x: jax.lax.bitcast_convert_type(
        jax.lax.bitcast_convert_type(x, jnp.int32) + 1, F32
    ),
    "gamma": lambda x: jax.random.gamma(KEY, jnp.abs(x)),
}


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("wrap", ["plain", "scan", "cond"])
def test_what_cannot_be_widened(name: str, wrap: str) -> None:
    """It runs in its own dtype, between what is widened, and is counted."""

    def wrapped(x: Any) -> Any:
        if wrap == "scan":
            return jax.lax.scan(lambda h, r: (h + OWN[name](r), None), 0 * x, x[None])[
                0
            ]
        if wrap == "cond":
            return jax.lax.cond(x[0] > 0, OWN[name], lambda y: y, x)
        return OWN[name](x)

    own = POINT.astype(np.float32)
    program = Widened.of(lambda v: (wrapped(v[0]) / 3.0, v[1] / 3.0), [own, own])
    assert program.precision() == program.precision(0) == EPS32
    assert program.precision(1) == DOUBLE
    assert program.own.precision(1) == EPS32
    narrow, wide = in_float64(program, [own, own])
    expected = np.asarray(jax.jit(OWN[name])(own), np.float64) / 3.0
    np.testing.assert_allclose(narrow, expected, rtol=1e-6)
    np.testing.assert_allclose(wide, own.astype(np.float64) / 3.0, rtol=FORMULA)
    if wrap == "plain" and name in ("callback", "bits", "nextafter"):
        np.testing.assert_allclose(narrow, expected, rtol=FORMULA)


def test_precision_of_each_input() -> None:
    """As run, one input is cast to bfloat16 and the other is not.

    In a jitted function, a loop or a branch too, beside draws in bfloat16.
    """

    def plain(v: list[Any]) -> Any:
        drawn = jax.random.normal(KEY, (2,), BF16).astype(F32)
        return v[0].astype(BF16).astype(F32), v[1] + drawn

    def looped(v: list[Any]) -> Any:
        return jax.lax.fori_loop(0, 2, lambda i, s: tuple(plain([*s])), (v[0], v[1]))

    def branched(v: list[Any]) -> Any:
        return jax.lax.cond(jnp.pi > 3, plain, lambda v: (v[0], v[1]), v)

    for function in (plain, jax.jit(plain), looped, branched):
        program = Widened.of(function, [jnp.ones(2), jnp.ones(2)])
        assert program.own.precision(0) == program.own.precision() == EPS16
        assert program.own.precision(1) == EPS32
        assert program.precision() == DOUBLE


# --------------------------------------------------------------------- how it is used


def test_a_shard_map_is_built_anew() -> None:
    """A shard_map in the function, and the widened function in a shard_map."""
    mesh, spec = Mesh(np.array(jax.devices()[:1]), ("i",)), PartitionSpec("i")

    def function(x: Any) -> Any:
        body = jax.shard_map(
            lambda y: jnp.sin(y) * jax.lax.psum(y * 0.1, "i"),
            mesh=mesh,
            in_specs=spec,
            out_specs=spec,
        )
        return body(x)

    own = POINT.astype(np.float32)
    program = Widened.of(lambda v: function(v[0]), [own])
    value = own.astype(np.float64)
    np.testing.assert_allclose(
        in_float64(program, [own]), np.sin(value) * value * 0.1, rtol=FORMULA
    )
    assert program.precision() == DOUBLE

    plain = Widened.of(lambda v: jnp.sum(jnp.sin(v[0]) * 0.1), [own])
    with jax.enable_x64(True):
        points = np.stack([value, 2 * value])
        spread = jax.shard_map(
            jax.vmap(lambda x: plain([x])),
            mesh=mesh,
            in_specs=spec,
            out_specs=spec,
            check_vma=False,
        )
        values = np.asarray(jax.jit(spread)(points))
    np.testing.assert_allclose(values, np.sum(np.sin(points) * 0.1, 1), rtol=FORMULA)


def test_differentiable() -> None:
    """jax.grad of the widened function, where its equations have a derivative."""
    program = Widened.of(
        lambda v: jnp.sum(jnp.tanh(v[0].astype(BF16)) * 0.1), [jnp.asarray(POINT, F32)]
    )
    with jax.enable_x64(True):
        gradient = np.asarray(jax.grad(lambda x: program([x]))(POINT))
    scale = float(jnp.asarray(0.1, BF16))
    np.testing.assert_allclose(gradient, scale / np.cosh(POINT) ** 2, rtol=1e-14)


def test_arguments_and_results() -> None:
    """NumPy's float64, Python's numbers, complex and pytrees, as JAX takes them."""
    args = [np.array([0.1, 0.2]), 0.3, np.array([1 + 2j], np.complex64)]
    program = Widened.of(
        lambda v: {"a": v[0] * v[1], "b": (v[2] * 0.1, jnp.argmax(v[0]))}, args
    )
    avals = [v.aval for v in program.own.closed.jaxpr.invars]
    assert [str(a.dtype) for a in avals] == ["float32", "float32", "complex64"]
    assert [a.weak_type for a in avals] == [False, True, False]
    with jax.enable_x64(True):
        result = program([args[0], np.asarray(0.3), np.array([1 + 2j])])
    np.testing.assert_allclose(result["a"], args[0] * 0.3, rtol=FORMULA)
    np.testing.assert_allclose(result["b"][0], [0.1 + 0.2j], rtol=FORMULA)
    assert result["b"][0].dtype == np.complex128
    assert result["b"][1] == 1
    as_run = program.as_run(args)
    assert as_run["a"].dtype == np.float32


def test_in_an_x64_session() -> None:
    """A caller who computes in float64 and casts to bfloat16 on the way."""
    noise = np.random.default_rng(2).normal(size=4)
    with jax.enable_x64(True):

        def function(v: list[Any]) -> Any:
            drawn = jax.random.normal(KEY, (4,), F32)
            cast = (v[0].astype(BF16) * 3).astype(jnp.float64)
            return cast * noise * 0.1 + drawn.astype(jnp.float64)

        program = Widened.of(function, [POINT])
        drawn = np.asarray(jax.random.normal(KEY, (4,), F32), np.float64)
        value = np.asarray(jax.jit(lambda x: program([x]))(POINT))
    np.testing.assert_allclose(value, POINT * 3 * noise * 0.1 + drawn, rtol=1e-14)
    assert program.own.precision() == EPS16
    assert program.precision() == DOUBLE
    assert not program.inexact


@pytest.mark.parametrize(
    ("function", "error"),
    [
        (lambda v: float(v[0]), jax.errors.ConcretizationTypeError),
        (lambda v: np.sin(v[0]), jax.errors.TracerArrayConversionError),
        (lambda v: [1, 2][v[0].astype(int)], jax.errors.TracerIntegerConversionError),
        (lambda v: jnp.ones(3)[v[0] > 0], (IndexError, ValueError)),
        (lambda v: {}["no"], KeyError),
    ],
)
def test_what_cannot_be_traced(function: Any, error: Any) -> None:
    """What JAX and the function raise comes to the caller."""
    with pytest.raises(error):
        Widened.of(function, [jnp.float32(0.5)])


def test_nothing_of_x64_is_held() -> None:
    """The program as run has no float64 in it, and holds no copy of the data."""
    data = np.random.default_rng(4).normal(size=(3, 2))
    program = Widened.of(lambda v: jnp.sum(data * v[0]), [jnp.float32(1.0)])
    gc.collect()
    assert "f64" not in str(program.own.closed)
    assert "i64" not in str(program.own.closed)


@pytest.mark.parametrize("seed", range(3))
def test_a_normal_number_is_drawn_once(seed: int) -> None:
    """The loss and its gradient have the same one, to the last bit; dropout as well."""

    def loss(x: Any) -> Any:
        noise = jax.random.normal(jax.random.key(seed), (5, 4))
        kept = jax.random.bernoulli(jax.random.key(seed), 0.5, (5, 4))
        return jnp.sum(jnp.where(kept, (x * noise) ** 2, jnp.sin(x + noise)))

    x = np.random.default_rng(seed).standard_normal((5, 4)).astype(np.float32)
    report = check_gradients(loss, x)
    assert report.passed
    assert report.leaves[0].resolution < 1e-8
    wrong = check_gradients(loss, x, lambda x: jax.grad(loss)(x) * (1 + 1e-7))
    assert not wrong.passed


@pytest.mark.parametrize("in_x64", [False, True])
def test_functions_that_read_bits_are_verified(in_x64: bool) -> None:
    """The sign of a gamma function is taken from bits: no float is kept there."""
    with jax.enable_x64(in_x64):
        x = jnp.asarray([0.7, 2.3])
        for function in (jax.scipy.special.gamma, lambda x: jnp.frexp(x)[0]):
            report = check_gradients(lambda x, f=function: jnp.sum(f(x)), x)
            assert report.verdict is Verdict.AGREE
            wrong = check_gradients(
                lambda x, f=function: jnp.sum(f(x)),
                x,
                lambda x, f=function: 1.001 * jax.grad(lambda x: jnp.sum(f(x)))(x),
            )
            assert wrong.verdict is Verdict.DISAGREE


@pytest.mark.parametrize("columns", [70, 1000])
def test_a_matrix_that_the_loss_makes(columns: int) -> None:
    """XLA's product with it was wrong, in as many points at once as a line has."""

    def loss(x: Any) -> Any:
        return jnp.mean((x @ jnp.ones((3, columns), x.dtype)) ** 2)

    x = np.array([0.5, -0.7, 1.3], np.float32)
    right = np.full(3, 2.2, np.float32)
    report = check_gradients(loss, x, {"right": right, "wrong": right * [1, 1, 0.0]})
    found = {leaf.candidate: leaf.verdict for leaf in report.leaves}
    assert found == {"right": Verdict.AGREE, "wrong": Verdict.DISAGREE}
    assert check_gradients(loss, x).passed
    wide = numerical_gradient(loss, x)
    assert np.allclose(wide, right, atol=1e-3)
