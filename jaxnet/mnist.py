"""MNIST, or any four files of its form, as NumPy arrays.

An IDX file is a big-endian header (a magic number that says how many axes there are,
then the length of each) and one unsigned byte an entry. Source: Yann LeCun, Corinna
Cortes, "The MNIST database of handwritten digits".
"""

import math
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, UInt8

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
NUM_CLASSES = 10
MAX_BYTES = 2**30
"""The largest file, uncompressed, that is read: some 1.3 million images."""
GREY_LEVELS = np.arange(256, dtype=np.float32) / np.float32(255)
"""What each byte of an image stands for, 0 to 1."""

_SHIPPED = Path(__file__).parent / "data"
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 31
"""zlib's word for "a gzip header and checksum around the data"."""
_GZIP_RATIO = 1032
"""Deflate's best: no file unpacks to more times its size."""
_PIECE = 2**20
_CACHE_LINE = 64


class Mnist(NamedTuple):
    """Images as rows of grey levels in [0, 1], or bytes; labels as classes 0…9."""

    train_images: (
        Float32[np.ndarray, "train pixels"] | UInt8[np.ndarray, "train pixels"]
    )
    train_labels: Int32[np.ndarray, " train"]
    test_images: Float32[np.ndarray, "test pixels"] | UInt8[np.ndarray, "test pixels"]
    test_labels: Int32[np.ndarray, " test"]


def load_mnist(folder: str | Path | None = None, *, as_bytes: bool = False) -> Mnist:
    """The four files of `folder`, gzipped or not; MNIST, which ships, by default.

    Fashion-MNIST and KMNIST have the same form. With `as_bytes` images stay bytes, a
    quarter of the memory; `train` takes them as well, for GREY_LEVELS[bytes].

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: a file is not what its name says, is damaged or empty, or does not
            fit the other three; the message names it and what to do.
    """
    paths = [_find(_SHIPPED if folder is None else Path(folder), n) for n in NAMES]
    with ThreadPoolExecutor(len(paths)) as threads:
        arrays = list(threads.map(_read, paths))
    for images, labels in ((0, 1), (2, 3)):
        if len(arrays[images]) != len(arrays[labels]):
            expected = f"{len(arrays[images])} labels, one an image"
            got = str(len(arrays[labels]))
            raise _bad(
                paths[labels], expected, got, f"take both from {paths[0].parent}"
            )
    if arrays[0].shape[1] != arrays[2].shape[1]:
        expected = f"{arrays[0].shape[1]} pixels an image, as in training"
        raise _bad(paths[2], expected, str(arrays[2].shape[1]), "take one data set")
    if not as_bytes:
        arrays[0::2] = map(_grey_levels, arrays[0::2])
    return Mnist(*arrays)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    fix = "name a folder with the four IDX files, or none for the MNIST that ships"
    raise FileNotFoundError(f"{folder / name}[.gz]: no such file; {fix}")


def _read(
    path: Path,
) -> UInt8[np.ndarray, "examples pixels"] | Int32[np.ndarray, " examples"]:
    """Images or labels, as the name of the file says."""
    is_images = "images" in path.name
    try:
        with path.open("rb") as file:
            shape, body = _decode(_Source(path, file), axes=3 if is_images else 1)
    except OSError as error:
        raise _bad(path, "a readable file", str(error), "mend it or copy it") from None
    if is_images:
        return body.reshape(shape[0], -1)
    if body.max() >= NUM_CLASSES:
        index = int(np.argmax(body >= NUM_CLASSES))
        got = f"{body[index]} at label {index}"
        raise _bad(path, f"labels 0…{NUM_CLASSES - 1}", got, "take ten classes")
    return body.astype(np.int32)


def _grey_levels(
    body: UInt8[np.ndarray, "examples pixels"],
) -> Float32[np.ndarray, "examples pixels"]:
    """GREY_LEVELS[body], but faster."""
    levels = _empty(4 * body.size).view(np.float32).reshape(body.shape)
    return np.divide(body, np.float32(255), out=levels, dtype=np.float32)


def _empty(size: int) -> UInt8[np.ndarray, " bytes"]:
    """Bytes that begin at a cache line: JAX takes such an array without a copy."""
    room = np.empty(size + _CACHE_LINE, np.uint8)
    start = -room.ctypes.data % _CACHE_LINE
    return room[start : start + size]


class _Source:
    """The bytes of a file, uncompressed: never more than asked for are held."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.most = path.stat().st_size
        self.inflater = None
        if path.suffix == ".gz":
            if (start := file.read(2)) != _GZIP_MAGIC:
                fix = "download it again, or drop .gz from the name of a plain file"
                raise _bad(path, "a gzip file", f"first bytes {start!r}", fix)
            file.seek(0)
            self.most *= _GZIP_RATIO
            self.inflater = zlib.decompressobj(_GZIP_WINDOW)

    def read(self, size: int) -> bytes:
        """`size` bytes, or a few of them; none at the end only."""
        if self.inflater is None:
            return self.file.read(min(size, _PIECE))
        while not self.inflater.eof:
            packed = self.inflater.unconsumed_tail or self.file.read(_PIECE)
            try:
                piece = self.inflater.decompress(packed, size)
            except zlib.error as error:
                fix = "download it again"
                raise _bad(self.path, "gzip data", str(error), fix) from None
            if piece or not packed:
                return piece
        return b""

    def fill(self, room: UInt8[np.ndarray, " bytes"]) -> int:
        """Write the next bytes into the array; how many there were."""
        view, filled = room.data, 0
        while filled < len(room) and (piece := self.read(len(room) - filled)):
            view[filled : filled + len(piece)] = piece
            filled += len(piece)
        return filled

    def at_end(self) -> bool:
        """Nothing is left, and the checksum of a gzip file was right."""
        if self.read(1):
            return False
        whole = self.inflater is None or self.inflater.eof
        unused = self.inflater is not None and self.inflater.unused_data
        return whole and not unused and not self.file.read(1)


def _decode(
    source: _Source, axes: int
) -> tuple[tuple[int, ...], UInt8[np.ndarray, " bytes"]]:
    """The lengths of the axes and the bytes after the header."""
    path = source.path
    fix = "download it again" if path.suffix else "a gzipped file is named .gz"
    header = _empty(4 + 4 * axes)
    if (count := source.fill(header)) < len(header):
        raise _bad(path, "an IDX header", f"{count} bytes", fix)
    magic, *shape = struct.unpack(f">{1 + axes}I", header.tobytes())
    if magic != 0x800 + axes:
        expected = f"IDX magic {0x800 + axes} ({axes} axes of unsigned bytes)"
        raise _bad(path, expected, str(magic), fix)
    size = math.prod(shape)
    if not 0 < size <= MAX_BYTES:
        got, fix = " × ".join(map(str, shape)), "mend the header or split it"
        raise _bad(path, f"1 to {MAX_BYTES} entries", got, fix)
    if size > source.most:
        got = f"at most {source.most}"
        raise _bad(path, f"{size} bytes after the header", got, "download it again")
    body = _empty(size)
    if (count := source.fill(body)) < size or not source.at_end():
        got = str(count) if count < size else "more, or a wrong end"
        raise _bad(path, f"{size} bytes after the header", got, "download it again")
    return tuple(shape), body


def _bad(path: Path, expected: str, got: str, fix: str) -> ValueError:
    return ValueError(f"{path}: expected {expected}, got {got}; {fix}")
