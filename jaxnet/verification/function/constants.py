"""The constants of a traced program, as exact as they can be known.

A trace holds Python's 0.1 rounded to the dtype of the array that it meets (1.5e-8 off
in float32, 1e-3 in bfloat16) and NumPy's float64 data cut to float32. A trace of the
same function under x64 has them exact: each is found there again as the one value that
rounds to it. (`finfo(dtype).eps` rounds to nothing that the caller has, and stays.)

JAX (0.10 to 0.12) remembers for a NumPy array that a program closes over in which dtype
it was, as long as that program lives, also in JAX's caches; in the other mode, the
caller's next call then fails. So the x64 trace comes first and is dropped at once.
Where a cache still holds an array of the caller's from it, the caches are cleared: his
functions compile anew. So they are where his own earlier calls hold data that are cut.
"""

import gc
import sys
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

from jaxnet.float64 import in_float64
from jaxnet.jaxpr.reader import WIDE, is_literal, opened, sub_jaxprs

Function = Callable[[list[Any]], PyTree]
Arrays = Sequence[np.ndarray]


@dataclass(frozen=True, eq=False)
class Constant:
    """A number or an array written into a program.

    value: in float64.
    uncertainty: how far what was meant may lie from it; 0 where the value is exact.
    places: the objects that stand for it in the program.
    """

    value: np.ndarray
    uncertainty: np.ndarray
    places: tuple[Any, ...]

    @property
    def is_exact(self) -> bool:
        """Whether the value is what was meant."""
        return not np.any(self.uncertainty)


def is_float(dtype: Any) -> bool:
    """Whether numbers of a dtype are real or complex floating numbers."""
    return dtype is not None and jnp.issubdtype(dtype, np.inexact)


def wide_dtype(dtype: Any) -> Any:
    """float64 for a real and complex128 for a complex dtype, else the dtype itself."""
    if not is_float(dtype):
        return dtype
    is_complex = jnp.issubdtype(dtype, np.complexfloating)
    return np.dtype(np.complex128 if is_complex else np.float64)


# ------------------------------------------------------------------------- the traces


YOUNG = 1
"""A generation of the garbage collector: a trace leaves its garbage up to it."""

GARBAGE = partial(gc.collect, YOUNG), gc.collect
"""How a program that is garbage by now lets go of what it holds: to look through few
objects first, for through all of them it takes long."""


@contextmanager
def _all_new_is_young() -> Iterator[None]:
    """Let no object grow older than `YOUNG`: the collector of garbage waits.

    So what a trace leaves is found among few objects. To look through all of them, the
    caller's model and his libraries, takes longer than a check.
    """
    is_collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if is_collecting:
            gc.enable()


@_all_new_is_young()
def traced(
    function: Function, args: Sequence[Any], known: Sequence[Constant] = ()
) -> tuple[Any, PyTree, Arrays]:
    """A function as its caller runs it, its result's shapes, its constants under x64.

    known: constants of a function over the same data. Afterwards, a call of the
    function gives its caller what it gave before; a cache in Python of his own
    (lru_cache) should be filled by a call of his beforehand.

    Where an earlier trace still cuts his data, garbage is collected and it is traced
    once more; where that does not do, or what a cache holds is in the way, the caches
    are cleared.
    """
    in_x64 = jax.dtypes.canonicalize_dtype(np.float64) == np.float64
    is_in_caches = False
    for let_go in (None, *GARBAGE, _clear_caches):
        is_last = let_go is _clear_caches
        if is_in_caches and not is_last:
            continue
        if let_go is not None:
            let_go()
        exact, foreign, cut, failed = _traced_in_float64(function, args)
        if _are_held(foreign):
            jax.clear_caches()
        held = [c for c in _alive(cut) if _same_data(c, known) is None]
        is_in_caches = True
        try:
            closed, shapes = trace(function, args)
        except (jax.errors.JAXTypeError, jax.errors.JAXIndexError):
            raise
        except Exception as error:  # the caller's function, or a dtype JAX remembers
            is_own = bool(failed) and _words(error) == failed
            if is_last or in_x64 or is_own:
                raise
        else:
            own = list(every_constant(closed))
            is_cut = any(c is o for o in own for c in held)
            is_in_caches = exact is None or any(map(_is_foreign, own))
            if is_last or in_x64 or not (is_cut or is_in_caches):
                return closed, shapes, exact or ()
            del closed, own
        del held
    raise AssertionError("the last round returns or raises")


def _clear_caches() -> None:
    """Let go of every program of JAX's: the caller's functions compile anew."""
    jax.clear_caches()
    gc.collect()


def trace(function: Function, args: Sequence[Any]) -> tuple[Any, PyTree]:
    """By a function of its own, so that JAX keeps nothing of it.

    A warning, of a number too large for float32 say, comes where its owner calls it.
    """
    with warnings.catch_warnings(), _all_new_is_young():
        warnings.simplefilter("ignore")
        make = jax.make_jaxpr(lambda values: function(values), return_shape=True)
        try:
            return make(list(args))
        except Exception:  # the caller's function
            _let_go_of_traces()
            raise


def _let_go_of_traces() -> None:
    """Let traces that ended by an exception go of what they have seen.

    JAX empties a trace at its end only. One that ends earlier is kept by the arrays it
    has seen, and keeps them, in the dtype that they had in its mode. No other trace is
    under way: none is within a check.
    """
    young = (gc.get_objects(generation) for generation in range(YOUNG + 1))
    for found in chain.from_iterable(young):
        if type(found).__name__ == "DynamicJaxprTrace":
            found.invalidate()


Weak = list[weakref.ref[np.ndarray]]


class _InFloat64(NamedTuple):
    """What a trace under x64 shows.

    exact: the floating constants, copied, place by place; None if untraceable.
    foreign, cut: if they still live, arrays of the caller's in a dtype that his mode
        does not have, and copies, perhaps cut from his float64 data in another trace.
    failed: what the first attempt raised, if that has nothing to do with dtypes.
    """

    exact: Arrays | None
    foreign: Weak
    cut: Weak
    failed: str


def _traced_in_float64(function: Function, args: Sequence[Any]) -> _InFloat64:
    """By arguments in float64; by those that are given, if it does not take these."""
    failed = list[str]()
    for given in ([_argument_in_float64(a) for a in args], args):
        try:
            with in_float64():
                closed, _ = trace(function, given)
        except (jax.errors.JAXTypeError, jax.errors.JAXIndexError):
            break  # it wants the values of its arguments, whatever their dtype
        except Exception as error:  # the caller's function, in a mode not his
            failed.append(_words(error))
            closed = None
        if closed is None:
            gc.collect(YOUNG)  # now that the exception is gone
            continue
        places = list(every_constant(closed))
        found = {id(c): c for c in places}
        floating = {i: c for i, c in found.items() if is_float(c.dtype)}
        wide = {i: np.array(c, wide_dtype(c.dtype)) for i, c in floating.items()}
        exact = [wide[id(c)] for c in places if id(c) in wide]
        arrays = [c for c in found.values() if isinstance(c, np.ndarray)]
        foreign = [weakref.ref(c) for c in arrays if _is_foreign(c) and _is_held(c)]
        copies = [c for c in arrays if is_float(c.dtype) and not _is_given(c)]
        cut = [weakref.ref(c) for c in copies if c.dtype != wide_dtype(c.dtype)]
        return _InFloat64(exact, foreign, cut, "")
    return _InFloat64(None, [], [], next(iter(failed), ""))


def _words(error: Exception) -> str:
    """What an error says; nothing, if that may be of a dtype that JAX remembers."""
    words = f"{type(error).__name__}: {error}"
    return "" if any(dtype in words for dtype in WIDE) else words


def _argument_in_float64(value: Any) -> Any:
    """Python's own numbers stay as they are, of weak type."""
    dtype = getattr(value, "dtype", None)
    return np.asarray(value, wide_dtype(dtype)) if is_float(dtype) else value


def _are_held(references: Weak) -> bool:
    """Whether one of them is held by more than garbage."""
    for collect in GARBAGE:
        if _alive(references):
            collect()
    return bool(_alive(references))


def _alive(references: Weak) -> list[np.ndarray]:
    return [array for r in references if (array := r()) is not None]


def _is_foreign(value: Any) -> bool:
    """Whether the current mode does not have the dtype of a NumPy array: int64, say."""
    is_number = isinstance(value, np.ndarray) and value.dtype.kind in "iufc"
    return is_number and jax.dtypes.canonicalize_dtype(value.dtype) != value.dtype


def _is_held(constant: Any) -> bool:
    """Whether somebody else holds the array that a constant is a view of.

    JAX holds the caller's array as a view. What a copy views belongs to the constant
    alone: one reference, and the argument of getrefcount.
    """
    return constant.base is not None and sys.getrefcount(constant.base) > 2


def _is_given(constant: Any) -> bool:
    """Whether a constant is the caller's array, or a view of it; else it is a copy."""
    if constant.base is None:
        return False
    return _is_held(constant) or _is_given(constant.base)


def every_constant(jaxpr: Any) -> Iterator[Any]:
    """Every array and number with a dtype of a program, also inside its equations.

    A number of Python's own has none: it is what was meant. Tracers are left in jaxprs
    that a primitive of a library keeps to describe itself.
    """
    for value in _every_value(jaxpr):
        if hasattr(value, "dtype") and not isinstance(value, jax.core.Tracer):
            yield value


def _every_value(jaxpr: Any) -> Iterator[Any]:
    yield from getattr(jaxpr, "consts", ())
    for equation in opened(jaxpr).eqns:
        yield from (v.val for v in equation.invars if is_literal(v))
        for inner in sub_jaxprs(equation):
            yield from _every_value(inner)
    yield from (v.val for v in opened(jaxpr).outvars if is_literal(v))


# ---------------------------------------------------------------------- what is meant


def constants(
    closed: Any, exact: Arrays, known: Sequence[Constant] = ()
) -> list[Constant]:
    """The floating constants of a program, as exact as its trace under x64 tells.

    exact: those of that trace, place by place. A constant is what stands in its place
    there; where the places are not the same, what rounds to it.
    known: those of another function over the same data: what both hold is one thing to
    both, so that a loss and its gradient cannot part by it. A number is what its own
    trace says, if that says anything: 1e-150 and 2e-150 are both 0 in float32.
    """
    floating = [own for own in every_constant(closed) if is_float(own.dtype)]
    places: dict[Any, list[Any]] = {}
    in_place: dict[Any, np.ndarray | None] = {}
    for own, there in zip(floating, _in_place(floating, exact), strict=True):
        key = (own.dtype, _identity(own), there is not None and _identity(there))
        places.setdefault(key, []).append(own)
        in_place[key] = there
    versions = list({_identity(v): v for v in exact}.values())
    found = []
    for key, own in places.items():
        there = in_place[key]
        rivals = versions if there is None else [there]
        same, meant = _same_data(own[0], known), _meant(own[0], rivals)
        told = np.ndim(own[0]) == 0 and bool(_versions(np.asarray(own[0]), rivals))
        if same is not None and not told:
            meant = same.value, same.uncertainty
        found.append(Constant(*meant, tuple(own)))
    return found


def _identity(constant: Any) -> Any:
    """Numbers are one if they are equal, arrays if they are one object."""
    if np.ndim(constant):
        return id(constant)
    return constant.dtype, np.asarray(constant).tobytes()


def _in_place(floating: Sequence[Any], exact: Arrays) -> Sequence[np.ndarray | None]:
    """What stands in the place of each constant under x64; None if that says nothing.

    It says nothing where the programs differ in how many they have, where it is another
    number (`finfo(dtype).eps` is), and where it is rounded there too, as a 0.1 that is
    cast to float32 is: it may stand elsewhere as it was meant.
    """
    if len(floating) != len(exact):
        return [None] * len(floating)
    pairs = zip(floating, exact, strict=True)
    return [there if _says_more(there, own) else None for own, there in pairs]


def _says_more(there: np.ndarray, own: Any) -> bool:
    """Whether a constant under x64 is the own one with more digits, or as is meant."""
    if not _versions(np.asarray(own), [there]):
        return False
    value = np.asarray(own).astype(there.dtype)
    is_other = not np.array_equal(there, value, equal_nan=True)
    return is_other or (there.ndim == 0 and not np.any(_rounding(value, own.dtype)))


def _same_data(own: Any, known: Sequence[Constant]) -> Constant | None:
    """The constant of another function that rounds to the same numbers.

    One that stands there in the same dtype comes first.
    """
    array = np.asarray(own)
    by_dtype = sorted(known, key=lambda c: c.places[0].dtype != own.dtype)
    return next((c for c in by_dtype if _versions(array, [c.value])), None)


def _meant(own: Any, exact: Arrays) -> tuple[np.ndarray, np.ndarray]:
    """The value that was meant, and how far from it the value may be that was meant.

    What rounds to the own value under x64 is what was meant. If it is there only as
    rounded too, it may be a 0.1 that met a float32 array, or data cast to float32 on
    the way: then it lies within half an ulp, unless it looks meant as it is (see
    `_half_ulp`). Data that the caller holds in float32 himself are exact, and so is
    float64 data found once: it may stand in the x64 trace as cut by another one.
    """
    is_given = np.ndim(own) > 0 and (isinstance(own, jax.Array) or _is_given(own))
    dtype, array = own.dtype, np.asarray(own)
    value = array.astype(wide_dtype(dtype))
    versions = _versions(array, exact)
    versions = list({v.tobytes(): v for v in versions}.values())
    wider = [v for v in versions if not np.array_equal(v, value, equal_nan=True)]
    if wider:
        rivals = wider if array.ndim else versions
        is_meant = len(rivals) > len(wider) and not np.any(_rounding(value, dtype))
        first = value if is_meant else wider[0]
        return first, np.asarray(np.max([np.abs(v - first) for v in rivals], axis=0))
    if is_given:
        return value, np.zeros(array.shape)
    return value, _rounding(value, dtype)


def _versions(own: np.ndarray, exact: Arrays) -> list[np.ndarray]:
    """The values in float64 that round to one of a smaller dtype."""
    dtype = wide_dtype(own.dtype)
    alike = [v for v in exact if v.shape == own.shape and v.dtype == dtype]
    with np.errstate(over="ignore", invalid="ignore"):
        return [
            v for v in alike if np.array_equal(v.astype(own.dtype), own, equal_nan=True)
        ]


def _rounding(value: np.ndarray, dtype: Any) -> np.ndarray:
    """`_half_ulp`, of complex numbers that of either part."""
    half_ulp = _half_ulp(value.real, dtype)
    if np.iscomplexobj(value):
        half_ulp = np.asarray(half_ulp + 1j * _half_ulp(value.imag, dtype))
    return half_ulp


def _half_ulp(value: np.ndarray, dtype: Any) -> np.ndarray:
    """Half an ulp of a dtype; 0 where a number, or a whole array, looks meant as it is.

    It does if it is an integer or needs at most a quarter of the bits of its dtype, as
    0.5 and 0.375 do: of the numbers that were rounded, one in 2^18 does in float32.
    """
    bits = jnp.finfo(dtype).nmant + 1
    mantissa, exponent = np.frexp(value)
    shifted = np.ldexp(mantissa, bits // 4)
    is_meant = (shifted == np.round(shifted)) | (value == np.round(value))
    is_known = np.all(is_meant | ~np.isfinite(value)) or dtype == wide_dtype(dtype)
    return np.where(is_known | (value == 0), 0.0, np.ldexp(0.5, exponent - bits))
