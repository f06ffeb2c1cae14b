"""All checkers, and which of them are here."""

import importlib.metadata
import importlib.util

from experiments.checkers.by_the_book import book_in
from experiments.checkers.checker import Checker
from experiments.checkers.ours import jaxnet
from experiments.checkers.with_autograd import hips_autograd
from experiments.checkers.with_jax import check_grads_in, chex_in
from experiments.checkers.with_torch import gradcheck
from jaxnet import DISTRIBUTION

CHECKERS: dict[str, Checker] = {
    checker.name: checker
    for checker in (
        jaxnet(),
        check_grads_in("float32", "fwd"),
        check_grads_in("float32", "rev"),
        check_grads_in("float64", "fwd"),
        check_grads_in("float64", "rev"),
        chex_in("float32"),
        chex_in("float64"),
        hips_autograd(),
        gradcheck(fast=False),
        gradcheck(fast=True),
        book_in("float32"),
        book_in("float64"),
    )
}


def installed(checker: Checker) -> bool:
    """Whether its package can be imported."""
    return importlib.util.find_spec(checker.package) is not None


def versions() -> dict[str, str]:
    """The version of every package that is here, NumPy's too."""
    packages = {checker.package: None for checker in CHECKERS.values()}
    found = {}
    for package in [*packages, "numpy"]:
        if importlib.util.find_spec(package):
            name = DISTRIBUTION if package == "jaxnet" else package
            found[package] = importlib.metadata.version(name)
    return found
