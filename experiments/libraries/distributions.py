"""Every method of every distribution of jax.scipy.stats, by name."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.libraries.definitions import cauchy_ppf
from experiments.libraries.domains import JUST, LARGE, TINY, point
from experiments.libraries.entry import Entry, Point, sample

stats = jax.scipy.stats

SKIPPED = {"entropy", "fit", "rvs"}
"""Methods that are no function of a number and parameters."""

PROBABILITY = (0.3,), (0.0, 0.5, 1.0 - JUST, 1.0)
"""Where quantile functions are looked at: regular, edges."""

LINE = (0.7,), (0.0, LARGE, -LARGE)
POSITIVE = (0.7,), (0.0, TINY, LARGE)
UNIT = (0.3,), (0.0, TINY, 0.5, 1.0)
ABOVE_ONE = (1.4,), (1.0, LARGE)

CONTINUOUS: dict[str, tuple[Any, tuple[float, ...]]] = {
    "beta": (UNIT, (1.5, 2.5)),
    "cauchy": (LINE, ()),
    "chi2": (POSITIVE, (3.0,)),
    "expon": (POSITIVE, ()),
    "gamma": (POSITIVE, (1.7,)),
    "gennorm": (LINE, (1.6,)),
    "gumbel_l": (LINE, ()),
    "gumbel_r": (LINE, ()),
    "laplace": (LINE, ()),
    "logistic": (LINE, ()),
    "norm": (LINE, ()),
    "pareto": (ABOVE_ONE, (1.8,)),
    "t": (LINE, (2.7,)),
    "truncnorm": (((0.7,), (0.0, 2.0, -1.0)), (-1.0, 2.0)),
    "uniform": (UNIT, ()),
    "vonmises": (LINE, (1.3,)),
    "wrapcauchy": (((0.7,), (0.0, np.pi)), (0.4,)),
}
"""What it lives on, and its parameters: those move too."""

DEFINITIONS = {
    "cauchy.isf": lambda q: -cauchy_ppf(q),
    "cauchy.ppf": cauchy_ppf,
}
"""Of those whose program, for want of digits of pi, misses a pole."""

DISCRETE: dict[str, tuple[tuple[float, ...], tuple[tuple[float, ...], ...]]] = {
    "bernoulli": ((1.0,), ((0.3,), (0.0,), (1.0,))),
    "binom": ((3.0, 7.0), ((0.3,), (0.0,), (1.0,))),
    "betabinom": ((3.0, 7.0), ((1.5, 2.5), (1.0, 1.0))),
    "geom": ((3.0,), ((0.3,), (0.0,), (1.0,))),
    "nbinom": ((3.0, 5.0), ((0.3,), (0.0,), (1.0,))),
    "poisson": ((3.0,), ((1.7,), (0.0,), (LARGE,))),
}
"""Counts, which are held, and the parameters that move: the first regular."""


def distribution_entries() -> list[Entry]:
    """All of them."""
    return [*_continuous(), *_discrete(), *_of_vectors()]


def _methods(name: str) -> dict[str, Callable[..., Any]]:
    own = getattr(stats, name)
    names = [n for n in dir(own) if not n.startswith("_") and n not in SKIPPED]
    return {n: f for n in names if callable(f := getattr(own, n)) and n.islower()}


def _continuous() -> list[Entry]:
    found = []
    for name, (places, parameters) in CONTINUOUS.items():
        for method, function in _methods(name).items():
            is_quantile = method in ("ppf", "isf")
            regular, edges = PROBABILITY if is_quantile else places
            points = [point(x, *parameters) for x in regular]
            points += [point(x, *parameters, is_edge=True) for x in edges]
            full = f"jax.scipy.stats.{name}.{method}"
            definition = DEFINITIONS.get(f"{name}.{method}")
            found.append(Entry(full, function, tuple(points), definition))
    return found


def _discrete() -> list[Entry]:
    found = []
    for name, (counts, parameters) in DISCRETE.items():
        for method, function in _methods(name).items():
            if method == "ppf":
                continue
            regular, *edges = parameters
            points = [point(*regular)] + [point(*p, is_edge=True) for p in edges]
            held = partial(function, *counts)
            full = f"jax.scipy.stats.{name}.{method}"
            found.append(Entry(full, held, tuple(points)))
    return found


def _of_vectors() -> list[Entry]:
    weights = np.array([0.2, 0.3, 0.5])
    alpha = np.array([1.5, 2.5, 0.7])
    mean, covariance = sample(2), np.array([[2.0, 0.3], [0.3, 1.5]])
    x = sample(2, start=5)
    counts = jnp.array([1, 2, 1])
    data, places = sample(1, 4), sample(1, 2, start=9)
    rows: list[tuple[str, Callable[..., Any], list[Point]]] = []
    for method in ("logpdf", "pdf"):
        dirichlet = getattr(stats.dirichlet, method)
        normal = getattr(stats.multivariate_normal, method)
        on_simplex = Point("(0.2, 0.3, 0.5), α = (1.5, 2.5, 0.7)", (alpha,))
        flat = Point("α = (1, 1, 1)", (np.ones(3),), True)
        rows += [
            (f"dirichlet.{method}", partial(dirichlet, weights), [on_simplex, flat]),
            (
                f"multivariate_normal.{method}",
                normal,
                [Point("x, μ in R², Σ", (x, mean, covariance))],
            ),
        ]
    for method in ("logpmf", "pmf"):
        own = getattr(stats.multinomial, method)
        of_p = partial(own, counts, 4)
        at = [Point("p = (0.2, 0.3, 0.5)", (weights,))]
        at.append(Point("p = (0, 0.5, 0.5)", (np.array([0.0, 0.5, 0.5]),), True))
        rows.append((f"multinomial.{method}", of_p, at))
    for method in ("evaluate", "logpdf", "pdf"):
        rows.append(
            (
                f"gaussian_kde.{method}",
                partial(_density, method),
                [Point("4 data, 2 places", (data, places))],
            )
        )
    rows += [
        ("sem", stats.sem, [Point("4 numbers", (sample(4),))]),
        ("poisson.entropy", stats.poisson.entropy, [point(1.7), point(LARGE)]),
    ]
    return [Entry(f"jax.scipy.stats.{n}", f, tuple(at)) for n, f, at in rows]


def _density(method: str, data: Any, places: Any) -> Any:
    return getattr(stats.gaussian_kde(data), method)(places)
