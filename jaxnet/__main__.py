"""`python -m jaxnet`: what there is, and how to start."""

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
        documentation = (getattr(jaxnet, name).__doc__ or "").strip().splitlines()
        first = documentation[0][:75] if documentation else ""
        print(f"    {name:20} {first}".rstrip())


if __name__ == "__main__":
    main()
