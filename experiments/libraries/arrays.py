"""Functions of arrays: reductions, orders, products, windows, transforms, indexing."""

from ast import literal_eval
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy as jsp
import numpy as np
from jax import lax

from experiments.libraries.domains import TINY
from experiments.libraries.entry import Entry, Point, sample

Function = Callable[..., Any]

VECTOR = Point("5 numbers", (sample(5),))
TIES = Point("(1, 2, 2, 0.5, 2)", (np.array([1.0, 2.0, 2.0, 0.5, 2.0]),), True)
ZEROS = Point("5 zeros", (np.zeros(5),), True)
ONE_ZERO = Point("(1, 0, 2, -1, 0.5)", (np.array([1.0, 0.0, 2.0, -1.0, 0.5]),), True)
TINIES = Point("5 × 1e-10", (np.full(5, TINY) * [1, 2, -1, 3, 0.5],), True)
LARGES = Point("around 700", (700 + sample(5),), True)
MATRIX = Point("2×3 numbers", (sample(2, 3),))
SQUARE = Point("3×3 numbers", (sample(3, 3),))
TWO = Point("two vectors of 4", (sample(4), sample(4, start=9)))
SAME_TWO = Point("twice one vector of 4", (sample(4), sample(4)), True)
TWO_ZEROS = Point("two vectors of 4 zeros", (np.zeros(4), np.zeros(4)), True)
PRODUCT = Point("2×3 and 3×2 numbers", (sample(2, 3), sample(3, 2, start=9)))
SIGNAL = Point("8 numbers", (sample(8),))
FREQUENCIES = Point("3 and 3 numbers", (sample(3), sample(3, start=5)))

MOST_EDGES = (VECTOR, TIES, ZEROS, ONE_ZERO)

REDUCTIONS = (
    "sum prod mean std var max min median ptp nansum nanprod nanmean nanstd nanvar "
    "nanmax nanmin nanmedian cumsum cumprod nancumsum nancumprod sort average"
)
"""Of one vector; looked at where entries tie or are 0."""

REARRANGED = (
    "ravel flip roll:1 tile:2 repeat:2 diff ediff1d gradient trapezoid diag diagflat "
    "atleast_1d atleast_2d atleast_3d array asarray copy squeeze expand_dims:0 "
    "array_split:2 flipud cumulative_sum cumulative_prod unwrap vander resize:(7,) "
    "partition:2"
)
"""Of one vector, with further arguments behind a colon."""

OF_MATRIX = (
    "transpose fliplr rot90 tril triu trace:sq diagonal:sq reshape:(3,2) cov corrcoef "
    "swapaxes:0,1 moveaxis:0,1 rollaxis:1 matrix_transpose permute_dims:(1,0) hsplit:3 "
    "vsplit:2 split:2 unstack"
)
"""The same of a matrix; sq: of a square one."""

OF_TWO = (
    "dot inner outer vdot vecdot kron convolve correlate cross3 append concatenate* "
    "stack* hstack* vstack* dstack* column_stack* polymul polyadd polysub interp3 "
    "tensordot1 block* matmul"
)
"""A star takes both as a list."""


def array_entries() -> list[Entry]:
    """All of them."""
    return [
        *_reductions(),
        *_rearranged(),
        *_products(),
        *_polynomials_and_choices(),
        *_indexed(),
        *_transforms(),
        *_lax(),
        *_softmaxes(),
        *_signals(),
    ]


def _reductions() -> list[Entry]:
    known = [name for name in REDUCTIONS.split() if hasattr(jnp, name)]
    entries = [Entry(f"jnp.{name}", getattr(jnp, name), MOST_EDGES) for name in known]
    quantiles = (VECTOR, TIES)
    for name in ("quantile", "percentile", "nanquantile", "nanpercentile"):
        at = 0.3 if "quantile" in name else 30.0
        own = partial(_second, getattr(jnp, name), at)
        entries.append(Entry(f"jnp.{name}({at:g})", own, quantiles))
    entries += [
        Entry("jnp.quantile(0.5)", partial(_second, jnp.quantile, 0.5), quantiles),
        Entry(
            "jnp.quantile(of q)",
            partial(jnp.quantile, sample(5)),
            (
                Point("q = 0.3", (np.float64(0.3),)),
                Point("q = 0.5, at a datum", (np.float64(0.5),), True),
            ),
        ),
        Entry("jnp.std(ddof=1)", partial(jnp.std, ddof=1), (VECTOR, ZEROS)),
        Entry("jnp.histogram(weights)", _histogram, (VECTOR,)),
        Entry("jnp.bincount(weights)", _bincount, (VECTOR,)),
    ]
    return entries


def _second(function: Function, given: Any, x: Any) -> Any:
    return function(x, given)


def _histogram(weights: Any) -> Any:
    return jnp.histogram(jnp.arange(5.0), bins=3, weights=weights)[0]


def _bincount(weights: Any) -> Any:
    return jnp.bincount(jnp.array([0, 1, 1, 2, 0]), weights, length=3)


def _called(text: str) -> tuple[str, tuple[Any, ...]]:
    """Of "roll:1" the name and the further arguments."""
    name, _, rest = text.partition(":")
    given = literal_eval(f"({rest},)") if rest and rest != "sq" else ()
    return name, given


def _rearranged() -> list[Entry]:
    entries = []
    for texts, points in ((REARRANGED, (VECTOR, ONE_ZERO)), (OF_MATRIX, (MATRIX,))):
        for text in texts.split():
            name, given = _called(text)
            if hasattr(jnp, name):
                at = (SQUARE,) if text.endswith(":sq") else points
                own = partial(_first, getattr(jnp, name), given)
                entries.append(Entry(f"jnp.{name}", own, at))
    for name in ("broadcast_to", "pad", "take", "compress", "delete", "insert"):
        given = {
            "broadcast_to": ((2, 5),),
            "pad": (2,),
            "take": (jnp.array([1, 1, 4]),),
            "delete": (1,),
            "insert": (1, 3.0),
            "compress": (),
        }[name]
        own = partial(_first, getattr(jnp, name), given)
        if name == "compress":
            own = partial(jnp.compress, np.array([True, False, True]), size=2)
        entries.append(Entry(f"jnp.{name}", own, (VECTOR,)))
    for mode in (
        "edge",
        "reflect",
        "symmetric",
        "wrap",
        "linear_ramp",
        "mean",
        "maximum",
    ):
        own = partial(jnp.pad, pad_width=2, mode=mode)
        entries.append(Entry(f"jnp.pad(mode={mode})", own, (VECTOR, TIES)))
    return entries


def _first(function: Function, given: tuple[Any, ...], x: Any) -> Any:
    return function(x, *given)


def _products() -> list[Entry]:
    entries = []
    for text in OF_TWO.split():
        name = text.rstrip("*13")
        if not hasattr(jnp, name):
            continue
        own = getattr(jnp, name)
        at: tuple[Point, ...] = (TWO, TWO_ZEROS)
        if text == "cross3":
            at = (Point("two vectors of 3", (sample(3), sample(3, start=9))),)
        if text == "interp3":
            own, at = partial(_interpolated, own), _interpolations()
        if text == "tensordot1":
            own = partial(own, axes=1)
        if text.endswith("*"):
            own = partial(_as_list, own)
        if name in ("block", "concatenate", "stack"):
            at = (TWO,)
        entries.append(Entry(f"jnp.{name}", own, at))
    entries += [
        Entry("jnp.matmul(matrices)", jnp.matmul, (PRODUCT,)),
        Entry("jnp.einsum(ij,jk->ik)", partial(jnp.einsum, "ij,jk->ik"), (PRODUCT,)),
        Entry("jnp.einsum(ij,jk->)", partial(jnp.einsum, "ij,jk->"), (PRODUCT,)),
        Entry(
            "jnp.linalg.multi_dot", partial(_as_list, jnp.linalg.multi_dot), (PRODUCT,)
        ),
        Entry("jnp.matvec", jnp.matvec, (_pair((2, 3), (3,)),)),
        Entry("jnp.vecmat", jnp.vecmat, (_pair((2,), (2, 3)),)),
        Entry(
            "jnp.polyval",
            jnp.polyval,
            (
                Point("4 coefficients, x", (sample(4), np.float64(0.7))),
                Point("4 coefficients, 0", (sample(4), np.float64(0.0)), True),
            ),
        ),
    ]
    return [entry for entry in entries if callable(entry.function)]


def _pair(one: tuple[int, ...], other: tuple[int, ...]) -> Point:
    label = f"{'×'.join(map(str, one))} and {'×'.join(map(str, other))} numbers"
    return Point(label, (sample(*one), sample(*other, start=9)))


def _as_list(function: Function, *arrays: Any) -> Any:
    return function(list(arrays))


def _interpolated(function: Function, x: Any, values: Any) -> Any:
    return function(x, jnp.arange(4.0), values)


def _interpolations() -> tuple[Point, ...]:
    values = sample(4)
    places = ((1.3, False), (1.0, True), (0.0, True), (3.0, True), (5.0, True))
    return tuple(
        Point(f"x = {x:g}, nodes 0…3", (np.float64(x), values), edge)
        for x, edge in places
    )


def _polynomials_and_choices() -> list[Entry]:
    condition = np.array([True, False, True, True, False])
    return [
        Entry("jnp.polyder", jnp.polyder, (VECTOR,)),
        Entry("jnp.polyint", jnp.polyint, (VECTOR,)),
        Entry("jnp.polyfit", lambda y: jnp.polyfit(jnp.arange(5.0), y, 2), (VECTOR,)),
        Entry(
            "jnp.polydiv",
            lambda u, v: jnp.polydiv(u, v)[0],
            (Point("4 and 2 numbers", (sample(4), 2 + sample(2, start=7))),),
        ),
        Entry("jnp.poly", jnp.poly, (Point("3 roots", (sample(3),)),)),
        Entry(
            "jnp.roots(abs)",
            lambda p: jnp.abs(jnp.roots(p, strip_zeros=False)),
            (Point("4 coefficients", (np.array([1.0, -2.0, -3.5, 1.2]),)),),
        ),
        Entry("jnp.where(mask)", lambda x, y: jnp.where(condition[:4], x, y), (TWO,)),
        Entry(
            "jnp.select",
            lambda x, y: jnp.select([x > 0, y > 0], [x * y, y]),
            (
                TWO,
                TWO_ZEROS,
            ),
        ),
        Entry(
            "jnp.choose",
            lambda x, y: jnp.choose(jnp.array([0, 1, 1, 0]), [x, y], mode="clip"),
            (TWO,),
        ),
        Entry("jnp.extract", lambda x: jnp.extract(condition, x, size=3), (VECTOR,)),
        Entry(
            "jnp.linspace", lambda a, b: jnp.linspace(a, b, 5), (_numbers(0.3, 2.0),)
        ),
        Entry(
            "jnp.geomspace", lambda a, b: jnp.geomspace(a, b, 5), (_numbers(0.3, 2.0),)
        ),
        Entry(
            "jnp.logspace", lambda a, b: jnp.logspace(a, b, 5), (_numbers(0.3, 1.0),)
        ),
        Entry("jnp.full", lambda x: jnp.full((3,), x), (_numbers(0.3),)),
        Entry(
            "jnp.full_like", lambda x: jnp.full_like(jnp.zeros(3), x), (_numbers(0.3),)
        ),
        Entry("jnp.meshgrid", lambda x, y: jnp.meshgrid(x, y), (TWO,)),
        Entry(
            "jnp.broadcast_arrays", lambda x, y: jnp.broadcast_arrays(x, y[:1]), (TWO,)
        ),
        Entry(
            "jnp.apply_along_axis",
            lambda x: jnp.apply_along_axis(jnp.linalg.norm, 0, x),
            (MATRIX,),
        ),
        Entry(
            "jnp.apply_over_axes",
            lambda x: jnp.apply_over_axes(jnp.sum, x, [0, 1]),
            (MATRIX,),
        ),
        Entry("jnp.vectorize", jnp.vectorize(jnp.dot, signature="(n),(n)->()"), (TWO,)),
        Entry(
            "jnp.kaiser(beta)",
            lambda beta: jnp.kaiser(5, beta),
            (
                _numbers(2.0),
                _numbers(0.0, is_edge=True),
            ),
        ),
        Entry(
            "jnp.fill_diagonal",
            lambda x, v: jnp.fill_diagonal(x, v, inplace=False),
            (Point("3×3, a number", (sample(3, 3), np.float64(0.4))),),
        ),
        Entry(
            "jnp.place",
            lambda x: jnp.place(x, condition, jnp.array([1.0, 2.0]), inplace=False),
            (VECTOR,),
        ),
        Entry(
            "jnp.put",
            lambda x, v: jnp.put(x, jnp.array([1, 3]), v, inplace=False),
            (Point("5 and 2 numbers", (sample(5), sample(2, start=8))),),
        ),
        Entry(
            "jnp.take_along_axis",
            lambda x: jnp.take_along_axis(x, jnp.array([1, 0, 0, 4, 2]), 0),
            (VECTOR,),
        ),
        Entry(
            "jnp.put_along_axis",
            lambda x, v: jnp.put_along_axis(x, jnp.array([1, 3]), v, 0, inplace=False),
            (Point("5 and 2 numbers", (sample(5), sample(2, start=8))),),
        ),
    ]


def _numbers(*values: float, is_edge: bool = False) -> Point:
    label = ", ".join(f"{x:g}" for x in values)
    return Point(label, tuple(np.float64(x) for x in values), is_edge)


def _indexed() -> list[Entry]:
    """x.at[index].op(value): inside, repeated, and beyond the end in each mode."""
    inside = Point(
        "x of 3, 0.5 below x[1]", (np.array([1.0, 2.0, 3.0]), np.float64(0.5))
    )
    above = Point("x of 3, 9 above x[1]", (np.array([1.0, 2.0, 3.0]), np.float64(9.0)))
    tie = Point("x of 3, 2 = x[1]", (np.array([1.0, 2.0, 3.0]), np.float64(2.0)), True)
    entries = []
    for op in ("set", "add", "subtract", "multiply", "divide", "power", "min", "max"):
        own = partial(_updated, op, jnp.array([1]), None)
        entries.append(Entry(f"x.at[1].{op}", own, (inside, above, tie)))
        own = partial(_updated, op, jnp.array([1, 1]), None)
        entries.append(Entry(f"x.at[1, 1].{op}", own, (inside, above)))
        for mode in ("clip", "drop"):
            if op in ("subtract", "divide", "power"):
                continue
            own = partial(_updated, op, jnp.array([5]), mode)
            name = f"x.at[5].{op}(mode={mode})"
            entries.append(Entry(name, own, (inside, above)))
    for mode in ("fill", "clip", "wrap"):
        own = partial(jnp.take, indices=jnp.array([1, 7]), mode=mode)
        at = Point("3 numbers, index beyond", (sample(3),), True)
        if mode != "fill":
            entries.append(Entry(f"jnp.take(mode={mode})", own, (at,)))
    entries += [
        Entry("x.at[1].get", lambda x: x.at[1].get(), (VECTOR,)),
        Entry("x.at[1].apply", lambda x: x.at[1].apply(jnp.sin), (VECTOR,)),
        Entry(
            "jax.ops.segment_sum", partial(_segments, jax.ops.segment_sum), (VECTOR,)
        ),
        Entry(
            "jax.ops.segment_prod",
            partial(_segments, jax.ops.segment_prod),
            (
                VECTOR,
                ONE_ZERO,
            ),
        ),
        Entry(
            "jax.ops.segment_max",
            partial(_segments, jax.ops.segment_max),
            (
                VECTOR,
                TIES,
            ),
        ),
        Entry(
            "jax.ops.segment_min",
            partial(_segments, jax.ops.segment_min),
            (
                VECTOR,
                TIES,
            ),
        ),
    ]
    return entries


def _updated(op: str, index: Any, mode: str | None, x: Any, value: Any) -> Any:
    return getattr(x.at[index], op)(value, mode=mode)


def _segments(function: Function, x: Any) -> Any:
    return function(x, jnp.array([0, 1, 1, 2, 1]), 3)


def _transforms() -> list[Entry]:
    entries = []
    grid = Point("2×4 numbers", (sample(2, 4),))
    for name in ("fft", "ifft", "rfft", "ihfft", "fftshift", "ifftshift"):
        entries.append(Entry(f"jnp.fft.{name}", getattr(jnp.fft, name), (SIGNAL,)))
    for name in ("fft2", "ifft2", "fftn", "ifftn", "rfft2", "rfftn"):
        entries.append(Entry(f"jnp.fft.{name}", getattr(jnp.fft, name), (grid,)))
    for name in ("irfft", "hfft"):
        own = partial(_of_complex, getattr(jnp.fft, name))
        entries.append(Entry(f"jnp.fft.{name}", own, (FREQUENCIES,)))
    at = Point("2×3 and 2×3 numbers", (sample(2, 3), sample(2, 3, start=9)))
    for name in ("irfft2", "irfftn"):
        own = partial(_of_complex, getattr(jnp.fft, name))
        entries.append(Entry(f"jnp.fft.{name}", own, (at,)))
    of_complex = Point("a + ib", (np.float64(0.7), np.float64(-0.4)))
    at_zero = Point("0 + 0i", (np.float64(0.0), np.float64(0.0)), True)
    on_axis = Point("-1 + 0i", (np.float64(-1.0), np.float64(0.0)), True)
    names = "abs angle exp log sqrt sin tan tanh arctan square reciprocal sinc sign"
    for name in names.split():
        own = partial(_of_complex, getattr(jnp, name))
        points = (of_complex, at_zero, on_axis)
        entries.append(Entry(f"jnp.{name}(complex)", own, points))
    entries.append(Entry("jax.scipy.fft.dct", lambda x: jsp.fft.dct(x), (SIGNAL,)))
    entries.append(Entry("jax.scipy.fft.idct", lambda x: jsp.fft.idct(x), (SIGNAL,)))
    return entries


def _of_complex(function: Function, real: Any, imaginary: Any) -> Any:
    return function(lax.complex(real, imaginary))


def _lax() -> list[Entry]:
    def signal(*shape: int) -> Any:
        return sample(*shape)

    image, kernel = signal(1, 1, 3, 3), signal(1, 1, 2, 2)
    line, taps = signal(1, 1, 5), signal(1, 1, 3)
    vector = partial(Entry, points=(VECTOR,))
    ties = partial(Entry, points=(VECTOR, TIES, ZEROS))
    entries = [
        *(
            ties(f"jax.lax.{name}", getattr(lax, name))
            for name in (
                "cumsum",
                "cumprod",
                "cummax",
                "cummin",
                "cumlogsumexp",
                "sort",
            )
        ),
        *(
            ties(f"jax.lax.{name}", partial(getattr(lax, name), axes=(0,)))
            for name in ("reduce_max", "reduce_min", "reduce_prod", "reduce_sum")
            if hasattr(lax, name)
        ),
        ties("jax.lax.top_k", lambda x: lax.top_k(x, 2)[0]),
        ties("jax.lax.approx_max_k", lambda x: lax.approx_max_k(x, 2)[0]),
        ties("jax.lax.sort_key_val", lambda x: lax.sort_key_val(x, x**2)[1]),
        ties("jax.lax.reduce(max)", lambda x: lax.reduce(x, -jnp.inf, lax.max, (0,))),
        ties("jax.lax.reduce(mul)", lambda x: lax.reduce(x, 1.0, lax.mul, (0,))),
        *(
            ties(
                f"jax.lax.reduce_window({name})",
                lambda x, op=op, init=init: lax.reduce_window(
                    x, init, op, (2,), (1,), "VALID"
                ),
            )
            for name, op, init in (
                ("max", lax.max, -np.inf),
                ("min", lax.min, np.inf),
                ("add", lax.add, 0.0),
                ("mul", lax.mul, 1.0),
            )
        ),
        vector("jax.lax.rev", lambda x: lax.rev(x, (0,))),
        vector("jax.lax.pad", lambda x: lax.pad(x, 1.0, [(1, 2, 1)])),
        vector("jax.lax.slice", lambda x: lax.slice(x, (1,), (4,))),
        vector("jax.lax.slice_in_dim", lambda x: lax.slice_in_dim(x, 1, 5, 2)),
        vector("jax.lax.index_in_dim", lambda x: lax.index_in_dim(x, 1)),
        vector("jax.lax.dynamic_slice", lambda x: lax.dynamic_slice(x, (7,), (3,))),
        vector(
            "jax.lax.dynamic_slice_in_dim",
            lambda x: lax.dynamic_slice_in_dim(x, 1, 3),
        ),
        vector(
            "jax.lax.dynamic_index_in_dim",
            lambda x: lax.dynamic_index_in_dim(x, 2),
        ),
        vector(
            "jax.lax.dynamic_update_slice",
            lambda x: lax.dynamic_update_slice(x, x[:2] * x[1:3], (7,)),
        ),
        vector(
            "jax.lax.dynamic_update_slice_in_dim",
            lambda x: lax.dynamic_update_slice_in_dim(x, x[:2] ** 2, 1, 0),
        ),
        vector(
            "jax.lax.dynamic_update_index_in_dim",
            lambda x: lax.dynamic_update_index_in_dim(x, x[0] ** 2, 1, 0),
        ),
        vector("jax.lax.broadcast", lambda x: lax.broadcast(x, (2,))),
        vector(
            "jax.lax.broadcast_in_dim", lambda x: lax.broadcast_in_dim(x, (2, 5), (1,))
        ),
        vector("jax.lax.concatenate", lambda x: lax.concatenate([x, x * x], 0)),
        vector("jax.lax.reshape", lambda x: lax.reshape(x, (5, 1))),
        vector("jax.lax.squeeze", lambda x: lax.squeeze(x[None], (0,))),
        vector("jax.lax.expand_dims", lambda x: lax.expand_dims(x, (0,))),
        vector("jax.lax.split", lambda x: lax.split(x, (2, 3))),
        vector("jax.lax.select", lambda x: lax.select(x > 0, x, x * x)),
        vector("jax.lax.select_n", lambda x: lax.select_n(x > 0, x, x * x)),
        vector(
            "jax.lax.convert_element_type",
            lambda x: lax.convert_element_type(x, jnp.float64),
        ),
        vector("jax.lax.optimization_barrier", lax.optimization_barrier),
        vector("jax.lax.real", lambda x: lax.real(lax.complex(x, x * x))),
        vector("jax.lax.imag", lambda x: lax.imag(lax.complex(x, x * x))),
        vector("jax.lax.conj", lambda x: lax.conj(lax.complex(x, x * x))),
        vector("jax.lax.cond", lambda x: lax.cond(x[0] > 0, jnp.sin, jnp.cos, x)),
        vector(
            "jax.lax.switch", lambda x: lax.switch(1, [jnp.sin, jnp.exp, jnp.cos], x)
        ),
        vector(
            "jax.lax.scan",
            lambda x: lax.scan(lambda c, y: (jnp.sin(c) + y, c * y), 0.3, x),
        ),
        vector("jax.lax.map", lambda x: lax.map(lambda y: y * jnp.sin(y), x)),
        vector(
            "jax.lax.fori_loop",
            lambda x: lax.fori_loop(0, 3, lambda i, c: jnp.sin(c) * x, x),
        ),
        vector(
            "jax.lax.while_loop",
            lambda x: lax.while_loop(
                lambda c: c[0] < 3, lambda c: (c[0] + 1, jnp.sin(c[1])), (0, x)
            )[1],
        ),
        vector(
            "jax.lax.associative_scan",
            lambda x: lax.associative_scan(lambda a, b: a * b, x),
        ),
        vector(
            "jax.lax.custom_root",
            lambda x: lax.custom_root(
                lambda y: y**3 + y - x, jnp.zeros(5), _newton, _divided
            ),
        ),
        vector(
            "jax.lax.custom_linear_solve",
            lambda x: lax.custom_linear_solve(
                lambda y: (2 + x**2) * y, x, lambda _, b: b / (2 + x**2), symmetric=True
            ),
        ),
        vector("jax.checkpoint", jax.checkpoint(lambda x: jnp.sin(jnp.exp(x)))),
        Entry("jax.lax.transpose", lambda x: lax.transpose(x, (1, 0)), (MATRIX,)),
        Entry("jax.lax.collapse", lambda x: lax.collapse(x, 0, 2), (MATRIX,)),
        Entry("jax.lax.dot", lax.dot, (PRODUCT,)),
        Entry(
            "jax.lax.dot_general",
            lambda a, b: lax.dot_general(a, b, (((1,), (0,)), ((), ()))),
            (PRODUCT,),
        ),
        Entry(
            "jax.lax.batch_matmul",
            lambda a, b: lax.batch_matmul(a[None], b[None]),
            (PRODUCT,),
        ),
        Entry(
            "jax.lax.ragged_dot",
            lambda a, b: lax.ragged_dot(a, b.reshape(2, 3, 2), jnp.array([1, 1])),
            (Point("2×3 and 6×2 numbers", (sample(2, 3), sample(6, 2, start=9))),),
        ),
        Entry(
            "jax.lax.conv",
            lambda x, k: lax.conv(x, k, (1, 1), "SAME"),
            (Point("3×3 image, 2×2 kernel", (image, kernel)),),
        ),
        Entry(
            "jax.lax.conv_general_dilated",
            lambda x, k: lax.conv_general_dilated(
                x, k, (2,), [(1, 2)], lhs_dilation=(2,), rhs_dilation=(2,)
            ),
            (Point("5 samples, 3 taps", (line, taps)),),
        ),
        Entry(
            "jax.lax.conv_general_dilated_local",
            lambda x, k: lax.conv_general_dilated_local(x, k, (1,), "VALID", (3,)),
            (Point("5 samples, 3×3 taps", (line, sample(1, 3, 3, start=9))),),
        ),
        Entry(
            "jax.lax.conv_general_dilated_patches",
            lambda x: lax.conv_general_dilated_patches(x, (3,), (1,), "SAME"),
            (Point("5 samples", (line,)),),
        ),
        Entry(
            "jax.lax.conv_transpose",
            lambda x, k: lax.conv_transpose(
                x, k, (2,), "SAME", dimension_numbers=("NCH", "OIH", "NCH")
            ),
            (Point("5 samples, 3 taps", (line, taps)),),
        ),
        Entry(
            "jax.lax.conv_with_general_padding",
            lambda x, k: lax.conv_with_general_padding(
                x, k, (1,), [(1, 1)], None, None
            ),
            (Point("5 samples, 3 taps", (line, taps)),),
        ),
        Entry(
            "jax.lax.gather",
            lambda x: lax.gather(
                x,
                jnp.array([[1], [3]]),
                lax.GatherDimensionNumbers((), (0,), (0,)),
                (1,),
            ),
            (VECTOR,),
        ),
        *(
            Entry(
                f"jax.lax.{name}",
                partial(_scattered, getattr(lax, name)),
                (Point("5 and 2 numbers", (sample(5), sample(2, start=8))),),
            )
            for name in (
                "scatter",
                "scatter_add",
                "scatter_sub",
                "scatter_mul",
                "scatter_min",
                "scatter_max",
            )
            if hasattr(lax, name)
        ),
    ]
    return entries


def _scattered(function: Function, x: Any, updates: Any) -> Any:
    numbers = lax.ScatterDimensionNumbers((), (0,), (0,))
    return function(x, jnp.array([[1], [3]]), updates, numbers)


def _newton(function: Function, guess: Any) -> Any:
    slope = jax.grad(lambda y: jnp.sum(function(y)))
    return lax.fori_loop(0, 20, lambda _, y: y - function(y) / slope(y), guess)


def _divided(linear: Function, b: Any) -> Any:
    return b / linear(jnp.ones_like(b))


def _softmaxes() -> list[Entry]:
    points = (
        *MOST_EDGES,
        TINIES,
        LARGES,
        Point("(0, -1e9, 1, 1e9, 2)", (np.array([0.0, -1e9, 1.0, 1e9, 2.0]),), True),
    )
    spread = (VECTOR, TIES, ZEROS, TINIES)
    even = Point("6 numbers", (sample(6),))
    attended = Point(
        "3 queries, keys, values of 2",
        (
            sample(1, 3, 1, 2),
            sample(1, 3, 1, 2, start=7),
            sample(1, 3, 1, 2, start=14),
        ),
    )
    return [
        *(
            Entry(f"jax.nn.{name}", getattr(jax.nn, name), points)
            for name in ("softmax", "log_softmax", "logsumexp", "logmeanexp")
            if hasattr(jax.nn, name)
        ),
        *(
            Entry(f"jax.scipy.special.{name}", getattr(jsp.special, name), points)
            for name in ("softmax", "log_softmax", "logsumexp")
        ),
        Entry("jax.nn.standardize", jax.nn.standardize, spread),
        Entry("jax.nn.glu", jax.nn.glu, (even,)),
        Entry(
            "jax.nn.dot_product_attention", jax.nn.dot_product_attention, (attended,)
        ),
        Entry(
            "jax.nn.dot_product_attention(causal)",
            partial(jax.nn.dot_product_attention, is_causal=True),
            (attended,),
        ),
    ]


def _signals() -> list[Entry]:
    signal = jsp.signal
    pair = Point("5 and 3 numbers", (sample(5), sample(3, start=8)))
    planes = Point("3×3 and 2×2 numbers", (sample(3, 3), sample(2, 2, start=9)))
    grid = np.arange(3.0)
    return [
        *(
            Entry(f"jax.scipy.signal.{name}", getattr(signal, name), (pair,))
            for name in ("convolve", "correlate", "fftconvolve")
        ),
        *(
            Entry(f"jax.scipy.signal.{name}", getattr(signal, name), (planes,))
            for name in ("convolve2d", "correlate2d")
        ),
        Entry("jax.scipy.signal.detrend", signal.detrend, (SIGNAL,)),
        Entry(
            "jax.scipy.signal.stft", lambda x: signal.stft(x, nperseg=4)[2], (SIGNAL,)
        ),
        Entry(
            "jax.scipy.signal.istft",
            lambda x, y: signal.istft(lax.complex(x, y), nperseg=4)[1],
            (Point("3×4 and 3×4 numbers", (sample(3, 4), sample(3, 4, start=13))),),
        ),
        Entry(
            "jax.scipy.signal.welch", lambda x: signal.welch(x, nperseg=4)[1], (SIGNAL,)
        ),
        Entry(
            "jax.scipy.signal.csd",
            lambda x: signal.csd(x, x**2, nperseg=4)[1],
            (SIGNAL,),
        ),
        Entry("jax.scipy.integrate.trapezoid", jsp.integrate.trapezoid, (VECTOR,)),
        Entry(
            "jax.scipy.ndimage.map_coordinates",
            lambda x, at: jsp.ndimage.map_coordinates(x, [at], order=1),
            (
                Point("5 numbers, between", (sample(5), np.array([1.3]))),
                Point("5 numbers, at one", (sample(5), np.array([1.0])), True),
                Point("5 numbers, beyond", (sample(5), np.array([9.0])), True),
            ),
        ),
        Entry(
            "jax.scipy.interpolate.RegularGridInterpolator",
            lambda values, at: jsp.interpolate.RegularGridInterpolator(
                (grid, grid), values
            )(at),
            (
                Point("3×3 values, between", (sample(3, 3), np.array([[0.4, 1.3]]))),
                Point(
                    "3×3 values, at one", (sample(3, 3), np.array([[1.0, 1.0]])), True
                ),
            ),
        ),
        *(
            Entry(
                f"jax.image.resize({method})",
                partial(jax.image.resize, shape=(8,), method=method),
                (VECTOR,),
            )
            for method in ("linear", "cubic", "lanczos3", "nearest")
        ),
    ]
