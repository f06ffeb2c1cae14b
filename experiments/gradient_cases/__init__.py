"""Losses with right and wrong gradients, on which any gradient checker can be tried.

`all_cases()` are single questions with known answers; `program_cases()` are of programs
as people run them, in their own dtype and up to their tolerance; `FAMILIES` and `plant`
make hundreds more at random, at every scale.
"""

from experiments.gradient_cases.case import Case
from experiments.gradient_cases.families import FAMILIES, plant
from experiments.gradient_cases.kinks import kink_cases
from experiments.gradient_cases.linear_algebra import linear_algebra_cases
from experiments.gradient_cases.mlp import hidden_mlp_cases
from experiments.gradient_cases.networks import network_cases
from experiments.gradient_cases.noise import noise_cases
from experiments.gradient_cases.programs import program_cases
from experiments.gradient_cases.public import public_cases
from experiments.gradient_cases.scales import scale_cases
from experiments.gradient_cases.sequences import sequence_cases
from experiments.gradient_cases.trees import tree_cases

__all__ = ["FAMILIES", "Case", "all_cases", "plant", "program_cases"]


def all_cases() -> list[Case]:
    """Every case, built afresh: the public ones first, under their public ids."""
    return [
        *public_cases(),
        *hidden_mlp_cases(),
        *network_cases(),
        *sequence_cases(),
        *linear_algebra_cases(),
        *kink_cases(),
        *noise_cases(),
        *scale_cases(),
        *tree_cases(),
    ]
