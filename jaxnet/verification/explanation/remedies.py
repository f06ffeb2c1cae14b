"""What helps where a primitive, or its derivative, is not finite."""

from typing import NamedTuple


class Remedy(NamedTuple):
    """How a primitive is written, of `{}`; what helps where it is not finite; and where
    it surely is."""

    written: str
    words: str
    safe: str = "1"


_ROOT = "add a small constant under the root"
_ENDS = "clip the argument to within -1 and 1, the ends left out"

REMEDIES = {
    "sqrt": Remedy("jnp.sqrt({})", _ROOT),
    "rsqrt": Remedy("jax.lax.rsqrt({})", _ROOT),
    "cbrt": Remedy("jnp.cbrt({})", "keep the argument from 0"),
    "norm": Remedy(
        "jnp.sqrt({})",
        "a norm has none at 0; to have 0 there, guard the sum s of its squares twice, "
        "jnp.where(s > 0, jnp.sqrt(jnp.where(s > 0, s, 1)), 0)",
    ),
    "div": Remedy("1 / {}", "keep the divisor from 0"),
    "log": Remedy("jnp.log({})", "keep the argument above 0"),
    "log1p": Remedy("jnp.log1p({})", "keep the argument above -1"),
    "pow": Remedy("{} ** p", "keep the base above 0, or the exponent at least 1"),
    "integer_pow": Remedy("{} ** n", "keep the base from 0"),
    "atan2": Remedy(
        "jnp.arctan2(y, {})", "an angle has none at the origin, give it another point"
    ),
    "acos": Remedy("jnp.arccos({})", _ENDS, "0"),
    "asin": Remedy("jnp.arcsin({})", _ENDS, "0"),
    "acosh": Remedy("jnp.arccosh({})", "keep the argument above 1", "2"),
    "atanh": Remedy("jnp.arctanh({})", _ENDS, "0"),
    "eigh": Remedy(
        "jnp.linalg.eigh({})",
        "eigenvectors of equal eigenvalues have none, the eigenvalues alone have "
        "(jnp.linalg.eigvalsh)",
    ),
    "svd": Remedy(
        "jnp.linalg.svd({})",
        "singular vectors of equal singular values have none, the values alone have "
        "(compute_uv=False)",
    ),
    "exp": Remedy(
        "jnp.exp({})",
        "it overflows, which softmax, logsumexp, sigmoid and softplus of jax.nn avoid",
    ),
}
"""By primitive; a sqrt of a sum is taken for a norm."""


def remedy(name: str) -> str:
    """What helps, in words; empty if nothing is known."""
    return REMEDIES[name].words if name in REMEDIES else ""


def guarded(name: str) -> str:
    """How it is written with its argument, and its value, guarded by a `where`."""
    written, _, safe = REMEDIES.get(name, Remedy(f"{name}({{}})", "", "safe"))
    return f"jnp.where(ok, {written.format(f'jnp.where(ok, x, {safe})')}, 0)"
