"""jax.numpy.linalg, jax.scipy.linalg, jax.lax.linalg."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.linalg as sl
import numpy as np

from experiments.libraries.entry import Entry, Point, sample

jl, ll = jnp.linalg, jax.lax.linalg

GENERAL = np.array([[2.0, 0.3, -0.4], [0.7, 1.5, 0.2], [-0.5, 0.6, 2.5]])
SYMMETRIC = np.array([[3.0, 0.5, -0.4], [0.5, 2.0, 0.3], [-0.4, 0.3, 1.2]])
TWO = np.array([[4.0, 1.0], [1.0, 3.0]])
TALL = sample(3, 2)

ANY = (
    Point("3×3, general", (GENERAL,)),
    Point("3×3, identity", (np.eye(3),), True),
    Point("3×3, rank 1", (np.outer([1.0, 2.0, -1.0], [0.5, 1.0, 2.0]),), True),
    Point("3×3, zeros", (np.zeros((3, 3)),), True),
)
POSITIVE = (
    Point("[[4, 1], [1, 3]]", (TWO,)),
    Point("3×3, positive", (SYMMETRIC,)),
    Point("3×3, identity", (np.eye(3),), True),
)
OBLONG = (Point("3×2", (TALL,)), Point("3×2, zeros", (np.zeros((3, 2)),), True))
SYSTEM = (
    Point("[[4, 1], [1, 3]] x = (1, 2)", (TWO, np.array([1.0, 2.0]))),
    Point("3×3, positive, x of 3", (SYMMETRIC, np.array([1.0, -0.5, 2.0]))),
)
VECTORS = (
    Point("4 numbers", (sample(4),)),
    Point("4 zeros", (np.zeros(4),), True),
    Point("(1, 0, 0, -2)", (np.array([1.0, 0.0, 0.0, -2.0]),), True),
    Point("(2, -2, 2, 1)", (np.array([2.0, -2.0, 2.0, 1.0]),), True),
)

Rows = list[tuple[str, Callable[..., Any], tuple[Point, ...]]]


def linear_algebra_entries() -> list[Entry]:
    """All of them; of vectors that have no sign of their own, what has none either."""
    rows: Rows = [
        *_of_norms(),
        *_of_factors(),
        *_of_systems(),
        *_of_eigenvalues(),
        *_of_structure(),
    ]
    return [Entry(*row) for row in rows]


def _of_norms() -> Rows:
    rows: Rows = [
        (f"jnp.linalg.norm(ord={order})", partial(jl.norm, ord=order), VECTORS)
        for order in (None, 0, 1, 2, 3, np.inf, -np.inf)
    ]
    rows += [
        (f"jnp.linalg.norm(matrix, ord={order})", partial(jl.norm, ord=order), ANY)
        for order in ("fro", "nuc", 1, 2, -2, np.inf)
    ]
    return [
        *rows,
        ("jnp.linalg.vector_norm", jl.vector_norm, VECTORS),
        ("jnp.linalg.matrix_norm", jl.matrix_norm, ANY),
        ("jnp.linalg.det", jl.det, ANY),
        ("jnp.linalg.slogdet", lambda a: jl.slogdet(a)[1], ANY),
        ("jnp.linalg.inv", jl.inv, ANY[:2]),
        ("jnp.linalg.pinv", jl.pinv, (*ANY, *OBLONG)),
        ("jnp.linalg.cond", jl.cond, ANY[:2]),
        ("jnp.linalg.matrix_power(3)", partial(_power, 3), ANY),
        ("jnp.linalg.matrix_power(-1)", partial(_power, -1), ANY[:2]),
        ("jnp.linalg.trace", jl.trace, ANY[:1]),
        ("jnp.linalg.diagonal", jl.diagonal, ANY[:1]),
        ("jnp.linalg.tensorinv", lambda a: jl.tensorinv(a.reshape(3, 3), 1), ANY[:1]),
        ("jax.scipy.linalg.det", sl.det, ANY),
        ("jax.scipy.linalg.inv", sl.inv, ANY[:2]),
        ("jax.scipy.linalg.expm", sl.expm, ANY),
        (
            "jax.scipy.linalg.expm_frechet",
            sl.expm_frechet,
            (Point("3×3 and 3×3", (GENERAL, SYMMETRIC)),),
        ),
        ("jax.scipy.linalg.sqrtm", lambda a: sl.sqrtm(a).real, POSITIVE),
        ("jax.scipy.linalg.funm(exp)", lambda a: sl.funm(a, jnp.exp), ANY[:1]),
    ]


def _power(n: int, a: Any) -> Any:
    return jl.matrix_power(a, n)


def _of_factors() -> Rows:
    return [
        ("jnp.linalg.cholesky", jl.cholesky, POSITIVE),
        (
            "jnp.linalg.cholesky(symmetrize_input=False)",
            partial(jl.cholesky, symmetrize_input=False),
            POSITIVE,
        ),
        ("jnp.linalg.cholesky(upper=True)", partial(jl.cholesky, upper=True), POSITIVE),
        ("jax.scipy.linalg.cholesky", sl.cholesky, POSITIVE),
        (
            "jax.scipy.linalg.cholesky(lower=True)",
            partial(sl.cholesky, lower=True),
            POSITIVE,
        ),
        ("jax.scipy.linalg.cho_factor", lambda a: sl.cho_factor(a)[0], POSITIVE),
        ("jax.lax.linalg.cholesky", ll.cholesky, POSITIVE),
        (
            "jax.lax.linalg.cholesky(symmetrize_input=False)",
            partial(ll.cholesky, symmetrize_input=False),
            POSITIVE,
        ),
        (
            "jax.lax.linalg.cholesky_update",
            ll.cholesky_update,
            (
                Point(
                    "2×2 upper, w of 2",
                    (np.array([[2.0, 0.5], [0.0, 1.5]]), np.array([0.3, -0.4])),
                ),
            ),
        ),
        ("jnp.linalg.qr(R)", lambda a: jnp.abs(jl.qr(a)[1]), (*ANY[:1], *OBLONG)),
        ("jnp.linalg.qr(QR)", lambda a: jnp.matmul(*jl.qr(a)), (*ANY[:1], *OBLONG)),
        ("jax.scipy.linalg.qr(R)", lambda a: jnp.abs(sl.qr(a, mode="r")[0]), ANY[:1]),
        ("jax.lax.linalg.qr(R)", lambda a: jnp.abs(ll.qr(a)[1]), ANY[:1]),
        ("jax.scipy.linalg.lu", lambda a: sl.lu(a)[1:], ANY[:2]),
        ("jax.scipy.linalg.lu_factor", lambda a: sl.lu_factor(a)[0], ANY[:2]),
        ("jax.lax.linalg.lu", lambda a: ll.lu(a)[0], ANY[:2]),
        ("jnp.linalg.svd(values)", partial(jl.svd, compute_uv=False), (*ANY, *OBLONG)),
        ("jnp.linalg.svd(product)", _svd_product, ANY[:2]),
        ("jnp.linalg.svdvals", jl.svdvals, (*ANY, *OBLONG)),
        ("jax.scipy.linalg.svd(values)", partial(sl.svd, compute_uv=False), ANY[:1]),
        ("jax.lax.linalg.svd(values)", lambda a: ll.svd(a, compute_uv=False), ANY[:1]),
        ("jax.scipy.linalg.polar", sl.polar, ANY[:1]),
        ("jax.lax.linalg.schur", lambda a: jnp.diag(ll.schur(a)[0]), ANY[:1]),
        (
            "jax.lax.linalg.householder_product",
            ll.householder_product,
            (Point("3×2 and 2", (sample(3, 2), sample(2, start=9))),),
        ),
        ("jax.lax.linalg.hessenberg", lambda a: ll.hessenberg(a)[0], ANY[:1]),
        ("jax.lax.linalg.tridiagonal", lambda a: ll.tridiagonal(a)[1], POSITIVE[1:2]),
    ]


def _svd_product(a: Any) -> Any:
    u, s, vt = jl.svd(a)
    return (u * s**2) @ vt


def _of_systems() -> Rows:
    rows: Rows = [
        ("jnp.linalg.solve", jl.solve, SYSTEM),
        ("jax.scipy.linalg.solve", sl.solve, SYSTEM),
        (
            "jnp.linalg.lstsq",
            lambda a, b: jl.lstsq(a, b)[0],
            (Point("3×2, b of 3", (TALL, sample(3, start=9))),),
        ),
        ("jnp.linalg.tensorsolve", jl.tensorsolve, SYSTEM[:1]),
        (
            "jax.scipy.linalg.lu_solve",
            lambda a, b: sl.lu_solve((a, jnp.array([1, 1], jnp.int32)), b),
            SYSTEM[:1],
        ),
        (
            "jax.scipy.linalg.solve_sylvester",
            sl.solve_sylvester,
            (Point("three 2×2", (TWO, TWO + 0.3, sample(2, 2))),),
        ),
        (
            "jax.lax.linalg.tridiagonal_solve",
            lambda a, b, c, x: ll.tridiagonal_solve(a, b, c, x[:, None]),
            (
                Point(
                    "three diagonals of 3",
                    (
                        np.array([0.0, 0.4, -0.3]),
                        np.array([2.0, 1.5, 2.5]),
                        np.array([0.3, 0.5, 0.0]),
                        sample(3),
                    ),
                ),
            ),
        ),
    ]
    for lower in (False, True):
        which = f"lower={lower}"
        rows += [
            (
                f"jax.scipy.linalg.solve(assume_a=pos, {which})",
                partial(sl.solve, assume_a="pos", lower=lower),
                SYSTEM,
            ),
            (
                f"jax.scipy.linalg.cho_solve({which})",
                partial(_cho_solve, lower),
                SYSTEM,
            ),
            (
                f"jax.scipy.linalg.cho_solve(cho_factor, {which})",
                partial(_factored_and_solved, lower),
                SYSTEM,
            ),
            (
                f"jax.scipy.linalg.solve_triangular({which})",
                partial(sl.solve_triangular, lower=lower),
                SYSTEM,
            ),
            (
                f"jax.lax.linalg.triangular_solve({which})",
                partial(_triangular, lower),
                SYSTEM,
            ),
        ]
    return rows


def _cho_solve(lower: bool, a: Any, b: Any) -> Any:
    return sl.cho_solve((a, lower), b)


def _factored_and_solved(lower: bool, a: Any, b: Any) -> Any:
    return sl.cho_solve(sl.cho_factor(a, lower=lower), b)


def _triangular(lower: bool, a: Any, b: Any) -> Any:
    return ll.triangular_solve(a, b[:, None], left_side=True, lower=lower)


def _of_eigenvalues() -> Rows:
    rows: Rows = [
        ("jnp.linalg.eigvalsh", jl.eigvalsh, POSITIVE),
        (
            "jnp.linalg.eigvalsh(symmetrize_input=False)",
            partial(jl.eigvalsh, symmetrize_input=False),
            POSITIVE,
        ),
        ("jnp.linalg.eigvalsh(UPLO=U)", partial(jl.eigvalsh, UPLO="U"), POSITIVE[:2]),
        ("jnp.linalg.eigh(vectors²)", lambda a: jl.eigh(a)[1] ** 2, POSITIVE),
        (
            "jnp.linalg.eigh(values, symmetrize_input=False)",
            lambda a: jl.eigh(a, symmetrize_input=False)[0],
            POSITIVE[:2],
        ),
        (
            "jax.scipy.linalg.eigh(values)",
            partial(sl.eigh, eigvals_only=True),
            POSITIVE[:2],
        ),
        ("jax.lax.linalg.eigh(values)", lambda a: ll.eigh(a)[1], POSITIVE[:2]),
        ("jnp.linalg.eigvals", lambda a: jl.eigvals(a), ANY[:2]),
        ("jnp.linalg.eig(|vectors|)", lambda a: jnp.abs(jl.eig(a)[1]), ANY[:1]),
        ("jax.lax.linalg.eig(values)", lambda a: ll.eig(a)[0], ANY[:1]),
        (
            "jax.scipy.linalg.eigh_tridiagonal",
            lambda d, e: sl.eigh_tridiagonal(d, e, eigvals_only=True),
            (Point("3 and 2 numbers", (np.array([2.0, 1.0, 3.0]), sample(2))),),
        ),
    ]
    return rows


def _of_structure() -> Rows:
    vector = (Point("3 numbers", (sample(3),)),)
    rows: Rows = [
        (
            "jax.scipy.linalg.block_diag",
            sl.block_diag,
            (Point("2×2 and 1×3", (sample(2, 2), sample(1, 3))),),
        ),
        ("jax.scipy.linalg.toeplitz", sl.toeplitz, vector),
        (
            "jax.lax.linalg.symmetric_product",
            lambda a: ll.symmetric_product(a, jnp.zeros((3, 3), a.dtype)),
            OBLONG[:1],
        ),
    ]
    names = ("circulant", "companion", "fiedler", "fiedler_companion", "hankel")
    known = [name for name in names if hasattr(sl, name)]
    of_three = (Point("(2, -1, 0.5)", (np.array([2.0, -1.0, 0.5]),)),)
    return rows + [(f"jax.scipy.linalg.{n}", getattr(sl, n), of_three) for n in known]
