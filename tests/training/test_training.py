"""Training is the slow loop, compiled once, and goes on as if it had never stopped."""

import subprocess
import sys
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxnet import gradients, training
from jaxnet.mnist import GREY_LEVELS, Mnist
from jaxnet.network import Network, accuracy, loss
from jaxnet.training import History, Recipe, State, init_state, programs, train
from jaxnet.training.minibatches import epoch_indices
from jaxnet.training.state import RUNS_AXES
from tests.tolerances import close

SIZES = (12, 7, 10)
BATCH, EPOCH = 20, 25


@pytest.fixture
def data() -> Mnist:
    """500 + 100 images of 12 pixels, the label told by the brightest of ten."""
    return made(np.random.default_rng(0))


def made(draws: np.random.Generator) -> Mnist:
    """Images and their labels."""
    arrays = []
    for count in (500, 100):
        images = draws.random((count, SIZES[0]), np.float32)
        arrays += [images, images[:, :10].argmax(1).astype(np.int32)]
    return Mnist(*arrays)


small_train = partial(train, batch_size=BATCH)


def slow_train(
    data: Mnist, state: State, num_steps: int, learning_rate: float = 0.1
) -> tuple[Any, list[float]]:
    """SGD by a Python loop: parameters after the last step, loss before each."""
    params, losses = state.params, []
    for step in range(num_steps):
        epoch, place = divmod(step, EPOCH)
        batch = np.asarray(epoch_indices(state.key, epoch, 500, BATCH))[place]
        images, labels = data.train_images[batch], data.train_labels[batch]
        losses.append(float(loss(params, images, labels)))
        slopes = gradients.backprop(params, images, labels)
        rate = np.float32(learning_rate)
        params = jax.tree.map(lambda p, d, r=rate: p - r * d, params, slopes)
    return params, losses


def identical(one: Any, other: Any) -> bool:
    """Whether two trees are equal in every bit."""
    words = jax.random.key_data
    plain = [
        [
            np.asarray(words(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x)
            for x in map(jnp.asarray, jax.tree.leaves(tree))
        ]
        for tree in (one, other)
    ]
    return jax.tree.structure(one) == jax.tree.structure(other) and all(
        a.dtype == b.dtype and np.array_equal(a, b) for a, b in zip(*plain, strict=True)
    )


@pytest.mark.slow
def test_train_is_the_slow_loop(data: Mnist, key: jax.Array) -> None:
    """Parameters and losses are those of a Python loop over batches.

    A learning rate that is off by 1 % would be seen.
    """
    start = init_state(key, SIZES)
    state, history = small_train(data, start, num_steps=35)
    params, losses = slow_train(data, start, 35)
    assert close(state.params, params, "float32")
    assert close(history.losses, losses, "float32")
    wrong, wrong_losses = slow_train(data, start, 35, learning_rate=0.101)
    assert not close(state.params, wrong, "float32")
    assert not close(history.losses, wrong_losses, "float32")
    assert int(state.step) == 35


def test_rows_are_at_epoch_starts_and_the_end(data: Mnist, key: jax.Array) -> None:
    """Accuracies are those of all images, before each epoch and after the last step."""
    seen: list[tuple[State, History]] = []
    start = init_state(key, SIZES)
    _, history = small_train(
        data, start, num_steps=60, callback=lambda *now: seen.append(now)
    )
    assert history.steps.tolist() == [0, 25, 50, 60]
    assert history.losses.shape == (60,)
    assert history.steps_per_epoch == EPOCH
    for row, (state, so_far) in enumerate(seen):
        assert int(state.step) == so_far.steps[-1] == history.steps[row]
        right = accuracy(state.params, data.train_images, data.train_labels)
        assert close(history.train_accuracy[row], right, "float32")
        right = accuracy(state.params, data.test_images, data.test_labels)
        assert close(history.test_accuracy[row], right, "float32")
        assert not close(history.train_accuracy[row] + 1 / 500, right, "float32")


@pytest.mark.slow
@pytest.mark.parametrize("replacement", [True, False])
@pytest.mark.parametrize(
    "optimizer", [training.SGD, optax.adam(1e-2)], ids=["sgd", "adam"]
)
@pytest.mark.parametrize("stop", [50, 60, 1], ids=["epoch", "within", "first"])
def test_resumed_is_uninterrupted(
    data: Mnist,
    key: jax.Array,
    optimizer: optax.GradientTransformation,
    replacement: bool,
    stop: int,
) -> None:
    """A run in two parts equals a run in one, bit for bit, state and history.

    So would not one whose second part began with another key.
    """
    go = partial(small_train, data, optimizer=optimizer, replacement=replacement)
    start = init_state(key, SIZES, optimizer)
    whole = go(start, num_steps=100)
    part = go(start, num_steps=stop)
    assert identical(go(*part, num_steps=100), whole)
    other = part[0]._replace(key=jax.random.key(7))
    assert not identical(go(other, part[1], num_steps=100), whole)


def test_calls_may_be_of_any_length(data: Mnist, key: jax.Array) -> None:
    """Where the calls of the compiled program end leaves no trace."""
    start = init_state(key, SIZES)
    whole = small_train(data, start, num_steps=60)
    steps: list[int] = []
    pieces = small_train(
        data,
        start,
        num_steps=60,
        steps_per_call=7,
        callback=lambda state, _: steps.append(int(state.step)),
    )
    assert identical(pieces, whole)
    assert steps == [0, 7, 14, 21, 25, 32, 39, 46, 50, 57, 60]


class Counted:
    """A gradient that counts how often it is traced."""

    def __init__(self) -> None:
        self.traces = 0

    def __call__(self, *arguments: Any, **names: Any) -> Any:
        self.traces += 1
        return gradients.backprop(*arguments, **names)


@pytest.mark.slow
def test_compiled_once(data: Mnist, key: jax.Array) -> None:
    """Shorter last epochs, resumption, other seeds and learning rates share a program.

    Another batch size, as is seen, does not.
    """
    counted = Counted()
    before = programs._programs.cache_info().misses
    go = partial(train, data, gradient=counted)
    start = init_state(key, SIZES)
    part = go(start, num_steps=60, batch_size=BATCH)
    go(*part, num_steps=70, batch_size=BATCH)
    other = training.with_learning_rate(init_state(jax.random.key(1), SIZES), 0.2)
    go(other, num_steps=30, batch_size=BATCH)
    assert counted.traces == 1
    assert programs._programs.cache_info().misses == before + 1
    go(start, num_steps=1, batch_size=10)
    assert counted.traces == 2


@pytest.mark.parametrize("wrap", [lambda f: f, jax.jit])
def test_every_byte_is_its_grey_level(wrap: Any) -> None:
    """In every bit, compiled or not; XLA's division by 255 misses some of them."""
    images = np.arange(256, dtype=np.uint8).reshape(4, 64)
    levels = wrap(programs._levels)(images)
    assert levels.dtype == np.float32
    assert np.array_equal(levels, GREY_LEVELS.reshape(4, 64))
    divided = jax.jit(lambda images: images.astype(np.float32) / 255)(images)
    assert close(levels, divided, "float32")
    assert not np.array_equal(levels, divided)
    grey = GREY_LEVELS.reshape(4, 64)[:3]
    assert np.array_equal(wrap(programs._levels)(grey), grey)


@pytest.mark.slow
def test_bytes_are_grey_levels(data: Mnist, key: jax.Array) -> None:
    """Training on bytes is training on their grey levels, bit for bit.

    So would not be grey levels that were multiplied by 1 / 255.
    """
    raw = np.random.default_rng(1).integers(0, 256, (500, SIZES[0]), np.uint8)
    start = init_state(key, SIZES)

    def trained(levels: np.ndarray) -> Any:
        images = {"train_images": levels, "test_images": levels[:100]}
        return small_train(data._replace(**images), start, num_steps=30)

    with jax.default_matmul_precision("highest"):  # a GPU would round them to TF32
        divided = trained(raw.astype(np.float32) / np.float32(255))
        assert identical(trained(raw), divided)
        assert not identical(trained(raw), trained(raw * np.float32(1 / 255)))


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 1999, 2000, 2001, 4321])
def test_evaluation_counts_every_image_once(key: jax.Array, count: int) -> None:
    """However many images there are, the accuracy is that of all at once.

    One more right answer, as is seen, is another accuracy.
    """
    draws = np.random.default_rng(count)
    images = draws.random((count, SIZES[0]), np.float32)
    labels = draws.integers(0, 10, count).astype(np.int32)
    params = init_state(key, SIZES).params
    got = programs._accuracy(params, images, labels, Network())
    want = accuracy(params, images, labels)
    assert close(got, want, "float32")
    assert not close(got, want + np.float32(1 / count), "float32")


@pytest.mark.slow
def test_many_runs_are_as_many_single_ones(data: Mnist, key: jax.Array) -> None:
    """A batch of keys and learning rates: each run is the one trained alone.

    One program, in which the loop's bound stays one number for all runs.
    """
    keys, rates = jax.random.split(key, 3), np.array([0.01, 0.1, 1.0], np.float32)
    counted = Counted()
    many = training.with_learning_rate(init_state(keys, SIZES), rates)
    state, history = small_train(data, many, num_steps=30, gradient=counted)
    assert counted.traces == 1
    assert history.train_accuracy.shape == (3, 3)
    for run in range(3):
        alone = init_state(keys[run], SIZES)
        alone = training.with_learning_rate(alone, rates[run])
        one, one_history = small_train(data, alone, num_steps=30)
        params = jax.tree.map(lambda leaf, run=run: leaf[run], state.params)
        assert close(params, one.params, "float32")
        assert close(history.losses[run], one_history.losses, "float32")
        assert close(history.test_accuracy[run], one_history.test_accuracy, "float32")
    assert not close(history.losses[0], history.losses[1], "float32")


@pytest.mark.slow
def test_runs_go_on_bit_for_bit(data: Mnist, key: jax.Array) -> None:
    """A batch of runs is resumed as one run is."""
    start = init_state(jax.random.split(key, 2), SIZES)
    whole = small_train(data, start, num_steps=40)
    part = small_train(data, start, num_steps=30)
    assert identical(small_train(data, *part, num_steps=40), whole)


def test_bounds_are_not_batched(data: Mnist, key: jax.Array) -> None:
    """In the program of many runs the loop's condition is one number for all.

    Bounds of each run's own would make it one a run: that is what the check looks for.
    """

    def loop(axis: int | None) -> Any:
        state = init_state(jax.random.split(key, 2), SIZES)
        batches = np.zeros((2, EPOCH, BATCH), np.int32)
        bounds = np.zeros((2, 2) if axis == 0 else 2, np.int32)
        steps = partial(programs._run_steps, Recipe(batch_size=BATCH))
        program = jax.vmap(steps, (RUNS_AXES, None, 0, axis))
        equations = jax.make_jaxpr(program)(state, data, batches, bounds).eqns
        (found,) = (e for e in equations if e.primitive.name == "while")
        counter = found.params["cond_jaxpr"].jaxpr.eqns[0].invars[0]
        return counter.aval.shape

    assert loop(None) == ()
    assert loop(0) == (2,)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["autodiff", "numerical"])
def test_every_route_trains(data: Mnist, key: jax.Array, name: str) -> None:
    """Each route to the gradient leads where backprop does, as far as it is exact."""
    route: Any = {
        "autodiff": gradients.autodiff,
        "numerical": partial(gradients.numerical, dtype=jnp.float32),
    }[name]
    start = init_state(key, SIZES)
    by_hand, _ = small_train(data, start, num_steps=30)
    state, _ = small_train(data, start, num_steps=30, gradient=route)
    kind = "rounding" if name == "autodiff" else "difference"
    assert close(state.params, by_hand.params, "float32", kind)
    shorter, _ = small_train(data, start, num_steps=20, gradient=route)
    assert not close(shorter.params, by_hand.params, "float32", kind)


def diverging(key: jax.Array, rates: Any) -> State:
    """A state whose learning rate is beyond all bounds for the squared error."""
    return training.with_learning_rate(init_state(key, SIZES), np.float32(rates))


def test_divergence_names_the_step(data: Mnist, key: jax.Array) -> None:
    """The first step whose loss is not finite, and the usual cause, in one line."""
    network = Network(output="identity_squared_error")
    losses: list[float] = []
    go = partial(small_train, data, network=network)

    def keep(_: State, history: History) -> None:
        losses[:] = history.losses

    with pytest.raises(FloatingPointError, match="learning rate") as error:
        go(
            diverging(key, 1e8),
            num_steps=100,
            steps_per_call=1,
            callback=keep,
        )
    assert np.isfinite(losses).all()
    assert f"at step {len(losses)};" in str(error.value)
    with pytest.raises(FloatingPointError, match=f"at step {len(losses)};"):
        go(diverging(key, 1e8), num_steps=100)


@pytest.mark.slow
def test_one_diverging_run_does_not_end_the_others(data: Mnist, key: jax.Array) -> None:
    """A batch of runs ends only when the last of them has diverged."""
    network = Network(output="identity_squared_error")
    keys = jax.random.split(key, 2)
    go = partial(small_train, data, network=network, num_steps=50)
    _, history = go(diverging(keys, [1e8, 1e-2]))
    assert np.isnan(history.losses[0, -1])
    assert np.isfinite(history.losses[1]).all()
    with pytest.raises(FloatingPointError, match="learning rate"):
        go(diverging(keys, [1e8, 1e8]))


def test_state_of_raw_keys(key: jax.Array) -> None:
    """An old-style key of words gives the state of the typed key."""
    words = jax.random.key_data(key)
    assert identical(init_state(words, SIZES), init_state(key, SIZES))


BAD: dict[str, tuple[Any, type[Exception], str]] = {
    "labels": (
        lambda d: d._replace(train_labels=d.train_labels + np.int32(1)),
        ValueError,
        r"`train_labels\[\d+\]`: expected integers 0…9",
    ),
    "test labels": (
        lambda d: d._replace(test_labels=d.test_labels[1:]),
        ValueError,
        "`test_labels`",
    ),
    "one-hot labels": (
        lambda d: d._replace(train_labels=np.eye(500, 10, dtype=np.float32)),
        TypeError,
        "from_one_hot",
    ),
    "integers": (
        lambda d: d._replace(train_images=d.train_images.astype(np.int32)),
        TypeError,
        "`train_images`: expected floats or bytes",
    ),
    "pixels": (
        lambda d: d._replace(test_images=d.test_images[:, 1:]),
        ValueError,
        r"`test_images`: expected floats or bytes of shape \(examples, 12\)",
    ),
}


@pytest.mark.parametrize("kind", BAD)
def test_data_that_do_not_fit(data: Mnist, key: jax.Array, kind: str) -> None:
    """Data are checked once, before anything is compiled, in one line."""
    spoil, error_type, words = BAD[kind]
    with pytest.raises(error_type, match=words) as error:
        small_train(spoil(data), init_state(key, SIZES), num_steps=1)
    assert "\n" not in str(error.value)


@pytest.mark.slow
def test_arguments_that_do_not_fit(data: Mnist, key: jax.Array) -> None:
    """A history of another state, steps one a run, a rate without a place, a size."""
    start = init_state(key, SIZES)
    state, history = small_train(data, start, num_steps=30)
    with pytest.raises(ValueError, match="`history`: expected 30 steps in epochs of"):
        small_train(data, state, num_steps=40)
    with pytest.raises(ValueError, match="`history`"):
        train(data, state, history, num_steps=40, batch_size=10)
    with pytest.raises(ValueError, match=r"`state\.step`"):
        small_train(data, start._replace(step=jnp.zeros(2, jnp.int32)), num_steps=1)
    with pytest.raises(ValueError, match=r"optax\.inject_hyperparams"):
        training.with_learning_rate(init_state(key, SIZES, optax.adam(1e-3)), 0.1)
    with pytest.raises(ValueError, match="`batch_size`"):
        train(data, start, num_steps=1, batch_size=501)
    with pytest.raises(ValueError, match="`num_steps`"):
        small_train(data, start, num_steps=-1)


def test_a_batch_that_does_not_divide_names_those_that_do(
    data: Mnist, key: jax.Array, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearest multiples of the number of devices."""
    start = init_state(key, SIZES)

    class Eight:
        axis_names, size = ("batch",), 8

    def compiled(batch_size: int) -> Any:
        recipe = Recipe(mesh=Eight(), batch_size=batch_size)  # type: ignore
        return programs.compile_programs(recipe, start, data)

    def first(recipe: Recipe, *rest: Any) -> programs.Programs:
        return programs.Programs(*[recipe.batch_size] * 3)  # type: ignore

    monkeypatch.setattr(programs, "automatic", lambda mesh: mesh)
    monkeypatch.setattr(programs, "_programs", first)
    with pytest.raises(ValueError, match="nearest sizes that divide are 96 or 104"):
        compiled(100)
    with pytest.raises(ValueError, match=r"nearest sizes that divide are 8$"):
        compiled(5)
    assert compiled(104)[0] == 104


ON_MANY_DEVICES = """
import jax, numpy as np
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 4)
from jaxnet.training import init_state
from tests.training.test_training import SIZES, made, small_train
from tests.tolerances import close
data = made(np.random.default_rng(0))
start = init_state(jax.random.key(0), SIZES)
alone = small_train(data, start, num_steps=30)
for count in (2, 4):
    kinds = (jax.sharding.AxisType.Auto,)
    devices = jax.devices()[:count]
    mesh = jax.make_mesh((count,), ("batch",), kinds, devices=devices)
    state, history = small_train(data, start, num_steps=30, mesh=mesh)
    assert len(state.params[0].weight.devices()) == count
    assert close(state.params, alone[0].params, "float32")
    assert close(history.losses, alone[1].losses, "float32")
    later = small_train(data, state, history, num_steps=40, mesh=mesh)
    assert len(later[1].losses) == 40
    assert not close(later[0].params, alone[0].params, "float32")
"""


@pytest.mark.slow
def test_many_devices_are_as_one() -> None:
    """On 2 and 4 CPU devices the parameters are those of one, up to rounding."""
    subprocess.run([sys.executable, "-W", "error", "-c", ON_MANY_DEVICES], check=True)


def test_history_is_three_lines(data: Mnist, key: jax.Array) -> None:
    """How long, from where to where; of many runs, their medians; of none, none yet."""
    _, history = small_train(data, init_state(key, SIZES), num_steps=30)
    ends = [f"{x[0]:.4f} → {x[-1]:.4f}" for x in history[2:]]
    train_accuracy, test_accuracy, losses = ends
    assert repr(history).splitlines() == [
        "History of 30 steps, 25 an epoch",
        f"  test accuracy      {test_accuracy}    (training images {train_accuracy})",
        f"  loss of the batch  {losses}",
    ]
    _, runs = small_train(
        data, init_state(jax.random.split(key, 3), SIZES), num_steps=2
    )
    assert repr(runs).startswith("History of 3 runs of 2 steps, 25 an epoch\n")
    assert f"{np.median(runs.losses[:, -1]):.4f}" in repr(runs)
    none = np.zeros(0, np.float32)
    empty = History(25, np.zeros(0, np.int64), none, none, none)
    assert repr(empty).count("none yet") == 3


@pytest.mark.slow
def test_routes_by_name_are_the_routes(data: Mnist, key: jax.Array) -> None:
    """Each name gives the losses of its function, in every bit."""
    numerical = partial(gradients.numerical, dtype=jnp.float32)
    for name, route in {**gradients.ROUTES, "numerical": numerical}.items():
        named, own = (
            small_train(data, init_state(key, SIZES), num_steps=3, gradient=gradient)
            for gradient in (name, route)
        )
        assert identical(named[0], own[0])
    assert gradients.traceable("numerical") is gradients.traceable("numerical")


def test_progress_is_shown_where_it_is_asked_for(data, key, capsys) -> None:
    """A bar on the error stream; by default on a terminal only, which this is not."""
    for progress in (None, False, True):
        small_train(data, init_state(key, SIZES), num_steps=30, progress=progress)
        said = capsys.readouterr().err
        assert ("30/30" in said and "loss " in said) == bool(progress)
