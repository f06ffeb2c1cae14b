"""The examples in the docstrings of every module of jaxnet are run."""

import doctest
import importlib
import pkgutil

import pytest

import jaxnet

MODULES = sorted(m.name for m in pkgutil.walk_packages(jaxnet.__path__, "jaxnet."))
WITH_EXAMPLES = ["losses", "network", "gradients", "differences.numerical_gradient"]


@pytest.mark.slow
@pytest.mark.parametrize("name", MODULES)
def test_examples_hold(name):
    """Each example prints what the docstring says it prints."""
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0
    if name.removeprefix("jaxnet.") in WITH_EXAMPLES:
        assert results.attempted > 0


def test_a_wrong_example_is_caught():
    """The runner of the examples sees a result that is not the one written."""
    finder, runner = doctest.DocTestParser(), doctest.DocTestRunner(verbose=False)
    example = finder.get_doctest(">>> 1 + 1\n3", {}, "wrong", None, 0)
    assert runner.run(example, out=lambda text: None).failed == 1
