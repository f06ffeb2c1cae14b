"""In an environment with the wheel alone: what it pulled, a gradient, some training.

make package
"""

import re
import sys
from importlib.metadata import PackageNotFoundError, distributions, requires
from pathlib import Path

import jax

import jaxnet
from jaxnet.testing import assert_gradients


def name_of(text: str) -> str:
    """Of a distribution, as indexes compare them."""
    return re.sub(r"[-_.]+", "-", re.split(r"[^\w.-]", text)[0]).lower()


def needed(name: str, found: set[str]) -> set[str]:
    """A distribution and all that it needs, without extras."""
    if name not in found:
        found.add(name)
        try:
            needs = requires(name) or []
        except PackageNotFoundError:  # for another platform or Python
            needs = []
        for need in needs:
            if "extra ==" not in need:
                needed(name_of(need), found)
    return found


assert Path(jaxnet.__file__).is_relative_to(sys.prefix), jaxnet.__file__
installed = {name_of(one.metadata["Name"]) for one in distributions()}
unasked = installed - needed("jaxnet-gradients", set()) - {"pip", "setuptools"}
assert not unasked, f"pulled without need: {unasked}"
assert not installed & {"matplotlib", "tqdm", "tyro", "pillow", "pytest"}

data = jaxnet.load_mnist()
params = jaxnet.init_params(jax.random.key(0), (784, 5, 10))
batch = data.train_images[:20], data.train_labels[:20]
gradient = jaxnet.gradients.backprop(params, *batch)
assert_gradients(lambda p: jaxnet.loss(p, *batch), params, gradient)
wrong = jax.tree.map(lambda leaf: 1.01 * leaf, gradient)
report = jaxnet.check_gradients(lambda p: jaxnet.loss(p, *batch), params, wrong)
assert "×1.01" in report.worst.cause, report

state = jaxnet.init_state(jax.random.key(0), (784, 50, 10))
state, history = jaxnet.train(data, state, num_steps=600)
assert history.test_accuracy[-1] > 0.7, history
print(
    f"{len(installed)} distributions, a gradient verified, 600 steps trained: ", end=""
)
print(f"test accuracy {history.test_accuracy[-1]:.4f}")
