"""MNIST as it ships is the real one, and every bad file is one line of complaint."""

import gzip
import hashlib
import struct
import tracemalloc
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jaxnet import mnist
from jaxnet.mnist import NAMES, Mnist, load_mnist

SHA256 = {
    "train-images-idx3-ubyte": (
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"
    ),
    "train-labels-idx1-ubyte": (
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"
    ),
    "t10k-images-idx3-ubyte": (
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"
    ),
    "t10k-labels-idx1-ubyte": (
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"
    ),
}
SHIPPED = Path(mnist.__file__).parent / "data"
COUNTS = (6, 6, 4, 4)
TRAIN_IMAGES, TRAIN_LABELS, TEST_IMAGES, TEST_LABELS = range(4)
MEBIBYTE = 2**20

small = partial(load_mnist, image_shape=(2, 3))
"""The reader of the small files."""


def idx(array: np.ndarray) -> bytes:
    """The array as an IDX file."""
    header = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


@pytest.fixture
def files() -> list[bytes]:
    """Four small files that fit each other: images of 2 × 3."""
    draws = np.random.default_rng(0)
    return [
        idx(draws.integers(0, 256, (n, 2, 3)) if i % 2 == 0 else np.arange(n))
        for i, n in enumerate(COUNTS)
    ]


def written(folder: Path, files: list[bytes], gzipped: bool = True) -> Path:
    """The folder, with the files in it."""
    folder.mkdir(exist_ok=True)
    for name, content in zip(NAMES, files, strict=True):
        data = gzip.compress(content, 1) if gzipped else content
        (folder / (name + ".gz" * gzipped)).write_bytes(data)
    return folder


def reference(folder: Path) -> Mnist:
    """The slow, obvious reader of gzipped files."""
    arrays = []
    for name in NAMES:
        data = gzip.decompress((folder / f"{name}.gz").read_bytes())
        axes = data[3]
        shape = struct.unpack(f">{axes}I", data[4 : 4 + 4 * axes])
        values = np.frombuffer(data[4 + 4 * axes :], np.uint8)
        if axes == 1:
            arrays.append(values.astype(np.int32))
        else:
            grey = values.reshape(shape[0], -1).astype(np.float32)
            arrays.append(grey / np.float32(255))
    return Mnist(*arrays)


def same(one: Mnist, other: Mnist) -> bool:
    """Equal in every bit and dtype."""
    return all(
        a.dtype == b.dtype and np.array_equal(a, b)
        for a, b in zip(one, other, strict=True)
    )


def one_line(error: pytest.ExceptionInfo[BaseException], name: str) -> bool:
    """Whether the message is one line that names the file and what to do."""
    message = str(error.value)
    return "\n" not in message and name in message and "; " in message


@pytest.mark.parametrize("name", NAMES)
def test_shipped_files_are_the_real_ones(name: str) -> None:
    """The uncompressed files are those of the pins; one changed bit would not be."""
    data = bytearray(gzip.decompress((SHIPPED / f"{name}.gz").read_bytes()))
    assert hashlib.sha256(data).hexdigest() == SHA256[name]
    data[-1] ^= 1
    assert hashlib.sha256(data).hexdigest() != SHA256[name]


@pytest.mark.slow
def test_mnist_is_read_as_the_slow_reader_does() -> None:
    """60,000 + 10,000 images in float32 from 0 to 1, labels in int32, in every bit."""
    data = load_mnist()
    assert [a.shape for a in data] == [(60000, 784), (60000,), (10000, 784), (10000,)]
    assert [str(a.dtype) for a in data] == ["float32", "int32"] * 2
    assert data.train_images.min() == 0
    assert data.train_images.max() == 1
    assert same(data, reference(SHIPPED))


def test_bytes_stand_for_grey_levels(tmp_path: Path, files: list[bytes]) -> None:
    """With `as_bytes` images are the files' bytes, of which GREY_LEVELS are the values.

    All 256 of them, which multiplying by 1 / 255, as is seen, does not give.
    """
    files[TRAIN_IMAGES] = idx(np.arange(6 * 43 * 6).reshape(6, 43, 6) % 256)
    files[TEST_IMAGES] = idx(np.arange(4 * 43 * 6).reshape(4, 43, 6) % 256)
    folder = written(tmp_path, files)
    as_bytes, levels = (
        load_mnist(folder, as_bytes=yes, image_shape=(43, 6)) for yes in (True, False)
    )
    for raw, grey in ((as_bytes[0], levels[0]), (as_bytes[2], levels[2])):
        assert raw.dtype == np.uint8
        assert len(np.unique(raw)) == 256
        assert np.array_equal(mnist.GREY_LEVELS[raw], grey)
        assert not np.array_equal(raw * np.float32(1 / 255), grey)
    assert same(Mnist(levels[0], as_bytes[1], levels[2], as_bytes[3]), levels)


def test_a_wrong_grey_level_would_be_seen(tmp_path: Path, files: list[bytes]) -> None:
    """The comparison with the slow reader catches one grey level that is off by one."""
    folder = written(tmp_path, files)
    assert same(small(folder), reference(folder))
    right = small(folder)
    right.train_images[3, 2] += np.float32(1 / 255)
    assert not same(right, reference(folder))


def test_plain_files_are_read_as_gzipped_ones(
    tmp_path: Path, files: list[bytes]
) -> None:
    """Gzipped or not, a file holds the same arrays."""
    gzipped = written(tmp_path / "gzipped", files)
    plain = written(tmp_path / "plain", files, gzipped=False)
    assert same(small(plain), small(str(gzipped)))


def changed(content: bytes, at: int, new: bytes) -> bytes:
    """The content with other bytes at a place."""
    return content[:at] + new + content[at + len(new) :]


BAD = {
    "empty file": (TRAIN_IMAGES, lambda c: b"", "IDX header"),
    "half a header": (TEST_IMAGES, lambda c: c[:7], "IDX header"),
    "truncated": (TRAIN_IMAGES, lambda c: c[:-1], "36 bytes after the header, got 35"),
    "too long": (TRAIN_LABELS, lambda c: c + b"\0", "got more"),
    "labels for images": (TRAIN_IMAGES, lambda c: idx(np.arange(9)), "magic 2051"),
    "images for labels": (TEST_LABELS, lambda c: idx(np.ones((4, 1, 1))), "magic 2049"),
    "floats": (TEST_LABELS, lambda c: changed(c, 2, b"\x0d"), "magic 2049"),
    "no images": (TEST_IMAGES, lambda c: idx(np.ones((0, 2, 3))), "examples, got 0"),
    "no pixels": (TEST_IMAGES, lambda c: idx(np.ones((4, 0, 3))), "got 0 × 3"),
    "as many pixels": (TEST_IMAGES, lambda c: idx(np.ones((4, 1, 6))), "got 1 × 6"),
    "too many": (TRAIN_LABELS, lambda c: changed(c, 5, b"\x04\0\1"), "got 262145"),
    "2³² images": (TRAIN_IMAGES, lambda c: changed(c, 4, b"\xff" * 4), "4294967295"),
    "2⁹⁶ pixels": (TRAIN_IMAGES, lambda c: changed(c, 4, b"\xff" * 12), "4294967295"),
    "label 10": (TRAIN_LABELS, lambda c: changed(c, 10, b"\x0a"), "10 at label 2"),
    "fewer labels": (TRAIN_LABELS, lambda c: idx(np.arange(5)), "6 labels, one an"),
    "other pixels": (TEST_IMAGES, lambda c: idx(np.ones((4, 3, 3))), "of 2 × 3, got 3"),
}


@pytest.mark.parametrize("gzipped", [True, False], ids=["gzipped", "plain"])
@pytest.mark.parametrize("kind", BAD)
def test_bad_content_is_one_line(
    tmp_path: Path, files: list[bytes], kind: str, gzipped: bool
) -> None:
    """Each bad file is a ValueError that names it, what is wrong and what to do."""
    which, spoil, words = BAD[kind]
    folder = written(tmp_path, files, gzipped)
    small(folder)
    files[which] = spoil(files[which])
    with pytest.raises(ValueError, match=words) as error:
        small(written(tmp_path, files, gzipped))
    assert one_line(error, NAMES[which])


BAD_GZIP = {
    "not gzip": (lambda g: b"<!DOCTYPE html>", "gzip file .* drop .gz from the name"),
    "empty": (lambda g: b"", "IDX header, got 0 bytes"),
    "cut": (lambda g: g[: len(g) // 2], "download it again"),
    "cut in the checksum": (lambda g: g[:-6], "download it again"),
    "wrong checksum": (lambda g: g[:-8] + bytes(8), "CRC check failed"),
    "damaged": (lambda g: g[:12] + b"\xff" * 9 + g[21:], "gzip file"),
    "junk behind": (lambda g: g + b"junk", "nothing after it"),
    "another member": (lambda g: g + gzip.compress(b"more"), "got more"),
}


@pytest.mark.parametrize("kind", BAD_GZIP)
def test_bad_gzip_is_one_line(tmp_path: Path, files: list[bytes], kind: str) -> None:
    """A gzip file that is not whole is a ValueError, whatever its content was."""
    spoil, words = BAD_GZIP[kind]
    path = written(tmp_path, files) / f"{NAMES[TRAIN_IMAGES]}.gz"
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(ValueError, match=words) as error:
        small(tmp_path)
    assert one_line(error, path.name)


@pytest.mark.parametrize("name", NAMES)
def test_absent_file_is_named(tmp_path: Path, files: list[bytes], name: str) -> None:
    """An absent file, or a folder in its place, is a FileNotFoundError."""
    (written(tmp_path, files) / f"{name}.gz").unlink()
    (tmp_path / name).mkdir()
    with pytest.raises(FileNotFoundError) as error:
        small(tmp_path)
    assert one_line(error, name)


def peak_of_failure(folder: Path) -> int:
    """How many bytes were held at most while the folder was refused."""
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="expected"):
            small(folder)
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_promise_is_not_allocated(tmp_path: Path, files: list[bytes]) -> None:
    """A header that claims as much as may be read costs what the file holds."""
    claim = struct.pack(">3I", mnist.MAX_EXAMPLES, 2, 3)
    files[TRAIN_IMAGES] = changed(files[TRAIN_IMAGES], 4, claim)
    assert mnist.MAX_EXAMPLES * 2 * 3 > MEBIBYTE
    assert peak_of_failure(written(tmp_path / "plain", files, False)) < MEBIBYTE
    assert peak_of_failure(written(tmp_path / "gzipped", files)) < MEBIBYTE


def test_an_honest_file_beyond_the_limit_is_not_unpacked(
    tmp_path: Path, files: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of 4 MiB that a header rightly promises the header alone is read.

    Within the limit they are held twice at most: as read, and as the array.
    """
    count = 4 * MEBIBYTE // 6
    files[TRAIN_IMAGES] = idx(
        np.random.default_rng(0).integers(256, size=(count, 2, 3))
    )
    files[TRAIN_LABELS] = idx(np.zeros(count, np.uint8))
    folder = written(tmp_path, files)
    assert peak_of_failure(folder) < MEBIBYTE
    monkeypatch.setattr(mnist, "MAX_EXAMPLES", count)
    tracemalloc.start()
    body = mnist._read(folder / f"{NAMES[TRAIN_IMAGES]}.gz", (2, 3))
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert body.shape == (count, 6)
    assert 4 * MEBIBYTE <= held + 6 < 9 * MEBIBYTE


def test_images_of_14_by_56_are_none_of_28_by_28(tmp_path: Path) -> None:
    """They have as many pixels, in other places; also where all files agree."""
    labels = np.arange(2)
    for shape in ((14, 56), (28, 28)):
        images = idx(np.ones((2, *shape)))
        written(tmp_path / str(shape), [images, idx(labels), images, idx(labels)])
    with pytest.raises(ValueError, match="of 28 × 28, got 14 × 56; take") as error:
        load_mnist(tmp_path / "(14, 56)")
    assert one_line(error, NAMES[TRAIN_IMAGES])
    wide = load_mnist(tmp_path / "(14, 56)", image_shape=(14, 56))
    assert same(wide, load_mnist(tmp_path / "(28, 28)"))


def test_a_gzip_bomb_is_read_as_far_as_its_header_says(
    tmp_path: Path, files: list[bytes]
) -> None:
    """64 MiB of zeros behind the promised pixels are never unpacked."""
    files[TRAIN_IMAGES] += bytes(64 * MEBIBYTE)
    assert peak_of_failure(written(tmp_path, files)) < 8 * MEBIBYTE
    tracemalloc.start()
    gzip.decompress((tmp_path / f"{NAMES[TRAIN_IMAGES]}.gz").read_bytes())
    held = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert held > 64 * MEBIBYTE


def refusal(folder: Path, name: str, data: bytes) -> str | None:
    """The complaint about the data under that name; None if they could be read."""
    (folder / name).write_bytes(data)
    try:
        assert small(folder).train_images.shape == (6, 6)
    except ValueError as error:
        return str(error)
    return None


def well_behaved(complaint: str | None, folder: Path) -> bool:
    """Read in the expected shape, or refused in one line."""
    return complaint is None or ("\n" not in complaint and str(folder) in complaint)


FUZZ = settings(
    max_examples=80,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@FUZZ
@given(at=st.integers(0, 51), new=st.binary(min_size=1, max_size=12))
def test_any_change_of_a_plain_file_loads_or_is_one_line(
    tmp_path: Path, files: list[bytes], at: int, new: bytes
) -> None:
    """No other exception than ours, and no array of another shape."""
    written(tmp_path, files, gzipped=False)
    changes = changed(files[0], at, new)
    assert well_behaved(refusal(tmp_path, NAMES[0], changes), tmp_path)


@FUZZ
@given(at=st.integers(0, 90), new=st.binary(min_size=1, max_size=12))
def test_any_change_of_a_gzip_file_loads_or_is_one_line(
    tmp_path: Path, files: list[bytes], at: int, new: bytes
) -> None:
    """No other exception than ours, and no array of another shape."""
    written(tmp_path, files)
    packed = changed(gzip.compress(files[0], 1, mtime=0), at, new)
    assert well_behaved(refusal(tmp_path, f"{NAMES[0]}.gz", packed), tmp_path)


@FUZZ
@given(data=st.binary(max_size=200))
def test_any_bytes_are_one_line(
    tmp_path: Path, files: list[bytes], data: bytes
) -> None:
    """Random bytes are refused."""
    written(tmp_path, files, gzipped=False)
    complaint = refusal(tmp_path, NAMES[0], data)
    assert complaint is not None
    assert well_behaved(complaint, tmp_path)
