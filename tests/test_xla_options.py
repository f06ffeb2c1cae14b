"""What is told to the CPU's compiler is told to no other, and to one that knows it."""

from collections.abc import Iterator

import jax
import numpy as np
import pytest

from jaxnet import init_state
from jaxnet.training import state
from jaxnet.xla_options import BY_EIGEN, IN_HASTE, in_haste

UNKNOWN = {"an_option_of_no_compiler": "0"}


@pytest.fixture
def unknown_option(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """As on a GPU: the options of the CPU are not known to its compiler."""
    monkeypatch.setattr("jaxnet.xla_options.IN_HASTE", UNKNOWN)
    monkeypatch.setattr("jaxnet.xla_options._takes", lambda *options: True)
    state._compiled.cache_clear()
    yield
    state._compiled.cache_clear()


@pytest.mark.usefixtures("unknown_option")
def test_first_state_on_a_gpu(key: jax.Array, monkeypatch: pytest.MonkeyPatch) -> None:
    """Training begins there: no option is passed. On a CPU, it would be."""
    with pytest.raises(jax.errors.JaxRuntimeError, match="an_option_of_no_compiler"):
        init_state(key, (3, 2))
    monkeypatch.setattr(state, "platform", lambda: "gpu")
    assert init_state(key, (3, 2)).step == 0


def test_unknown_options_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each release of XLA knows others: what this one does not know is not passed."""
    options = {**IN_HASTE, **BY_EIGEN, **UNKNOWN}
    monkeypatch.setattr("jaxnet.xla_options.IN_HASTE", options)
    assert in_haste(lambda x: x + 1.0, "cpu")(np.float32(1.0)) == 2.0
