"""Which digits does a trained network read in these images?

    python experiments/predict_digits.py --test-indices 0 1 2
    python experiments/predict_digits.py --images mine.png

Prints, for each image, the digit and the probabilities of all ten, and draws them in
`--out`/digits.png. PNG files may have any size and either polarity; a digit should fill
the image as MNIST's do. Takes a second. The network is the newest checkpoint in
`--checkpoint`, which `python experiments/train_mnist.py` makes.
"""

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from jaxtyping import Float, Float32
from matplotlib.figure import Figure
from PIL import Image

from jaxnet.mnist import load_mnist
from jaxnet.network import BOOK_NETWORK, Network, predict
from jaxnet.plots import save_figure
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


def main() -> None:
    """Parse the flags, and turn expected errors into one line."""
    flags = tyro.cli(Flags, description=__doc__)
    try:
        run(flags)
    except (OSError, TypeError, ValueError) as error:
        sys.exit(f"error: {error}")


def run(flags: Flags) -> None:
    """Predict, print and draw."""
    params, config, path = load_params(flags.checkpoint)
    settings = config.get("network")
    network = Network(**settings) if isinstance(settings, dict) else BOOK_NETWORK
    print(f"network of {path}")
    names, images = gather(flags, num_pixels=params[0].weight.shape[0])
    probabilities = np.asarray(predict(params, images, network))
    for name, shares in zip(names, probabilities, strict=True):
        listed = " ".join(f"{share:.3f}" for share in shares)
        print(f"{name}: {shares.argmax()}  ({listed})")
    print(
        f"written: {predicted_digits(images, probabilities, flags.out / 'digits.png')}"
    )


def gather(
    flags: Flags, num_pixels: int
) -> tuple[list[str], Float32[np.ndarray, "digits pixels"]]:
    """The images with their names."""
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
    return names, np.stack(rows)


def read_png(path: Path, side: int) -> Float32[np.ndarray, " pixels"]:
    """The picture as a row of grey levels in [0, 1], light on dark as in MNIST."""
    fix = "pass a PNG file of one digit"
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; {fix}")
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


def predicted_digits(
    images: Float[np.ndarray, "digits pixels"],
    probabilities: Float[np.ndarray, "digits classes"],
    path: str | Path,
) -> Path:
    """Each image above the probabilities of its classes."""
    count, side = len(images), math.isqrt(images.shape[1])
    figure = Figure(figsize=(1.8 * count, 3.6), layout="constrained")
    above, below = figure.subplots(2, count, squeeze=False)
    for image, shares, axes, bars in zip(
        images, probabilities, above, below, strict=True
    ):
        axes.imshow(image.reshape(side, side), cmap="gray", vmin=0, vmax=1)
        axes.set(title=str(shares.argmax()), xticks=[], yticks=[])
        bars.bar(range(len(shares)), shares)
        bars.set(ylim=(0, 1), xticks=range(len(shares)))
    return save_figure(figure, path)


if __name__ == "__main__":
    main()
