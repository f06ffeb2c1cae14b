"""Where one leaf is looked at, with its kinks kept apart.

A probe through a kink bounds no gradient, so kinked coordinates are left out of the
probes and looked at one by one, then together: a gradient may be allowed at each of
several tied coordinates and be none of their sum.
"""

from dataclasses import dataclass, field

import numpy as np

from jaxnet.verification.directions import ONE, Chosen, Coordinate
from jaxnet.verification.looks import Look, Looker, is_small

MOST_LOOKED = 256
"""How many kinked coordinates are looked at."""

MOST_SEARCHED = 32
"""How many kinks are searched for where no zero or tie gives them away."""


@dataclass
class LeafLooks:
    """The looks at one leaf.

    looks: by every coordinate, or along probes without kinks and by kinked coordinates.
    joint: along several kinked coordinates together.
    kinked: coordinates left out of the probes.
    unlooked: those of them that are too many to be looked at.
    entangled: whether the probes still cross kinks that could not be told apart.
    """

    looker: Looker
    number: int
    small: bool
    looks: list[Look]
    kinked: tuple[int, ...] = ()
    unlooked: tuple[int, ...] = ()
    entangled: bool = False
    joint: list[Look] = field(default_factory=list)

    @classmethod
    def of(
        cls, looker: Looker, number: int, every_coordinate: bool | None
    ) -> "LeafLooks":
        """Look at every coordinate if the leaf is small, else along random probes."""
        leaf = looker.parameters.leaves[number]
        size = leaf.values.size
        if is_small(leaf, every_coordinate):
            looks = looker.coordinates(number, range(size))
            found = cls(looker, number, True, looks)
        else:
            found = cls(looker, number, False, looker.probes(number))
            if any(breaks(look) for look in found.looks):
                found._keep_kinks_apart()
        found._look_jointly()
        return found

    def signed(self, gradient: np.ndarray) -> list[Look]:
        """One more joint look, along the signs of a gradient at the kinks."""
        where = self._kinked_looks()
        signs = np.sign(gradient.reshape(-1)[where])
        if len(where) < 2 or not signs.any() or len(set(signs)) == 1:
            return []
        return [self._along(where, signs)]

    def _keep_kinks_apart(self) -> None:
        guess = self._guess()
        probes = self.looker.probes(self.number, guess) if guess else self.looks
        if not guess or any(breaks(look) for look in probes):
            more = self.looker.search(self.number, breaks, MOST_SEARCHED)
            guess = tuple(sorted({*guess, *more}))
            probes = self.looker.probes(self.number, guess)
        looked = guess
        if len(guess) > MOST_LOOKED:
            random = np.random.default_rng(list(self.looker.seed))
            chosen = random.choice(guess, MOST_LOOKED, replace=False)
            looked = tuple(sorted(int(i) for i in chosen))
        self.kinked, self.unlooked = guess, tuple(set(guess) - set(looked))
        self.entangled = any(breaks(look) for look in probes)
        self.looks = probes + self.looker.coordinates(self.number, list(looked))

    def _guess(self) -> tuple[int, ...]:
        """Zeros and ties: where abs, relu and max have their kinks."""
        values = self.looker.parameters.leaves[self.number].values.reshape(-1)
        _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
        tied = (counts[inverse.reshape(-1)] > 1) | (values == 0)
        return tuple(int(i) for i in np.flatnonzero(tied)) if not tied.all() else ()

    def _look_jointly(self) -> None:
        where = self._kinked_looks()
        if len(where) > 1:
            self.joint = [self._along(where, np.ones(len(where)))]

    def _kinked_looks(self) -> list[int]:
        return [
            look.direction.flat
            for look in self.looks
            if isinstance(look.direction, Coordinate) and look.slope.has_kink
        ]

    def _along(self, where: list[int], signs: np.ndarray) -> Look:
        leaf = self.looker.parameters.leaves[self.number]
        multipliers = np.zeros(leaf.values.size, np.int8)
        multipliers[where] = ONE * signs
        chosen = Chosen(leaf, multipliers.reshape(leaf.values.shape))
        return self.looker.look(self.number, chosen)


def breaks(look: Look) -> bool:
    """Whether the function has a kink or a jump along a look."""
    return look.slope.has_kink or bool(look.slope.jump)
