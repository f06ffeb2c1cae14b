"""`python -m jaxnet`: what there is, and how to start."""

import os
import sys
from inspect import getdoc
from textwrap import fill
from typing import get_origin

import jaxnet

GUIDE = """\
jaxnet: a digit classifier in JAX whose every gradient is proved three ways,
and a gradient verifier that needs no tolerance.

Verify a gradient of yours:

    import jaxnet
    report = jaxnet.check_gradients(loss, params, my_gradient)
    print(report)                      # verdict, place and cause, leaf by leaf
    report.raise_if_failed()

Verify a hand-written rule in a test:

    from jaxnet.testing import assert_vjp
    assert_vjp(my_custom_vjp_function, x, y)

Train the book's network, from a clone: make train

Public names:"""


COLUMNS = 80
MARGIN = 25
"""Where what is said of a name begins."""


def main() -> None:
    """Print the guide, and the first line of every public docstring."""
    if sys.argv[1:]:
        sys.exit(f"error: `python -m jaxnet` takes no arguments, got {sys.argv[1]}")
    lines = [GUIDE]
    for name in jaxnet.__all__:
        value = getattr(jaxnet, name)
        words = str(value) if get_origin(value) else getdoc(value) or ""
        begin, rest = f"    {name}".ljust(MARGIN - 1) + " ", " " * MARGIN
        first = words.partition("\n")[0]
        lines.append(fill(first, COLUMNS, initial_indent=begin, subsequent_indent=rest))
    try:
        print("\n".join(lines), flush=True)
    except BrokenPipeError:  # its reader, `head` as a rule, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()
