"""What is compiled and evaluated, and how often: numbers that must not creep up.

Times vary with the machine, these do not. Programs are counted by the names under which
JAX compiles them; shapes here are of no other test, so that nothing is compiled before.
"""

from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import jax
import numpy as np
import pytest

from jaxnet import check_gradients, check_vjp, gradients, numerical_gradient
from jaxnet.differences import of_network
from jaxnet.jaxpr.compiled import forget
from jaxnet.losses import OUTPUTS
from jaxnet.mnist import Mnist
from jaxnet.network import BOOK_NETWORK, Dense, Network, mean_loss
from jaxnet.training import init_state, loop, train, with_learning_rate

SIZES = (11, 3, 10)
BATCH, EPOCH = 25, 12
COMPILED = "/jax/core/compile/backend_compile_duration"
TRAINING = ["_evaluate", "_run_steps", "epoch_indices"]
SCALAR_EVALUATIONS = 162
NET_TRACES, NET_EVALUATIONS_EACH = 7, 36
"""Of a check of a net: at most so many, evaluations for each parameter."""


class Compiled:
    """The names of the programs that were compiled since the last look."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def listen(self, event: str, _: float, **about: Any) -> None:
        """Note a program that JAX reports as compiled."""
        if event == COMPILED:
            name = str(about["fun_name"])
            self.names.append(name.removeprefix("jit(").removesuffix(")"))

    def new(self) -> list[str]:
        """The names since the last call, sorted."""
        names, self.names = sorted(self.names), []
        return names


@pytest.fixture
def compiled() -> Iterator[Compiled]:
    """Listens as long as the test runs."""
    found = Compiled()
    jax.monitoring.register_event_duration_secs_listener(found.listen)
    yield found
    jax.monitoring.unregister_event_duration_listener(found.listen)


@pytest.fixture
def data() -> Mnist:
    """300 + 60 images of 11 pixels."""
    draws = np.random.default_rng(0)
    images = [draws.random((n, SIZES[0]), np.float32) for n in (300, 60)]
    labels = [draws.integers(10, size=n).astype(np.int32) for n in (300, 60)]
    return Mnist(images[0], labels[0], images[1], labels[1])


small_train = partial(train, batch_size=BATCH)


def net(sizes: tuple[int, ...], seed: int = 0) -> tuple[Any, np.ndarray, np.ndarray]:
    """Parameters, five images without a zero, and labels, in float64."""
    draws = np.random.default_rng(seed)
    params = tuple(
        Dense(draws.normal(size=(a, b)), draws.normal(size=b))
        for a, b in pairwise(sizes)
    )
    images = draws.uniform(0.1, 1, size=(5, sizes[0]))
    return params, images, draws.integers(sizes[-1], size=5)


def test_the_counter_counts(compiled: Compiled) -> None:
    """A new program is seen once, and not when it is run again."""

    def tripled(x: jax.Array) -> jax.Array:
        return x + x + x

    program = jax.jit(tripled)
    program(np.ones(13, np.float32))
    assert compiled.new() == ["tripled"]
    program(np.ones(13, np.float32))
    assert compiled.new() == []
    program(np.ones(14, np.float32))
    assert compiled.new() == ["tripled"]


@pytest.mark.slow
def test_training_compiles_three_programs(
    compiled: Compiled, data: Mnist, key: jax.Array
) -> None:
    """For all lengths, learning rates, seeds and resumptions; three more for many runs.

    Another batch size needs its own.
    """
    start = init_state(key, SIZES)
    compiled.new()
    part = small_train(data, start, num_steps=30)
    assert compiled.new() == TRAINING
    small_train(data, *part, num_steps=41)
    small_train(data, with_learning_rate(start, 0.3), num_steps=7, steps_per_call=2)
    small_train(data, init_state(jax.random.key(5), SIZES), num_steps=1)
    assert compiled.new() == []
    many = init_state(jax.random.split(key, 3), SIZES)
    compiled.new()
    small_train(data, many, num_steps=30)
    assert compiled.new() == TRAINING
    train(data, start, batch_size=20, num_steps=1)
    assert compiled.new() == TRAINING


@pytest.mark.slow
@pytest.mark.parametrize(
    ("num_steps", "steps_per_call", "calls"),
    [
        (0, None, (0, 0, 1)),
        (EPOCH, None, (1, 1, 2)),
        (30, None, (3, 3, 4)),
        (30, 5, (3, 8, 4)),
    ],
)
def test_training_calls(
    data: Mnist,
    key: jax.Array,
    monkeypatch: pytest.MonkeyPatch,
    num_steps: int,
    steps_per_call: int | None,
    calls: tuple[int, ...],
) -> None:
    """Batches are drawn once an epoch, accuracies at epoch starts and the end only."""
    counts = {"draw": 0, "run_steps": 0, "evaluate": 0}
    compile_programs = loop.compile_programs

    def counted(*arguments: Any) -> Any:
        programs = compile_programs(*arguments)

        def count(name: str) -> Any:
            def call(*rest: Any) -> Any:
                counts[name] += 1
                return getattr(programs, name)(*rest)

            return call

        return programs._replace(**{name: count(name) for name in counts})

    monkeypatch.setattr(loop, "compile_programs", counted)
    start = init_state(key, SIZES)
    small_train(data, start, num_steps=num_steps, steps_per_call=steps_per_call)
    assert tuple(counts.values()) == calls


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_gradients_numerical_compiles_one_program(
    compiled: Compiled, dtype: str
) -> None:
    """Besides JAX's own small ones, in the first call only."""
    problem = net((9, 4, 6))
    numerical = partial(gradients.numerical, dtype=np.dtype(dtype))
    numerical(*problem)
    assert compiled.new().count("network_differences") == 1
    numerical(*net((9, 4, 6), seed=1))
    assert compiled.new() == []


@pytest.mark.slow
def test_gradients_numerical_evaluates_what_moves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One example's loss, forth and back, for each weight and input that is not zero.

    A loop over all parameters evaluates every example for each of them.
    """
    evaluated = [0]
    plain = OUTPUTS["softmax_cross_entropy"]

    def losses(logits: Any, labels: Any) -> Any:
        count = logits.shape[0]
        jax.debug.callback(lambda: evaluated.__setitem__(0, evaluated[0] + count))
        return plain.losses(logits, labels)

    monkeypatch.setitem(OUTPUTS, "counted", plain._replace(losses=losses))
    monkeypatch.setattr(of_network, "CHUNK_ENTRIES", 4 * 6)
    params, images, labels = net((8, 4, 6))
    whole = 2 * 5 * (4 * (8 + 1) + 6 * (4 + 1))
    assert count_of(evaluated, params, images, labels) == whole
    images[:, 2] = 0
    images[1, 3:6] = 0
    assert count_of(evaluated, params, images, labels) == whole - 2 * 4 * (5 + 3)


def count_of(evaluated: list[int], *problem: Any) -> int:
    """How many losses the numerical gradient takes, its result being waited for."""
    evaluated[0] = 0
    gradients.numerical(*problem, Network(output="counted"))
    jax.effects_barrier()
    return evaluated[0]


def test_numerical_gradient_traces_once(compiled: Compiled) -> None:
    """A function is traced in each call, and compiled in the first of its kind."""
    calls = [0]

    def function(x: Any) -> Any:
        calls[0] += 1
        return (x**3).sum()

    numerical_gradient(function, np.ones(217))
    assert compiled.new().count("compiled_slopes") == 1
    assert calls == [1]
    numerical_gradient(function, np.zeros(217))
    assert compiled.new() == []
    assert calls == [2]
    numerical_gradient(function, np.zeros(218))
    assert compiled.new().count("compiled_slopes") == 1


def test_numerical_gradient_calls_what_is_not_traced(compiled: Compiled) -> None:
    """Twice a coordinate, and once to see if it can be traced; compiles nothing."""
    calls = [0]

    def function(x: Any) -> float:
        calls[0] += 1
        return float(np.dot(np.asarray(x), np.asarray(x)))

    numerical_gradient(function, np.ones(17))
    assert calls == [1 + 2 * 17]
    assert compiled.new() == []


def test_check_gradients_of_two_numbers(compiled: Compiled) -> None:
    """A function without a sum to round: exactly so many evaluations everywhere."""

    def loss(params: Any) -> Any:
        return params["a"] ** 2 * params["b"]

    report = check_gradients(loss, {"a": 1.5, "b": 0.75})
    assert report.passed
    assert compiled.new().count("_along") == 1
    assert report.evaluations == SCALAR_EVALUATIONS


@pytest.mark.slow
def test_check_gradients_of_a_net(compiled: Compiled) -> None:
    """One program evaluates the loss, whatever the number of leaves and candidates.

    A later check compiles nothing; more candidates cost nothing.
    """
    params, images, labels = net((7, 3, 5))
    traces = [0]

    def loss(params: Any) -> jax.Array:
        traces[0] += 1
        return mean_loss(params, images, labels, BOOK_NETWORK)

    with jax.enable_x64(True):
        hand = jax.tree.map(np.asarray, gradients.backprop(params, images, labels))
    candidates = {"hand": hand, "again": hand, "once more": hand}
    for routes, lines in ((hand, 1), (hand, 0), (candidates, 0)):
        compiled.new()
        traces[0] = 0
        report = check_gradients(loss, params, routes)
        assert report.passed
        names = compiled.new()
        assert names.count("_along") == lines
    assert names == []
    assert traces[0] <= NET_TRACES
    count = sum(leaf.size for leaf in jax.tree.leaves(params))
    assert report.evaluations <= NET_EVALUATIONS_EACH * count


@pytest.mark.slow
def test_check_gradients_counts_rightly() -> None:
    """A NumPy loss is called once an evaluation, and thrice to see what it is.

    That is traced in two modes, and called.
    """
    calls = [0]

    def loss(params: Any) -> float:
        calls[0] += 1
        return float(np.sum(np.asarray(params["w"]) ** 2))

    x = np.array([1.0, 2.0, 3.0])
    report = check_gradients(loss, {"w": x}, {"w": 2 * x})
    assert report.passed
    assert calls[0] == report.evaluations + 3


@pytest.mark.slow
def test_the_same_check_again_compiles_nothing(compiled: Compiled) -> None:
    """Nor does a new function of the same body, over other data; another body does."""

    def check(data: np.ndarray, power: int = 2) -> None:
        loss = lambda p: jax.numpy.mean((data @ p["w"]) ** power)  # noqa: E731
        assert check_gradients(loss, {"w": np.linspace(0.1, 1, 13)}).passed
        rule = lambda x: (data @ x) ** power  # noqa: E731
        assert check_vjp(rule, np.linspace(0.1, 1, 13, dtype=np.float32)).passed

    data = np.random.default_rng(0).normal(size=(3, 13))
    check(data)
    compiled.new()
    check(data)
    check(2 * data)
    assert compiled.new() == []
    check(data, power=3)
    assert "_along" in compiled.new()
    forget()
    check(data)
    assert "_along" in compiled.new()
