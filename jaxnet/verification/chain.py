"""The derivatives of tapped values by hand: each link of the chain rule by itself.

A tapped value is moved where it stands; the loss as a function of all tapped values is
checked like any other. The first wrong one, seen from the loss, is where the mistake
is; what the neighbour's derivative becomes between the two says which.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cached_property, partial
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxnet.input_checks import complaint, describe
from jaxnet.jaxpr.reader import every_equation, inside
from jaxnet.precision import eps
from jaxnet.taps import TAP
from jaxnet.verification.candidates.candidate import Candidate
from jaxnet.verification.explanation.explain import saying
from jaxnet.verification.function.objective import Objective
from jaxnet.verification.function.planted import Seen, planted
from jaxnet.verification.point import Leaf, is_inexact, two_norm
from jaxnet.verification.report.gradient_report import GradientReport
from jaxnet.verification.report.leaf_report import LeafReport
from jaxnet.verification.report.verdict import Verdict

BY_HAND = "by hand"
"""What the given derivatives are called in a report."""

ULPS = 64.0
"""Within so many ulps of its 2-norm a derivative is what a formula says: two orders of
summation differ by less, two formulas by more…"""

ROUGHEST = 0.02
"""…and within this share of it in bfloat16, of which 64 ulps are half."""


WRONG = (Verdict.DISAGREE, Verdict.MALFORMED)

CLOSED = ("while", "shard_map")
"""Primitives within which no one value is a tapped one."""

Local = Callable[[Any], tuple[list[Any], Any]]
"""Takes a value; gives what each tap is given by way of no other, and the loss."""


@dataclass(frozen=True, eq=False)
class Link:
    """What a value does to the tapped ones that follow it at once, and to the loss.

    value: at the point. names: of all taps. reached: of those that depend on it.
    """

    local: Local
    value: Any
    names: list[str]
    reached: list[str]
    reaches_loss: bool

    @classmethod
    def of(cls, local: Local, value: Any, values: Mapping[str, np.ndarray]) -> "Link":
        """See what a random change reaches."""
        _, (taps, loss) = jax.jvp(local, (value,), (_random_like(value),))
        names = list(values)
        pairs = zip(names, taps, strict=True)
        reached = [name for name, moved in pairs if np.any(np.asarray(moved))]
        return cls(local, value, names, reached, bool(np.asarray(loss)))

    def forward(self, point: Any, tangent: Any) -> tuple[list[Any], Any]:
        """How the taps and the loss change along a tangent."""
        moved: tuple[list[Any], Any] = jax.jvp(self.local, (point,), (tangent,))[1]
        return moved

    def pulled(self, given: Mapping[str, Any]) -> Any:
        """The derivative by this value, if those of the taps are as given."""
        (taps, loss), pull = jax.vjp(self.local, jnp.asarray(self.value))
        own = [
            jnp.asarray(given[name], x.dtype) if name in self.reached else 0 * x
            for name, x in zip(self.names, taps, strict=True)
        ]
        return pull((own, jnp.ones_like(loss)))[0]


@dataclass(frozen=True, eq=False)
class Chain:
    """The tapped values of a loss, from the parameters to the loss.

    given: the derivatives by hand, by name. values: of those, at the point.
    in_x64: whether the caller's mode has float64.
    """

    objective: Objective
    given: dict[str, Any]
    values: dict[str, np.ndarray]
    in_x64: bool

    @classmethod
    def of(cls, objective: Objective, intermediates: Any) -> "Chain":
        """Find the taps.

        Raises:
            TypeError, ValueError: these are no mapping, JAX cannot trace the loss, a
                name is not tapped or at two places, or a tap is where nothing can be
                moved.
        """
        if objective.program is None:
            fix = "write the loss in jax.numpy"
            raise ValueError(complaint("loss", "one that JAX can trace", "none", fix))
        closed, point = objective.program.closed, objective.point
        order = [e.params["name"] for e in _taps(closed)]
        _check_names(intermediates, order)
        seen = _run(closed, point.as_traced(), {})[1]
        outer = [e for e in every_equation(closed) if e.primitive.name in CLOSED]
        hidden = {e.params["name"] for each in outer for e in _among(inside(each))}
        values = {}
        for name in (n for n in order if n in intermediates):
            if len(seen.get(name, ())) != 1 or name in hidden:
                got = "one in a while loop, a shard_map or a linear solve"
                if name not in hidden and len(seen.get(name, ())) > 1:
                    got = f"{len(seen[name])} places"
                fix = "tap each value once, under a name of its own"
                raise ValueError(complaint(f'tap("{name}")', "one place", got, fix))
            values[name] = np.asarray(seen[name][0].outputs[0])
        given = {
            name: np.asarray(d) if isinstance(d, list | tuple) else d
            for name in values
            for d in [intermediates[name]]
        }
        chain = cls(objective, given, values, _in_x64())
        _ = chain._own  # in this mode
        return chain

    def loss(self, values: Mapping[str, Any]) -> Any:
        """The loss where the tapped values are these, and so what follows from them."""
        return self._moved(values)[0]

    def followed(
        self, whole: GradientReport, tapped: GradientReport, claimed: list[Candidate]
    ) -> GradientReport:
        """The report of the gradients, with the links that they are made of.

        tapped: the report of the loss as a function of the tapped values.
        """
        links, by_name = self._links(tapped.leaves), {c.name: c for c in claimed}
        leaves = (self._of_leaf(x, by_name[x.candidate], links) for x in whole.leaves)
        return replace(
            whole,
            leaves=(*links, *leaves),
            first_wrong=next((x.path for x in links if x.verdict in WRONG), ""),
            notes=(_sentence(links), *whole.notes),
            evaluations=whole.evaluations + tapped.evaluations,
        )

    def _links(self, leaves: tuple[LeafReport, ...]) -> tuple[LeafReport, ...]:
        """The records of the tapped values, from the loss on, with what is wrong."""
        found = {leaf.path: leaf for leaf in leaves}
        links = list[LeafReport]()
        for name in reversed(self.values):
            leaf = found[_path(name)]
            if leaf.verdict is Verdict.DISAGREE:
                leaf = saying(leaf, partial(self._words, name, found))
            cause = leaf.cause
            for other in self.values:  # as a person knows it
                cause = cause.replace(_path(other), f"d_{other}")
            links.append(replace(leaf, path=f"d_{name}", cause=cause))
        return tuple(links)

    def _of_leaf(
        self, report: LeafReport, candidate: Candidate, links: tuple[LeafReport, ...]
    ) -> LeafReport:
        """A leaf's record, with which link it follows from if it is wrong by hand."""
        if report.verdict is not Verdict.DISAGREE or candidate.widened is not None:
            return report
        leaves = self.objective.point.leaves
        leaf = next(leaf for leaf in leaves if leaf.path == report.path)
        gradient = candidate.array(leaf)
        return saying(report, lambda: [self._words_of_leaf(leaf, gradient, links)])

    def _words_of_leaf(
        self, leaf: Leaf, gradient: np.ndarray, links: tuple[LeafReport, ...]
    ) -> str:
        """Which links it is made of, and which it should be."""
        closed, given = self._own

        def local(moved: Any) -> tuple[list[Any], Any]:
            leaves = [*given[: leaf.number], moved, *given[leaf.number + 1 :]]
            return self._inputs_of_links(*_run(closed, leaves, {}, True, self.values))

        link = Link.of(local, given[leaf.number], self.values)
        verdicts = {x.path.removeprefix("d_"): x.verdict for x in links}
        wrong = [n for n in link.reached if verdicts[n] is Verdict.DISAGREE]
        if not link.reached or Verdict.MALFORMED in map(verdicts.get, link.reached):
            return ""
        if wrong and _same(link.pulled(self.given), gradient):
            return "it follows from " + ", ".join(f"d_{n}" for n in wrong)
        for own in link.reached:
            shape = self.values[own].shape
            for other, derivative in self.given.items():
                if other == own or np.shape(derivative) != shape:
                    continue
                if _same(link.pulled({**self.given, own: derivative}), gradient):
                    return f"it is made of d_{other} where d_{own} should be"
        return ""

    def _words(self, name: str, found: Mapping[str, LeafReport]) -> Iterator[str]:
        """Where the mistake of a wrong link lies, and which it is."""
        verdicts = {n: found[_path(n)].verdict for n in self.values}

        def local(value: Any) -> tuple[list[Any], Any]:
            return self._inputs_of_links(*self._moved({name: value}, is_cut=True))

        link = Link.of(local, self.values[name], self.values)
        others = [n for n in link.reached if n != name]
        if bad := [n for n in others if verdicts[n] is Verdict.MALFORMED]:
            yield f"d_{bad[0]} is malformed: nothing more can be said"
            return
        right = link.pulled(self.given)
        behind = [n for n in others if verdicts[n] is Verdict.DISAGREE]
        if behind and _same(right, self.given[name]):
            yield "it follows from " + ", ".join(f"d_{n}" for n in behind)
            return
        between = [*others, *["the loss"] * link.reaches_loss] or ["the loss"]
        too = ", too" if behind else ""
        yield f"the mistake lies between {name} and {' and '.join(between)}{too}"
        for following in others:
            for words, formula in self._formulas(name, following, link):
                if _same(formula, self.given[name]) and not _same(formula, right):
                    yield words
                    return

    def _inputs_of_links(
        self, loss: Any, seen: dict[str, list[Seen]]
    ) -> tuple[list[Any], Any]:
        """What each tap is given, and the loss."""
        return [seen[name][0].inputs[0] for name in self.values], loss

    def _formulas(
        self, name: str, following: str, link: "Link"
    ) -> Iterator[tuple[str, Any]]:
        """In words, what a wrong one may be of the derivative that follows."""
        value, next_value = self.values[name], self.values[following]
        if value.shape != next_value.shape:
            return
        given, d_next = np.asarray(self.given[following], value.dtype), f"d_{following}"

        def forward(point: Any, tangent: Any) -> Any:
            return link.forward(point, tangent)[0][list(self.values).index(following)]

        ones, random = np.ones_like(value), _random_like(value)
        slope = forward(value, ones)
        if _same(forward(value, random), slope * random):  # entry by entry
            yield f"it is {d_next}: the derivative between them is missing", given
            taken = (
                f"the derivative between them is taken at {following}, not at {name}"
            )
            yield taken, forward(next_value, ones) * given
        else:
            words = f"{d_next} is multiplied by what should be transposed"
            yield words, forward(value, given)

    def _moved(
        self, values: Mapping[str, Any], is_cut: bool = False
    ) -> tuple[Any, dict[str, list[Seen]]]:
        """The loss and what is seen, in the caller's mode or in float64.

        Raises:
            TypeError: in float32, where his is float64.
        """
        is_wide, (closed, leaves) = _in_x64(), self._own
        if self.in_x64 and not is_wide:
            raise TypeError("the caller's program is one of float64")
        if is_wide and not self.in_x64:
            leaves = self.objective.point.wide()
            closed = jax.make_jaxpr(self.objective.of_leaves)(leaves)
        return _run(closed, leaves, values, is_cut, self.values)

    @cached_property
    def _own(self) -> tuple[Any, list[Any]]:
        """The program as its caller runs it, and its inputs.

        Constants are JAX's own arrays: of NumPy's it remembers another mode's dtype.
        """
        closed = self.objective.traced.own.closed
        consts = [jnp.asarray(c) if is_inexact(c) else c for c in closed.consts]
        return closed.replace(consts=consts), self.objective.point.as_traced()


def _in_x64() -> bool:
    return bool(jax.dtypes.canonicalize_dtype(np.float64) == np.float64)


def _sentence(links: tuple[LeafReport, ...]) -> str:
    """The chain in words, from the loss to the first wrong link."""
    wrong = next((i for i, link in enumerate(links) if not link.passed), len(links))
    said = [f"{link.path} agrees" for link in links[:wrong]]
    for link in links[wrong:][:1]:
        is_wrong = link.verdict in WRONG
        what = "the first that is wrong" if is_wrong else link.verdict.value
        said.append(f"{link.path} is {what}")
    return f"{BY_HAND}: {', '.join(said)}"


def _path(name: str) -> str:
    """What a report calls the value of a name."""
    return jax.tree_util.keystr((jax.tree_util.DictKey(name),))


def _check_names(intermediates: Any, order: list[str]) -> None:
    if not isinstance(intermediates, Mapping):
        fix = 'write intermediates={"z1": d_z1}'
        got = describe(intermediates)
        raise TypeError(complaint("intermediates", "name -> derivative", got, fix))
    for name in intermediates:
        if name not in order:
            there = list(dict.fromkeys(order))
            own = {tapped.lower(): tapped for tapped in there}
            near = get_close_matches(str(name).removeprefix("d_").lower(), own, 1)
            fix = f'write jaxnet.tap("{name}", …) in the loss'
            fix = f'did you mean "{own[near[0]]}"?' if near else fix
            expected = f"names that the loss taps: {', '.join(there) or 'none'}"
            raise ValueError(complaint("intermediates", expected, repr(name), fix))


def _among(equations: Any) -> list[Any]:
    return [e for e in equations if e.primitive.name == TAP]


def _taps(closed: Any) -> list[Any]:
    """In the order in which the program has them."""
    return list({id(e): e for e in _among(every_equation(closed))}.values())


def _run(
    closed: Any,
    leaves: list[Any],
    values: Mapping[str, Any],
    is_cut: bool = False,
    at: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> tuple[Any, dict[str, list[Seen]]]:
    """The loss, and what is seen of each name, where tapped values are others.

    at: what they are at the point. is_cut: nothing flows back through a named one.
    """
    named = [e for e in _taps(closed) if not is_cut or e.params["name"] in at]
    names = {id(e): e.params["name"] for e in named}
    added = dict[tuple[int, int], list[Any]]()
    for equation in named:
        name, dtype = equation.params["name"], equation.outvars[0].aval.dtype
        if name in values:
            change = values[name] - at[name].astype(values[name].dtype)
            added[id(equation), 0] = [jnp.asarray(change, dtype)]
    outputs, seen = planted(closed, leaves, names.keys(), added, is_cut)
    found = dict[str, list[Seen]]()
    for (key, _), one in seen.items():
        found.setdefault(names[key], []).append(one)
    return outputs[0], found


def _random_like(value: Any) -> Any:
    random = np.random.default_rng(0).standard_normal(np.shape(value))
    return np.asarray(random, value.dtype)


def _same(one: Any, other: Any) -> bool:
    """Whether two arrays are equal but for rounding."""
    one, other = np.asarray(one), np.asarray(other)
    if one.shape != other.shape:
        return False
    allowed = min(ULPS * max(eps(one.dtype), eps(other.dtype)), ROUGHEST)
    apart = np.asarray(one, np.float64) - np.asarray(other, np.float64)
    return two_norm(apart) <= allowed * two_norm(other)
