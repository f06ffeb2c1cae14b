"""How long does the job of train_mnist.py take in flax?

    python experiments/peers/flax_mnist.py OUT [STEPS]

784-50-10, softmax cross entropy, SGD at 0.1, batches of 100 drawn with replacement, all
70,000 images classified at the start of every epoch and at the end. Prints the table,
writes metrics.jsonl and params.msgpack to OUT. Takes about 7 seconds on two cores.
"""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from flax import serialization
from flax.training.train_state import TrainState

DATA = Path(__file__).parents[2] / "jaxnet" / "data"
BATCH, EPOCH = 100, 600


def read(name: str, header: int) -> np.ndarray:
    """The bytes of one of the four files, after its header."""
    with gzip.open(DATA / f"{name}.gz") as file:
        return np.frombuffer(file.read(), np.uint8, offset=header)


def load() -> list[tuple[jax.Array, jax.Array]]:
    """(images in [0, 1], labels) of the training and the test set."""
    sets = []
    for name in ("train", "t10k"):
        images = read(f"{name}-images-idx3-ubyte", 16).reshape(-1, 784)
        labels = read(f"{name}-labels-idx1-ubyte", 8).astype(np.int32)
        sets.append((jnp.asarray(images / np.float32(255)), jnp.asarray(labels)))
    return sets


class Classifier(nn.Module):
    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        normal = nn.initializers.normal(0.01)
        x = nn.sigmoid(nn.Dense(50, kernel_init=normal)(x))
        return nn.Dense(10, kernel_init=normal)(x)


@jax.jit
def init(key: jax.Array) -> TrainState:
    """The parameters at the start."""
    model = Classifier()
    params = model.init(key, jnp.zeros((1, 784)))
    return TrainState.create(apply_fn=model.apply, params=params, tx=optax.sgd(0.1))


@jax.jit
def train_step(
    state: TrainState, images: jax.Array, labels: jax.Array, key: jax.Array
) -> tuple[TrainState, jax.Array]:
    """One step; the batch is drawn inside, the loss stays on the device."""
    batch = jax.random.randint(
        jax.random.fold_in(key, state.step), (BATCH,), 0, len(images)
    )

    def loss_of(params: Any) -> jax.Array:
        logits = state.apply_fn(params, images[batch])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels[batch])
        return losses.mean()

    loss, slopes = jax.value_and_grad(loss_of)(state.params)
    return state.apply_gradients(grads=slopes), loss


@jax.jit
def accuracy(state: TrainState, images: jax.Array, labels: jax.Array) -> jax.Array:
    """The share of images that are put right."""
    return (state.apply_fn(state.params, images).argmax(axis=1) == labels).mean()


def main(out: Path, steps: int = 5000) -> None:
    """Train, evaluate each epoch, print, and write what it came to."""
    (train_x, train_y), (test_x, test_y) = load()
    key, batches_key = jax.random.split(jax.random.key(0))
    state = init(key)
    rows: list[dict[str, Any]] = []
    losses: list[jax.Array] = []
    print(" step   train    test")
    for number in range(steps + 1):
        if number % EPOCH == 0 or number == steps:
            train = float(accuracy(state, train_x, train_y))
            test = float(accuracy(state, test_x, test_y))
            print(f"{number:5d} {train:7.4f} {test:7.4f}", flush=True)
            mean = float(np.mean(jax.device_get(losses))) if losses else None
            row = {"step": number, "loss": mean, "train": train, "test": test}
            rows.append(row)
            losses = []
        if number < steps:
            state, loss = train_step(state, train_x, train_y, batches_key)
            losses.append(loss)
    print(f"test accuracy after {steps} steps: {test:.4f}")
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    (out / "params.msgpack").write_bytes(serialization.to_bytes(state.params))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
