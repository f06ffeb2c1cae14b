"""The score of checkers over the mutants of rules."""

import jax.numpy as jnp
import pytest

from experiments import mutation_score
from experiments.mutation_score import by_jax, by_jaxnet, catches, drawn, table

pytestmark = pytest.mark.slow

RULE = {"sine": (jnp.sin, (drawn(3),))}


def test_counts_what_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """All by the verifier, none by one that looks at nothing, and no right rule."""
    checkers = {"blind": (lambda rule, args: None, False), "ours": (by_jaxnet, False)}
    monkeypatch.setattr(mutation_score, "CHECKERS", checkers)
    rows = {row["mistake"]: row for row in table(RULE).rows}
    assert len(rows) == 11
    assert "transposed" in rows
    assert (rows["transposed"]["blind"], rows["transposed"]["ours"]) == ("0/0", "0/0")
    assert (rows["all"]["blind"], rows["all"]["ours"]) == ("0/8", "8/8")
    right = rows["none: a right rule, accused"]
    assert (right["blind"], right["ours"]) == ("0/1", "0/1")


def test_asks_in_float32_and_in_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only float32 shows, JAX's checker sees there alone."""
    from jaxnet.testing import mutants

    checkers = {"32": (by_jax, False), "64": (by_jax, True)}
    monkeypatch.setattr(mutation_score, "CHECKERS", checkers)
    wrong = mutants(jnp.sin)["wrong in float32"]
    assert catches("32", wrong, RULE["sine"][1])
    assert not catches("64", wrong, RULE["sine"][1])
