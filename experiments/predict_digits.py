"""Which digits does a trained network read in these images?

    python experiments/predict_digits.py --test-indices 0 1 2
    python experiments/predict_digits.py --images mine.png
    python experiments/predict_digits.py --quick       # trains a network first

Prints, for each image, the digit and the probabilities of all ten, and draws them in
`--out`/digits.png, with the true digit where it is known. PNG files may have any size
and either polarity; a digit should fill the image as MNIST's do. Takes a second. The
network is the newest checkpoint in
`--checkpoint`, which `python experiments/train_mnist.py` makes; with `--quick`, one
that 600 steps train.
"""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int32
from PIL import Image

from experiments.command import command
from jaxnet.mnist import load_mnist
from jaxnet.network import BOOK_NETWORK, Network, Params, predict
from jaxnet.plots import predicted_digits
from jaxnet.training import init_state, train
from jaxnet.training.checkpoint import load_params

MAX_FILE_PIXELS = 10_000_000


@dataclass(frozen=True)
class Flags:
    """Read digits by a trained network."""

    checkpoint: Path = Path("out")
    """A checkpoint, or a folder of them."""
    images: tuple[Path, ...] = ()
    """PNG files."""
    test_indices: tuple[int, ...] = ()
    """Test images of the data by number; 0 1 2 3 4 if no image is named."""
    data: Path | None = None
    """Folder of four IDX files; MNIST by default."""
    out: Path = Path("out")
    """Folder for the figure."""
    quick: bool = False
    """Train 600 steps instead of reading a checkpoint."""


def main() -> None:
    """Parse the flags, and run."""
    command(Flags, __doc__, run)


def run(flags: Flags) -> None:
    """Predict, print and draw."""
    params, network = trained() if flags.quick else loaded(flags.checkpoint)
    names, images, labels = gather(flags, num_pixels=params[0].weight.shape[0])
    probabilities = np.asarray(predict(params, images, network))
    for name, shares in zip(names, probabilities, strict=True):
        listed = " ".join(f"{share:.2f}" for share in shares)
        print(f"{name}: {shares.argmax()}  ({listed})")
    path = flags.out / "digits.png"
    predicted_digits(images, probabilities, labels, path)
    print(f"written: {path}")


def loaded(checkpoint: Path) -> tuple[Params, Network]:
    """The network of a checkpoint."""
    params, config, path = load_params(checkpoint)
    settings = config.get("network")
    network = Network(**settings) if isinstance(settings, dict) else BOOK_NETWORK
    print(f"network of {path}")
    return params, network


def trained() -> tuple[Params, Network]:
    """A network after an epoch."""
    state, history = train(load_mnist(as_bytes=True), init_state(0), num_steps=600)
    share = history.test_accuracy[-1]
    print(f"network of 600 steps, test accuracy {share:.4f}")
    return state.params, BOOK_NETWORK


def gather(
    flags: Flags, num_pixels: int
) -> tuple[
    list[str], Float32[np.ndarray, "digits pixels"], Int32[np.ndarray, " digits"] | None
]:
    """The images with their names, and their labels where all are known."""
    side = math.isqrt(num_pixels)
    rows = [read_png(path, side) for path in flags.images]
    names = [str(path) for path in flags.images]
    numbers = flags.test_indices or (() if rows else (0, 1, 2, 3, 4))
    if numbers:
        test = load_mnist(flags.data)
        for number in numbers:
            if not 0 <= number < len(test.test_images):
                raise ValueError(
                    f"--test-indices: expected 0…{len(test.test_images) - 1}, "
                    f"got {number}; count from 0"
                )
            rows.append(test.test_images[number])
            names.append(f"test image {number} (a {test.test_labels[number]})")
    labels = None if flags.images else test.test_labels[list(numbers)]
    return names, np.stack(rows), labels


def read_png(path: Path, side: int) -> Float32[np.ndarray, " pixels"]:
    """The picture as a row of grey levels in [0, 1], light on dark as in MNIST."""
    fix = "pass a PNG file of one digit"
    if not path.is_file():
        got = "a folder" if path.is_dir() else "nothing there"
        raise FileNotFoundError(f"{path}: expected a file, got {got}; {fix}")
    try:
        with Image.open(path, formats=["PNG"]) as picture:
            if math.prod(picture.size) > MAX_FILE_PIXELS:
                raise ValueError(f"more than {MAX_FILE_PIXELS} pixels")
            small = picture.convert("L").resize((side, side))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{path}: not a readable PNG file ({error}); {fix}") from None
    grey = np.asarray(small, np.float32) / np.float32(255)
    border = np.concatenate([grey[0], grey[-1], grey[:, 0], grey[:, -1]])
    return (1 - grey if border.mean() > 0.5 else grey).ravel()


if __name__ == "__main__":
    main()
