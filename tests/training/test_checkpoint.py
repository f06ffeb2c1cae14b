"""Checkpoints come back bit for bit; damaged or foreign ones are refused."""

import errno
import json
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load, save

from jaxnet.training import SGD, History, State, checkpoint_file, init_state
from jaxnet.training.checkpoint import load_checkpoint, load_params, save_checkpoint

CONFIG = {"network": {"hidden": "sigmoid"}, "batch_size": 20, "layer_sizes": [4, 3, 2]}
SIZES = (4, 3, 2)
BOTH = pytest.mark.parametrize(
    "optimizer", [SGD, optax.adam(1e-2)], ids=["sgd", "adam"]
)


def made(
    key: jax.Array, step: int, optimizer: optax.GradientTransformation = SGD
) -> tuple[State, History]:
    """A state as of some step, every leaf of it drawn, and a history."""
    draws = np.random.default_rng(step)
    state = init_state(key, SIZES, optimizer)._replace(step=jnp.int32(step))
    params = jax.tree.map(
        lambda x: jnp.asarray(draws.normal(size=x.shape), x.dtype), state.params
    )
    shares = draws.random((2, 2), np.float32)
    losses = draws.random(step, np.float32)
    history = History(25, np.array([0, step]), shares[0], shares[1], losses)
    return state._replace(params=params), history


def identical(one: Any, other: Any) -> bool:
    """Whether two trees are equal in every bit and dtype."""

    def plain(leaf: Any) -> np.ndarray:
        is_key = hasattr(leaf, "dtype") and jnp.issubdtype(
            leaf.dtype, jax.dtypes.prng_key
        )
        return np.asarray(jax.random.key_data(leaf) if is_key else leaf)

    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        a.dtype == b.dtype and np.array_equal(a, b)
        for a, b in zip(
            map(plain, jax.tree.leaves(one)),
            map(plain, jax.tree.leaves(other)),
            strict=True,
        )
    )


@pytest.fixture
def folder(tmp_path: Path, key: jax.Array) -> Path:
    """A folder with the checkpoints of steps 10, 20 and 30."""
    for step in (10, 20, 30):
        save_checkpoint(tmp_path, *made(key, step), CONFIG)
    return tmp_path


def newest(folder: Path) -> Path:
    """The last of them by name."""
    return max(folder.glob("step-*.safetensors"))


@BOTH
def test_comes_back_bit_for_bit(
    tmp_path: Path, key: jax.Array, optimizer: optax.GradientTransformation
) -> None:
    """State, history and configuration are what was saved; one other bit is seen."""
    state, history = made(key, 30, optimizer)
    path = save_checkpoint(tmp_path, state, history, CONFIG)
    assert path.name == "step-00000030.safetensors"
    loaded = load_checkpoint(path, init_state(jax.random.key(1), SIZES, optimizer))
    assert identical(loaded.state, state)
    assert identical(loaded.history, history)
    assert loaded.config == CONFIG
    other = loaded.state._replace(step=loaded.state.step + 1)
    assert not identical(other, state)


def test_many_runs_come_back(tmp_path: Path, key: jax.Array) -> None:
    """A batch of runs is one checkpoint."""
    state = init_state(jax.random.split(key, 3), SIZES)
    none = np.zeros((3, 0), np.float32)
    history = History(25, np.zeros(0, np.int64), none, none, none)
    path = save_checkpoint(tmp_path, state, history, CONFIG)
    assert identical(load_checkpoint(path, state)[:2], (state, history))


def test_parameters_alone(folder: Path, key: jax.Array) -> None:
    """Prediction needs neither the optimiser nor the form: names tell the layers."""
    params, config, path = load_params(folder)
    assert identical(params, made(key, 30)[0].params)
    assert config == CONFIG
    assert path == newest(folder)


def test_only_the_newest_are_kept(folder: Path, key: jax.Array) -> None:
    """`keep` files are left, those written last, whatever their steps."""
    save_checkpoint(folder, *made(key, 40), CONFIG, keep=2)
    assert steps(folder) == [30, 40]
    save_checkpoint(folder, *made(key, 5), CONFIG, keep=2)
    assert steps(folder) == [5, 40]
    assert load_checkpoint(folder, made(key, 1)[0]).state.step == 5
    with pytest.raises(ValueError, match="`keep`"):
        save_checkpoint(folder, *made(key, 5), CONFIG, keep=0)


def steps(folder: Path) -> list[int]:
    """Of all files in the folder, which must all be checkpoints."""
    return sorted(int(path.stem.removeprefix("step-")) for path in folder.iterdir())


DAMAGE = {
    "empty": lambda data: b"",
    "cut": lambda data: data[:-1],
    "half": lambda data: data[: len(data) // 2],
    "longer": lambda data: data + b"\0",
    "one bit of the last array": lambda data: data[:-1] + bytes([data[-1] ^ 1]),
    "one letter of the config": lambda data: data.replace(b"sigmoid", b"sigmoib"),
    "a header of 2⁶³ bytes": lambda data: b"\xff" * 7 + b"\x7f" + data[8:],
    "zeros": lambda data: bytes(len(data)),
    "a pickle": lambda data: pickle.dumps(CONFIG),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_reported_and_the_one_before_taken(
    folder: Path, key: jax.Array, kind: str
) -> None:
    """In a folder it is a warning, by itself an error, of one line that names it."""
    like, bad = made(key, 1)[0], newest(folder)
    bad.write_bytes(DAMAGE[kind](bad.read_bytes()))
    with pytest.warns(UserWarning, match=r"step-00000030.*damaged.*the one before"):
        loaded = load_checkpoint(folder, like)
    assert loaded.state.step == 20
    assert loaded.path.name == "step-00000020.safetensors"
    with pytest.raises(ValueError, match="damaged") as error:
        load_checkpoint(bad, like)
    assert "\n" not in str(error.value)
    assert str(bad) in str(error.value)


def test_a_whole_file_is_not_reported(folder: Path, key: jax.Array) -> None:
    """The newest one is taken without a warning."""
    assert load_checkpoint(folder, made(key, 1)[0]).state.step == 30


def test_all_damaged(folder: Path, key: jax.Array) -> None:
    """With no whole file left, the last complaint is the error."""
    for path in folder.iterdir():
        path.write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="damaged"),
        pytest.raises(ValueError, match="step-00000010"),
    ):
        load_checkpoint(folder, made(key, 1)[0])


def test_none_there(tmp_path: Path, key: jax.Array) -> None:
    """The error says how to make one; other files are none."""
    (tmp_path / "step-00000001.safetensors.txt").write_text("")
    (tmp_path / ".step-00000001.safetensors.tmp").write_text("")
    (tmp_path / "step-00000002.safetensors").mkdir()
    for path in (tmp_path, tmp_path / "absent"):
        with pytest.raises(FileNotFoundError, match=r"train_mnist\.py"):
            load_checkpoint(path, made(key, 1)[0])


@pytest.mark.slow
def test_another_network_lists_the_leaves(folder: Path, key: jax.Array) -> None:
    """Missing, extra and wrong-shape leaves, by name."""
    with pytest.raises(ValueError, match="pass what the run began with") as error:
        load_checkpoint(folder, init_state(key, (4, 5, 3, 2)))
    message = str(error.value)
    assert "missing params.2.weight, params.2.bias;" in message
    assert "wrong params.0.weight float32[4, 3] instead of float32[4, 5]" in message
    with pytest.raises(ValueError, match=r"extra params\.1\.bias"):
        load_checkpoint(folder, init_state(key, (4, 3)))
    with pytest.raises(ValueError, match=r"extra optimizer_state\.count"):
        load_checkpoint(folder, init_state(key, SIZES, optax.adam(1e-2)))


def test_another_configuration_lists_the_differences(
    folder: Path, key: jax.Array
) -> None:
    """What was and what is, for each entry; the same configuration is taken."""
    like = made(key, 1)[0]
    load_checkpoint(folder, like, {**CONFIG, "layer_sizes": (4, 3, 2)})
    with pytest.raises(
        ValueError, match="batch_size was 20, is 30, seed was None"
    ) as e:
        load_checkpoint(folder, like, {**CONFIG, "batch_size": 30, "seed": 1})
    assert "layer_sizes" not in str(e.value)


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_full_disk_leaves_the_older_ones(
    folder: Path, key: jax.Array, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    """One line says why, nothing half-written remains, and the last is still whole."""

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    target = os if failing == "fsync" else Path
    with monkeypatch.context() as patch:
        patch.setattr(target, failing, fail)
        with pytest.raises(OSError, match="No space") as e:
            save_checkpoint(folder, *made(key, 40), CONFIG)
    assert "\n" not in str(e.value)
    assert "step-00000040" in str(e.value)
    assert steps(folder) == [10, 20, 30]
    assert load_checkpoint(folder, made(key, 1)[0]).state.step == 30


def test_a_folder_that_is_a_file(tmp_path: Path, key: jax.Array) -> None:
    """An unusable folder is one line."""
    (tmp_path / "out").write_text("")
    with pytest.raises(OSError, match="cannot be written") as error:
        save_checkpoint(tmp_path / "out", *made(key, 1), CONFIG)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("moment", ["_write", "_sync_folder"])
def test_killed_while_saving(
    folder: Path, key: jax.Array, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """What a kill leaves behind is whole, and the next save clears the rest away."""

    def killed(path: Path, data: bytes = b"") -> None:
        if data:
            path.write_bytes(data[: len(data) // 2])
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(checkpoint_file, moment, killed)
        with pytest.raises(KeyboardInterrupt):
            save_checkpoint(folder, *made(key, 40), CONFIG)
    loaded = load_checkpoint(folder, made(key, 1)[0])
    assert loaded.state.step == (30 if moment == "_write" else 40)
    save_checkpoint(folder, *made(key, 50), CONFIG, keep=9)
    assert steps(folder)[-1] == 50


def sealed(tensors: dict[str, np.ndarray], config: str) -> bytes:
    """A file whose checksum is right, whatever it holds."""
    digest = checkpoint_file._digest(tensors, config)
    return save(tensors, {"config": config, "sha256": digest})


HOSTILE = {
    "a config of nested lists": ("[" * 100_000, {}),
    "a config that is a list": ("[]", {}),
    "a config of one huge number": ("9" * 5000, {}),
    "a config of a deep value": ('{"seed": ' + "[" * 900 + "]" * 900 + "}", {}),
    "a step beyond all": (json.dumps(CONFIG), {"step": np.array(2**31 - 1, np.int32)}),
    "steps": (json.dumps(CONFIG), {"step": np.zeros(3, np.int32)}),
    "a step of text": (json.dumps(CONFIG), {"step": np.array(7, np.uint8)}),
    "rows in two axes": (json.dumps(CONFIG), {"history.steps": np.zeros((2, 2))}),
    "a key of one word": (json.dumps(CONFIG), {"key": np.zeros(1, np.uint32)}),
    "floats for a key": (json.dumps(CONFIG), {"key": np.zeros(2, np.float32)}),
    "names of lines": (json.dumps(CONFIG), {"a\nb" * 999: np.zeros(1)}),
    "many names": (json.dumps(CONFIG), {str(i): np.zeros(1) for i in range(9999)}),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_sealed_but_hostile_file_is_one_line(
    folder: Path, key: jax.Array, kind: str
) -> None:
    """A right checksum is no passport: form and configuration are checked as well."""
    config, changes = HOSTILE[kind]
    path = newest(folder)
    path.write_bytes(sealed({**load(path.read_bytes()), **changes}, config))
    with pytest.raises(ValueError, match="step-00000030") as error:
        load_checkpoint(path, made(key, 1)[0], CONFIG)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 3000


FORGED = {
    "a weight of NaN": ("params.0.weight", lambda x: x * np.float32(np.nan), "nan"),
    "a bias of infinity": ("params.1.bias", lambda x: x + np.float32(np.inf), "inf"),
    "a step below 0": ("step", lambda x: x - 31, "`step`: expected a whole number ≥ 0"),
    "epochs of no step": ("history.steps_per_epoch", lambda x: x * 0, "≥ 1, got int 0"),
    "a row before the run": ("history.steps", lambda x: x - 1, "0…30 in their order"),
    "a row after the run": ("history.steps", lambda x: x + 1, "0…30 in their order"),
    "rows of no order": ("history.steps", lambda x: x[::-1].copy(), r"got \[30, 0\]"),
    "an accuracy above 1": ("history.test_accuracy", lambda x: x + 1, "shares 0…1"),
    "no accuracy": ("history.train_accuracy", lambda x: x * np.float32("nan"), "nan"),
    "a loss of NaN": ("history.losses", lambda x: x * np.float32("nan"), "at step 0"),
}


@pytest.mark.parametrize("kind", FORGED)
def test_what_no_run_leads_to_is_neither_loaded_nor_saved(
    folder: Path, key: jax.Array, kind: str
) -> None:
    """Of the right form and checksum, but not of values that training gives."""
    name, forge, words = FORGED[kind]
    path = newest(folder)
    tensors = load(path.read_bytes())
    tensors[name] = np.asarray(forge(tensors[name]))
    if name == "step":
        tensors["history.losses"] = tensors["history.losses"][:0]
    path.write_bytes(sealed(tensors, json.dumps(CONFIG)))
    with pytest.raises(ValueError, match=f"step-00000030.*{words}") as error:
        load_checkpoint(path, made(key, 1)[0], CONFIG)
    assert "\n" not in str(error.value)
    if name.startswith("params"):
        with pytest.raises(ValueError, match=f"step-00000030.*{words}"):
            load_params(path)
    state, history = made(key, 30)
    state, history = _with(state, history, name, tensors)
    with pytest.raises(ValueError, match=words) as error:
        save_checkpoint(folder, state, history, CONFIG)
    assert "\n" not in str(error.value)
    assert steps(folder) == [10, 20, 30]


def _with(
    state: State, history: History, name: str, tensors: dict[str, np.ndarray]
) -> tuple[State, History]:
    """The state and history with one leaf, and the losses, of the file."""
    history = history._replace(losses=tensors["history.losses"])
    value, field = tensors[name], name.split(".")[-1]
    if name.startswith("history"):
        value = value if value.ndim else int(value)
        return state, history._replace(**{field: value})
    if name == "step":
        return state._replace(step=jnp.asarray(value)), history
    layers = list(state.params)
    number = int(name.split(".")[1])
    layers[number] = layers[number]._replace(**{field: jnp.asarray(value)})
    return state._replace(params=tuple(layers)), history


def test_of_many_runs_some_may_have_diverged(tmp_path: Path, key: jax.Array) -> None:
    """As a sweep over learning rates leaves them; all of them may not."""
    state = init_state(jax.random.split(key, 3), SIZES)
    none = np.zeros((3, 0), np.float32)
    history = History(25, np.zeros(0, np.int64), none, none, none)

    def diverged(runs: list[int]) -> State:
        first, *others = state.params
        weight = first.weight.at[jnp.array(runs)].set(jnp.nan)
        return state._replace(params=(first._replace(weight=weight), *others))

    path = save_checkpoint(tmp_path, diverged([0, 2]), history, CONFIG)
    assert np.isnan(load_checkpoint(path, state).state.params[0].weight[2]).all()
    with pytest.raises(ValueError, match=r"`params\.0\.weight`: expected finite"):
        save_checkpoint(tmp_path, diverged([0, 1, 2]), history, CONFIG)


@pytest.mark.parametrize("dtype", ["float8_e4m3fn", "float8_e5m2", "int4"])
def test_a_dtype_that_could_not_be_read_is_not_saved(
    folder: Path, key: jax.Array, dtype: str
) -> None:
    """The leaf is named before a file is begun; bfloat16 comes back."""
    state, history = made(key, 40)
    for kind in (dtype, "bfloat16"):
        changed = state._replace(optimizer_state={"trace": jnp.ones(2, kind)})
        if kind == "bfloat16":
            path = save_checkpoint(folder, changed, history, CONFIG, keep=4)
            assert identical(load_checkpoint(path, changed).state, changed)
            continue
        with pytest.raises(TypeError, match=rf"`optimizer_state\.trace`.*{kind}") as e:
            save_checkpoint(folder, changed, history, CONFIG)
        assert "\n" not in str(e.value)
        assert steps(folder) == [10, 20, 30]


def test_a_history_of_another_state_is_not_saved(folder: Path, key: jax.Array) -> None:
    """Its losses are not as many as the steps; nor can NaN in a config be compared."""
    state, history = made(key, 30)
    short = history._replace(losses=history.losses[1:])
    with pytest.raises(
        ValueError, match=r"losses float32\[29\] instead of float32\[30"
    ):
        save_checkpoint(folder, state, short, CONFIG)
    with pytest.raises(ValueError, match="JSON"):
        save_checkpoint(folder, state, history, {"learning_rate": float("nan")})
    save_checkpoint(folder, state, history, CONFIG)


def test_float8_in_a_file_is_one_line(folder: Path, key: jax.Array) -> None:
    """A type that NumPy has not is no crash of the reader."""
    path = newest(folder)
    eighth = np.asarray(jnp.ones(2, "float8_e4m3fn"))
    path.write_bytes(sealed({**load(path.read_bytes()), "x": eighth}, "{}"))
    with pytest.raises(ValueError, match="damaged checkpoint"):
        load_checkpoint(path, made(key, 1)[0])


def test_inside_jit_nothing_is_saved(tmp_path: Path, key: jax.Array) -> None:
    """A tracer has no values: one line says where to call."""
    state, history = made(key, 1)
    with pytest.raises(TypeError, match="`key`: expected values") as error:
        jax.jit(lambda s: save_checkpoint(tmp_path, s, history, CONFIG) and 0)(state)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", [PermissionError, OSError])
def test_what_the_system_forbids_to_read_is_not_called_damaged(
    folder: Path, key: jax.Array, monkeypatch: pytest.MonkeyPatch, kind: type[OSError]
) -> None:
    """It may be whole: neither deleted nor passed over for an older one."""
    code = errno.EACCES if kind is PermissionError else errno.EIO
    opened = Path.open

    def forbidden(path: Path, *args: Any, **options: Any) -> Any:
        if path == newest(folder):
            raise kind(code, os.strerror(code), str(path))
        return opened(path, *args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", forbidden)
        for read in (lambda p: load_checkpoint(p, made(key, 1)[0]), load_params):
            for place in (folder, newest(folder)):
                with pytest.raises(kind, match=r"step-00000030.*cannot be read") as e:
                    read(place)
                assert "\n" not in str(e.value)
                assert "damaged" not in str(e.value)
                assert "delete" not in str(e.value)
    assert load_checkpoint(folder, made(key, 1)[0]).state.step == 30


def refusal(path: Path, like: State) -> str | None:
    """The complaint about the file, None if it could be read."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            load_checkpoint(path, like)
        except ValueError as error:
            return str(error)
    return None


FUZZ = settings(
    max_examples=100,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FUZZ
@given(place=st.floats(0, 1, exclude_max=True), new=st.binary(min_size=1, max_size=9))
def test_any_change_is_caught(
    folder: Path, key: jax.Array, place: float, new: bytes
) -> None:
    """A file with any bytes changed is refused in one line, or was not changed."""
    whole = (folder / "step-00000020.safetensors").read_bytes()
    at = int(place * len(whole))
    changed = (whole[:at] + new + whole[at + len(new) :])[: len(whole)]
    path = folder / "step-00000030.safetensors"
    path.write_bytes(changed)
    complaint = refusal(path, made(key, 1)[0])
    if complaint is None:
        loaded = load_checkpoint(path, made(key, 1)[0])
        assert identical(loaded[:2], made(key, 20))
    else:
        assert "\n" not in complaint
        assert str(path) in complaint


@FUZZ
@given(data=st.binary(max_size=300))
def test_any_bytes_are_one_line(folder: Path, key: jax.Array, data: bytes) -> None:
    """Random bytes are refused."""
    path = folder / "step-00000030.safetensors"
    path.write_bytes(data)
    complaint = refusal(path, made(key, 1)[0])
    assert complaint is not None
    assert "\n" not in complaint
