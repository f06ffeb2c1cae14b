"""A jaxpr: read, and evaluated with a hook that sees every equation."""

import sysconfig
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from traceback import walk_tb
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxnet import precision
from jaxnet.float64 import platform
from jaxnet.input_checks import first_line

Hook = Callable[[Any, list[Any]], list[Any] | None]
"""Takes an equation and its inputs; gives its outputs, or None to evaluate it as it is.

It is asked before an equation is entered, so it can replace a whole loop or custom
rule. To keep an equation whole (a custom rule with its derivative), it gives `bind`.
"""

Run = Callable[[Any, Sequence[Any]], list[Any]]
"""Evaluates a jaxpr that stands in an equation."""

Carries = Callable[[Any, Any], bool]
"""Asked of an equation and one of its outputs: whether that moves with its inputs."""

Chosen = Callable[[Any, Any], None]
"""Told an equation and what it chose: the branch of a cond, the test of a while."""

MOST_ROUNDS = 1000
"""Rounds of a while loop that are followed in Python, where an equation takes some
0.1 ms: a solver needs fewer, and an endless loop still ends within seconds."""

MOST_FRAMES = 32
"""How many callers of an equation are looked at for one that is the user's."""

WIDE = ("float64", "complex128", "int64", "uint64")
"""The dtypes of x64 mode."""

IN_JAX = "/jax/_src/"
"""Stands in the path of what JAX itself wrote."""

VERIFIER = tuple(
    str(Path(__file__).with_name(x))
    for x in ("testing", "verification", "jaxpr.py", "devices.py", "float64.py")
)
"""Where lines stand that are not the user's…"""

PYTHON = (sysconfig.get_path("stdlib"), "<frozen")
"""…nor Python's own, as those of a decorator."""

INTERACTIVE = ("<stdin>", "<console>", "<python-input", "<ipython-input")
"""What Python calls the file of what is typed in."""

# ------------------------------------------------------------------------- the reader


def is_literal(variable: Any) -> bool:
    """Whether an input of an equation is a number written into the program."""
    return hasattr(variable, "val")


def opened(jaxpr: Any) -> Any:
    """The jaxpr of a closed one."""
    return getattr(jaxpr, "jaxpr", jaxpr)


def sub_jaxprs(equation: Any) -> Iterator[Any]:
    """The jaxprs that an equation runs, closed ones with their constants."""
    if equation.primitive.name == "call_hi_primitive":
        yield _expanded(equation.params["_prim"])
    for value in equation.params.values():
        for item in value if isinstance(value, tuple | list) else (value,):
            if hasattr(opened(item), "eqns"):
                yield item


@lru_cache(maxsize=256)
def _expanded(primitive: Any) -> Any:
    """What a primitive of JAX 0.12 that is written in terms of others runs.

    Where it takes 64 bits, it was called in x64 mode, whatever the mode is by now.
    """

    def expanded(*leaves: Any) -> Any:
        return primitive.expand(*jax.tree.unflatten(primitive.in_tree, leaves))

    avals = primitive.in_avals_flat
    is_wide = any(str(getattr(a, "dtype", "")) in WIDE for a in avals)
    with jax.enable_x64(True) if is_wide else nullcontext():
        return jax.make_jaxpr(expanded)(*avals)


def every_equation(jaxpr: Any) -> Iterator[Any]:
    """All equations, an outer one before those inside it."""
    for equation in opened(jaxpr).eqns:
        yield equation
        for inner in sub_jaxprs(equation):
            yield from every_equation(inner)


def work(jaxpr: Any) -> int:
    """How many numbers a program computes; in a while loop, of its most rounds."""
    total = 0
    for equation in opened(jaxpr).eqns:
        inner = sum(map(work, sub_jaxprs(equation)))
        rounds = MOST_ROUNDS if equation.primitive.name == "while" else 1
        own = sum(getattr(v.aval, "size", 1) for v in equation.outvars)
        total += own + inner * equation.params.get("length", rounds)
    return total


def enclosing(jaxpr: Any) -> dict[int, Any]:
    """The equation in which another one stands, by the id of the inner one."""
    return {
        id(e): outer
        for outer in every_equation(jaxpr)
        for inner in sub_jaxprs(outer)
        for e in opened(inner).eqns
    }


def around(jaxpr: Any, chosen: Collection[int]) -> set[int]:
    """The equations, by id, in which any of the chosen ones stands."""
    found = set[int]()

    def holds(jaxpr: Any) -> bool:
        any_holds = False
        for equation in opened(jaxpr).eqns:
            if any([holds(inner) for inner in sub_jaxprs(equation)]):
                found.add(id(equation))
            any_holds |= id(equation) in chosen or id(equation) in found
        return any_holds

    holds(jaxpr)
    return found


def source_line(equation: Any) -> str:
    """File, line and function that made an equation; empty where unknown.

    The innermost that is not the verifier's own.
    """
    return next(iter(source_lines(equation)), "")


def source_lines(equation: Any) -> list[str]:
    """The same with all that called it, the innermost first."""
    from jax.extend import source_info_util  # 80 ms, wanted by few runs

    frames = source_info_util.summarize(equation.source_info, num_frames=MOST_FRAMES)
    lines = (line for line in reversed(frames.split("\n")) if _is_in_a_file(line))
    return [line for line in lines if line and not line.startswith(VERIFIER)]


def _is_in_a_file(line: str) -> bool:
    """Or typed in; not made by a library as it goes."""
    return line[:1] != "<" or line.startswith(INTERACTIVE)


def said(error: Exception) -> str:
    """What an error says, and the line that is neither JAX's nor the verifier's."""
    lines = [
        f"{frame.f_code.co_filename}:{number}"
        for frame, number in walk_tb(error.__traceback__)
        if IN_JAX not in frame.f_code.co_filename
        and not _is_pythons(frame.f_code.co_filename)
        and not frame.f_code.co_filename.startswith(VERIFIER)
    ]
    return at_line(first_line(error).rstrip("."), lines[-1] if lines else "")


def _is_pythons(file: str) -> bool:
    """Whether a file is Python's own, and no library that was installed beside it."""
    return file.startswith(PYTHON) and "-packages" not in file


def at_line(words: str, line: str) -> str:
    """Words, with a source line if it is known."""
    return f"{words} at {line}" if line else words


def dependent(jaxpr: Any, moving: Sequence[bool]) -> list[Any]:
    """The equations that depend on the moving inputs, an outer one before its inner."""
    return dependence(jaxpr, moving).equations


def dependent_outputs(jaxpr: Any, moving: Sequence[bool]) -> list[bool]:
    """Which outputs of a jaxpr depend on the moving inputs."""
    return dependence(jaxpr, moving).outputs


def dependent_results(equation: Any, moving: Sequence[bool]) -> list[bool]:
    """Which outputs of an equation depend on the moving inputs."""
    return _dependence_within(equation, moving).outputs


class Dependence(NamedTuple):
    """The equations and the outputs that depend on what moves; whether a loop's end."""

    equations: list[Any]
    outputs: list[bool]
    ends: bool = False


def _always(equation: Any, output: Any) -> bool:
    return True


def dependence(
    jaxpr: Any, moving: Sequence[bool], carries: Carries = _always
) -> Dependence:
    """What depends on the moving inputs, through outputs that carry it on."""
    jaxpr = opened(jaxpr)
    known = {v for v, moves in zip(jaxpr.invars, moving, strict=True) if moves}
    found = []
    for equation in jaxpr.eqns:
        inputs = _are_known(equation.invars, known)
        if any(inputs):
            inner, outputs, _ = _dependence_within(equation, inputs, carries)
            found += [equation, *inner]
            pairs = zip(equation.outvars, outputs, strict=True)
            known |= {v for v, m in pairs if m and carries(equation, v)}
    return Dependence(found, _are_known(jaxpr.outvars, known))


def _are_known(variables: Sequence[Any], known: set[Any]) -> list[bool]:
    return [not is_literal(v) and v in known for v in variables]


def _dependence_within(
    equation: Any, moving: Sequence[bool], carries: Carries = _always
) -> Dependence:
    """All that an equation runs depends, unless its operands are known to line up."""
    inner = list(sub_jaxprs(equation))
    if equation.primitive.name in ("scan", "while"):
        return _dependence_of_loop(Loop.of(equation), moving, carries)
    if equation.primitive.name == "cond":
        parts = [dependence(branch, moving[1:], carries) for branch in inner]
        either = [any(m) for m in zip(*(p.outputs for p in parts), strict=True)]
        outputs = [moving[0] or m for m in either]
        return Dependence([e for part in parts for e in part.equations], outputs)
    if len(inner) == 1:
        body = opened(inner[0])
        sizes = len(body.invars), len(body.outvars)
        if sizes == (len(moving), len(equation.outvars)):
            return dependence(body, moving, carries)
    found = [e for j in inner for e in dependent(j, [True] * len(opened(j).invars))]
    return Dependence(found, [True] * len(equation.outvars))


def _dependence_of_loop(
    loop: "Loop", moving: Sequence[bool], carries: Carries = _always
) -> Dependence:
    """What depends once a further round makes no more of the carried values depend."""
    test_consts, consts, carry, rows = loop.split(moving)
    while True:
        tested = Dependence([], [False])
        if loop.test is not None:
            tested = dependence(loop.test, [*test_consts, *carry], carries)
        inside = [*consts, *carry, *rows]
        found, outputs, _ = dependence(loop.body, inside, carries)
        after, stacked = outputs[: len(carry)], outputs[len(carry) :]
        more = tested.outputs[0]
        grown = [a or b or more for a, b in zip(carry, after, strict=True)]
        if grown == carry:
            found = [*tested.equations, *found]
            return Dependence(found, [*carry, *stacked], more)
        carry = grown


@dataclass(frozen=True)
class Loop:
    """A scan or a while: its inputs are constants, what is carried, and rows.

    test, tests: the test of a while and how many constants it has; None, 0 for a scan.
    body, consts, carry: one round, and how many constants and carried values it has.
    """

    test: Any
    body: Any
    tests: int
    consts: int
    carry: int

    @classmethod
    def of(cls, equation: Any) -> "Loop":
        """Read the equation of a scan or a while."""
        p = equation.params
        if equation.primitive.name == "while":
            tests, consts = p["cond_nconsts"], p["body_nconsts"]
            carry = len(equation.outvars)
            return cls(p["cond_jaxpr"], p["body_jaxpr"], tests, consts, carry)
        body = opened(p["jaxpr"])  # the rows have one axis less inside
        carry = _same_rank(equation.outvars, body.outvars)
        consts = _same_rank(equation.invars, body.invars) - carry
        return cls(None, p["jaxpr"], 0, consts, carry)

    def split(self, inputs: Sequence[Any]) -> tuple[list[Any], ...]:
        """The constants of the test and of the body, what is carried, and the rows."""
        ends = [self.tests, self.tests + self.consts]
        ends.append(ends[1] + self.carry)
        starts = [0, *ends]
        return tuple(
            list(inputs[a:b]) for a, b in zip(starts, [*ends, None], strict=True)
        )


def ends_by_value(loop: Loop) -> bool:
    """Whether the end of a while loop depends on floats: it may be found in one round,
    carried as a flag, and tested before the next.
    """
    given = [*opened(loop.test).invars[: loop.tests], *opened(loop.body).invars]
    moving = [jnp.issubdtype(v.aval.dtype, jnp.floating) for v in given]
    return _dependence_of_loop(loop, moving).ends


def _same_rank(outside: list[Any], inside: list[Any]) -> int:
    pairs = zip(outside, inside, strict=True)
    return sum(len(a.aval.shape) == len(b.aval.shape) for a, b in pairs)


def coarsest(equations: Iterable[Any]) -> float:
    """ε of the coarsest floating type that equations give."""
    return max(map(_eps, equations), default=precision.DOUBLE)


def coarsest_of(equations: Sequence[Any]) -> tuple[Any, Any]:
    """The coarsest floating dtype, and the first equation that gives it."""
    equation = max(equations, key=_eps)
    return max(dtypes_of(equation), key=precision.eps), equation


def dtypes_of(equation: Any) -> list[Any]:
    """The floating types it gives. What calls and loops give, those inside them do."""
    if equation.primitive.name in {*CALLS, *CONTROL}:
        return []
    dtypes = [getattr(v.aval, "dtype", None) for v in equation.outvars]
    return [d for d in dtypes if d is not None and jnp.issubdtype(d, jnp.inexact)]


def described(equation: Any, caller: Any = None) -> str:
    """The primitive's name and its source line, or that of the equation it is in."""
    line = source_line(equation) or (source_line(caller) if caller else "")
    return at_line(f"`{equation.primitive.name}`", line)


def described_once(jaxpr: Any, equations: Iterable[Any]) -> list[str]:
    """Equations of a program, with the line of the innermost around that has one."""
    outer, words = enclosing(jaxpr), list[str]()
    for equation in equations:
        around = equation
        while around is not None and not source_line(around):
            around = outer.get(id(around))
        words.append(described(equation, around))
    return list(dict.fromkeys(words))


def _eps(equation: Any) -> float:
    return max(map(precision.eps, dtypes_of(equation)), default=precision.DOUBLE)


# -------------------------------------------------------------------- the interpreter


def bind(equation: Any, inputs: Sequence[Any], **params: Any) -> list[Any]:
    """The outputs of one equation, kept whole, with some of its parameters replaced."""
    primitive = equation.primitive
    bound = primitive.get_bind_params({**equation.params, **params})
    outputs = primitive.bind(*inputs, **bound)
    return list(outputs) if primitive.multiple_results else [outputs]


def detached(jaxpr: Any) -> Any:
    """A jaxpr that holds no constants: it takes them first.

    From JAX 0.12 on, a jaxpr holds what a closed one held before.
    """
    return jaxpr.with_consts(()) if hasattr(jaxpr, "with_consts") else opened(jaxpr)


def evaluate(
    jaxpr: Any,
    inputs: Sequence[Any],
    hook: Hook,
    *,
    consts: Sequence[Any] | None = None,
    in_python: bool = False,
    chosen: Chosen | None = None,
    most_rounds: int = MOST_ROUNDS,
) -> list[Any]:
    """The outputs of a jaxpr with what `hook` gives in place of its equations.

    The hook sees every equation, wherever it stands: calls, checkpoints, custom rules
    (what they compute, without their derivative), branches, loops, the solving part
    of a linear solve. Loops and branches are built anew with jax.lax, so that the
    result can be traced and differentiated. A value may be a pytree of one array and
    what the hook needs to know of it.

    consts: in place of the jaxpr's own constants.
    in_python: loops run round by round and a cond takes its one branch, for concrete
    inputs. `chosen` is told which; a while ends after `most_rounds`.
    """
    own = getattr(jaxpr, "consts", ()) if consts is None else consts
    walk = _Evaluation(hook, in_python, chosen or _unheard, most_rounds)
    return walk.evaluated(jaxpr, inputs, own)


@dataclass(frozen=True)
class _Evaluation:
    """What `evaluate` was asked, for every jaxpr within the one it was given."""

    hook: Hook
    in_python: bool
    chosen: Chosen
    most_rounds: int

    def run(self, inner: Any, values: Sequence[Any]) -> list[Any]:
        return self.evaluated(inner, values, getattr(inner, "consts", ()))

    def evaluated(self, inner: Any, values: Any, constants: Any) -> list[Any]:
        from jax.extend.source_info_util import user_context  # as above

        inner = opened(inner)
        variables = [*inner.constvars, *inner.invars]
        known = dict(zip(variables, [*constants, *values], strict=True))
        for equation in inner.eqns:
            arguments = _read(equation.invars, known)
            with user_context(equation.source_info.traceback), equation.ctx.manager:
                outputs = self.hook(equation, arguments)
                if outputs is None and self.in_python:
                    outputs = _enter_in_python(
                        equation, arguments, self.run, self.chosen, self.most_rounds
                    )
                elif outputs is None:
                    outputs = enter(equation, arguments, self.run)
            known.update(zip(equation.outvars, outputs, strict=True))
        return _read(inner.outvars, known)


def _read(variables: Sequence[Any], known: dict[Any, Any]) -> list[Any]:
    return [v.val if is_literal(v) else known[v] for v in variables]


def _unheard(equation: Any, choice: Any) -> None:
    """Nobody listens."""


CALLS = (
    "jit",
    "pjit",
    "closed_call",
    "core_call",
    "eval_jaxpr",
    "call_hi_primitive",
    "checkpoint",
    "remat",
    "remat2",
    "custom_jvp_call",
    "custom_vjp_call",
    "custom_vmap_call",
)
"""Primitives that run one jaxpr on their inputs."""


def is_call(equation: Any) -> bool:
    """Whether it runs one jaxpr, if only on the platform that is here."""
    name = equation.primitive.name
    return name in CALLS or bool(equation.params.get("branches_platforms"))


def enter(equation: Any, inputs: Sequence[Any], run: Run) -> list[Any]:
    """The outputs of an equation, with `run` for the jaxprs in it."""
    name = equation.primitive.name
    if name in CALLS:
        return run(next(sub_jaxprs(equation)), inputs)
    if is_call(equation):
        return run(_branch_of_platform(equation), inputs[1:])
    if name in CONTROL:
        return CONTROL[name](equation, inputs, run)
    return bind(equation, inputs)


def _branch_of_platform(equation: Any) -> Any:
    platforms, here = equation.params["branches_platforms"], platform()
    fitting = [i for i, names in enumerate(platforms) if not names or here in names]
    return equation.params["branches"][fitting[0]]


def _cond(equation: Any, inputs: Sequence[Any], run: Run) -> list[Any]:
    (index,), operands = jax.tree.leaves(inputs[0]), inputs[1:]
    branches = [
        lambda *values, branch=branch: run(branch, values)
        for branch in equation.params["branches"]
    ]
    outputs: list[Any] = jax.lax.switch(index, branches, *operands)
    return outputs


def _while(equation: Any, inputs: Sequence[Any], run: Run) -> list[Any]:
    loop = Loop.of(equation)
    test_consts, consts, carry, _ = loop.split(inputs)
    return jax.lax.while_loop(
        lambda carry: jax.tree.leaves(run(loop.test, [*test_consts, *carry]))[0],
        lambda carry: run(loop.body, [*consts, *carry]),
        carry,
    )


def _scan(equation: Any, inputs: Sequence[Any], run: Run) -> list[Any]:
    loop, params = Loop.of(equation), equation.params
    _, consts, carry, rows = loop.split(inputs)

    def body(carry: list[Any], row: list[Any]) -> tuple[list[Any], list[Any]]:
        outputs = run(loop.body, [*consts, *carry, *row])
        return outputs[: loop.carry], outputs[loop.carry :]

    options = {name: params[name] for name in ("length", "reverse", "unroll")}
    carry, stacked = jax.lax.scan(body, carry, rows, **options)
    return [*carry, *stacked]


def _linear_solve(equation: Any, inputs: Sequence[Any], run: Run) -> list[Any]:
    """The solve with its rule for derivatives, and `run` in each of its four parts."""
    lengths, parts = equation.params["const_lengths"], equation.params["jaxprs"]
    ends = [sum(lengths[: i + 1]) for i in range(len(lengths))]
    consts = [inputs[e - n : e] for e, n in zip(ends, lengths, strict=True)]
    b = list(inputs[ends[-1] :])
    runs: list[Callable[..., list[Any]]] = [
        lambda *values, part=part, own=own: run(part, [*own, *values[-1]])
        for part, own in zip(parts, consts, strict=True)
    ]
    matvec, _, solve, transposed = runs
    solution, auxiliary = jax.lax.custom_linear_solve(
        matvec,
        b,
        lambda _, rhs: _with_auxiliary(solve(rhs), len(b)),
        None
        if parts.transpose_solve is None
        else lambda _, rhs: _with_auxiliary(transposed(rhs), len(b)),
        has_aux=True,
    )
    return [*solution, *auxiliary]


def _with_auxiliary(outputs: list[Any], size: int) -> tuple[list[Any], list[Any]]:
    return outputs[:size], outputs[size:]


def _shard_map(equation: Any, inputs: Sequence[Any], run: Run) -> list[Any]:
    params = equation.params
    options = {name: params[name] for name in ("mesh", "in_specs", "out_specs")}
    return list(
        jax.shard_map(
            lambda *values: tuple(run(params["jaxpr"], values)),
            axis_names=set(params["newly_manual_axes"]),
            check_vma=params["check_vma"],
            **options,
        )(*inputs)
    )


CONTROL: dict[str, Callable[[Any, Sequence[Any], Run], list[Any]]] = {
    "cond": _cond,
    "while": _while,
    "scan": _scan,
    "custom_linear_solve": _linear_solve,
    "shard_map": _shard_map,
}
"""Primitives that are built anew around what they run."""


def _enter_in_python(
    equation: Any, inputs: list[Any], run: Run, chosen: Chosen, most_rounds: int
) -> list[Any]:
    """`enter` for concrete inputs: rounds and branches as they are run."""
    name, params = equation.primitive.name, equation.params
    if name == "cond":
        last = len(params["branches"]) - 1
        which = min(max(int(inputs[0]), 0), last)
        chosen(equation, which)
        return run(params["branches"][which], inputs[1:])
    if name == "custom_linear_solve":
        lengths = params["const_lengths"]
        start, end = lengths.matvec + lengths.vecmat, sum(lengths)
        own = inputs[start : start + lengths.solve]
        return run(params["jaxprs"].solve, [*own, *inputs[end:]])
    if name == "scan":
        return _scan_in_python(equation, inputs, run)
    if name != "while":
        return enter(equation, inputs, run)
    loop = Loop.of(equation)
    test_consts, consts, carry, _ = loop.split(inputs)
    for _ in range(most_rounds):
        more = bool(run(loop.test, [*test_consts, *carry])[0])
        chosen(equation, more)
        if not more:
            break
        carry = run(loop.body, [*consts, *carry])
    return carry


def _scan_in_python(equation: Any, inputs: list[Any], run: Run) -> list[Any]:
    loop, length = Loop.of(equation), equation.params["length"]
    _, consts, carry, rows = loop.split(inputs)
    order = range(length)[:: -1 if equation.params["reverse"] else 1]
    results: dict[int, list[Any]] = {}
    for i in order:
        outputs = run(loop.body, [*consts, *carry, *(row[i] for row in rows)])
        carry, results[i] = outputs[: loop.carry], outputs[loop.carry :]
    if length:
        columns = zip(*(results[i] for i in range(length)), strict=True)
        return [*carry, *(jnp.stack(list(column)) for column in columns)]
    stacked = equation.outvars[loop.carry :]
    return [*carry, *(jnp.zeros(v.aval.shape, v.aval.dtype) for v in stacked)]
