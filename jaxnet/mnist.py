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

_SHIPPED = Path(__file__).parent / "data"
_GZIP_MAGIC = b"\x1f\x8b"
_GZIP_WINDOW = 31
"""zlib's word for "a gzip header and checksum around the data"."""


class Mnist(NamedTuple):
    """Images as rows of grey levels in [0, 1], labels as class numbers 0…9."""

    train_images: Float32[np.ndarray, "train pixels"]
    train_labels: Int32[np.ndarray, " train"]
    test_images: Float32[np.ndarray, "test pixels"]
    test_labels: Int32[np.ndarray, " test"]


def load_mnist(folder: str | Path | None = None) -> Mnist:
    """The four files of `folder`, gzipped or not; MNIST, which ships, by default.

    Fashion-MNIST and KMNIST have the same form.

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
    return Mnist(*arrays)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    fix = "name a folder with the four IDX files, or none for the MNIST that ships"
    raise FileNotFoundError(f"{folder / name}[.gz]: no such file; {fix}")


def _read(
    path: Path,
) -> Float32[np.ndarray, "examples pixels"] | Int32[np.ndarray, " examples"]:
    """Images or labels, as the name of the file says."""
    is_images = "images" in path.name
    try:
        with path.open("rb") as file:
            shape, body = _decode(path, file, axes=3 if is_images else 1)
    except OSError as error:
        raise _bad(path, "a readable file", str(error), "mend it or copy it") from None
    if is_images:
        return _grey_levels(body.reshape(shape[0], -1))
    if body.max() >= NUM_CLASSES:
        index = int(np.argmax(body >= NUM_CLASSES))
        got = f"{body[index]} at label {index}"
        raise _bad(path, f"labels 0…{NUM_CLASSES - 1}", got, "take ten classes")
    return body.astype(np.int32)


def _grey_levels(
    body: UInt8[np.ndarray, "examples pixels"],
) -> Float32[np.ndarray, "examples pixels"]:
    return np.divide(body, np.float32(255), dtype=np.float32)


def _decode(
    path: Path, file: BinaryIO, axes: int
) -> tuple[tuple[int, ...], UInt8[np.ndarray, " bytes"]]:
    """The lengths of the axes and the bytes after the header."""
    source = _Source(path, file)
    header = source.read(4 + 4 * axes)
    fix = "download it again" if path.suffix else "a gzipped file is named .gz"
    if len(header) < 4 + 4 * axes:
        raise _bad(path, "an IDX header", f"{len(header)} bytes", fix)
    magic, *shape = struct.unpack(f">{1 + axes}I", header)
    if magic != 0x800 + axes:
        expected = f"IDX magic {0x800 + axes} ({axes} axes of unsigned bytes)"
        raise _bad(path, expected, str(magic), fix)
    size = math.prod(shape)
    if not 0 < size <= MAX_BYTES:
        got = " × ".join(map(str, shape))
        raise _bad(
            path, f"1 to {MAX_BYTES} entries", got, "mend the header or split it"
        )
    body = source.read(size + 1)
    if len(body) != size or not source.at_end():
        got = f"{len(body)}" if len(body) < size else "more"
        raise _bad(path, f"{size} bytes after the header", got, "download it again")
    return tuple(shape), np.frombuffer(body, np.uint8)


class _Source:
    """The bytes of a file, uncompressed: never more than asked for are held."""

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path, self.file = path, file
        self.size = path.stat().st_size
        self.inflater = None
        if path.suffix == ".gz":
            if (start := file.read(2)) != _GZIP_MAGIC:
                fix = "download it again, or drop .gz from the name of a plain file"
                raise _bad(path, "a gzip file", f"first bytes {start!r}", fix)
            self.inflater = zlib.decompressobj(_GZIP_WINDOW)
            self.waiting = start

    def read(self, size: int) -> bytes:
        """`size` bytes, or as many as there are."""
        if self.inflater is None:
            return self.file.read(min(size, self.size))
        # Deflate's worst case is 5 bytes a block; the rest is header and checksum.
        most = min(size + size // 1000 + 2**16, self.size)
        packed = self.waiting + self.file.read(most)
        try:
            body = self.inflater.decompress(packed, size)
        except zlib.error as error:
            raise _bad(
                self.path, "gzip data", str(error), "download it again"
            ) from None
        self.waiting = self.inflater.unconsumed_tail
        return body

    def at_end(self) -> bool:
        """Nothing is left, and the checksum of a gzip file was right."""
        if self.inflater is None:
            return not self.file.read(1)
        ended = self.inflater.eof and not self.inflater.unused_data
        return ended and not self.file.read(1)


def _bad(path: Path, expected: str, got: str, fix: str) -> ValueError:
    return ValueError(f"{path}: expected {expected}, got {got}; {fix}")
