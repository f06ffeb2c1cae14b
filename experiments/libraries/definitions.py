"""What functions are by their definitions, of mpmath numbers."""

from collections.abc import Callable
from typing import Any

from mpmath import mp

LOG_2 = mp.log(2)


def log_gamma(x: Any) -> Any:
    """log |Γ(x)|."""
    return mp.log(abs(mp.gamma(x)))


def normal_cdf(x: Any) -> Any:
    """Φ(x), also where it is small."""
    return mp.erfc(-x / mp.sqrt(2)) / 2


def softplus(x: Any) -> Any:
    """log(1 + eˣ)."""
    return mp.log1p(mp.exp(x))


def sigmoid(x: Any) -> Any:
    """1 / (1 + e⁻ˣ)."""
    return 1 / (1 + mp.exp(-x))


def spence(x: Any) -> Any:
    """Li₂(1 - x)."""
    return mp.polylog(2, 1 - x) if x != 1 else mp.mpf(0)


def sinc(x: Any) -> Any:
    """sin πx / πx."""
    return mp.sincpi(x)


def cauchy_ppf(q: Any) -> Any:
    """-cot πq, with a pole at both ends of [0, 1]."""
    if not 0 < q < 1:
        raise ZeroDivisionError("a pole")
    return -mp.cot(mp.pi * q)


def x_log_y(x: Any, y: Any) -> Any:
    """x log y, 0 where x is."""
    return x * mp.log(y) if x != 0 else mp.mpf(0)


def relative_entropy(x: Any, y: Any) -> Any:
    """x log (x / y); 0 where x is, not defined below."""
    return x * mp.log(x / y) if x != 0 else mp.mpf(0)


def entropy(x: Any) -> Any:
    """-x log x."""
    return -x * mp.log(x) if x != 0 else mp.mpf(0)


def clipped(low: float, high: float) -> Callable[[Any], Any]:
    """min(max(x, low), high)."""
    return lambda x: min(max(x, mp.mpf(low)), mp.mpf(high))


def log_beta(a: Any, b: Any) -> Any:
    """log |B(a, b)|."""
    return log_gamma(a) + log_gamma(b) - log_gamma(a + b)


def hard_sigmoid(x: Any) -> Any:
    """min(max(x + 3, 0), 6) / 6."""
    return clipped(0, 6)(x + 3) / 6


def elu(x: Any) -> Any:
    """x, and eˣ - 1 below 0."""
    return x if x > 0 else mp.expm1(x)


def lower_gamma(a: Any, x: Any) -> Any:
    """P(a, x), for x ≥ 0."""
    if x < 0 or a <= 0:
        raise ValueError("not defined")
    return x**a * mp.hyp1f1(a, a + 1, -x) / mp.gamma(a + 1)


def upper_gamma(a: Any, x: Any) -> Any:
    """1 - P(a, x)."""
    return 1 - lower_gamma(a, x) if x < a + 1 else mp.gammainc(a, x, regularized=True)


def incomplete_beta(a: Any, b: Any, x: Any) -> Any:
    """I_x(a, b), for 0 ≤ x ≤ 1."""
    if not 0 <= x <= 1:
        raise ValueError("not defined")
    return mp.betainc(a, b, 0, x, regularized=True)


SELU_SCALE = mp.mpf(1.0507009873554804934193349852946)
SELU_ALPHA = mp.mpf(1.6732632423543772848170429916717)


def cube_root(x: Any) -> Any:
    """∛x, also below 0."""
    return mp.sign(x) * mp.cbrt(abs(x))


def scaled_bessel(n: int, x: Any) -> Any:
    """e^-|x| Iₙ(x)."""
    return mp.besseli(n, x) * mp.exp(-abs(x))


def real_log_gamma(x: Any) -> Any:
    """log Γ(x), real for x > 0 only, as SciPy has it."""
    if x <= 0:
        raise ValueError("not defined")
    return mp.loggamma(x)


def factorial(x: Any) -> Any:
    """Γ(x + 1), and 0 below 0, as SciPy has it."""
    return mp.gamma(x + 1) if x >= 0 else mp.mpf(0)


def binomial(n: Any, k: Any) -> Any:
    """n over k, and 0 where k is below 0, as SciPy has it."""
    return mp.binomial(n, k) if k >= 0 else mp.mpf(0)
