"""The file of a checkpoint: on the disk whole, with a checksum, or not at all.

It gets its name only once it is written, so that a process may be killed at any moment.
Nothing in a file is run: there is no pickle.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

MAX_BYTES = 2**32
"""The largest file that is read."""

_NAME = re.compile(r"step-(\d{8,18})\.safetensors")
_AGAIN = "delete it, or train again"

_OF_WRONG_FORM = (ValueError, KeyError, TypeError, AttributeError)
"""What reading raises where an entry is missing or of another kind; AttributeError is
safetensors' word for float8, of which NumPy has none."""

DTYPES = {
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64", "complex64"),
}
"""What safetensors gives back as it took it, in NumPy."""

Config: TypeAlias = Mapping[str, Any]
"""What makes a run, in JSON's types."""

Tensors: TypeAlias = dict[str, Shaped[np.ndarray, "..."]]


def write_checkpoint(
    folder: Path, step: int, tensors: Tensors, config: Config, keep: int
) -> Path:
    """The path of the new file; only the `keep` newest in the folder are left.

    Raises:
        OSError: the file cannot be written, or in its place is something else than a
            file; the older ones are all there still.
    """
    text = json.dumps(dict(config), sort_keys=True, allow_nan=False)
    metadata = {"config": text, "sha256": _digest(tensors, text)}
    path = plain(folder / f"step-{step:08d}.safetensors")
    temporary = path.with_name(f".{path.name}.tmp")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for remains in folder.glob(".step-*.safetensors.tmp"):
            remains.unlink()
        _write(temporary, save(tensors, metadata))
        temporary.replace(path)
        _sync_folder(folder)
        for old in newest_first(folder)[keep:]:
            old.unlink()
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        reason = error.strerror or str(error)
        fix = "older checkpoints are kept; free the disk or name another folder"
        raise OSError(f"{path}: cannot be written ({reason}); {fix}") from None
    return path


def plain(path: Path) -> Path:
    """The path, if there is nothing or a file.

    Raises:
        OSError: it is a link, a pipe, a folder or a device.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        fix = "move it away, or name another folder"
        raise OSError(f"{path}: expected a file or nothing, got another thing; {fix}")
    return path


def newest_first(folder: Path) -> list[Path]:
    """By the time of writing: a run begun anew has lower steps but newer files."""
    files = [f for f in folder.iterdir() if _NAME.fullmatch(f.name) and f.is_file()]
    return sorted(files, key=lambda f: (f.stat().st_mtime_ns, f.name), reverse=True)


def read_checkpoint(path: Path) -> tuple[Tensors, Config]:
    """The arrays and the configuration, whole: their checksum is right.

    Raises:
        OSError: the system does not let it be read.
        ValueError: it is damaged.
    """
    try:
        with path.open("rb") as opened:  # safetensors calls absent what is forbidden
            size = os.fstat(opened.fileno()).st_size
    except OSError as error:
        reason = error.strerror or str(error)
        fix = "it may be whole: let this user read it, or copy it elsewhere"
        raise type(error)(f"{path}: cannot be read ({reason}); {fix}") from None
    try:
        if size > MAX_BYTES:
            raise ValueError(f"more than {MAX_BYTES} bytes")
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        text = metadata["config"]
        if metadata["sha256"] != _digest(tensors, text):
            raise ValueError("wrong checksum")
        config = json.loads(text)
    except (OSError, SafetensorError, *_OF_WRONG_FORM) as error:
        reason = " ".join(str(error).split())[:120]
        raise ValueError(damaged(path, reason)) from None
    except RecursionError:
        raise ValueError(damaged(path)) from None
    if not isinstance(config, dict):
        raise ValueError(damaged(path))
    return tensors, config


def damaged(path: Path, reason: str = "config") -> str:
    """What a damaged file is refused with."""
    return f"{path}: damaged checkpoint ({reason}); {_AGAIN}"


def _digest(tensors: Tensors, config: str) -> str:
    """SHA-256 of the configuration, and of the name, form and bytes of every array."""
    digest = hashlib.sha256(config.encode())
    for name in sorted(tensors):
        array = tensors[name]
        digest.update(f"{name} {array.dtype} {array.shape} ".encode())
        digest.update(array.tobytes())
    return digest.hexdigest()


def _write(path: Path, data: bytes) -> None:
    """A file that is on the disk when this returns."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    """Make a rename outlast a power cut."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
