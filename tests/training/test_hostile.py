"""Whatever a checkpoint, its configuration, labels or flags hold: one line of ours."""

import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load

from experiments import train_mnist
from jaxnet.input_checks import check_labels
from jaxnet.training.checkpoint import load_checkpoint, load_params, save_checkpoint
from tests.training.test_checkpoint import CONFIG, made, sealed

FUZZ = settings(
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner)
    ),
    max_leaves=9,
)
DTYPES = st.sampled_from(["float32", "float64", "int32", "uint32", "uint8", "bool"])
ARRAYS = hnp.arrays(DTYPES, hnp.array_shapes(min_dims=0, max_dims=3, max_side=4))


@pytest.fixture
def path(tmp_path: Path, key: jax.Array) -> Path:
    """A whole checkpoint."""
    return save_checkpoint(tmp_path, *made(key, 3), CONFIG)


def complaints(path: Path, key: jax.Array, config: Any) -> list[str]:
    """What reading the file both ways says; any other error is none of ours."""
    found = []
    for read in (
        lambda: load_checkpoint(path, made(key, 3)[0], config),
        lambda: load_params(path),
    ):
        try:
            read()
        except ValueError as error:
            found.append(str(error))
    assert all("\n" not in line and str(path) in line for line in found)
    return found


@pytest.mark.slow
@FUZZ
@given(entry=st.text(max_size=9), value=JSON)
def test_any_configuration_is_compared(
    path: Path, key: jax.Array, entry: str, value: Any
) -> None:
    """Another entry, of whatever kind, is refused in one line that is not long."""
    tensors = load(path.read_bytes())
    path.write_bytes(sealed(tensors, json.dumps({**CONFIG, entry: value})))
    found = complaints(path, key, CONFIG)
    same = (entry in CONFIG or value is None) and CONFIG.get(entry) == value
    assert len(found) == (0 if same else 1)
    assert all(len(line) < 1000 for line in found)
    path.write_bytes(sealed(tensors, json.dumps(CONFIG)))
    assert not complaints(path, key, CONFIG)


@FUZZ
@given(text=st.text(max_size=60))
def test_any_text_for_a_configuration(path: Path, key: jax.Array, text: str) -> None:
    """Text that is no JSON is refused, its checksum being right."""
    path.write_bytes(sealed(load(path.read_bytes()), text))
    assert complaints(path, key, CONFIG)


@pytest.mark.slow
@FUZZ
@given(data=st.data(), array=ARRAYS)
def test_any_array_in_place_of_one(
    path: Path, key: jax.Array, data: Any, array: np.ndarray
) -> None:
    """An array of another form is refused; names of paths lead nowhere."""
    tensors = load(path.read_bytes())
    name = data.draw(st.sampled_from([*sorted(tensors), "../../out", "/tmp/out"]))
    before = sorted(path.parent.parent.rglob("*"))
    old = tensors.get(name)
    path.write_bytes(sealed({**tensors, name: array}, json.dumps(CONFIG)))
    found = complaints(path, key, CONFIG)
    if old is None or (old.dtype, old.shape) != (array.dtype, array.shape):
        assert found
    path.write_bytes(sealed(tensors, json.dumps(CONFIG)))
    assert not complaints(path, key, CONFIG)
    assert sorted(path.parent.parent.rglob("*")) == before


@FUZZ
@given(labels=ARRAYS | st.lists(st.integers() | st.floats() | st.text(), max_size=3))
def test_any_labels(labels: Any) -> None:
    """Class numbers, one an example, pass; all else is one line that names them."""
    count = np.shape(labels)[0] if np.ndim(labels) else 1
    line = ""
    try:
        check_labels(labels, count, 3)
    except (TypeError, ValueError) as error:
        line = str(error)
    if line:
        assert line.startswith("`labels")
        assert "\n" not in line
        return
    assert jnp.issubdtype(np.asarray(labels).dtype, np.integer)
    assert np.ndim(labels) == 1
    assert all(0 <= label < 3 for label in labels)


NUMBERS = st.integers(-(2**80), 2**80) | st.floats()
WORDS = st.sampled_from(["seed", "hidden", "devices", "learning-rate", "coordinator"])


@FUZZ
@given(flag=WORDS, value=NUMBERS | st.text(max_size=9))
def test_any_flag(
    monkeypatch: pytest.MonkeyPatch, capfd: Any, flag: str, value: Any
) -> None:
    """A flag is taken, or refused in one line before any work."""
    taken = []
    monkeypatch.setattr(train_mnist, "make_mesh", taken.append)
    monkeypatch.setattr(train_mnist, "run", lambda *_: None)
    monkeypatch.setattr(sys, "argv", ["script.py", f"--{flag}={value}"])
    try:
        train_mnist.main()
    except SystemExit as stop:
        text = str(stop)
        assert text.startswith("error: ")
        assert "\n" not in text
        assert not taken
    capfd.readouterr()
