"""How long does the job of train_mnist.py take in equinox?

    python experiments/peers/equinox_mnist.py OUT [STEPS]

784-50-10, softmax cross entropy, SGD at 0.1, batches of 100 drawn with replacement, all
70,000 images classified at the start of every epoch and at the end. Prints the table,
writes metrics.jsonl and params.eqx to OUT. Takes about 8 seconds on two cores.
"""

import gzip
import json
import sys
from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax

DATA = Path(__file__).parents[2] / "jaxnet" / "data"
BATCH, EPOCH = 100, 600
OPTIMIZER = optax.sgd(0.1)


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


@eqx.filter_jit
def init(key: jax.Array) -> tuple[eqx.nn.MLP, Any]:
    """The book's start: weights of size 0.01, biases 0."""
    model = eqx.nn.MLP(784, 10, 50, depth=1, activation=jax.nn.sigmoid, key=key)

    def weights(model: eqx.nn.MLP) -> list[Any]:
        return [layer.weight for layer in model.layers]

    def biases(model: eqx.nn.MLP) -> list[Any]:
        return [layer.bias for layer in model.layers]

    normal = [0.01 * jax.random.normal(key, w.shape) for w in weights(model)]
    model = eqx.tree_at(weights, model, normal)
    model = eqx.tree_at(biases, model, [jnp.zeros_like(b) for b in biases(model)])
    return model, OPTIMIZER.init(eqx.filter(model, eqx.is_array))


@eqx.filter_jit
def train_step(
    model: eqx.nn.MLP, state: Any, x: jax.Array, y: jax.Array, key: jax.Array, step: Any
) -> tuple[eqx.nn.MLP, Any, jax.Array]:
    """One step; the batch is drawn inside, the loss stays on the device."""
    batch = jax.random.randint(jax.random.fold_in(key, step), (BATCH,), 0, len(x))

    def loss_of(model: eqx.nn.MLP) -> jax.Array:
        logits = jax.vmap(model)(x[batch])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, y[batch])
        return losses.mean()

    loss, slopes = eqx.filter_value_and_grad(loss_of)(model)
    updates, state = OPTIMIZER.update(slopes, state)
    return eqx.apply_updates(model, updates), state, loss


@eqx.filter_jit
def accuracy(model: eqx.nn.MLP, images: jax.Array, labels: jax.Array) -> jax.Array:
    """The share of images that are put right."""
    return (jax.vmap(model)(images).argmax(axis=1) == labels).mean()


def main(out: Path, steps: int = 5000) -> None:
    """Train, evaluate each epoch, print, and write what it came to."""
    (train_x, train_y), (test_x, test_y) = load()
    key, batches_key = jax.random.split(jax.random.key(0))
    model, state = init(key)
    rows: list[dict[str, Any]] = []
    losses: list[jax.Array] = []
    print(" step   train    test")
    for number in range(steps + 1):
        if number % EPOCH == 0 or number == steps:
            train = float(accuracy(model, train_x, train_y))
            test = float(accuracy(model, test_x, test_y))
            print(f"{number:5d} {train:7.4f} {test:7.4f}", flush=True)
            mean = float(np.mean(jax.device_get(losses))) if losses else None
            row = {"step": number, "loss": mean, "train": train, "test": test}
            rows.append(row)
            losses = []
        if number < steps:
            model, state, loss = train_step(
                model, state, train_x, train_y, batches_key, np.int32(number)
            )
            losses.append(loss)
    print(f"test accuracy after {steps} steps: {test:.4f}")
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    eqx.tree_serialise_leaves(out / "params.eqx", model)


if __name__ == "__main__":
    main(Path(sys.argv[1]), *map(int, sys.argv[2:]))
