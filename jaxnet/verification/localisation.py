"""Where in a large leaf a gradient that fails a look is wrong."""

from dataclasses import dataclass

import numpy as np

from jaxnet.verification.candidates import Candidate
from jaxnet.verification.directions import Coordinate
from jaxnet.verification.leaf_check import LeafCheck
from jaxnet.verification.leaves import units
from jaxnet.verification.looks import Look
from jaxnet.verification.verdict import Verdict


@dataclass(frozen=True)
class Localisation:
    """The search for one wrong coordinate of one candidate's gradient by one leaf."""

    check: LeafCheck
    candidate: Candidate

    def wrong_coordinate(self) -> Look | None:
        """A look by it: where autodiff differs most, else by halving."""
        flat = self._largest_difference()
        if flat is None or not self._is_wrong(self._coordinate(flat)):
            found = self.check.looker.search(self.check.number, self._is_wrong, limit=1)
            flat = found[0] if found else None
        return None if flat is None else self._coordinate(flat)

    def _is_wrong(self, look: Look) -> bool:
        return self.check.finding(look, self.candidate).verdict is Verdict.DISAGREE

    def _coordinate(self, flat: int) -> Look:
        coordinate = Coordinate(self.check.leaf, flat)
        return self.check.looker.look(self.check.number, coordinate)

    def _largest_difference(self) -> int | None:
        every = self.check.rounding.gradient()
        if every is None or self.candidate.is_autodiff:
            return None
        leaf = self.check.leaf
        size = units(leaf.values, leaf.floor)
        other, own = every[self.check.number], self.check.gradient(self.candidate)
        difference = np.abs(own - other) * size
        return int(np.argmax(difference)) if difference.any() else None
