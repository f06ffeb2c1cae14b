"""Checkpoints: one safetensors file each, written whole or not at all.

A file holds a State, its History and the run's configuration as JSON, with a SHA-256 of
them all.
"""

import json
import warnings
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import keystr, tree_flatten_with_path

from jaxnet.array_types import PyTree
from jaxnet.input_checks import (
    check_count,
    check_params,
    check_untraced,
    complaint,
    describe,
)
from jaxnet.network import Dense, Params
from jaxnet.training.checkpoint_file import (
    DTYPES,
    Config,
    Tensors,
    damaged,
    newest_first,
    read_checkpoint,
    write_checkpoint,
)
from jaxnet.training.state import History, State

Form: TypeAlias = tuple[str | int, ...]
"""The dtype of an array, then the lengths of its axes."""

_ANOTHER = "no run leads there: take an older one, or a smaller learning rate"
_AS_BEFORE = "pass what the run began with, or start another in another folder"


class Checkpoint(NamedTuple):
    """What a file holds, and which file it was."""

    state: State
    history: History
    config: Config
    path: Path


def save_checkpoint(
    folder: str | Path, state: State, history: History, config: Config, keep: int = 3
) -> Path:
    """The path of the new file; only the `keep` newest in the folder are left.

    `config` is what makes the run, in JSON's types: the network, the data, the
    optimiser. It is compared when the run is resumed.

    Raises:
        OSError: the file cannot be written; the older ones are all there still.
        TypeError, ValueError: it could not be loaded: a dtype that files do not hold,
            a history of another state, or what no run leads to.
    """
    check_count("keep", keep)
    tree = {**_plain(state), "history": history}
    for name, leaf in _named(tree).items():
        check_untraced(name, leaf, "save outside jit, as in a callback of train")
    tensors = {n: np.array(x, order="C") for n, x in _named(tree).items()}
    for name, array in tensors.items():
        if array.dtype.name not in DTYPES:
            expected, fix = f"one of {', '.join(sorted(DTYPES))}", "cast it first"
            raise TypeError(complaint(name, expected, describe(array), fix))
    if differences := _differences(tensors, state):
        fix = "pass the history that came with the state"
        raise ValueError(f"{differences}; {fix}")
    _check_values(tensors)
    return write_checkpoint(Path(folder), int(state.step), tensors, config, keep)


def load_checkpoint(
    path: str | Path, like: State, config: Config | None = None
) -> Checkpoint:
    """The checkpoint at `path`, or the newest whole one if that is a folder.

    `like` is a state of the expected form, such as that of `init_state`. A damaged
    file in a folder is warned of, and the one before it taken.

    Raises:
        FileNotFoundError: there is none.
        ValueError: the file is damaged; its leaves are not those of `like` (missing,
            extra and wrong ones are listed); its run was not that of `config` (the
            differences are listed); or no run leads to its values.
        OSError: the system does not let it be read: it may well be whole.
    """
    path, tensors, saved = _first_whole(Path(path))
    if config is not None:
        _check_config(path, saved, json.loads(json.dumps(dict(config))))
    if differences := _differences(tensors, like):
        raise ValueError(f"{path}: {differences}; {_AS_BEFORE}")
    try:
        _check_values(tensors)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    fields = (tensors[f"history.{name}"] for name in History._fields)
    steps_per_epoch, *arrays = fields
    history = History(int(steps_per_epoch), *arrays)
    return Checkpoint(_restored(like, tensors), history, saved, path)


def load_params(path: str | Path) -> tuple[Params, Config, Path]:
    """The parameters of the checkpoint, whatever they are, with its config and file.

    Raises: as `load_checkpoint`.
    """
    path, tensors, config = _first_whole(Path(path))
    layers: list[Dense] = []
    while (name := f"params.{len(layers)}.weight") in tensors:
        bias = tensors.get(name.replace("weight", "bias"))
        layers.append(Dense(tensors[name], bias))  # type: ignore[arg-type]
    try:
        check_params(tuple(layers))
        _check_finite(tensors, runs=0)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from None
    return tuple(layers), config, path


def _first_whole(path: Path) -> tuple[Path, Tensors, Config]:
    """The file and what it holds; in a folder, the newest that is not damaged."""
    files = newest_first(path) if path.is_dir() else [path] if path.is_file() else []
    if not files:
        fix = "make one by `python experiments/train_mnist.py`"
        raise FileNotFoundError(f"{path}: no checkpoint here; {fix}")
    for file in files[:-1]:
        try:
            return (file, *read_checkpoint(file))
        except (ValueError, FileNotFoundError) as error:
            warnings.warn(f"{error}; taking the one before it", stacklevel=3)
    return (files[-1], *read_checkpoint(files[-1]))


def _named(tree: PyTree) -> dict[str, Any]:
    """The leaves by their names, such as `params.0.weight`."""
    leaves, _ = tree_flatten_with_path(tree)
    return {keystr(path, simple=True, separator="."): leaf for path, leaf in leaves}


def _plain(state: State) -> dict[str, Any]:
    """The state with its key as words, which files can hold."""
    return {**state._asdict(), "key": jax.random.key_data(state.key)}


def _restored(like: State, tensors: Tensors) -> State:
    """The state of the form of `like`, with the values of the file."""
    plain = _plain(like)
    leaves = [tensors[name] for name in _named(plain)]
    values = jax.tree.unflatten(jax.tree.structure(plain), leaves)
    impl = jax.random.key_impl(like.key)
    values["key"] = jax.random.wrap_key_data(values["key"], impl=impl)
    return State(**jax.tree.map(jnp.asarray, values))


def _form(like: State, tensors: Tensors) -> dict[str, Form]:
    """The expected dtype and shape of every leaf.

    The lengths of the history's are the file's own, as long as they fit its step.
    """
    leaves = _named(_plain(like))
    form: dict[str, Form] = {n: (str(x.dtype), *x.shape) for n, x in leaves.items()}
    step = tensors.get("step", np.zeros(()))
    num_steps = max(0, int(step)) if step.shape == () else 0
    num_rows = np.size(tensors.get("history.steps", 0))
    runs = like.key.shape
    form["history.steps_per_epoch"] = ("int64",)
    form["history.steps"] = ("int64", num_rows)
    form["history.train_accuracy"] = ("float32", *runs, num_rows)
    form["history.test_accuracy"] = ("float32", *runs, num_rows)
    form["history.losses"] = ("float32", *runs, num_steps)
    return form


def _differences(tensors: Tensors, like: State) -> str:
    """The leaves that are not those of a state like this and its history, in words."""
    form = _form(like, tensors)
    found = {name: (str(x.dtype), *x.shape) for name, x in tensors.items()}
    wrong = [
        f"{name} {_text(found[name])} instead of {_text(form[name])}"
        for name in form
        if name in found and found[name] != form[name]
    ]
    missing = [name for name in form if name not in found]
    extra = [name for name in found if name not in form]
    kinds = {"missing": missing, "extra": extra, "wrong": wrong}
    return "; ".join(f"{k} {_listed(names)}" for k, names in kinds.items() if names)


def _check_values(tensors: Tensors) -> None:
    """No step below 0, no epoch of none, rows in order, shares, and a finite run."""
    step = int(tensors["step"])
    check_count("step", step, minimum=0)
    check_count("history.steps_per_epoch", int(tensors["history.steps_per_epoch"]))
    rows = tensors["history.steps"]
    if not ((rows >= 0) & (rows <= step)).all() or not (np.diff(rows) > 0).all():
        expected, got = f"steps 0…{step} in their order", str(rows[:12].tolist())
        raise ValueError(complaint("history.steps", expected, got, _ANOTHER))
    for name in ("history.train_accuracy", "history.test_accuracy"):
        wrong = tensors[name][~((tensors[name] >= 0) & (tensors[name] <= 1))]
        if wrong.size:
            raise ValueError(complaint(name, "shares 0…1", str(wrong[0]), _ANOTHER))
    losses = tensors["history.losses"]
    finite = np.isfinite(losses).any(axis=tuple(range(losses.ndim - 1)))
    if not finite.all():
        got = f"none at step {np.argmin(finite)}"
        raise ValueError(complaint("history.losses", "a finite one", got, _ANOTHER))
    _check_finite(tensors, runs=losses.ndim - 1)


def _check_finite(tensors: Tensors, runs: int) -> None:
    """Parameters that are finite: in a batch of runs, all those of one run."""
    params = {n: x for n, x in tensors.items() if n.startswith("params.")}
    finite = {
        name: np.isfinite(x).all(axis=tuple(range(runs, x.ndim)))
        for name, x in params.items()
    }
    if not np.logical_and.reduce(list(finite.values())).any():
        name = next(name for name, each in finite.items() if not each.all())
        got = str(params[name][~np.isfinite(params[name])][0])
        raise ValueError(complaint(name, "finite numbers", got, _ANOTHER))


def _check_config(path: Path, saved: Config, config: Config) -> None:
    try:
        differences = [
            f"{name} was {saved.get(name)!r:.80}, is {config.get(name)!r:.80}"
            for name in sorted({*saved, *config})
            if saved.get(name) != config.get(name)
        ]
    except RecursionError:
        raise ValueError(damaged(path)) from None
    if differences:
        raise ValueError(f"{path}: {_listed(differences)}; {_AS_BEFORE}")


def _text(form: Form) -> str:
    return f"{form[0]}{list(form[1:])}"


def _listed(differences: list[str], most: int = 6) -> str:
    """The first of the differences, in one line of bounded length."""
    shown = ", ".join(" ".join(d.split())[:200] for d in differences[:most])
    more = len(differences) - most
    return f"{shown} and {more} more" if more > 0 else shown
