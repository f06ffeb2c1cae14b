"""How long does the job of train_mnist.py take in PyTorch, eager?

    python experiments/peers/torch_mnist.py OUT [STEPS]

784-50-10, softmax cross entropy, SGD at 0.1, batches of 100 drawn with replacement, all
70,000 images classified at the start of every epoch and at the end. Prints the table,
writes metrics.jsonl and params.pt to OUT. Takes about 5 seconds on two cores.
"""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

DATA = Path(__file__).parents[2] / "jaxnet" / "data"
BATCH, EPOCH = 100, 600


def read(name: str, header: int) -> np.ndarray:
    """The bytes of one of the four files, after its header."""
    with gzip.open(DATA / f"{name}.gz") as file:
        return np.frombuffer(file.read(), np.uint8, offset=header)


def load() -> list[tuple[Tensor, Tensor]]:
    """(images in [0, 1], labels) of the training and the test set."""
    sets = []
    for name in ("train", "t10k"):
        images = read(f"{name}-images-idx3-ubyte", 16).reshape(-1, 784)
        labels = read(f"{name}-labels-idx1-ubyte", 8).astype(np.int64)
        sets.append(
            (torch.from_numpy(images / np.float32(255)), torch.from_numpy(labels))
        )
    return sets


def make_model() -> nn.Module:
    """784-50-10 with a sigmoid between, small weights."""
    layers = nn.Linear(784, 50), nn.Linear(50, 10)
    for layer in layers:
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)
    return nn.Sequential(layers[0], nn.Sigmoid(), layers[1])


@torch.inference_mode()
def accuracy(model: nn.Module, x: Tensor, labels: Tensor) -> float:
    """The share of images that are put right."""
    return (model(x).argmax(dim=1) == labels).float().mean().item()


def main(out: Path, steps: int = 5000) -> None:
    """Train, evaluate each epoch, print, and write the metrics and the parameters."""
    (train_x, train_y), (test_x, test_y) = load()
    torch.manual_seed(0)
    model = make_model()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    loss_of = nn.CrossEntropyLoss()
    rows: list[dict[str, Any]] = []
    total, since = torch.zeros(()), 0
    print(" step   train    test")
    for number in range(steps + 1):
        if number % EPOCH == 0 or number == steps:
            train = accuracy(model, train_x, train_y)
            test = accuracy(model, test_x, test_y)
            print(f"{number:5d} {train:7.4f} {test:7.4f}", flush=True)
            mean = total.item() / since if since else None
            row = {"step": number, "loss": mean, "train": train, "test": test}
            rows.append(row)
            total, since = torch.zeros(()), 0
        if number < steps:
            batch = torch.randint(len(train_x), (BATCH,))
            loss = loss_of(model(train_x[batch]), train_y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total, since = total + loss.detach(), since + 1
    print(f"test accuracy after {steps} steps: {test:.4f}")
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    torch.save(model.state_dict(), out / "params.pt")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
