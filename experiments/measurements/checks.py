"""What a check costs: compilations, evaluations and seconds, first and second call."""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np
from jax.test_util import check_grads

from experiments.measurements.rules import WIDTH, residual_net
from experiments.measurements.section import Section
from experiments.measurements.transformer import transformer
from jaxnet import AuditReport, GradientReport, audit, check_gradients, check_vjp
from jaxnet.jaxpr.compiled import forget

COMPILED = "/jax/core/compile/backend_compile_duration"

Call = Callable[[], Any]


def operations() -> dict[str, tuple[Callable[..., Any], tuple[Any, ...]]]:
    """52 operations of JAX's own kind, each with a point where it is smooth."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> Any:
        return jnp.asarray(random.normal(size=shape), np.float32)

    x, m, positive = normal(5), normal(4, 4), jnp.linspace(0.2, 0.9, 5)
    definite = m @ m.T + 4 * jnp.eye(4)
    unary = {
        "sin": x,
        "cos": x,
        "tan": x,
        "tanh": x,
        "exp": x,
        "expm1": x,
        "log": positive,
        "log1p": positive,
        "sqrt": positive,
        "square": x,
        "arctan": x,
        "arcsin": positive,
        "arcsinh": x,
        "arctanh": positive,
        "sinc": positive,
        "cumsum": x,
        "cumprod": positive,
        "sort": x,
        "flip": x,
        "ptp": x,
    }
    found: dict[str, Any] = {k: (getattr(jnp, k), (v,)) for k, v in unary.items()}
    for name in ("erf", "expit", "gammaln", "digamma", "erfinv", "i0e", "ndtri"):
        found[name] = getattr(special, name), (positive,)
    for name in ("relu", "gelu", "silu", "softplus", "softmax", "log_softmax", "elu"):
        found[name] = getattr(jax.nn, name), (x,)
    found |= {
        "logsumexp": (special.logsumexp, (x,)),
        "dot": (jnp.dot, (m, x[:4])),
        "matmul": (jnp.matmul, (m, normal(4, 3))),
        "einsum": (lambda a, b: jnp.einsum("ij,kj->ik", a, b), (m, normal(3, 4))),
        "hypot": (jnp.hypot, (x, positive)),
        "power": (jnp.power, (positive, x)),
        "convolve": (jnp.convolve, (x, normal(3))),
        "conv": (
            lambda a, b: jax.lax.conv(a, b, (1, 1), "SAME"),
            (normal(1, 1, 5, 5), normal(1, 1, 3, 3)),
        ),
        "pad": (lambda a: jnp.pad(a, 2), (x,)),
        "gather": (lambda a: jnp.asarray(a)[jnp.array([0, 3, 3])], (x,)),
        "scatter": (lambda a: jnp.asarray(a).at[jnp.array([1, 1])].add(a[:2]), (x,)),
        "fft": (lambda a: jnp.abs(jnp.fft.fft(a)) ** 2, (x,)),
        "rfft": (lambda a: jnp.real(jnp.fft.rfft(a)), (x,)),
        "inv": (jnp.linalg.inv, (definite,)),
        "solve": (jnp.linalg.solve, (definite, x[:4])),
        "slogdet": (lambda a: jnp.linalg.slogdet(a)[1], (definite,)),
        "scan": (
            lambda a: jax.lax.scan(lambda c, y: (jnp.sin(c) + y, c), a[0], a)[1],
            (x,),
        ),
        "cond": (lambda a: jax.lax.cond(a[0] < 9, jnp.sin, jnp.cos, a), (x,)),
    }
    return found


def mlp() -> tuple[Callable[[Any], Any], Any]:
    """A loss of a small net, and its parameters."""
    random = np.random.default_rng(0)
    images = jnp.asarray(random.normal(size=(5, 4)), np.float32)
    params = {
        "w1": random.normal(size=(4, 8)).astype(np.float32),
        "b1": np.zeros(8, np.float32),
        "w2": random.normal(size=(8, 3)).astype(np.float32),
    }

    def loss(p: Any) -> Any:
        return jnp.mean((jnp.tanh(images @ p["w1"] + p["b1"][None]) @ p["w2"]) ** 2)

    return loss, params


def cost_of_checks(quick: bool) -> Section:
    """The table: ours beside jax.test_util.check_grads and chex."""
    section = Section("Checks, compilation included")
    ops = operations()
    if quick:
        ops = {name: ops[name] for name in ("sin", "scan")}
    loss, params = mlp()
    section.rows = [
        _row("check_vjp of sin", lambda: check_vjp(*_flat(ops["sin"]))),
        _row("check_grads of sin", lambda: _check_grads(*ops["sin"])),
        _row("check_gradients of an MLP", lambda: check_gradients(loss, params)),
        _row(
            "the same, called before by itself",
            lambda: check_gradients(loss, params),
            before=lambda: (loss(params), jax.grad(loss)(params)),
        ),
        _row("check_grads of it", lambda: _check_grads(loss, (params,))),
        *_of_chex(loss, params),
        _row(
            f"check_vjp of {len(ops)} operations",
            lambda: [check_vjp(f, *args) for f, args in ops.values()],
        ),
        _row(
            f"check_grads of {len(ops)}",
            lambda: [_check_grads(f, args) for f, args in ops.values()],
        ),
    ]
    ours, theirs = section.rows[-2:]
    ratio = ours["first, s"] / theirs["first, s"]
    section.notes = [
        f"Over the operations the first call takes {ratio:.2f} times as long as "
        "check_grads. Before each first call all that was compiled is let go; "
        "check_grads runs in both modes, with the tolerances 0.05."
    ]
    return section


def cost_of_models(quick: bool) -> Section:
    """A deep model, right and with one wrong leaf; a large leaf with one bad entry."""
    blocks, width, size = (4, 16, 10**4) if quick else (24, 64, 5 * 10**6)
    loss, params = transformer(blocks, width)
    middle = blocks // 2

    def wrong(p: Any) -> Any:
        gradient = jax.grad(loss)(p)
        block = gradient["blocks"][middle]
        block["q"] = block["q"].at[1, 2].multiply(1.01)
        return gradient

    large = np.random.default_rng(0).normal(size=size).astype(np.float32)
    given = 2 * np.cos(2 * large.astype(np.float64))
    given[size // 3] *= 1.01
    section = Section("Models, compilation included")
    section.rows = [
        _model("a transformer", lambda: check_gradients(loss, params)),
        _model(
            "the same, one entry wrong", lambda: check_gradients(loss, params, wrong)
        ),
        _model(
            "a large leaf, one entry wrong",
            lambda: check_gradients(lambda x: jnp.sum(jnp.sin(2 * x)), large, given),
        ),
    ]
    net = "a net with three custom rules"
    for name, factor in ((net, 1.0), ("the same, one rule wrong", 1.1)):
        of_rules, of_net = residual_net(blocks, factor)
        row = _model(name, partial(check_gradients, of_rules, of_net))
        section.rows.append(row)
    section.rows.append(_model("an audit of it", partial(audit, of_rules, of_net)))
    section.notes = [
        f"The transformer has {blocks} blocks of width {width}, in float32; one "
        f"hundredth of an entry of q in block {middle} is wrong. The net of rules has "
        f"{blocks} blocks of width {WIDTH}, each with the three; its gelu is ×1.1."
    ]
    return section


def _model(
    name: str, check: Callable[[], GradientReport | AuditReport]
) -> dict[str, Any]:
    jax.clear_caches()
    forget()
    start = perf_counter()
    report = check()
    taken = perf_counter() - start
    row = {"model": name, "leaves": None, "s": taken, "evaluations": None}
    if isinstance(report, AuditReport):
        named = [rule.name for rule in report.rules if not rule.passed]
        return row | {"worst resolution": None, "called wrong": _as_code(named)}
    said = " ".join(leaf.cause for leaf in report.leaves)
    convicted = re.findall("the rule of `(.+?)`", said)
    named = convicted or [leaf.place for leaf in report.leaves if not leaf.passed]
    right = [leaf.resolution for leaf in report.leaves if leaf.passed]
    return row | {
        "leaves": len(report.leaves),
        "evaluations": report.evaluations,
        "worst resolution": max(right, default=None),
        "called wrong": _as_code(named) or None,
    }


def _flat(operation: tuple[Callable[..., Any], tuple[Any, ...]]) -> tuple[Any, ...]:
    function, args = operation
    return function, *args


def _check_grads(function: Callable[..., Any], args: tuple[Any, ...]) -> Any:
    return check_grads(function, args, order=1, atol=0.05, rtol=0.05)


def _of_chex(loss: Callable[[Any], Any], params: Any) -> Iterator[dict[str, Any]]:
    try:
        import chex
    except ImportError:
        return
    leaves, structure = jax.tree.flatten(params)
    arrays = tuple(map(jnp.asarray, leaves))  # it asks the first for its size

    def of_arrays(*values: Any) -> Any:
        return loss(jax.tree.unflatten(structure, values))

    yield _row(
        "chex of it",
        lambda: chex.assert_numerical_grads(of_arrays, arrays, order=1, atol=0.05),
    )


def _row(name: str, check: Call, before: Call | None = None) -> dict[str, Any]:
    jax.clear_caches()
    forget()
    if before:
        before()
    with _compilations() as first:
        start = perf_counter()
        report = check()
        one = perf_counter() - start
    with _compilations() as second:
        start = perf_counter()
        check()
        two = perf_counter() - start
    reports = report if isinstance(report, list) else [report]
    counts = [getattr(r, "evaluations", None) for r in reports]
    return {
        "check": name,
        "first, s": one,
        "second, s": two,
        "compiled": len(first),
        "again": len(second),
        "evaluations": None if None in counts else sum(filter(None, counts)),
    }


@contextmanager
def _compilations() -> Iterator[list[str]]:
    found: list[str] = []

    def listen(event: str, duration_secs: float, **about: str | int) -> None:
        if event == COMPILED:
            found.append(str(about.get("fun_name")))

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(listen)


def _as_code(names: list[str]) -> str:
    """Each once: in Markdown `['q'][1, 2]` would else be a link."""
    return ", ".join(f"`{name}`" for name in dict.fromkeys(names))
