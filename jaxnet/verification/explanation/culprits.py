"""Which rule of the program is wrong, where a gradient that JAX derived from it is.

Each custom rule, and each stop_gradient, has a switch: off, the derivative of what it
computes stands in its place. If with all off the gradient is right, a rule that makes
it wrong alone, and that the gradient depends on, is convicted. All ways of setting the
switches are one program, and what it gives is held against the same differences as the
gradient was. Else, as where a kernel's body has no derivative, a rule is convicted that
is wrong by itself, for what the program gives it. No other rule is named.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import combinations
from typing import Any

import jax
import numpy as np

from jaxnet.jaxpr.evaluate import Hook, bind
from jaxnet.jaxpr.reader import inside
from jaxnet.verification.context import Context
from jaxnet.verification.explanation.by_design import straight_through
from jaxnet.verification.explanation.calls import (
    Calls,
    Observed,
    slope_through,
)
from jaxnet.verification.explanation.causes import WrongLeaf, times
from jaxnet.verification.explanation.switched import (
    GradientBySwitches,
    Switches,
    gradient_by_switches,
)
from jaxnet.verification.function.once import once
from jaxnet.verification.function.sites import (
    SITES,
    Site,
    computed,
    has_derivative,
    outermost,
    sites,
)
from jaxnet.verification.function.steps import STEPS
from jaxnet.verification.leaf.locate import same_as_autodiff
from jaxnet.verification.point import Reals
from jaxnet.verification.report.verdict import Verdict

NOBODY = "no rule of the program can be convicted of it"

UNSEEN = "JAX cannot trace the loss: which rule it is was not looked for"

FAULTS = (Verdict.DISAGREE, Verdict.MALFORMED)
"""What a rule is convicted of, where it is called."""

MOST_SUBSETS = 6
"""Of so many that may be guilty, the fewest are named without which the leaf agrees."""

ALIKE = 0.05
"""Within this share, slopes in the caller's own dtype are those that are missing."""

CHANGES = 1e-9
"""By more than this share of its largest entry a switch changes a gradient."""


@dataclass(frozen=True)
class Culprits:
    """The rules of one program, and its gradient by their switches.

    switchable: those whose body has a derivative. fixed: others, always on.
    """

    context: Context
    switchable: tuple[Site, ...]
    fixed: tuple[Site, ...]

    @classmethod
    def of(cls, context: Context, names: Sequence[str] = SITES) -> "Culprits":
        """Those of the caller's own program, of primitives of these names."""
        program = context.objective.program
        found = sites(program.closed, program.equations, names) if program else []
        can = [all(map(has_derivative, site.equations)) for site in found]
        pairs = list(zip(found, can, strict=True))
        return cls(
            context,
            tuple(site for site, has in pairs if has),
            tuple(site for site, has in pairs if not has),
        )

    def of_leaf(self, wrong: WrongLeaf) -> str:
        """Who is guilty of a wrong leaf, in words.

        Nothing of a candidate that is not what JAX derives: it says nothing of the
        program.
        """
        if not _is_of_autodiff(wrong):
            return ""
        if self.context.objective.program is None:
            return UNSEEN
        failed = None
        for search in (
            self._by_elimination,
            self._by_calls,
            self._by_differences,
            self._and_steps._by_elimination,
        ):
            try:
                if words := search(wrong):
                    return words
            except Exception as error:  # a part of the caller's has no derivative
                failed = error
        if failed is not None:
            raise failed
        is_derived = wrong.candidate.is_derived(self.context.autodiff)
        return NOBODY if is_derived else ""

    @cached_property
    def _and_steps(self) -> "Culprits":
        """With what rounds beside them: where that is meant, it is no mistake."""
        return Culprits.of(self.context, (*SITES, *STEPS))

    def _by_elimination(self, wrong: WrongLeaf) -> str:
        """Those that make it wrong alone, where with all of them off it is right."""
        number, count = wrong.probes.leaf.number, len(self.switchable)
        off, on, each = np.zeros(count), np.ones(count), np.eye(count)

        def gradient(switches: Switches) -> Reals:
            return self._gradient(tuple(switches.tolist()))[number]

        def mends(group: Sequence[int]) -> bool:
            without = gradient(on - each[list(group)].sum(axis=0))
            return wrong.is_mended_by(without)

        if not count or not wrong.is_mended_by(gradient(off)):
            return ""
        alone = [i for i in range(count) if not wrong.is_mended_by(gradient(each[i]))]
        guilty = [i for i in alone if _differ(gradient(on), gradient(on - each[i]))]
        guilty = guilty or self._innermost(alone)
        sizes = range(1, len(guilty) + 1 if len(guilty) <= MOST_SUBSETS else 2)
        groups = (group for size in sizes for group in combinations(guilty, size))
        fewest = next((g for g in (*groups, guilty) if mends(g)), None)
        said = []
        for i in guilty if fewest is None else fewest:
            ratio = _ratio(gradient(off), gradient(each[i]))
            said.append(self._guilt(self.switchable[i], number, ratio))
        if guilty and fewest is not None:
            of_steps = all(self.switchable[i].primitive in STEPS for i in fewest)
            what = "1 for its" if of_steps else "the true"
            place = " in its place" * (not of_steps)
            said.append(f"with {what} derivative{place}, this leaf agrees")
        return "; ".join(said)

    def _by_calls(self, wrong: WrongLeaf) -> str:
        """Those on the way from the leaf that are wrong for what they are given."""
        number, program = wrong.probes.leaf.number, self.context.objective.program
        outer = {id(e) for e in outermost(program.equations)} if program else set()
        rules = [s for s in self._rules if any(id(e) in outer for e in s.equations)]
        guilty = [site for site in rules if self._faults(site, number)]
        context = self.context
        said = [within(context, s) or [self._guilt(s, number)] for s in guilty]
        return "; ".join(words for each in said for words in each)

    def _by_differences(self, wrong: WrongLeaf) -> str:
        """The stop_gradients on the way from a leaf whose slopes are what is missing.

        So where what comes after has no derivative: a kernel, a callback.
        """
        number, program = wrong.probes.leaf.number, self.context.objective.program
        if program is None or program.may_not_end(number):
            return ""
        moved = {id(e) for e in program.moved_by(number)}
        stops = (site for site in self.switchable if not site.name)
        between = [s for s in stops if any(id(e) in moved for e in s.equations)]
        missing, direction = wrong.largest_error()
        through = partial(slope_through, objective=self.context.objective)
        slopes = [through(site, direction=direction) for site in between]
        if not abs(sum(slopes) - missing) <= ALIKE * abs(missing):
            return ""
        pairs = zip(between, slopes, strict=True)
        guilty = [site for site, slope in pairs if abs(slope) > ALIKE * abs(missing)]
        return "; ".join(self._guilt(site, number) for site in guilty)

    @cached_property
    def that_raise(self) -> str:
        """Those that give nothing where they are called, in words."""
        if self.context.objective.program is None:
            return ""
        said, observed = list[str](), self._observed
        for site, each in zip(self._rules, observed.calls(), strict=True):
            why = _fault(each, observed, is_used=False, faults=FAULTS[1:])
            said += [f"{site.described} is wrong{why}"] if why else []
        return "; ".join(said)

    @property
    def _rules(self) -> list[Site]:
        return [site for site in (*self.switchable, *self.fixed) if site.name]

    def _guilt(self, site: Site, leaf: int, otherwise: str = "") -> str:
        """What is said of a guilty one; `otherwise` if no call of it shows why."""
        kind = straight_through(self.context.objective, site, leaf)
        kind = f": {kind}" * bool(kind)
        if not site.name:
            return f"{site.described} stops a part of it{kind}"
        try:
            why = self._faults(site, leaf)
        except Exception:  # the caller's rule, by itself
            why = ""
        return f"{site.described} is wrong{why or otherwise}{kind}"

    @once
    def _faults(self, site: Site, leaf: int) -> str:
        """What is wrong with a rule, for what a leaf moves; empty if nothing is."""
        found = dict(zip(self._rules, self._observed.calls(leaf), strict=True))
        return _fault(found[site], self._observed)

    @cached_property
    def _observed(self) -> Observed:
        """The rules where they are called."""
        return Observed(self.context, tuple(self._rules))

    def _innermost(self, chosen: list[int]) -> list[int]:
        """Those that hold none of the others: an outer rule may use an inner one's."""
        within = {
            i: {id(e) for x in self.switchable[i].equations for e in inside(x)}
            for i in chosen
        }
        own = {i: set(map(id, self.switchable[i].equations)) for i in chosen}
        return [i for i in chosen if not any(own[j] & within[i] for j in chosen)]

    @once
    def _gradient(self, switches: tuple[float, ...]) -> list[Reals]:
        return self._by_switches()(np.array(switches))

    @once
    def _by_switches(self) -> GradientBySwitches:
        parts = [site.equations for site in self.switchable]
        return gradient_by_switches(self.context.objective, parts, with_switch)


def within(context: Context, site: Site) -> list[str]:
    """What is said of wrong rules in one that is wrong, which may use theirs."""
    closed = context.objective.traced.own.closed
    found = sites(closed, (e for call in site.equations for e in inside(call)))
    inner = [each for each in found if each.name]
    if not inner:
        return []
    observed = Observed(context, tuple(inner))
    faults = [_fault(each, observed, is_used=False) for each in observed.calls()]
    pairs = zip(inner, faults, strict=True)
    return [f"{each.described} is wrong{why}" for each, why in pairs if why]


def _fault(
    found: Calls,
    observed: Observed,
    is_used: bool = True,
    faults: tuple[Verdict, ...] = FAULTS,
) -> str:
    """What is wrong in the first wrong call, in words; empty if nothing is.

    is_used: leave out those to which nothing comes back. faults: what counts as wrong.
    """
    for call in found.some:
        if is_used and not call.is_used:
            continue
        wrong = [x for x in observed.verified(call) if x.verdict in faults]
        if wrong:
            where = (f" in its {x.path}" for x in wrong)
            causes = (f": {x.cause}" * bool(x.cause) for x in wrong)
            return ",".join(map("".join, zip(where, causes, strict=True)))
    return ""


def with_switch(
    equation: Any, switch: Any, inputs: list[Any], within: Hook
) -> list[Any]:
    """With its rule where the switch is on, else with that of what it computes."""
    outputs: list[Any] = jax.lax.cond(
        switch > 0,
        lambda *values: bind(equation, values),
        lambda *values: computed(equation, values, within),
        *inputs,
    )
    return outputs


def _is_of_autodiff(wrong: WrongLeaf) -> bool:
    """Whether the candidate is what JAX derives, but for rounding."""
    context, leaf = wrong.context, wrong.probes.leaf
    if wrong.candidate.is_derived(context.autodiff):
        return True
    autodiff = context.autodiff.array(leaf)
    if autodiff is None:
        return False
    allowed = same_as_autodiff(context, wrong.candidate, wrong.probes, autodiff)
    return bool((np.abs(wrong.gradient - autodiff) <= allowed).all())


def _differ(one: Reals, other: Reals) -> bool:
    largest = np.max(np.abs(one), initial=np.max(np.abs(other), initial=0.0))
    return not np.max(np.abs(one - other), initial=0.0) <= CHANGES * largest


def _ratio(right: Reals, wrong: Reals) -> str:
    """The one factor between two gradients, in words; empty if there is none."""
    a, b = right.reshape(-1), wrong.reshape(-1)
    factor = float(a @ b / (a @ a)) if a.any() else math.nan
    is_one = math.isfinite(factor) and not _differ(b, factor * a)
    return f" by {times(factor)}" if is_one else ""
