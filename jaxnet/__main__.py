"""`python -m jaxnet`: what there is, and how to start."""

from inspect import getdoc
from textwrap import shorten

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


def main() -> None:
    """Print the guide, and the first line of every public docstring."""
    print(GUIDE)
    for name in jaxnet.__all__:
        first = (getdoc(getattr(jaxnet, name)) or "").partition("\n")[0]
        print(f"    {name:20} {shorten(first, 75, placeholder=' …')}")


if __name__ == "__main__":
    main()
