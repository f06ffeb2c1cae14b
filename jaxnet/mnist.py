"""MNIST, or any four files of its form, as NumPy arrays.

An IDX file is a big-endian header (a magic number that says how many axes there are,
then the length of each) and one unsigned byte an entry. Source: Yann LeCun, Corinna
Cortes, "The MNIST database of handwritten digits".
"""

import gzip
import math
import struct
import zlib
from io import BufferedIOBase
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from jaxnet.input_checks import without

NAMES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
NUM_CLASSES = 10
IMAGE_SHAPE = (28, 28)
"""Rows and columns; the network of the book has an input for each of their pixels."""
MAX_EXAMPLES = 2**18
"""How many a file may hold, 206 MB of images: EMNIST Digits, the largest of the known
sets of ten classes in this form, has 240,000."""
GREY_LEVELS = np.arange(256, dtype=np.float32) / np.float32(255)
"""What each byte of an image stands for, 0 to 1."""

INSTEAD = (
    "write `x_train, t_train, x_test, t_test = load_mnist()`: images are rows of grey "
    "levels 0 to 1, labels class numbers; one_hot(t_train) gives the book's labels"
)
"""Of the book's `(x_train, t_train), (x_test, t_test) = load_mnist(normalize=True)`."""

_SHIPPED = Path(__file__).parent / "data"
_GZIP_RATIO = 1032
"""Deflate's best: no file unpacks to more times its size."""


class Mnist(NamedTuple):
    """Images as rows of grey levels in [0, 1], or bytes; labels as classes 0…9."""

    train_images: (
        Float32[np.ndarray, "train pixels"] | UInt8[np.ndarray, "train pixels"]
    )
    train_labels: Int32[np.ndarray, " train"]
    test_images: Float32[np.ndarray, "test pixels"] | UInt8[np.ndarray, "test pixels"]
    test_labels: Int32[np.ndarray, " test"]


@without(normalize=INSTEAD, flatten=INSTEAD, one_hot_label=INSTEAD)
def load_mnist(
    folder: str | Path | None = None,
    *,
    as_bytes: bool = False,
    image_shape: tuple[int, int] = IMAGE_SHAPE,
) -> Mnist:
    """The four files of `folder`, gzipped or not; MNIST, which ships, by default.

    Fashion-MNIST and KMNIST have the same form; images of other rows and columns are
    read where `image_shape` says so. With `as_bytes` images stay bytes, a
    quarter of the memory; `train` takes them as well, for
    GREY_LEVELS[bytes].

    Raises:
        FileNotFoundError: a file is absent.
        ValueError: a file is not what its name says, is damaged or empty, or does not
            fit the other three; the message names it and what to do.
    """
    paths = [_find(_SHIPPED if folder is None else Path(folder), n) for n in NAMES]
    arrays = [_read(path, image_shape) for path in paths]
    for images, labels in ((0, 1), (2, 3)):
        if len(arrays[images]) != len(arrays[labels]):
            expected = f"{len(arrays[images])} labels, one an image"
            got = str(len(arrays[labels]))
            raise _bad(
                paths[labels], expected, got, f"take both from {paths[0].parent}"
            )
    if not as_bytes:
        arrays[0::2] = [images / np.float32(255) for images in arrays[0::2]]
    return Mnist(*arrays)


def _find(folder: Path, name: str) -> Path:
    for path in (folder / f"{name}.gz", folder / name):
        if path.is_file():
            return path
    fix = "name a folder with the four IDX files, or none for the MNIST that ships"
    raise FileNotFoundError(f"{folder / name}[.gz]: no such file; {fix}")


def _read(
    path: Path, image_shape: tuple[int, int]
) -> UInt8[np.ndarray, "examples pixels"] | Int32[np.ndarray, " examples"]:
    """Images or labels, as the name of the file says."""
    is_images = "images" in path.name
    is_gzip = path.suffix == ".gz"
    try:
        most = path.stat().st_size * (_GZIP_RATIO if is_gzip else 1)
        with gzip.open(path) if is_gzip else path.open("rb") as file:
            body = _decode(path, file, image_shape if is_images else (), most)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        expected = "one whole gzip file and nothing after it"
        fix = "download it again, or drop .gz from the name of a plain file"
        raise _bad(path, expected, str(error), fix) from None
    except OSError as error:
        raise _bad(path, "a readable file", str(error), "mend it or copy it") from None
    if is_images:
        return body.reshape(-1, math.prod(image_shape))
    if body.max() >= NUM_CLASSES:
        index = int(np.argmax(body >= NUM_CLASSES))
        got = f"{body[index]} at label {index}"
        raise _bad(path, f"labels 0…{NUM_CLASSES - 1}", got, "take ten classes")
    return body.astype(np.int32)


def _decode(
    path: Path, file: BufferedIOBase, each: tuple[int, ...], most: int
) -> UInt8[np.ndarray, " bytes"]:
    """The bytes after the header, of examples whose axes are `each`.

    Reading takes memory for all that is asked for; so no more than one byte beyond what
    the header promises is, and no promise is believed that `most` bytes cannot keep.
    """
    axes = 1 + len(each)
    fix = "download it again" if path.suffix else "a gzipped file is named .gz"
    header = file.read(4 + 4 * axes)
    if len(header) < 4 + 4 * axes:
        raise _bad(path, "an IDX header", f"{len(header)} bytes", fix)
    magic, count, *found = struct.unpack(f">{1 + axes}I", header)
    if magic != 0x800 + axes:
        expected = f"IDX magic {0x800 + axes} ({axes} axes of unsigned bytes)"
        raise _bad(path, expected, str(magic), fix)
    if tuple(found) != each:
        expected = f"images of {' × '.join(map(str, each))}"
        fix = "take those, or pass image_shape to load_mnist"
        raise _bad(path, expected, " × ".join(map(str, found)), fix)
    if not 0 < count <= MAX_EXAMPLES:
        fix = "mend the header or split it"
        raise _bad(path, f"1 to {MAX_EXAMPLES} examples", str(count), fix)
    size = count * math.prod(each)
    expected, fix = f"{size} bytes after the header", "download it again"
    if size > most:
        raise _bad(path, expected, f"at most {most}", fix)
    body = file.read(size + 1)
    if len(body) != size:
        got = str(len(body)) if len(body) < size else "more"
        raise _bad(path, expected, got, fix)
    return np.frombuffer(body, np.uint8).copy()


def _bad(path: Path, expected: str, got: str, fix: str) -> ValueError:
    return ValueError(f"{path}: expected {expected}, got {got}; {fix}")
