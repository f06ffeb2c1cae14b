"""How long does the job of train_mnist.py take in plain NumPy?

    python experiments/peers/numpy_mnist.py OUT [STEPS]

784-50-10, softmax cross entropy, SGD at 0.1, batches of 100 drawn with replacement, all
70,000 images classified at the start of every epoch and at the end. Prints the table,
writes metrics.jsonl and params.npz to OUT. Takes about 5 seconds on two cores.
"""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).parents[2] / "jaxnet" / "data"
BATCH, EPOCH, RATE = 100, 600, np.float32(0.1)


def read(name: str, header: int) -> np.ndarray:
    """The bytes of one of the four files, after its header."""
    with gzip.open(DATA / f"{name}.gz") as file:
        return np.frombuffer(file.read(), np.uint8, offset=header)


def load() -> list[tuple[np.ndarray, np.ndarray]]:
    """(images in [0, 1], labels) of the training and the test set."""
    sets = []
    for name in ("train", "t10k"):
        images = read(f"{name}-images-idx3-ubyte", 16).reshape(-1, 784)
        labels = read(f"{name}-labels-idx1-ubyte", 8).astype(np.int32)
        sets.append((images / np.float32(255), labels))
    return sets


def init(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """The parameters at the start."""
    return {
        "W1": np.float32(0.01) * rng.standard_normal((784, 50), np.float32),
        "b1": np.zeros(50, np.float32),
        "W2": np.float32(0.01) * rng.standard_normal((50, 10), np.float32),
        "b2": np.zeros(10, np.float32),
    }


def forward(p: dict[str, np.ndarray], x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(hidden outputs, logits)."""
    hidden = 1 / (1 + np.exp(-(x @ p["W1"] + p["b1"])))
    return hidden, hidden @ p["W2"] + p["b2"]


def step(p: dict[str, np.ndarray], x: np.ndarray, labels: np.ndarray) -> float:
    """One step of SGD, in place; the loss before it."""
    hidden, logits = forward(p, x)
    logits -= logits.max(axis=1, keepdims=True)
    exp = np.exp(logits)
    total = exp.sum(axis=1, keepdims=True)
    rows = np.arange(len(x))
    loss = float(np.mean(np.log(total[:, 0]) - logits[rows, labels]))
    d_logits = exp / total
    d_logits[rows, labels] -= 1
    d_logits /= len(x)
    d_hidden = d_logits @ p["W2"].T * hidden * (1 - hidden)
    p["W2"] -= RATE * (hidden.T @ d_logits)
    p["b2"] -= RATE * d_logits.sum(axis=0)
    p["W1"] -= RATE * (x.T @ d_hidden)
    p["b1"] -= RATE * d_hidden.sum(axis=0)
    return loss


def accuracy(p: dict[str, np.ndarray], x: np.ndarray, labels: np.ndarray) -> float:
    """The share of images that are put right."""
    return float(np.mean(forward(p, x)[1].argmax(axis=1) == labels))


def main(out: Path, steps: int = 5000) -> None:
    """Train, evaluate each epoch, print, and write the metrics and the parameters."""
    (train_x, train_y), (test_x, test_y) = load()
    rng = np.random.default_rng(0)
    params = init(rng)
    rows: list[dict[str, Any]] = []
    losses: list[float] = []
    print(" step   train    test")
    for number in range(steps + 1):
        if number % EPOCH == 0 or number == steps:
            train = accuracy(params, train_x, train_y)
            test = accuracy(params, test_x, test_y)
            print(f"{number:5d} {train:7.4f} {test:7.4f}", flush=True)
            mean = sum(losses) / len(losses) if losses else None
            row = {"step": number, "loss": mean, "train": train, "test": test}
            rows.append(row)
            losses = []
        if number < steps:
            batch = rng.integers(len(train_x), size=BATCH)
            losses.append(step(params, train_x[batch], train_y[batch]))
    print(f"test accuracy after {steps} steps: {test:.4f}")
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    np.savez(out / "params.npz", **params)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
