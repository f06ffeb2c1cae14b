"""Functions of one number and of a few: jax.numpy, jax.lax, jax.nn, jax.scipy.special.

Beside the domain stands the definition, where there is a closed one.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import jax.scipy.special as special
import numpy as np
from mpmath import mp

from experiments.libraries.definitions import (
    LOG_2,
    SELU_ALPHA,
    SELU_SCALE,
    binomial,
    clipped,
    cube_root,
    elu,
    entropy,
    factorial,
    hard_sigmoid,
    incomplete_beta,
    log_beta,
    log_gamma,
    lower_gamma,
    normal_cdf,
    real_log_gamma,
    relative_entropy,
    scaled_bessel,
    sigmoid,
    sinc,
    softplus,
    spence,
    upper_gamma,
    x_log_y,
)
from experiments.libraries.domains import (
    BEYOND_MINUS_ONE,
    BEYOND_ONE,
    JUST,
    LARGE,
    LINE,
    PLANE,
    POSITIVE,
    QUADRANT,
    SYMMETRIC_UNIT,
    TINY,
    UNIT,
    Domain,
    Pairs,
    Row,
    entries_of,
)
from experiments.libraries.entry import Entry

INSIDE = Domain((0.4, 2.3), (LARGE,))
"""For the exponential integrals, whose loops in JAX never end below 0."""

STEPS_OF_HALF = LINE.beside(0.5, 1.5, 2.0)
NO_POLE = Domain((0.7, -0.6), (1.0, TINY, LARGE, -11.21, 0.0))
"""For the gamma function and its like: poles at 0, -1, -2, …"""

SHARED: dict[str, tuple[Domain, Callable[..., Any] | None]] = {
    "abs": (LINE, abs),
    "sin": (LINE, mp.sin),
    "cos": (LINE, mp.cos),
    "tan": (LINE, mp.tan),
    "sinh": (LINE, mp.sinh),
    "cosh": (LINE, mp.cosh),
    "tanh": (LINE, mp.tanh),
    "exp": (LINE, mp.exp),
    "exp2": (LINE, lambda x: mp.power(2, x)),
    "expm1": (LINE, mp.expm1),
    "log": (POSITIVE, mp.log),
    "log1p": (BEYOND_MINUS_ONE, mp.log1p),
    "sqrt": (POSITIVE, mp.sqrt),
    "cbrt": (LINE, cube_root),
    "square": (LINE, lambda x: x * x),
    "reciprocal": (LINE, lambda x: 1 / x),
    "sign": (LINE, mp.sign),
    "floor": (STEPS_OF_HALF, mp.floor),
    "ceil": (STEPS_OF_HALF, mp.ceil),
    "round": (STEPS_OF_HALF, None),
}
"""In jax.numpy and jax.lax under one name."""

NUMPY: dict[str, Row] = SHARED | {
    "arcsin": (SYMMETRIC_UNIT, mp.asin),
    "arccos": (SYMMETRIC_UNIT, mp.acos),
    "arctan": (LINE, mp.atan),
    "arcsinh": (LINE, mp.asinh),
    "arccosh": (BEYOND_ONE, mp.acosh),
    "arctanh": (SYMMETRIC_UNIT, mp.atanh),
    "log2": (POSITIVE, lambda x: mp.log(x) / LOG_2),
    "log10": (POSITIVE, mp.log10),
    "negative": (LINE, lambda x: -x),
    "positive": (LINE, lambda x: +x),
    "fabs": (LINE, abs),
    "rint": (STEPS_OF_HALF, mp.nint),
    "trunc": (STEPS_OF_HALF, lambda x: mp.sign(x) * mp.floor(abs(x))),
    "sinc": (LINE.beside(1e-8, 1e-5), sinc),
    "i0": (LINE, lambda x: mp.besseli(0, x)),
    "deg2rad": (LINE, mp.radians),
    "rad2deg": (LINE, mp.degrees),
    "nan_to_num": (LINE, lambda x: x),
    "real": (LINE, lambda x: x),
    "conj": (LINE, lambda x: x),
    "angle": (LINE, None),
    "modf": (STEPS_OF_HALF, None),
    "frexp": (STEPS_OF_HALF, None),
    "add": (PLANE, lambda x, y: x + y),
    "subtract": (PLANE, lambda x, y: x - y),
    "multiply": (PLANE, lambda x, y: x * y),
    "divide": (PLANE, lambda x, y: x / y),
    "floor_divide": (PLANE, None),
    "divmod": (PLANE, None),
    "maximum": (PLANE, max),
    "minimum": (PLANE, min),
    "fmax": (PLANE, max),
    "fmin": (PLANE, min),
    "fmod": (PLANE, None),
    "remainder": (PLANE, None),
    "arctan2": (PLANE, mp.atan2),
    "hypot": (PLANE, mp.hypot),
    "copysign": (PLANE, None),
    "heaviside": (PLANE, None),
    "power": (QUADRANT, lambda x, y: x**y),
    "float_power": (QUADRANT, lambda x, y: x**y),
    "logaddexp": (PLANE, lambda x, y: mp.log(mp.exp(x) + mp.exp(y))),
    "logaddexp2": (PLANE, lambda x, y: mp.log(mp.power(2, x) + mp.power(2, y), 2)),
}

LAX: dict[str, Row] = {
    name: (domain.few, f) for name, (domain, f) in SHARED.items()
} | {
    "asin": (SYMMETRIC_UNIT, mp.asin),
    "acos": (SYMMETRIC_UNIT, mp.acos),
    "atan": (LINE, mp.atan),
    "asinh": (LINE, mp.asinh),
    "acosh": (BEYOND_ONE, mp.acosh),
    "atanh": (SYMMETRIC_UNIT, mp.atanh),
    "neg": (LINE, lambda x: -x),
    "rsqrt": (POSITIVE, lambda x: 1 / mp.sqrt(x)),
    "logistic": (LINE, sigmoid),
    "erf": (LINE, mp.erf),
    "erfc": (LINE, mp.erfc),
    "erf_inv": (SYMMETRIC_UNIT, mp.erfinv),
    "lgamma": (NO_POLE, log_gamma),
    "digamma": (NO_POLE, mp.digamma),
    "bessel_i0e": (LINE, partial(scaled_bessel, 0)),
    "bessel_i1e": (LINE, partial(scaled_bessel, 1)),
    "add": (PLANE, lambda x, y: x + y),
    "sub": (PLANE, lambda x, y: x - y),
    "mul": (PLANE, lambda x, y: x * y),
    "div": (PLANE, lambda x, y: x / y),
    "rem": (PLANE, None),
    "max": (PLANE, max),
    "min": (PLANE, min),
    "atan2": (PLANE, mp.atan2),
    "pow": (QUADRANT, lambda x, y: x**y),
    "complex": (PLANE, None),
    "nextafter": (Pairs(((0.7, 1.9),), ()), None),
    "igamma": (QUADRANT, lower_gamma),
    "igammac": (QUADRANT, upper_gamma),
    "zeta": (Pairs(((2.5, 1.3), (4.0, 0.6)), ((1.5, TINY), (LARGE, 1.0))), mp.zeta),
}

NN: dict[str, Row] = {
    "relu": (LINE, lambda x: max(x, mp.mpf(0))),
    "relu6": (LINE.beside(6.0), clipped(0, 6)),
    "sigmoid": (LINE, sigmoid),
    "softplus": (LINE, softplus),
    "sparse_plus": (LINE.beside(1.0, -1.0), None),
    "sparse_sigmoid": (LINE.beside(1.0, -1.0), lambda x: clipped(0, 1)((x + 1) / 2)),
    "soft_sign": (LINE, lambda x: x / (1 + abs(x))),
    "silu": (LINE, lambda x: x * sigmoid(x)),
    "mish": (LINE, lambda x: x * mp.tanh(softplus(x))),
    "log_sigmoid": (LINE, lambda x: -softplus(-x)),
    "leaky_relu": (LINE, lambda x: x if x >= 0 else mp.mpf(0.01) * x),
    "hard_sigmoid": (LINE.beside(3.0, -3.0), hard_sigmoid),
    "hard_silu": (LINE.beside(3.0, -3.0), lambda x: x * hard_sigmoid(x)),
    "hard_tanh": (LINE.beside(1.0, -1.0), clipped(-1, 1)),
    "elu": (LINE, elu),
    "celu": (LINE, elu),
    "selu": (
        LINE,
        lambda x: SELU_SCALE * (x if x > 0 else SELU_ALPHA * mp.expm1(x)),
    ),
    "squareplus": (LINE, lambda x: (x + mp.sqrt(x * x + 4)) / 2),
    "identity": (LINE, lambda x: x),
    "log1mexp": (POSITIVE.beside(float(np.log(2))), lambda x: mp.log(-mp.expm1(-x))),
    "gelu": (LINE, None),
    "tanh": (LINE, mp.tanh),
}

SPECIAL: dict[str, Row] = {
    "spence": (POSITIVE.beside(1.0, 1.224, 1.6, 2.0), spence),
    "i0": (LINE, lambda x: mp.besseli(0, x)),
    "i0e": (LINE, partial(scaled_bessel, 0)),
    "i1": (LINE, lambda x: mp.besseli(1, x)),
    "i1e": (LINE, partial(scaled_bessel, 1)),
    "digamma": (NO_POLE, mp.digamma),
    "gammaln": (NO_POLE, log_gamma),
    "loggamma": (NO_POLE, real_log_gamma),
    "gamma": (NO_POLE, mp.gamma),
    "gammasgn": (NO_POLE, lambda x: mp.sign(mp.gamma(x))),
    "factorial": (NO_POLE, factorial),
    "erf": (LINE, mp.erf),
    "erfc": (LINE, mp.erfc),
    "erfcx": (Domain((0.7, -1.3), (0.0, TINY, LARGE, -5.0)), None),
    "erfinv": (SYMMETRIC_UNIT, mp.erfinv),
    "exp1": (INSIDE, mp.e1),
    "expi": (LINE, mp.ei),
    "entr": (POSITIVE.beside(1.0), entropy),
    "expit": (LINE, sigmoid),
    "logit": (UNIT, lambda x: mp.log(x / (1 - x))),
    "log_ndtr": (LINE.beside(-5.0, 8.0, 5.0), lambda x: mp.log(normal_cdf(x))),
    "ndtr": (LINE, normal_cdf),
    "ndtri": (UNIT, lambda x: mp.sqrt(2) * mp.erfinv(2 * x - 1)),
    "dawsn": (LINE, lambda x: mp.sqrt(mp.pi) / 2 * mp.exp(-x * x) * mp.erfi(x)),
    "fresnel": (LINE, None),
    "sici": (LINE, None),
    "xlogy": (PLANE, x_log_y),
    "xlog1py": (PLANE, lambda x, y: x_log_y(x, 1 + y)),
    "kl_div": (QUADRANT, lambda x, y: relative_entropy(x, y) - x + y),
    "rel_entr": (QUADRANT, relative_entropy),
    "boxcox": (QUADRANT, lambda x, m: mp.expm1(m * mp.log(x)) / m),
    "boxcox1p": (QUADRANT, lambda x, m: mp.expm1(m * mp.log1p(x)) / m),
    "beta": (QUADRANT, mp.beta),
    "betaln": (QUADRANT, log_beta),
    "gammainc": (QUADRANT, lower_gamma),
    "gammaincc": (QUADRANT, upper_gamma),
    "poch": (QUADRANT, mp.rf),
    "owens_t": (PLANE, None),
    "comb": (Pairs(((5.3, 2.2),), ((5.0, 2.0), (5.0, 0.0))), binomial),
    "zeta": (Pairs(((2.5, 1.3), (4.0, 0.6)), ((LARGE, 1.0),)), mp.zeta),
    "hyp1f1": (
        Pairs(((0.7, 1.9, 0.4), (1.2, 2.5, -0.8)), ((1.0, 1.0, 0.5), (0.7, 1.9, 0.0))),
        mp.hyp1f1,
    ),
    "hyp2f1": (
        Pairs(
            ((0.7, 1.9, 2.4, 0.3), (1.2, 0.5, 2.5, -0.4)),
            ((0.7, 1.9, 2.4, 0.0), (1.0, 1.0, 2.0, 0.5)),
        ),
        mp.hyp2f1,
    ),
    "betainc": (
        Pairs(
            ((0.7, 1.9, 0.4), (2.5, 3.5, 0.8)),
            ((1.0, 1.0, 0.5), (2.0, 1.0, TINY)),
        ),
        incomplete_beta,
    ),
}


def bound_entries() -> list[Entry]:
    """Functions of which some arguments are held: orders, shapes, whole parameters."""
    rows: list[tuple[str, Any, Any, Any]] = []
    for a in (1.0, 0.5, 2.0):
        rows += [
            (
                f"jax.scipy.special.gammainc({a:g}, x)",
                partial(special.gammainc, a),
                POSITIVE.points,
                partial(lower_gamma, mp.mpf(a)),
            ),
            (
                f"jax.scipy.special.gammaincc({a:g}, x)",
                partial(special.gammaincc, a),
                POSITIVE.points,
                partial(upper_gamma, mp.mpf(a)),
            ),
        ]
    for a, b in ((1.0, 2.0), (2.0, 1.0), (0.5, 0.5)):
        rows.append(
            (
                f"jax.scipy.special.betainc({a:g}, {b:g}, x)",
                partial(special.betainc, a, b),
                UNIT.points,
                partial(incomplete_beta, mp.mpf(a), mp.mpf(b)),
            )
        )
    for n in (0, 1, 2):
        rows.append(
            (
                f"jax.scipy.special.polygamma({n}, x)",
                partial(special.polygamma, n),
                NO_POLE.points,
                partial(mp.psi, n),
            )
        )
        rows.append(
            (
                f"jax.scipy.special.expn({n + 1}, x)",
                partial(special.expn, n + 1),
                INSIDE.points,
                partial(mp.expint, n + 1),
            )
        )
    for d in (1, 3):
        rows.append(
            (
                f"jax.scipy.special.multigammaln(x, {d})",
                partial(special.multigammaln, d=d),
                Domain((2.3, 4.1), (LARGE, (d - 1) / 2 + JUST)).points,
                None,
            )
        )
    rows += [
        (
            "jax.scipy.special.bessel_jn(x, v=3)",
            partial(special.bessel_jn, v=3),
            Domain((0.7, 2.3), (0.0, TINY, 20.0)).points,
            None,
        ),
        (
            "jax.scipy.special.sph_harm_y(2, 1, x, y)",
            lambda x, y: special.sph_harm_y(
                jnp.array([2]), jnp.array([1]), x[None], y[None], n_max=2
            ),
            PLANE.points[:3],
            None,
        ),
        (
            "jax.scipy.special.wofz(x + iy)",
            lambda x, y: special.wofz(jax.lax.complex(x, y)),
            PLANE.points[:3],
            None,
        ),
        (
            "jax.nn.gelu(approximate=False)",
            partial(jax.nn.gelu, approximate=False),
            LINE.points,
            lambda x: x * normal_cdf(x),
        ),
        *(
            (
                f"jax.lax.integer_pow(x, {n})",
                partial(jax.lax.integer_pow, y=n),
                LINE.points,
                partial(_power, n),
            )
            for n in (-2, 0, 1, 3)
        ),
        *(
            (
                f"jnp.power(x, {n:g})",
                partial(_power_of, n=n),
                POSITIVE.points,
                partial(_power, n),
            )
            for n in (0.5, 1.5, 2.0, 0.0)
        ),
        (
            "jnp.power(0.0, x)",
            lambda x: jnp.power(0.0, x),
            Domain((0.7,), (0.0, TINY)).points,
            None,
        ),
        (
            "jax.lax.clamp(-1, x, 1)",
            lambda x: jax.lax.clamp(jnp.float64(-1), x, jnp.float64(1)),
            LINE.beside(1.0, -1.0).points,
            clipped(-1, 1),
        ),
        (
            "jnp.clip(x, -1, 1)",
            lambda x: jnp.clip(x, -1.0, 1.0),
            LINE.beside(1.0, -1.0).points,
            clipped(-1, 1),
        ),
        (
            "jnp.where(x > 0, log(x), x)",
            lambda x: jnp.where(x > 0, jnp.log(x), x),
            LINE.points,
            lambda x: mp.log(x) if x > 0 else x,
        ),
        (
            "jnp.ldexp(x, 3)",
            lambda x: jnp.ldexp(x, 3),
            LINE.points,
            lambda x: 8 * x,
        ),
        (
            "jnp.piecewise(x)",
            lambda x: jnp.piecewise(x, [x < 0, x >= 0], [lambda x: -x, jnp.sin]),
            LINE.points,
            lambda x: -x if x < 0 else mp.sin(x),
        ),
        (
            "jax.lax.random_gamma_grad(a, 1)",
            lambda a: jax.lax.random_gamma_grad(a, jnp.float64(1.0)),
            Domain((0.7, 2.3), ()).points,
            None,
        ),
        (
            "jax.lax.reduce_precision(x)",
            lambda x: jax.lax.reduce_precision(x, exponent_bits=11, mantissa_bits=52),
            Domain((0.7,), ()).points,
            lambda x: x,
        ),
    ]
    return [Entry(*row) for row in rows]


def _power(n: float, x: Any) -> Any:
    return x**n if n else mp.mpf(1)


def _power_of(x: Any, n: float) -> Any:
    return jnp.power(x, n)


def elementwise_entries() -> list[Entry]:
    """All of them."""
    return [
        *entries_of(jnp, "jnp", NUMPY),
        *entries_of(jax.lax, "jax.lax", LAX),
        *entries_of(jax.nn, "jax.nn", NN),
        *entries_of(special, "jax.scipy.special", SPECIAL),
        *bound_entries(),
    ]
