"""Grades the links of a backward pass as they are filled in, and gives hints.

A notebook imports it from its own folder.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxnet import LeafReport, check_gradients

HINTS = ("verdict", "place", "cause", "formula")
"""The ladder: each hint tells more than the one before."""


class Exercise:
    """The links of a backward pass, each held against differences of the loss.

    loss: of `params`, a dictionary; the values between are named by `jaxnet.tap`.
    taps: of a link that is with respect to one of those, that one's name; each is made
        of the one before it. Any other link is d + the name of a parameter, and made
        of the last tap's before it.
    formulas: of every link, from the loss on; the last hint.
    """

    def __init__(
        self,
        loss: Callable[[Any], Any],
        params: dict[str, np.ndarray],
        taps: dict[str, str],
        formulas: dict[str, str],
    ) -> None:
        self.loss, self.params, self.taps, self.formulas = loss, params, taps, formulas
        self.links: dict[str, Any] = {}
        self.hints = dict.fromkeys(formulas, 0)
        self.found: dict[str, LeafReport] = {}
        with jax.enable_x64(True):
            self.by_jax = jax.grad(loss)(params)

    def grade(self, hint: str = "verdict", **links: Any) -> None:
        """Print a line a link that was passed, and hints up to the one asked for.

        Raises:
            TypeError: a link has no name.
            ValueError: a hint or a link has another name.
        """
        if not isinstance(hint, str):
            raise TypeError("`grade`: name what you pass: grade(dy=dy)")
        if hint not in HINTS or not links.keys() <= self.formulas.keys():
            known = f"hints {', '.join(HINTS)}; links {', '.join(self.formulas)}"
            raise ValueError(f"`grade`: expected {known}, got {hint!r}, {[*links]}")
        self.links |= links
        filled = {name: x for name, x in self.links.items() if x is not ...}
        self.found = self._checked(filled)
        for name in links:
            rungs = HINTS.index(hint)
            self.hints[name] = max(self.hints[name], rungs)
            print(f"{name:<4} {self._said(name, rungs)}")

    def _checked(self, filled: dict[str, Any]) -> dict[str, LeafReport]:
        """The record of each link; a parameter's that is blank is that of jax.grad."""
        own = {k: np.asarray(filled.get(f"d{k}", self.by_jax[k])) for k in self.params}
        between = {
            tap: np.asarray(filled[name])
            for name, tap in self.taps.items()
            if name in filled
        }
        with jax.enable_x64(True):
            report = check_gradients(
                self.loss, self.params, {"yours": own}, intermediates=between or None
            )
        paths = {f"['{name}']": f"d{name}" for name in self.params}
        paths |= {f"d_{tap}": name for name, tap in self.taps.items()}
        found = {paths[leaf.path]: leaf for leaf in report.leaves}
        return {name: found[name] for name in filled}

    def _said(self, name: str, rungs: int) -> str:
        """The verdict of a link, and so many more hints where it is not right."""
        if name not in self.found:
            said = "is blank"
            return (
                f"{said}\n     formula: {self.formulas[name]}" if rungs == 3 else said
            )
        leaf = self.found[name]
        if leaf.passed:
            return "is right"
        order = list(self.formulas)
        before = [n for n in order[: order.index(name)] if n in self.taps]
        wrong = [n for n in before if n in self.found and not self.found[n].passed]
        first = f" (look at {wrong[0]} first)" if wrong else ""
        index = leaf.worst_index
        place = f"its shape is {np.shape(self.links[name])}, not {leaf.shape}"
        if index is not None:
            at = f"{name}[{', '.join(map(str, index))}]"
            place = (
                f"{at} is {leaf.candidate_value:.6g}, not {leaf.reference_value:.6g}"
            )
        cause = leaf.cause or "no mistake that is known has these numbers"
        for link, tap in self.taps.items():
            cause = cause.replace(f"d_{tap}", link)
        more = (place, cause, self.formulas[name])[:rungs]
        lines = [f"{word}: {text}" for word, text in zip(HINTS[1:], more, strict=False)]
        return "\n     ".join([f"is wrong{first}", *lines])

    def score(self, path: str | Path | None = None) -> str:
        """JSON for a grader: how many links are right, and of each its hints."""
        links = {
            name: {
                "right": name in self.found and self.found[name].passed,
                "verdict": self.found[name].verdict.value
                if name in self.found
                else "BLANK",
                "hint": HINTS[self.hints[name]],
            }
            for name in self.formulas
        }
        right = sum(bool(link["right"]) for link in links.values())
        text = json.dumps({"right": right, "of": len(links), "links": links}, indent=1)
        if path is not None:
            Path(path).write_text(text)
        return text
