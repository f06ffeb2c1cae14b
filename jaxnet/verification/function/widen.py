"""A function widened: the program that its caller runs, evaluated in float64.

The function is traced once, in its caller's mode and dtypes. Every float in it that
depends on the inputs, or that is computed from constants alone, is then computed in
float64, whatever the casts. What is made from random bits stays as the caller draws it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.interpreters.partial_eval import dce_jaxpr
from jaxtyping import PyTree

from jaxnet.float64 import in_float64, platform
from jaxnet.jaxpr.compiled import Bare
from jaxnet.jaxpr.dependence import dependence_within
from jaxnet.jaxpr.evaluate import Hook, bind, enter, evaluate
from jaxnet.jaxpr.reader import (
    CONTROL,
    PRINTS,
    Loop,
    coarsest,
    inside,
    is_call,
    is_literal,
    opened,
    sub_jaxprs,
)
from jaxnet.precision import eps
from jaxnet.verification.function.constants import (
    Constant,
    Function,
    constants,
    every_constant,
    is_float,
    trace,
    traced,
    wide_dtype,
)
from jaxnet.verification.function.once import once
from jaxnet.verification.function.program import Program
from jaxnet.verification.point import are_many
from jaxnet.xla_options import by_eigen, in_haste

OWN_DTYPE = {
    "bitcast_convert_type",
    "ffi_call",
    "io_callback",
    "nextafter",
    "pallas_call",
    "pure_callback",
    "random_gamma",
    "rng_uniform",
}
"""Primitives whose meaning lies in their dtype, or that are written for it alone."""

INTEGRAL = {"ceil", "floor", "round", "sign"}
"""Primitives that a hair tips from one number to the next…"""

UP_TO_SIGNS = {"eig", "eigh", "geqp3", "geqrf", "hessenberg", "qr", "schur", "svd"}
"""…or to another decomposition of the same matrix."""

NEAR = 2.0**-11
"""Numbers in float64 that are off by more than this share of the largest are another
decomposition: rounding to float32 moves one by less, but where it is as good as any."""

SAME = 32.0
"""How many ulps of what cannot be widened two traces of one function may differ by."""


SHIFTS = 4
"""How often constants that are not exact are moved: their effect is known to 50 %."""


@jax.tree_util.register_dataclass
@dataclass(frozen=True, eq=False)
class Wide:
    """A value in float64; `own`: as the caller has it, where no input moves it."""

    value: Any
    own: Any = None


@dataclass(frozen=True, eq=False)
class Widened:
    """A function as its caller runs it (`own`), and widened to float64.

    out_tree: the structure of its result.
    inexact: the constants that are known only as rounded to the caller's dtypes.
    constants: all of them, for another function over the same data.
    source: the program that was widened, the caller's or another (see `finer`).
    program, consts: what is evaluated, given its constants, and the inputs and the
        inexact constants.
    narrow: the equations, by id, that stay in the caller's dtypes.
    draws_in_loops: whether random numbers are drawn in loops or branches: two programs,
        the loss and its gradient, may draw them an ulp apart.
    """

    own: Program
    source: Program = field(repr=False)
    out_tree: Any
    inexact: tuple[Constant, ...]
    constants: tuple[Constant, ...] = field(repr=False)
    program: Bare = field(repr=False)
    consts: Sequence[Any] = field(repr=False)
    narrow: frozenset[int] = field(repr=False)
    draws_in_loops: bool = False

    @classmethod
    def of(
        cls,
        function: Function,
        args: Sequence[Any],
        known: Sequence[Constant] = (),
        is_rerun: bool = False,
    ) -> "Widened":
        """Trace a function of a list of arrays at `args`, given in their own dtypes.

        known: `constants` of a function over the same data. While its program lives,
        JAX cuts float64 data that another closes over as it did there.

        is_rerun: of a function that evaluates a traced program, all constants are
            known: a trace under x64 would show them as that program holds them.

        Raises what JAX raises where it cannot trace the function.
        """
        closed, shapes, exact = (
            (*trace(function, args), ()) if is_rerun else traced(function, args, known)
        )
        closed, found = _let_go(closed, constants(closed, exact, known))
        inexact = [c for c in found if not c.is_exact]
        narrow: set[int] = set()

        def widened(values: list[Any], moved: list[Any]) -> list[Any]:
            given = {id(c): v for c, v in zip(inexact, moved, strict=True)}
            wide = {
                id(own): Wide(given.get(id(c), c.value), own)
                for c in found
                for own in c.places
            }
            hook = _Widening(wide, narrow)
            return [_wide(v) for v in hook.run(closed, [_moving(v) for v in values])]

        inputs = [_shape_in_float64(v) for v in opened(closed).invars]
        with in_float64():
            given = inputs, [c.value for c in inexact]
            whole = jax.make_jaxpr(widened)(*given)
            if drawn := _drawn(whole):
                whole = jax.make_jaxpr(partial(_with_drawn, whole, drawn))(*given)
        kept = [True] * len(inputs) + [False] * len(inexact)
        outputs = [True] * len(opened(whole).outvars)
        program, used = dce_jaxpr(opened(whole), outputs, kept)
        pairs = zip(inexact, used[len(inputs) :], strict=True)
        own, out_tree = Program(closed), jax.tree.structure(shapes)
        return cls(
            own=own,
            source=own,
            out_tree=out_tree,
            inexact=tuple(constant for constant, is_used in pairs if is_used),
            constants=(*known, *found),
            program=Bare.of(program, out_tree),
            consts=whole.consts,
            narrow=frozenset(narrow),
            draws_in_loops=_draws_within(whole),
        )

    def __call__(self, values: list[Any], moved: Sequence[Any] | None = None) -> PyTree:
        """The function in float64, to be called or traced where x64 is enabled.

        moved: values in place of those of the inexact constants.
        """
        return self.program(self.consts, *values, *self.inexact_values(moved))

    def inexact_values(self, moved: Sequence[Any] | None = None) -> Sequence[Any]:
        """Those of the inexact constants, or others in their place."""
        return [c.value for c in self.inexact] if moved is None else moved

    def compiled(
        self, values: Sequence[Any], moved: Sequence[Any] | None = None
    ) -> PyTree:
        """The same, compiled once for all programs that are alike.

        In haste, but where what is not fused would be felt in memory and time; there,
        float32 is widened within the program too, one array after the other.
        """
        if self._is_large:
            jitted = self.program.compiled(_of_any_floats, platform())
        else:
            values = [np.asarray(v, wide_dtype(v.dtype)) for v in values]
            jitted = self.program.compiled(in_haste, platform())
        return jitted(self.consts, *values, *self.inexact_values(moved))

    @property
    def out(self) -> PyTree:
        """The shapes and dtypes of its result, as its caller runs it."""
        return jax.tree.unflatten(self.out_tree, self.own.closed.out_avals)

    def shifts(
        self, values: Sequence[Any], known: Sequence[Constant] = ()
    ) -> Iterator[PyTree]:
        """How its value changes if constants that are not exact are moved.

        Each time, all at once: each number at random by its uncertainty, up or down.
        known: constants that stay, those of another function over the same data.
        """
        still = {id(constant.value) for constant in known}
        inexact = [id(c.value) not in still for c in self.inexact]
        if not any(inexact):
            return
        before = self.compiled(values)
        for seed in range(SHIFTS):
            random = np.random.default_rng(seed)
            signs = [random.choice([-1.0, 1.0], c.value.shape) for c in self.inexact]
            triples = zip(self.inexact, signs, inexact, strict=True)
            moved = [np.asarray(c.value + m * s * c.uncertainty) for c, s, m in triples]
            after = self.compiled(values, moved)
            yield jax.tree.map(_difference, after, before)

    def rerun(self, hook: Hook, args: Sequence[Any]) -> "Widened":
        """The caller's program with what a hook gives in place of its equations."""

        def again(values: list[Any]) -> PyTree:
            outputs = evaluate(self.own.closed, values, hook)
            return jax.tree.unflatten(self.out_tree, outputs)

        return Widened.of(again, args, self.constants, is_rerun=True)

    def as_run(self, values: Sequence[Any]) -> PyTree:
        """The function as its caller runs it, to be called in his mode."""
        closed = self.own.closed
        return self._as_run(closed.consts, *self._in_own_dtypes(values))

    def compiled_as_run(self, values: Sequence[Any]) -> PyTree:
        """The same within jit, compiled once for all programs that are alike."""
        consts, own = self.own.closed.consts, self._in_own_dtypes(values)
        return self._as_run.compiled(jax.jit)(consts, *own)

    @property
    def _is_large(self) -> bool:
        """Whether what is not fused would be felt in memory and time."""
        return are_many(aval.size for aval in self.own.closed.in_avals)

    @cached_property
    def _as_run(self) -> Bare:
        return Bare.of(self.own.closed.jaxpr, self.out_tree)

    def _in_own_dtypes(self, values: Sequence[Any]) -> list[Any]:
        pairs = zip(values, self.own.closed.in_avals, strict=True)
        return [jnp.asarray(value, aval.dtype) for value, aval in pairs]

    @once
    def precision(self, input_number: int | None = None) -> float:
        """ε of the coarsest floating type that input passes through when widened."""
        return coarsest(self.kept(input_number))

    @once
    def kept(self, input_number: int | None = None) -> list[Any]:
        """The equations that input moves and that stay in the caller's dtypes."""
        moved = self.source.moved_by(input_number)
        return [e for e in moved if id(e) in self.narrow]

    def finer(self, function: Function, values: Sequence[Any]) -> "Widened":
        """Itself, or the function as traced under x64 where less of that stays narrow.

        What cannot be widened, a kernel or a callback, may be written for any dtype.
        It is taken if at `values`, in float64, it gives the same but for rounding.
        """
        try:
            with in_float64():
                other = Widened.of(function, values)
                pairs = zip(
                    jax.tree.leaves(self.compiled(list(values))),
                    jax.tree.leaves(other.compiled(list(values))),
                    strict=True,
                )
                rounding = SAME * self.precision()
                same = all(
                    np.allclose(
                        a,
                        b,
                        rtol=rounding,
                        atol=rounding * np.max(np.abs(a), initial=0),
                    )
                    for a, b in pairs
                )
        except Exception:  # the caller's function, in a mode that he may never use
            return self
        if not same or other.precision() >= self.precision():
            return self
        return replace(other, own=self.own, constants=self.constants)


def _difference(after: Any, before: Any) -> np.ndarray:
    """Of floating arrays; what is none, as the gradient of a held leaf, stays."""
    return np.asarray(after - before if is_float(before.dtype) else before)


def _of_any_floats(program: Bare, platform: str) -> Any:
    def widened(consts: Sequence[Any], *leaves: Any) -> PyTree:
        return program(consts, *(jnp.asarray(x, wide_dtype(x.dtype)) for x in leaves))

    return by_eigen(widened, platform)


def _let_go(closed: Any, found: list[Constant]) -> tuple[Any, list[Constant]]:
    """The program with copies of the caller's arrays, and its constants there.

    As long as it held an array itself, JAX would cut that one under x64 as well.
    """
    inner = [j for e in opened(closed).eqns for j in sub_jaxprs(e)]
    held = {id(c) for j in inner for c in every_constant(j)}  # what jit holds, stays
    arrays = {
        id(c): np.array(c)
        for c in closed.consts
        if isinstance(c, np.ndarray) and id(c) not in held
    }
    consts = [arrays.get(id(c), c) for c in closed.consts]
    moved = [
        replace(c, places=tuple(arrays.get(id(p), p) for p in c.places)) for c in found
    ]
    return closed.replace(consts=consts), moved


def _shape_in_float64(variable: Any) -> jax.ShapeDtypeStruct:
    aval = variable.aval
    return jax.ShapeDtypeStruct(aval.shape, wide_dtype(aval.dtype))


def _cast(value: Any, dtype: Any) -> Any:
    return jax.lax.convert_element_type(value, dtype)


def _wide(value: Any) -> Any:
    """In float64; integers, booleans and random keys as they are."""
    if isinstance(value, Wide):
        return value.value
    dtype = getattr(value, "dtype", None)
    return _cast(value, wide_dtype(dtype)) if is_float(dtype) else value


def _moving(value: Any) -> Wide:
    """As something that the inputs move."""
    return Wide(_wide(value))


def _still(value: Any) -> Any:
    """As something that no input moves: a float both ways."""
    own = _own(value)
    return Wide(_wide(value), own) if is_float(jnp.result_type(own)) else own


def _moves(value: Any) -> bool:
    """Whether the inputs move it."""
    return isinstance(value, Wide) and value.own is None


def _own(value: Any, dtype: Any = None) -> Any:
    """As the caller has it; a float that moves is rounded to `dtype`."""
    if not isinstance(value, Wide):
        return value
    if value.own is not None:
        return value.own
    return _cast(value.value, dtype) if is_float(dtype) else value.value


def _with_drawn(whole: Any, drawn: dict[int, list[Any]], *inputs: Any) -> list[Any]:
    """What a program gives with the outputs of some equations known."""

    def known(equation: Any, inputs: list[Any]) -> list[Any]:
        return drawn.get(id(equation)) or bind(equation, inputs)

    return evaluate(whole, jax.tree.leaves(inputs), known)


def _drawn(whole: Any) -> dict[int, list[Any]]:
    """What depends on no input, by the id of its equation, if any of it is drawn.

    The loss and its gradient are two programs to XLA, in which a normal number may be
    an ulp apart. So it is drawn once, by one equation after the other.
    """
    jaxpr = opened(whole)
    values = dict(zip(jaxpr.constvars, whole.consts, strict=True))
    fixed = set(values)
    still = list[Any]()
    for equation in jaxpr.eqns:
        inputs = (v for v in equation.invars if not is_literal(v))
        if fixed.issuperset(inputs) and not equation.effects:
            still.append(equation)
            fixed.update(equation.outvars)
    if not any(map(_is_draw, still)):
        return {}
    found = dict[int, list[Any]]()
    for equation in still:
        given = [v.val if is_literal(v) else values[v] for v in equation.invars]
        found[id(equation)] = bind(equation, given)
        values.update(zip(equation.outvars, found[id(equation)], strict=True))
    return found


def _draws_within(whole: Any) -> bool:
    """Whether floating numbers are drawn within control flow."""
    inner = (e for own in opened(whole).eqns if not is_call(own) for e in inside(own))
    return any(map(_draws_floats, inner))


def _draws_floats(equation: Any) -> bool:
    floats = any(is_float(v.aval.dtype) for v in equation.outvars)
    return floats and _is_draw(equation)


def redrawn(seed: int) -> Hook:
    """The hook that puts what is drawn off by up to an ulp, at random."""
    random = np.random.default_rng(seed)

    def off(value: Any) -> Any:
        if not is_float(value.dtype):
            return value
        finer = value.dtype if value.dtype.itemsize >= 4 else jnp.float32
        ulps = eps(value.dtype) * random.uniform(-1, 1, value.shape)
        return (value.astype(finer) * jnp.asarray(1 + ulps, finer)).astype(value.dtype)

    def drawn(equation: Any, inputs: list[Any]) -> list[Any] | None:
        if not (is_call(equation) and _draws_floats(equation)):
            return None
        return list(map(off, bind(equation, inputs)))

    return drawn


def _is_draw(equation: Any) -> bool:
    """Whether it is a call of jax.random, which gives a number from bits and a key."""
    inner = next(sub_jaxprs(equation), None)
    return "/jax/_src/random" in str(getattr(inner, "debug_info", ""))


def _as_decided(
    name: str, inputs: list[Any], wide: list[Any] | None, own: list[Any]
) -> list[tuple[Any, Any]]:
    """What constants give in float64, and as the caller has it.

    Where it is not continuous, the caller's own numbers decide, as integers that go
    with it are theirs. An LU is of one matrix whatever its pivots: it is kept whole.
    """
    if wide is None or name in INTEGRAL:
        wide = own
    elif name == "lu":
        own = [w.astype(o.dtype) for w, o in zip(wide, own, strict=True)]
    elif name == "rem":
        step = jnp.abs(_wide(inputs[1])) / 2
        wide = [jnp.where(jnp.abs(wide[0] - own[0]) < step, wide[0], _wide(own[0]))]
    elif name in UP_TO_SIGNS:
        both = [(w, o.astype(w.dtype)) for w, o in zip(wide, own, strict=True)]
        is_near = jnp.all(jnp.stack([_is_near(w, o) for w, o in both]))
        wide = [jnp.where(is_near, w, o) for w, o in both]
    else:
        both = list(zip(wide, own, strict=True))
        wide = [w if is_float(o.dtype) else o for w, o in both]
    return list(zip(wide, own, strict=True))


def _is_near(one: Any, other: Any) -> Any:
    largest = jnp.max(jnp.abs(other), initial=0.0)
    return jnp.all(jnp.abs(one - other) <= NEAR * largest)


@dataclass(frozen=True, eq=False)
class _Widening:
    """The hook that widens.

    Every float is Wide: moved by the inputs, or constant, with the caller's own value
    beside it. What is computed from constants alone is computed both ways, but for
    random draws: they are the caller's own. Integers and keys are Wide if moved.

    constants: in float64, by the id of the program's own.
    narrow: the equations found that stay in their own dtypes.
    """

    constants: dict[int, Wide]
    narrow: set[int]

    def run(self, jaxpr: Any, values: Sequence[Any]) -> list[Any]:
        """Evaluate a jaxpr."""
        return [self._known(v) for v in evaluate(jaxpr, values, self)]

    def _known(self, value: Any) -> Any:
        return self.constants.get(id(value), value)

    def __call__(self, equation: Any, inputs: list[Any]) -> list[Any] | None:
        """What an equation gives; None to go into a call."""
        inputs, name = [self._known(x) for x in inputs], equation.primitive.name
        moves = any(map(_moves, inputs))
        enters = is_call(equation)
        if enters and (moves or not _is_draw(equation)):
            return None
        if name in PRINTS:
            return []
        wide = None if enters else self._widened(equation, inputs)
        if not moves:
            own = bind(equation, [_own(x) for x in inputs])
            both = _as_decided(name, inputs, wide, own)
            return [Wide(_wide(w), o) if is_float(o.dtype) else w for w, o in both]
        if wide is None:
            self.narrow.update(map(id, (equation, *inside(equation))))
            pairs = zip(inputs, equation.invars, strict=True)
            wide = bind(equation, [_own(x, v.aval.dtype) for x, v in pairs])
        return [o if isinstance(o, Wide) else _moving(o) for o in wide]

    def _entered(self, equation: Any, inputs: list[Any]) -> list[Any]:
        """Control flow around what is widened."""
        depends = dependence_within(equation, list(map(_moves, inputs))).outputs

        def marked(values: Sequence[Any]) -> list[Any]:
            pairs = zip(values, depends, strict=False)  # a test gives one value
            return [_moving(v) if moves else _still(v) for v, moves in pairs]

        if equation.primitive.name == "custom_linear_solve":
            inputs = [_moving(x) for x in inputs]
        elif equation.primitive.name in ("scan", "while"):
            tests, consts, carry, rows = Loop.of(equation).split(inputs)
            inputs = [*tests, *consts, *marked(carry), *rows]
        return enter(equation, inputs, lambda j, v: marked(self.run(j, v)))

    def _widened(self, equation: Any, inputs: list[Any]) -> list[Any] | None:
        """The outputs in float64; None where the primitive does not take or give it."""
        name, avals = equation.primitive.name, [v.aval for v in equation.invars]
        is_keyed = any(jnp.issubdtype(a.dtype, jax.dtypes.extended) for a in avals)
        if name == "reduce_precision":
            return inputs
        try:
            if name in CONTROL:
                return self._entered(equation, inputs)
            if name in OWN_DTYPE or is_keyed:
                return None
            params = self._lifted(equation.params)
            outputs = bind(equation, [_wide(x) for x in inputs], **params)
        except Exception:  # whatever a primitive raises in a foreign dtype
            return None
        is_wide = all(o.dtype == wide_dtype(o.dtype) for o in outputs)
        return outputs if is_wide else None

    def _lifted(self, params: dict[str, Any]) -> dict[str, Any]:
        """Parameters with wide dtypes, reducers and accumulation."""
        changed: dict[str, Any] = {}
        for name, value in params.items():
            if isinstance(value, np.dtype):
                changed[name] = wide_dtype(value)
            elif isinstance(value, jax.lax.DotAlgorithm | jax.lax.DotAlgorithmPreset):
                changed[name] = None
            elif hasattr(opened(value), "eqns"):
                changed[name] = self._lifted_jaxpr(value)
        return changed

    def _lifted_jaxpr(self, jaxpr: Any) -> Any:
        """The program of a reduction or scatter, in float64.

        Raises:
            ValueError: it has constants that are moved, for which it takes no input.
        """

        def lifted(*values: Any) -> list[Any]:
            return [_wide(o) for o in self.run(jaxpr, [_moving(v) for v in values])]

        inputs = [_shape_in_float64(v) for v in opened(jaxpr).invars]
        traced_wide = jax.make_jaxpr(lifted)(*inputs)
        if len(traced_wide.consts) > len(getattr(jaxpr, "consts", ())):
            raise ValueError(f"constants in {jaxpr}")
        return traced_wide if hasattr(jaxpr, "consts") else opened(traced_wide)
