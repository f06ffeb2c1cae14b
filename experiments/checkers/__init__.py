"""Gradient checkers, ours and others', asked the same questions as users would.

`groups()` are the questions, `CHECKERS` those who answer, `ask` has one answer one.
"""

from experiments.checkers.asking import Outcome, Setting, ask
from experiments.checkers.checker import Answer, Checker
from experiments.checkers.hindsight import best_settings
from experiments.checkers.question import Question
from experiments.checkers.questions import groups, named
from experiments.checkers.roster import CHECKERS, installed, versions

__all__ = [
    "CHECKERS",
    "Answer",
    "Checker",
    "Outcome",
    "Question",
    "Setting",
    "ask",
    "best_settings",
    "groups",
    "installed",
    "named",
    "versions",
]
