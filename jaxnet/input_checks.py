"""Checks of arguments, made in NumPy before anything is traced.

Every message says what, where, expected, got and the likely fix. A wrong dtype is a
TypeError, a wrong shape or value a ValueError. Tracers have no values: under jit only
shapes and dtypes are checked.
"""

import difflib
import inspect
import operator
from collections.abc import Callable, Mapping
from functools import wraps
from itertools import pairwise
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

MAX_PARAMETERS = 2**30
"""4 GiB in float32, what a checkpoint may hold; beyond 2⁶³ bytes XLA ends Python."""

TOLERANCES = {"tolerance", "tol", "atol", "rtol", "eps", "epsilon", "step", "h"}
"""What other checkers have to be told."""

Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


class NoPair(TypeError):
    """A function was said to have auxiliary output, and has none."""


def describe(value: Any) -> str:
    """Dtype and shape of an array, type and text of anything else."""
    if hasattr(value, "dtype") and hasattr(value, "shape"):
        return f"{value.dtype} of shape {tuple(value.shape)}"
    text = " ".join(repr(value).split())
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '…'}"


def first_line(error: Exception, longest: int = 300) -> str:
    """What an error says, in one line; of a callback's traceback, the last one.

    A longer one is cut in its middle: JAX says the shape or the number last.
    """
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [""]
    line = lines[-1 if "Traceback (most recent call last)" in lines[0] else 0]
    if line.endswith(":") and line is lines[0]:
        line = " ".join(lines[:2])
    if len(line) > longest:
        half = longest // 2
        begin, end = line[:half].rsplit(" ", 1)[0], line[-half:].split(" ", 1)[-1]
        line = f"{begin} … {end}"
    return f"{type(error).__name__}: {line}"


def complaint(name: str, expected: str, got: str, fix: str) -> str:
    """The one form of every message."""
    return f"`{name}`: expected {expected}, got {got}; {fix}"


def without(
    **instead: str,
) -> Callable[[Callable[Arguments, Result]], Callable[Arguments, Result]]:
    """A function that says what to write instead of keywords of the book's.

    >>> @without(lr="write learning_rate")
    ... def descend(learning_rate): ...
    >>> descend(lr=0.1)
    Traceback (most recent call last):
    TypeError: `lr`: expected no such argument, got float 0.1; write learning_rate
    """

    def named(function: Callable[Arguments, Result]) -> Callable[Arguments, Result]:
        @wraps(function)
        def checked(*args: Arguments.args, **kwargs: Arguments.kwargs) -> Result:
            for name in (name for name in kwargs if name in instead):
                got = describe(kwargs[name])
                raise TypeError(complaint(name, "no such argument", got, instead[name]))
            return function(*args, **kwargs)

        return checked

    return named


def check_labels(
    labels: Any, num_examples: int, num_classes: int, name: str = "labels"
) -> None:
    """Class numbers: integers 0…num_classes - 1, one an example."""
    expected = f"integers 0…{num_classes - 1} of shape ({num_examples},)"
    fix = "pass class numbers, or use from_one_hot"
    dtype = _dtype(labels, name, expected, fix)
    if not jnp.issubdtype(dtype, np.integer):
        raise TypeError(complaint(name, expected, describe(labels), fix))
    if np.shape(labels) != (num_examples,):
        fix = "pass one label an example" if np.ndim(labels) == 1 else fix
        raise ValueError(complaint(name, expected, describe(labels), fix))
    _check_range(labels, num_classes, name, expected, fix)


def check_classes(name: str, labels: Any, num_classes: int) -> None:
    """Class numbers, in an array of any shape."""
    expected = f"integers 0…{num_classes - 1}"
    fix = "pass class numbers, or more classes"
    if not jnp.issubdtype(_dtype(labels, name, expected, fix), np.integer):
        raise TypeError(complaint(name, expected, describe(labels), fix))
    _check_range(labels, num_classes, name, expected, fix)


def check_network(network: Any) -> None:
    """What says which functions stand between the layers, and after them."""
    if not hasattr(network, "output_loss"):
        fix = 'write Network(hidden="relu")'
        raise TypeError(complaint("network", "a Network", describe(network), fix))


def check_images(params: Any, images: Any, network: Any) -> tuple[Any, Any]:
    """Images that the first layer takes; both as JAX arrays."""
    check_network(network)
    weights = check_params(params)
    expected = f"floats of shape (batch, {weights[0].shape[0]})"
    fix = "flatten each image to a row, grey levels in [0, 1]"
    if not jnp.issubdtype(_dtype(images, "images", expected, fix), np.floating):
        raise TypeError(complaint("images", expected, describe(images), fix))
    shape = np.shape(images)
    if len(shape) != 2 or shape[1] != weights[0].shape[0] or shape[0] == 0:
        raise ValueError(complaint("images", expected, describe(images), fix))
    check_finite("images", images)
    return jax.tree.map(jnp.asarray, (params, images))


def check_batch(
    params: Any, images: Any, labels: Any, network: Any
) -> tuple[Any, Any, Any]:
    """Images that the first layer takes, and labels that the last one can give.

    Returns them as JAX arrays, labels in int32: jit must not meet one NumPy dtype
    inside and outside `jax.enable_x64`, where it stands for two. Traced labels stay as
    they are: their values, which int32 may not hold, are not known yet.
    """
    params, images = check_images(params, images, network)
    check_labels(labels, len(images), params[-1].weight.shape[1])
    dtype = None if is_traced(labels) else jnp.int32
    return params, images, jnp.asarray(labels, dtype)


def check_params(params: Any) -> list[Any]:
    """The weights of (weight, bias) layers that fit each other, first to last."""
    fix = "use init_params"
    layers = tuple(params) if isinstance(params, (tuple, list)) else ()
    fields = [getattr(p, "_fields", ()) for p in layers]
    if not layers or any(f != ("weight", "bias") for f in fields):
        raise TypeError(
            complaint("params", "a tuple of Dense layers", describe(params), fix)
        )
    outputs = None
    for number, (weight, bias) in enumerate(layers):
        inputs = "inputs" if outputs is None else outputs
        if np.ndim(weight) != 2 or (outputs and np.shape(weight)[0] != outputs):
            expected = f"shape ({inputs}, outputs)"
            got = describe(weight)
            raise ValueError(complaint(f"params[{number}].weight", expected, got, fix))
        outputs = np.shape(weight)[1]
        if np.shape(bias) != (outputs,):
            got = describe(bias)
            raise ValueError(
                complaint(f"params[{number}].bias", f"shape ({outputs},)", got, fix)
            )
        check_floats(f"params[{number}].weight", weight, fix)
        check_floats(f"params[{number}].bias", bias, fix)
    return [weight for weight, _ in layers]


def check_floats(name: str, value: Any, fix: str) -> None:
    """An array of floats, of any precision."""
    if not jnp.issubdtype(_dtype(value, name, "floats", fix), np.floating):
        raise TypeError(complaint(name, "floats", describe(value), fix))


def check_is(name: str, value: Any, kind: type, fix: str) -> None:
    """A value of a type."""
    if not isinstance(value, kind):
        expected = f"a {kind.__name__}"
        raise TypeError(complaint(name, expected, describe(value), fix))


def check_callable(name: str, value: Any, fix: str) -> None:
    """A function."""
    if not callable(value):
        raise TypeError(complaint(name, "a function", describe(value), fix))


def check_finite(name: str, values: Any) -> None:
    """No NaN and no infinity, where the values are known."""
    if is_traced(values):
        return
    fix = "mend the data, or leave that example out"
    values = np.asarray(values)
    _check_each(name, values, np.isfinite(values), "finite numbers", fix)


def check_untraced(name: str, values: Any, fix: str) -> None:
    """A pytree whose values are known."""
    if any(map(is_traced, jax.tree.leaves(values))):
        expected, got = "values", "a tracer of jit, grad or vmap, which has none"
        raise TypeError(complaint(name, expected, got, fix))


def is_traced(value: Any) -> bool:
    """Whether it has no values yet: under jit, grad or vmap."""
    return isinstance(value, jax.core.Tracer)


def check_targets(shape: tuple[int, ...], targets: Any) -> None:
    """Targets of outputs of `shape`: one-hot of that shape, or class numbers."""
    expected = f"one-hot of shape {shape} or integers of shape {shape[:-1]}"
    fix = "pass class numbers as integers, one an example"
    got = describe(targets)
    if len(shape) not in (1, 2):
        raise ValueError(
            complaint("y", "shape (classes,) or (batch, classes)", str(shape), fix)
        )
    if np.shape(targets) == shape:
        return
    if np.shape(targets) != shape[:-1]:
        raise ValueError(complaint("t", expected, got, fix))
    if not jnp.issubdtype(_dtype(targets, "t", expected, fix), np.integer):
        raise TypeError(complaint("t", expected, got, fix))
    _check_range(targets, shape[-1], "t", f"integers 0…{shape[-1] - 1}", fix)


def check_one_hot(name: str, targets: Any) -> None:
    """Rows of one 1 and zeros."""
    expected, fix = "rows of one 1 and zeros", "class numbers need no conversion"
    if np.ndim(targets) == 0:
        raise ValueError(complaint(name, expected, describe(targets), fix))
    if is_traced(targets):
        return
    values = np.asarray(targets)
    bad = np.argwhere(
        ~(((values == 0) | (values == 1)).all(-1) & (values.sum(-1) == 1))
    )
    if len(bad):
        place = f"{name}[{', '.join(map(str, bad[0]))}]" if values.ndim > 1 else name
        row = values[tuple(bad[0])]
        got = " ".join(str(row[:12]).split())
        raise ValueError(complaint(place, expected, got, fix))


def check_count(name: str, value: Any, minimum: int = 1) -> None:
    """A whole number, at least `minimum`."""
    expected, fix = f"a whole number ≥ {minimum}", "pass a Python int"
    try:
        number = operator.index(value)
    except TypeError:
        raise TypeError(complaint(name, expected, describe(value), fix)) from None
    if isinstance(value, bool) or number < minimum:
        fix = fix if isinstance(value, bool) else "pass a larger one"
        raise ValueError(complaint(name, expected, describe(value), fix))


def check_layer_sizes(sizes: Any) -> None:
    """Two or more whole numbers above 0."""
    if not isinstance(sizes, (tuple, list)) or len(sizes) < 2:
        expected = "a tuple of two or more sizes"
        fix = "pass (inputs, …, outputs), as (784, 50, 10)"
        raise ValueError(complaint("layer_sizes", expected, describe(sizes), fix))
    for position, size in enumerate(sizes):
        check_count(f"layer_sizes[{position}]", size)


def check_num_parameters(sizes: Any) -> None:
    """Layers of so many parameters as can be drawn and saved."""
    count = sum((inputs + 1) * outputs for inputs, outputs in pairwise(sizes))
    if count > MAX_PARAMETERS:
        expected, fix = f"at most {MAX_PARAMETERS} parameters", "pass narrower layers"
        raise ValueError(complaint("layer_sizes", expected, str(count), fix))


def check_positive(name: str, value: Any) -> None:
    """A finite number above 0."""
    expected, fix = "a finite number above 0", "0.1 is the book's learning rate"
    fix = fix if "rate" in name else "pass a positive number"
    check_untraced(name, value, "pass a Python float")
    if np.asarray(value).dtype.kind not in "fiu":
        raise TypeError(complaint(name, expected, describe(value), fix))
    if not (np.ndim(value) == 0 and np.isfinite(value) and value > 0):
        raise ValueError(complaint(name, expected, describe(value), fix))


def check_no_more(
    given: Mapping[str, Any], known: Callable[..., Any], but: str = ""
) -> None:
    """No option that a function does not have, or `but`; a tolerance is answered.

    Raises:
        TypeError: there is one.
    """
    for name, value in given.items():
        if name in TOLERANCES:
            expected = "no tolerance and no step"
            fix = "leave it out: how far off a right gradient may be is derived"
            raise TypeError(complaint(name, expected, describe(value), fix))
        options = [
            p.name
            for p in inspect.signature(known).parameters.values()
            if p.kind in (p.KEYWORD_ONLY, p.POSITIONAL_OR_KEYWORD)
            and p.default is not p.empty
            and p.name != but
        ]
        near = difflib.get_close_matches(name, options, 1)
        fix = f"did you mean `{near[0]}`?" if near else "mind the spelling"
        fix = "write `key`" if name == "seed" else fix
        expected = "one of the options " + ", ".join(options)
        raise TypeError(complaint(name, expected, describe(value), fix))


def check_choice(name: str, value: Any, choices: Any) -> None:
    """One of the named choices."""
    if value not in list(choices):
        expected = "one of " + ", ".join(map(repr, choices))
        fix = "mind the spelling" if isinstance(value, str) else "pass one of these"
        raise ValueError(complaint(name, expected, repr(value), fix))


def _dtype(value: Any, name: str, expected: str, fix: str) -> Any:
    if not hasattr(value, "dtype"):
        if isinstance(value, list | tuple):
            fix = f"write np.array({name})"
        raise TypeError(
            complaint(name, expected + " as an array", describe(value), fix)
        )
    return value.dtype


def _check_range(
    labels: Any, num_classes: int, name: str, expected: str, fix: str
) -> None:
    if is_traced(labels):
        return
    values = np.asarray(labels)
    is_class = (values >= 0) & (values < num_classes)
    _check_each(name, values, is_class, expected, fix)


def _check_each(name: str, values: Any, right: Any, expected: str, fix: str) -> None:
    """Every entry is right; the first one that is not is named."""
    if not right.all():
        index = tuple(map(int, np.argwhere(~right)[0]))
        place = f"{name}[{', '.join(map(str, index))}]" if index else name
        raise ValueError(complaint(place, expected, str(values[index]), fix))
