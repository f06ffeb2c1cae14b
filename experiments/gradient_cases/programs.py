"""Losses as people run them: float32 and bfloat16, draws, solvers, edges, SI units.

Not among `all_cases`: what is asked here lies in the dtype, the tolerance and the scale
of a program, so central differences in float64 are no reference for a half of them; the
right candidate of those is the derivative of a formula, or of the same in float64.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.gradient_cases.case import (
    AGREE,
    MALFORMED,
    NONDIFFERENTIABLE,
    UNRESOLVED,
    Candidate,
    Case,
    Loss,
    altered_leaf,
    keys,
    like,
    normal,
    wrong,
)

KEY = jax.random.key(3)
EXAMPLES, TARGETS = normal(301, 16, 8), normal(302, 16, 1)
NET = {
    "W1": (0.3 * normal(303, 8, 12)).astype(np.float32),
    "W2": (0.3 * normal(304, 12, 1)).astype(np.float32),
}
MATRIX = 0.15 * normal(305, 6, 6)
OFFSET, RIGHT_HAND = normal(306, 6), normal(307, 12)
HALF = normal(308, 12, 12)
POSITIVE = HALF @ HALF.T / 12 + 0.3 * np.eye(12)


def program_cases() -> list[Case]:
    """All of them, right and wrong in turn."""
    return [
        *_draws(),
        *_low_precision(),
        *_own_dtype(),
        *_solvers(),
        *_scales(),
        *_edges(),
        *_oscillations(),
        *_stairs(),
    ]


def _pair(
    name: str,
    loss: Loss,
    params: Any,
    right: Candidate,
    mistake: Candidate,
    place: str,
    **flags: Any,
) -> Iterator[Case]:
    """The right candidate, for which to be undecided is honest, and the wrong one."""
    yield Case(f"{name}_right", loss, params, right, AGREE + UNRESOLVED, **flags)
    yield wrong(f"{name}_wrong", loss, params, mistake, (place,), **flags)


def _net(
    params: Any, act: Callable[[Any], Any] = jnp.tanh, compute: Any = None
) -> jax.Array:
    """Mean squared error of a small net, computed in `compute`."""
    dtype = compute or params["W1"].dtype
    w1, w2 = (params[name].astype(dtype) for name in ("W1", "W2"))
    out = act(jnp.asarray(EXAMPLES, dtype) @ w1) @ w2
    return jnp.mean((out.astype(params["W1"].dtype) - like(TARGETS, params["W1"])) ** 2)


def _times(factor: float) -> Callable[[Any], Any]:
    return lambda leaf: leaf * jnp.asarray(factor, leaf.dtype)


# --- draws -------------------------------------------------------------------------


def _draws() -> Iterator[Case]:
    def dropout(x: Any) -> Any:
        kept = jax.random.bernoulli(KEY, 0.8, x.shape)
        return jnp.where(kept, jnp.tanh(x), jnp.zeros_like(x))

    net = partial(_net, act=dropout)
    mistake = altered_leaf(net, "W1", _times(1.01))
    yield from _pair("dropout", net, NET, jax.grad(net), mistake, "['W1']")

    def batch(params: Any) -> jax.Array:
        rows = jax.random.permutation(KEY, 16)[:4]
        x = like(EXAMPLES, params["w"])[rows]
        return jnp.mean((x @ params["w"]) ** 2)

    small = {"w": normal(309, 8).astype(np.float32)}
    mistake = altered_leaf(batch, "w", _times(2.0))
    yield from _pair("minibatch", batch, small, jax.grad(batch), mistake, "['w']")

    def sampled(params: Any) -> jax.Array:
        noise = jax.random.normal(KEY, params["s"].shape, params["s"].dtype)
        return jnp.sum((params["m"] + params["s"] * noise) ** 2)

    point = {
        "m": np.array([1.0, -2.0, 0.5], np.float32),
        "s": np.array([0.1, 0.2, 0.3], np.float32),
    }
    mistake = altered_leaf(sampled, "s", jnp.zeros_like)
    right = jax.grad(sampled)
    yield from _pair("reparameterised", sampled, point, right, mistake, "['s']")


# --- float32 and bfloat16 ----------------------------------------------------------


def _low_precision() -> Iterator[Case]:
    for act in (jnp.tanh, jax.nn.relu):
        half = partial(_net, act=act, compute=jnp.bfloat16)
        name = f"bf16_{act.__name__}"
        mistake = altered_leaf(half, "W2", _times(1.2))
        flags = {"smooth": False}
        yield from _pair(name, half, NET, jax.grad(half), mistake, "['W2']", **flags)

    def norm(params: Any) -> jax.Array:
        """A gain in float32 before a product in bfloat16."""
        x = like(EXAMPLES, params["g"])
        scale = jax.lax.rsqrt(jnp.mean(x * x, -1, keepdims=True) + 1e-6)
        h = (x * scale * params["g"][None]).astype(jnp.bfloat16)
        out = (h @ jnp.asarray(NET["W1"], jnp.bfloat16)).astype(params["g"].dtype)
        return jnp.mean(jnp.sin(out))

    gain = {"g": np.ones(8, np.float32)}
    mistake = altered_leaf(norm, "g", lambda g: g.at[2].multiply(1.1))
    right = jax.grad(norm)
    flags = {"smooth": False}
    yield from _pair("norm_gain", norm, gain, right, mistake, "['g'][2]", **flags)


# --- what the program's own dtype makes of it --------------------------------------


def _own_dtype() -> Iterator[Case]:
    @jax.custom_vjp
    def softplus(x: Any) -> Any:
        return jax.nn.softplus(x)

    def overflowing(x: Any, c: Any) -> Any:
        return (c * jnp.exp(x) / (1 + jnp.exp(x)),)

    softplus.defvjp(lambda x: (jax.nn.softplus(x), x), overflowing)
    large = {"x": np.array([1.0, 100.0], np.float32)}

    def total(params: Any) -> jax.Array:
        return jnp.sum(softplus(params["x"]))

    def plain(params: Any) -> jax.Array:
        return jnp.sum(jax.nn.softplus(params["x"]))

    yield Case("sigmoid_stable_right", plain, large, jax.grad(plain), AGREE)
    place = ("['x'][1]",)
    name, gradient = "sigmoid_overflow", jax.grad(total)
    yield Case(
        name, total, large, gradient, MALFORMED, place, right=False, smooth=False
    )

    @jax.custom_vjp
    def sine(x: Any) -> Any:
        return jnp.sin(x)

    def by_differences(x: Any, c: Any) -> Any:
        return (c * (jnp.sin(x + 1e-8) - jnp.sin(x)) / 1e-8,)

    sine.defvjp(lambda x: (jnp.sin(x), x), by_differences)
    small = {"x": normal(310, 6).astype(np.float32)}

    def sines(params: Any) -> jax.Array:
        return jnp.sum(sine(params["x"]))

    gradient = jax.grad(sines)
    yield wrong("rule_by_differences", sines, small, gradient, keys("x"), smooth=False)

    def root(params: Any) -> jax.Array:
        return jnp.sum(jnp.sqrt(params["x"] + jnp.finfo(params["x"].dtype).eps))

    tiny = {"x": np.array([1e-6, 0.5], np.float32)}
    mistake = altered_leaf(root, "x", _times(1.01))
    yield from _pair("finfo_eps", root, tiny, jax.grad(root), mistake, "['x']")


# --- solvers to a tolerance --------------------------------------------------------


def _iterated(step: Callable[[Any], Any], start: Any) -> Any:
    def goes_on(pair: Any) -> Any:
        return jnp.max(jnp.abs(pair[1] - pair[0])) > 1e-5

    pair = jax.lax.while_loop(goes_on, lambda p: (p[1], step(p[1])), (start, start + 1))
    return pair[1]


def _solvers() -> Iterator[Case]:
    flags = {"smooth": False}

    def equilibrium(params: Any) -> jax.Array:
        w = params["W"]
        b = like(OFFSET, w)
        return _iterated(lambda z: jnp.tanh(w @ z + b), jnp.zeros(6, w.dtype))

    def deep(params: Any) -> jax.Array:
        return jnp.sum(equilibrium(params) ** 2)

    def implicit(params: Any, whole: bool = True) -> Any:
        w, z = params["W"], equilibrium(params)
        slope, u = 1 - z**2, 2 * z
        if whole:
            u = jnp.linalg.solve((jnp.eye(6, dtype=w.dtype) - slope[:, None] * w).T, u)
        return {"W": jnp.outer(u * slope, z)}

    weight = {"W": MATRIX}
    one_step = partial(implicit, whole=False)
    yield from _pair("equilibrium", deep, weight, implicit, one_step, "['W']", **flags)

    def ridge(params: Any) -> jax.Array:
        p = params["p"]
        matrix, b = like(POSITIVE, p), like(RIGHT_HAND, p)
        solution, _ = jax.scipy.sparse.linalg.cg(lambda v: matrix @ v + p * v, b)
        return jnp.sum(jnp.sin(solution))

    def exact(params: Any) -> jax.Array:
        p = params["p"]
        solved = jnp.linalg.solve(like(POSITIVE, p) + jnp.diag(p), like(RIGHT_HAND, p))
        return jnp.sum(jnp.sin(solved))

    diagonal = {"p": 0.1 + normal(311, 12) ** 2}
    mistake = altered_leaf(exact, "p", _times(2.0))
    right = jax.grad(exact)
    yield from _pair("cg", ridge, diagonal, right, mistake, "['p']", **flags)

    def doubling(params: Any) -> jax.Array:
        """Its trip count depends on the data, but not on the step."""
        x = params["x"]
        return jax.lax.while_loop(
            lambda c: jnp.sum(c) < 10, lambda c: c * jnp.asarray(1.5, c.dtype), x
        ).sum()

    start = {"x": np.array([1.0, 2.0])}
    times = 1.5**3
    yield from _pair(
        "doubling",
        doubling,
        start,
        {"x": np.full(2, times)},
        {"x": np.array([times, times * 1.5])},
        "['x'][1]",
    )


# --- numbers of very different sizes -----------------------------------------------


def _scales() -> Iterator[Case]:
    def impact(params: Any) -> jax.Array:
        return jnp.sum(jnp.abs(params["x"]) ** 1.5)

    def slope(params: Any) -> Any:
        x = params["x"]
        return {"x": 1.5 * jnp.sqrt(jnp.abs(x)) * jnp.sign(x)}

    tiny = {"x": np.array([1.0, -2.0, 1e-17])}
    yield Case("impact_1e-17_right", impact, tiny, slope, AGREE + UNRESOLVED)

    def roots(params: Any) -> jax.Array:
        return jnp.sum(jnp.sqrt(jnp.abs(params["x"])))

    def steep(params: Any) -> Any:
        x = params["x"]
        return {"x": 0.5 * jnp.sign(x) / jnp.sqrt(jnp.abs(x))}

    smaller = {"x": np.array([1.0, -2.0, 1e-20])}

    def zeroed(params: Any) -> Any:
        return {"x": steep(params)["x"].at[2].set(0)}

    yield from _pair("roots_1e-20", roots, smaller, steep, zeroed, "['x'][2]")

    def phase(params: Any) -> jax.Array:
        return -jnp.arctan(1e9 * params["x"][0] * params["x"][1])

    units = {"x": np.array([1e3, 1e-12])}
    mistake = altered_leaf(phase, "x", lambda g: g.at[1].multiply(2))
    yield from _pair("si_units", phase, units, jax.grad(phase), mistake, "['x'][1]")

    def squares(params: Any) -> jax.Array:
        return jnp.sum(params["x"] ** 2)

    below = {"x": np.array([(0.1 + 0.7) * 10, 3.0, 5.0])}
    mistake = altered_leaf(squares, "x", lambda g: g.at[0].multiply(0.5))
    right = jax.grad(squares)
    yield from _pair("below_power_of_2", squares, below, right, mistake, "['x'][0]")


# --- kinks, cusps, and what is nearly one ------------------------------------------


def _edges() -> Iterator[Case]:
    def cusp(params: Any) -> jax.Array:
        return jnp.sum(jnp.sqrt(jnp.abs(params["x"])))

    def finite(params: Any) -> Any:
        x = params["x"]
        away = jnp.where(x == 0, jnp.ones_like(x), x)
        slope = 0.5 * jnp.sign(away) / jnp.sqrt(jnp.abs(away))
        return {"x": jnp.where(x == 0, jnp.zeros_like(x), slope)}

    at = {"x": np.array([1.0, -2.0, 0.0])}
    answers = NONDIFFERENTIABLE + UNRESOLVED
    at_0 = ("['x'][2]",)
    name = "cusp_called_0"
    yield Case(name, cusp, at, finite, answers, at_0, right=False, smooth=False)

    def smoothed(params: Any) -> jax.Array:
        return jnp.sum(jnp.sqrt(params["x"] ** 2 + 1e-24))

    def slope(params: Any) -> Any:
        return {"x": params["x"] / jnp.sqrt(params["x"] ** 2 + 1e-24)}

    def one(params: Any) -> Any:
        return {"x": slope(params)["x"].at[1].set(-0.9)}

    close = {"x": np.array([1.0, 1e-12])}
    yield from _pair("smoothed_1e-12", smoothed, close, slope, one, "['x'][1]")

    weights = 3 * normal(312, 100)

    def lasso(params: Any) -> jax.Array:
        x = params["x"]
        return jnp.sum(jnp.abs(x)) + jnp.sum(like(weights, x) * x)

    def subgradient(params: Any) -> Any:
        x = params["x"]
        return {"x": jnp.sign(x) + like(weights, x)}

    worst = int(np.argmax(np.abs(weights[:60])))

    def hidden(params: Any) -> Any:
        return {"x": subgradient(params)["x"].at[worst].set(0)}

    sparse = {"x": normal(313, 100)}
    sparse["x"][:60] = 0
    zeros = tuple(f"['x'][{i}]" for i in range(60))
    yield Case("lasso_right", lasso, sparse, subgradient, NONDIFFERENTIABLE, zeros)
    place = (f"['x'][{worst}]",)
    yield wrong("lasso_one_of_60_wrong", lasso, sparse, hidden, place, smooth=False)


# --- high frequencies --------------------------------------------------------------


def _oscillations() -> Iterator[Case]:
    def ripple(params: Any) -> jax.Array:
        x = params["x"]
        return jnp.sum((x / 1e3) ** 2 + 1e-8 * jnp.sin(1e6 * x))

    def whole(params: Any) -> Any:
        x = params["x"]
        return {"x": 2 * x / 1e6 + 0.01 * jnp.cos(1e6 * x)}

    def smooth_part(params: Any) -> Any:
        return {"x": 2 * params["x"] / 1e6}

    far = {"x": np.array([1e3, 1.3e3])}
    yield from _pair("ripple", ripple, far, whole, smooth_part, "['x']")

    encoded = normal(314, 30)

    def encoding(params: Any) -> jax.Array:
        x = params["x"]
        waves = [jnp.sin(2.0**k * np.pi * x) for k in range(10)]
        return jnp.sum(like(encoded, x) * jnp.concatenate(waves))

    point = {"x": np.random.default_rng(315).uniform(-1, 1, 3)}
    mistake = altered_leaf(encoding, "x", lambda g: g.at[1].multiply(1.001))
    right = jax.grad(encoding)
    yield from _pair("encoding", encoding, point, right, mistake, "['x'][1]")

    def fast(params: Any) -> jax.Array:
        return jnp.sum(jnp.sin(1000 * params["x"]))

    def cosine(params: Any) -> Any:
        return {"x": 1000 * jnp.cos(1000 * params["x"])}

    waves = {"x": normal(316, 6).astype(np.float32)}
    mistake = altered_leaf(fast, "x", lambda g: -g)
    yield from _pair("sin_1000", fast, waves, cosine, mistake, "['x']")


# --- values that were rounded on their way -----------------------------------------


def _stairs() -> Iterator[Case]:
    def printed(params: Any) -> float:
        return float(f"{np.sum(np.sin(params['x'])):.6g}")

    def slope(params: Any) -> Any:
        return {"x": np.cos(params["x"])}

    def steeper(params: Any) -> Any:
        return {"x": 1.2 * np.cos(params["x"])}

    point = {"x": np.array([1.0, 2.0, 0.3])}
    flags = {"smooth": False, "traceable": False}
    yield from _pair("printed", printed, point, slope, steeper, "['x']", **flags)

    def half(params: Any) -> float:
        return float(np.sum(np.sin(np.asarray(params["x"], np.float16))))

    yield from _pair("float16_inside", half, point, slope, steeper, "['x']", **flags)
