"""A digit classifier in JAX whose every gradient is proved three ways.

A public name is imported when it is asked for: who verifies gradients loads no trainer.
`__init__.pyi` says where each of them stands, in the order in which data flows.
"""

import ast
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from typing import Any

DISTRIBUTION = "jaxnet-gradients"
"""What the package is called where it is installed: `jaxnet` there is another one."""

_STUB = ast.parse(Path(__file__).with_suffix(".pyi").read_text("utf-8"))
_HOME = {
    name.name: node.module
    for node in _STUB.body
    if isinstance(node, ast.ImportFrom) and node.module
    for name in node.names
}

_OF_BOOK = {"TwoLayerNet": "; write init_params(key) and jaxnet.loss(params, x, t)"}

__all__ = [*_HOME]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return version(DISTRIBUTION)
    if name not in _HOME:
        raise AttributeError(
            f"module 'jaxnet' has no attribute {name!r}{_OF_BOOK.get(name, '')}"
        )
    home = _HOME[name]
    if home == __name__:
        return import_module(f"{home}.{name}")
    value = globals()[name] = getattr(import_module(home), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOME, "__version__"})
