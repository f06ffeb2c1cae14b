"""A program of JAX evaluated with many digits, by mpmath.

The primal program alone: of a custom rule what it computes, of a primitive its
definition. No derivative of JAX has a part in it, so differences of it are a second
opinion on all of them.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
from mpmath import mp

from experiments.libraries.definitions import (
    cube_root,
    incomplete_beta,
    log_gamma,
    lower_gamma,
    scaled_bessel,
    sigmoid,
    upper_gamma,
)
from jaxnet.jaxpr.evaluate import bind, evaluate
from jaxnet.jaxpr.reader import Loop, is_call

LARGEST_TABLE = 1 << 20
"""Entries of the table of what a bilinear primitive gives for every pair of units."""


class NotKnown(Exception):
    """A primitive of which there is no definition here."""


def with_many_digits(
    function: Callable[..., Any], args: Sequence[Any]
) -> Callable[..., Any]:
    """The same function, of arrays of mpmath numbers, to one of them.

    Args:
        function: to a real scalar; a program that JAX can trace.
        args: floating arrays, of the shapes that it will be asked with.

    Raises:
        NotKnown: when it is called, if a primitive is not known here.
    """
    traced = jax.make_jaxpr(function)(*args)

    def evaluated(*values: Any) -> Any:
        arrays = [np.asarray(value, object) for value in values]
        return _exact(np.asarray(_run(traced, arrays)[0])).item()

    return evaluated


def _run(jaxpr: Any, values: Sequence[Any]) -> list[Any]:
    return evaluate(jaxpr, values, _outputs, in_python=True)


def _outputs(equation: Any, inputs: list[Any]) -> list[Any] | None:
    """Of one equation, where an input is an array of mpmath numbers; else None."""
    name = equation.primitive.name
    if name == "scan":
        return _scan(equation, inputs)
    if is_call(equation) or name in ("cond", "while", "custom_linear_solve"):
        return None
    inputs = [np.asarray(x) for x in inputs]
    if all(x.dtype != object for x in inputs):
        return [np.asarray(x) for x in bind(equation, inputs)]
    if name in ELEMENTWISE:
        function = np.frompyfunc(_total(ELEMENTWISE[name]), len(inputs), 1)
        return [np.asarray(function(*map(_exact, inputs)), object)]
    if name in COMPARISONS:
        return [np.asarray(COMPARISONS[name](*map(_exact, inputs)), bool)]
    if name in WHOLE:
        return WHOLE[name](equation, *inputs)
    if name in MOVED:
        return _moved(equation, inputs)
    if name in LINEAR:
        return [_linear(equation, inputs)]
    if name in BILINEAR:
        return [_bilinear(equation, *map(_exact, inputs))]
    raise NotKnown(name)


def _exact(x: Any) -> Any:
    """As mpmath numbers, each exactly the float that it was."""
    if x.dtype == object:
        return x
    wide = x.astype(complex if np.iscomplexobj(x) else float).astype(object)
    with np.errstate(invalid="ignore"):
        return np.asarray(np.frompyfunc(mp.mpmathify, 1, 1)(wide), object)


def _total(function: Callable[..., Any]) -> Callable[..., Any]:
    """The same; nan where it is not defined, or is complex and its arguments real."""

    def total(*args: Any) -> Any:
        try:
            value = function(*args)
        except (ValueError, ZeroDivisionError, mpmath.libmp.NoConvergence):
            return mp.nan
        is_real = not any(isinstance(x, mpmath.mpc) for x in args)
        if isinstance(value, mpmath.mpc) and is_real and value.imag != 0:
            return mp.nan
        return value.real if isinstance(value, mpmath.mpc) and is_real else value

    return total


# ------------------------------------------------------------- one number at a time


def _quotient(a: Any, b: Any) -> Any:
    return a / b if b != 0 else a * mp.inf


def _remainder(a: Any, b: Any) -> Any:
    """With the sign of the dividend."""
    return mp.sign(a) * mp.fmod(abs(a), abs(b))


def _power(x: Any, y: Any) -> Any:
    return mp.mpf(1) if y == 0 else x**y


ELEMENTWISE: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "acos": mp.acos,
    "acosh": mp.acosh,
    "add": lambda a, b: a + b,
    "add_any": lambda a, b: a + b,
    "asin": mp.asin,
    "asinh": mp.asinh,
    "atan": mp.atan,
    "atan2": mp.atan2,
    "atanh": mp.atanh,
    "bessel_i0e": partial(scaled_bessel, 0),
    "bessel_i1e": partial(scaled_bessel, 1),
    "cbrt": cube_root,
    "ceil": mp.ceil,
    "clamp": lambda low, x, high: min(max(low, x), high),
    "complex": mp.mpc,
    "conj": mp.conj,
    "copy": lambda x: x,
    "copy_p": lambda x: x,
    "cos": mp.cos,
    "cosh": mp.cosh,
    "digamma": mp.digamma,
    "div": _quotient,
    "erf": mp.erf,
    "erf_inv": mp.erfinv,
    "erfc": mp.erfc,
    "exp": mp.exp,
    "exp2": lambda x: mp.power(2, x),
    "expm1": mp.expm1,
    "floor": mp.floor,
    "igamma": lower_gamma,
    "igammac": upper_gamma,
    "imag": lambda x: x.imag,
    "lgamma": log_gamma,
    "log": mp.log,
    "log1p": mp.log1p,
    "logistic": sigmoid,
    "max": max,
    "min": min,
    "mul": lambda a, b: a * b,
    "neg": lambda x: -x,
    "polygamma": lambda n, x: mp.psi(int(n), x),
    "pow": _power,
    "real": lambda x: x.real,
    "reduce_precision": lambda x: x,
    "regularized_incomplete_beta": incomplete_beta,
    "rem": _remainder,
    "round": mp.nint,
    "rsqrt": lambda x: 1 / mp.sqrt(x),
    "sign": mp.sign,
    "sin": mp.sin,
    "sinh": mp.sinh,
    "sqrt": mp.sqrt,
    "square": lambda x: x * x,
    "stop_gradient": lambda x: x,
    "sub": lambda a, b: a - b,
    "tan": mp.tan,
    "tanh": mp.tanh,
    "zeta": mp.zeta,
}
"""Primitives of one number of each input."""

COMPARISONS: dict[str, Callable[..., Any]] = {
    "eq": np.equal,
    "ge": np.greater_equal,
    "gt": np.greater,
    "is_finite": np.frompyfunc(mp.isfinite, 1, 1),
    "le": np.less_equal,
    "le_to": np.less_equal,
    "lt": np.less,
    "lt_to": np.less,
    "ne": np.not_equal,
}

# ------------------------------------------------------------------ of whole arrays


def _reduced(function: Any) -> Callable[..., list[Any]]:
    def reduced(equation: Any, x: Any) -> list[Any]:
        axes = tuple(equation.params["axes"])
        start = {np.add: mp.mpf(0), np.multiply: mp.mpf(1)}.get(function)
        options = {} if start is None else {"initial": start}
        return [np.asarray(function.reduce(x, axis=axes, **options), object)]

    return reduced


def _accumulated(function: Any) -> Callable[..., list[Any]]:
    def accumulated(equation: Any, x: Any) -> list[Any]:
        axis, backward = equation.params["axis"], equation.params["reverse"]
        given = np.flip(x, axis) if backward else x
        found = function.accumulate(given, axis=axis, dtype=object)
        return [np.flip(found, axis) if backward else found]

    return accumulated


def _place(function: Any) -> Callable[..., list[Any]]:
    def place(equation: Any, x: Any) -> list[Any]:
        found = function(x, axis=equation.params["axes"][0])
        return [np.asarray(found, equation.params["index_dtype"])]

    return place


def _converted(equation: Any, x: Any) -> list[Any]:
    kind = equation.params["new_dtype"]
    if jnp.issubdtype(kind, jnp.inexact):
        return [_exact(x)]
    if jnp.issubdtype(kind, jnp.bool_):
        return [np.asarray(x != 0, bool)]
    return [np.asarray(np.frompyfunc(int, 1, 1)(x), kind)]


def _integer_power(equation: Any, x: Any) -> list[Any]:
    y = equation.params["y"]
    power = np.frompyfunc(_total(lambda value: value**y), 1, 1)
    return [np.asarray(power(x), object)]


def _sorted(equation: Any, *inputs: Any) -> list[Any]:
    """By the first key; a later one decides where they tie."""
    axis, keys = equation.params["dimension"], equation.params["num_keys"]
    rows = [np.moveaxis(x, axis, -1) for x in inputs]
    found = [row.copy() for row in rows]
    for at in np.ndindex(rows[0].shape[:-1]):
        triples = zip(*(row[at] for row in rows[:keys]), strict=True)
        ranked = list(triples)
        order = sorted(range(len(ranked)), key=ranked.__getitem__)
        for row, to in zip(rows, found, strict=True):
            to[at] = row[at][order]
    return [np.moveaxis(x, -1, axis) for x in found]


def _top(equation: Any, x: Any) -> list[Any]:
    """The k largest along the last axis, and their places."""
    k = equation.params["k"]
    order = np.empty(x.shape, int)
    for at in np.ndindex(x.shape[:-1]):
        row = x[at]
        order[at] = sorted(range(len(row)), key=lambda i: -row[i])
    order = order[..., :k]
    return [np.take_along_axis(x, order, -1), order.astype(np.int32)]


def _cholesky(equation: Any, x: Any) -> list[Any]:
    """The lower factor, from the lower triangle."""
    found = np.full(x.shape, mp.mpf(0))
    for i in range(x.shape[-1]):
        for j in range(i + 1):
            rest = x[..., i, j] - sum(
                found[..., i, k] * found[..., j, k] for k in range(j)
            )
            if i == j:
                found[..., i, i] = np.frompyfunc(_total(mp.sqrt), 1, 1)(rest)
            else:
                found[..., i, j] = rest / found[..., j, j]
    return [found]


def _triangular_solve(equation: Any, a: Any, b: Any) -> list[Any]:
    """x in op(a) x = b, or in x op(a) = b, reading one triangle of a."""
    p, a, b = equation.params, _exact(a), _exact(b)
    size = a.shape[-1]
    if a.ndim > 2:
        raise NotKnown("triangular_solve of a batch")
    triangle = np.tril(np.ones((size, size), bool))
    a = np.where(triangle if p["lower"] else triangle.T, a, mp.mpf(0))
    if p["unit_diagonal"]:
        a = np.where(np.eye(size, dtype=bool), mp.mpf(1), a)
    transposed = bool(p["transpose_a"]) != (not p["left_side"])
    lower = p["lower"] != transposed
    a, rows = (a.T if transposed else a), (b if p["left_side"] else b.T).copy()
    for i in range(size) if lower else reversed(range(size)):
        done = range(i) if lower else range(i + 1, size)
        rows[i] = (rows[i] - sum(a[i, k] * rows[k] for k in done)) / a[i, i]
    return [rows if p["left_side"] else rows.T]


def _lu(equation: Any, x: Any) -> list[Any]:
    """Both factors in one matrix, the pivots and the permutation."""
    if x.ndim > 2:
        raise NotKnown("lu of a batch")
    x, rows = x.copy(), x.shape[0]
    order, pivots = np.arange(rows), []
    for k in range(min(x.shape)):
        best = max(range(k, rows), key=lambda i: abs(x[i, k]))
        pivots.append(best)
        x[[k, best]], order[[k, best]] = x[[best, k]], order[[best, k]]
        for i in range(k + 1, rows):
            x[i, k] = _quotient(x[i, k], x[k, k])
            x[i, k + 1 :] = x[i, k + 1 :] - x[i, k] * x[k, k + 1 :]
    return [x, np.asarray(pivots, np.int32), order.astype(np.int32)]


def _eigh(equation: Any, x: Any) -> list[Any]:
    """Eigenvectors, and the eigenvalues from the least on, reading one triangle."""
    if x.ndim > 2:
        raise NotKnown("eigh of a batch")
    triangle = np.tril(x) if equation.params["lower"] else np.triu(x)
    diagonal = np.diag(np.diag(x))
    values, vectors = _of_matrix(mp.eigsy, triangle + triangle.T - diagonal)
    return [vectors, values.ravel()]


def _svd(equation: Any, x: Any) -> list[Any]:
    """The singular values from the largest on, and both orthogonal factors."""
    wants_factors = equation.params["compute_uv"]
    if x.ndim > 2 or (wants_factors and x.shape[0] != x.shape[1]):
        raise NotKnown("svd of a batch, or of a matrix that is not square")
    left, values, right = _of_matrix(mp.svd_r, x)
    return [values.ravel(), *([left, right] if wants_factors else [])]


def _of_matrix(function: Callable[..., Any], x: Any) -> list[Any]:
    try:
        found = function(mp.matrix(x.tolist()))
    except RuntimeError as error:  # mpmath: no convergence
        raise NotKnown(str(error)) from error
    return [np.array(part.tolist(), object) for part in found]


WHOLE: dict[str, Callable[..., list[Any]]] = {
    "argmax": _place(np.argmax),
    "argmin": _place(np.argmin),
    "cholesky": _cholesky,
    "convert_element_type": _converted,
    "cummax": _accumulated(np.maximum),
    "cummin": _accumulated(np.minimum),
    "cumprod": _accumulated(np.multiply),
    "cumsum": _accumulated(np.add),
    "eigh": _eigh,
    "integer_pow": _integer_power,
    "lu": _lu,
    "optimization_barrier": lambda _, *inputs: list(inputs),
    "reduce_max": _reduced(np.maximum),
    "reduce_min": _reduced(np.minimum),
    "reduce_prod": _reduced(np.multiply),
    "reduce_sum": _reduced(np.add),
    "sort": _sorted,
    "svd": _svd,
    "top_k": _top,
    "triangular_solve": _triangular_solve,
}
"""Primitives that need their parameters."""

MOVED = {
    "broadcast_in_dim",
    "concatenate",
    "dynamic_slice",
    "dynamic_update_slice",
    "expand_dims",
    "gather",
    "pad",
    "reshape",
    "rev",
    "scatter",
    "select_n",
    "slice",
    "split",
    "squeeze",
    "transpose",
}
"""Primitives that only move numbers."""


def _moved(equation: Any, inputs: list[Any]) -> list[Any]:
    """The primitive is sent the numbers 0, 1, …, and says where each of them goes."""
    numbers, names, before = list[Any](), list[Any](), 0
    for variable, x in zip(equation.invars, inputs, strict=True):
        if not jnp.issubdtype(variable.aval.dtype, jnp.inexact):
            names.append(x)
            continue
        own = np.arange(before, before + x.size).reshape(x.shape)
        names.append(own.astype(variable.aval.dtype))
        numbers, before = [*numbers, *_exact(x).ravel()], before + x.size
    outputs = []
    for found in map(np.asarray, bind(equation, names)):
        places = found.real
        taken = [mp.nan if np.isnan(i) else numbers[int(i)] for i in places.ravel()]
        moved = np.empty(len(taken), object)
        moved[:] = taken
        outputs.append(moved.reshape(found.shape))
    return outputs


LINEAR = {"fft", "reduce_window_sum"}
"""Linear in their one input, the real and the imaginary part each."""


def _linear(equation: Any, inputs: list[Any]) -> Any:
    """Σ entry × what the primitive gives for one unit, which it does in float64."""
    (x,), kind = inputs, equation.invars[0].aval.dtype
    parts: list[Any] = [(np.frompyfunc(lambda v: v.real, 1, 1)(x), 1.0)]
    if jnp.issubdtype(kind, jnp.complexfloating):
        parts.append((np.frompyfunc(lambda v: v.imag, 1, 1)(x), 1j))
    total: Any = mp.mpf(0)
    for part, unit in parts:
        for i, value in enumerate(part.ravel()):
            one = np.zeros(x.size, kind)
            one[i] = unit
            total = (
                total
                + _exact(np.asarray(bind(equation, [one.reshape(x.shape)])[0])) * value
            )
    return np.asarray(total, object)


BILINEAR = {"conv_general_dilated", "dot_general"}
"""Linear in each of two inputs, with 0 and 1 for coefficients."""


def _bilinear(equation: Any, a: Any, b: Any) -> Any:
    """Σ entry × entry, over the pairs that the primitive multiplies."""
    kind = equation.invars[0].aval.dtype
    size = a.size * b.size * int(np.prod(equation.outvars[0].aval.shape))
    if size > LARGEST_TABLE:
        raise NotKnown(f"{equation.primitive.name} of {a.size} and {b.size} entries")

    def product(i: Any, j: Any) -> Any:
        one, other = (
            jnp.zeros(x.size, kind).at[k].set(1).reshape(x.shape)
            for x, k in ((a, i), (b, j))
        )
        return bind(equation, [one, other])[0]

    pairs = jax.vmap(jax.vmap(product, (None, 0)), (0, None))
    table = np.asarray(pairs(jnp.arange(a.size), jnp.arange(b.size))).real
    found = np.full(int(np.prod(table.shape[2:])), mp.mpf(0))
    left, right = a.ravel(), b.ravel()
    flat = table.reshape(a.size, b.size, -1)
    for i, j, k in zip(*np.nonzero(flat), strict=True):
        found[k] = found[k] + left[i] * right[j]
    return found.reshape(table.shape[2:])


def _scan(equation: Any, inputs: list[Any]) -> list[Any]:
    """Round by round."""
    loop, length = Loop.of(equation), equation.params["length"]
    _, consts, carry, rows = loop.split([np.asarray(x) for x in inputs])
    found: dict[int, list[Any]] = {}
    for i in range(length)[:: -1 if equation.params["reverse"] else 1]:
        given = [*consts, *carry, *(row[i] for row in rows)]
        outputs = [np.asarray(x) for x in _run(loop.body, given)]
        carry, found[i] = outputs[: loop.carry], outputs[loop.carry :]
    columns = zip(*(found[i] for i in range(length)), strict=True)
    return [*carry, *(np.stack(list(column)) for column in columns)]
