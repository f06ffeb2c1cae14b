"""Issues of other projects in which a fault of the tables is known."""

ISSUES = {
    "jax.lax.digamma": "jax#37635",
    "jax.lax.lgamma": "jax#39800",
    "jax.lax.linalg.cholesky": "jax#40421",
    "jax.lax.linalg.eigh": "jax#12795",
    "jax.lax.scatter_max": "jax#40626",
    "jax.lax.scatter_min": "jax#40626",
    "jax.scipy.linalg.cho_solve": "jax#10815",
    "jax.scipy.linalg.cholesky": "jax#40421",
    "jax.scipy.linalg.cho_factor": "jax#40421",
    "jax.scipy.special.betaln": "jax#34353",
    "jax.scipy.special.digamma": "jax#37635",
    "jax.scipy.special.gammaln": "jax#39800",
    "jax.scipy.special.i0": "jax#40628",
    "jax.scipy.special.i1": "jax#40640",
    "jax.scipy.special.polygamma": "jax#37635",
    "jnp.i0": "jax#40627",
    "jnp.linalg.cholesky": "jax#40421",
    "jnp.linalg.eigh": "jax#12795",
    "jnp.linalg.eigvalsh": "jax#12795",
    "jnp.linalg.norm": "jax#26248",
    "jnp.sinc": "jax#40629",
    "x.at[5].max": "jax#40626",
    "x.at[5].min": "jax#40626",
}
"""By the name of the function in the catalogue, without the variant: each was read."""


def issue_of(function: str) -> str:
    """Project and number; empty where none is known."""
    return ISSUES.get(function.split("(")[0], "")
