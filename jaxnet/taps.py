"""A name for a value inside a loss, so that its derivative can be checked by itself."""

from functools import cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from jaxnet.input_checks import complaint, describe

TAP = "tap"
"""The primitive's name in a program."""


def tap(name: str, value: Any) -> Any:
    """The value itself, an array of floats, under a name.

    In a loss that `check_gradients(…, intermediates={name: d_value})` is given, the
    derivative of the loss with respect to this value can be checked: of all rounds of a
    scan, or examples of a vmap, on a leading axis. It changes nothing else.

    Raises:
        TypeError: the name is no text, or the value no array of real floats.
    """
    if not isinstance(name, str) or not name:
        fix = 'write jaxnet.tap("z1", z1)'
        raise TypeError(complaint("name", "a text", describe(name), fix))
    is_number = isinstance(value, float | int) and not isinstance(value, bool)
    dtype = np.float64 if is_number else getattr(value, "dtype", np.object_)
    if not jnp.issubdtype(dtype, np.floating):
        fix = "tap what the loss can be differentiated by"
        raise TypeError(complaint("value", "real floats", describe(value), fix))
    array = jnp.asarray(value, None if not is_number else float)
    tapped = _primitive().bind(array, name=name)
    return tapped if isinstance(tapped, jax.core.Tracer) else value


@cache
def _primitive() -> Any:
    """Made when it is first wanted, as it imports much."""

    tap = Primitive(TAP)

    def of_examples(values: Any, axes: Any, *, name: str) -> tuple[Any, int]:
        (value,), (axis,) = values, axes
        return tap.bind(jnp.moveaxis(value, axis, 0), name=name), 0

    def with_tangent(values: Any, tangents: Any, *, name: str) -> tuple[Any, Any]:
        return tap.bind(*values, name=name), tangents[0]

    tap.def_impl(lambda value, *, name: value)
    tap.def_abstract_eval(lambda value, *, name: value)
    ad.primitive_jvps[tap] = with_tangent
    ad.primitive_transposes[tap] = lambda cotangent, value, *, name: [cotangent]
    batching.primitive_batchers[tap] = of_examples
    mlir.register_lowering(tap, lambda context, value, *, name: [value])
    return tap
