"""The losses of optax, and of its projections, at ties and where they saturate."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.libraries.entry import Entry, Point, sample

LOGITS = np.array([0.4, -1.2, 0.8])
ONE_HOT = np.array([0.0, 1.0, 0.0])
SOFT = np.array([0.25, 0.5, 0.25])
SIGNS = np.array([1.0, -1.0, 1.0])

PREDICTED = (
    Point("3 numbers", (LOGITS,)),
    Point("3 zeros", (np.zeros(3),), True),
    Point("3 equal to the targets", (SOFT,), True),
    Point("(100, -100, 0)", (np.array([100.0, -100.0, 0.0]),), True),
)
DISTRIBUTIONS = (
    Point("log p, q", (np.log([0.3, 0.3, 0.4]), SOFT)),
    Point("log p, q with a 0", (np.log([0.3, 0.3, 0.4]), ONE_HOT), True),
)
PAIRS = (
    Point("two of 3", (LOGITS, SOFT)),
    Point("twice the same", (SOFT, SOFT), True),
    Point("3 zeros and 3 numbers", (np.zeros(3), SOFT), True),
)
PROBABILITIES = (
    Point("(0.3, 0.6, 0.9)", (np.array([0.3, 0.6, 0.9]),)),
    Point("(0, 1, 0.5)", (np.array([0.0, 1.0, 0.5]),), True),
)

Rows = list[tuple[str, Callable[..., Any], tuple[Point, ...]]]


def loss_entries() -> list[Entry]:
    """All of them; none where optax is not installed."""
    if find_spec("optax") is None:
        return []
    import optax

    own, projections = optax.losses, optax.projections
    label = jnp.array(1)
    sign = jnp.array(SIGNS)
    rows: Rows = [
        ("squared_error", partial(_against, own.squared_error, SOFT), PREDICTED),
        ("l2_loss", partial(_against, own.l2_loss, SOFT), PREDICTED),
        (
            "huber_loss",
            partial(_against, own.huber_loss, SOFT),
            (
                *PREDICTED,
                Point("1 beyond the targets", (SOFT + 1.0,), True),
            ),
        ),
        ("log_cosh", partial(_against, own.log_cosh, SOFT), PREDICTED),
        (
            "hinge_loss",
            partial(_against, own.hinge_loss, sign),
            (
                *PREDICTED,
                Point("at the margin", (SIGNS,), True),
            ),
        ),
        ("perceptron_loss", partial(_against, own.perceptron_loss, sign), PREDICTED),
        (
            "sigmoid_binary_cross_entropy",
            partial(_against, own.sigmoid_binary_cross_entropy, SOFT),
            PREDICTED,
        ),
        (
            "sigmoid_focal_loss",
            partial(_against, own.sigmoid_focal_loss, ONE_HOT),
            PREDICTED,
        ),
        (
            "sigmoid_focal_loss(gamma=0.5)",
            partial(_against, partial(own.sigmoid_focal_loss, gamma=0.5), ONE_HOT),
            PREDICTED,
        ),
        (
            "softmax_cross_entropy",
            partial(_against, own.softmax_cross_entropy, SOFT),
            PREDICTED,
        ),
        (
            "safe_softmax_cross_entropy",
            partial(_against, own.safe_softmax_cross_entropy, ONE_HOT),
            PREDICTED,
        ),
        (
            "softmax_cross_entropy_with_integer_labels",
            partial(_against, own.softmax_cross_entropy_with_integer_labels, label),
            PREDICTED,
        ),
        (
            "poly_loss_cross_entropy",
            partial(_against, own.poly_loss_cross_entropy, ONE_HOT),
            PREDICTED,
        ),
        (
            "multiclass_hinge_loss",
            partial(_against, own.multiclass_hinge_loss, label),
            PREDICTED,
        ),
        (
            "multiclass_perceptron_loss",
            partial(_against, own.multiclass_perceptron_loss, label),
            PREDICTED,
        ),
        (
            "multiclass_sparsemax_loss",
            partial(_of_one_row, own.multiclass_sparsemax_loss, label),
            PREDICTED,
        ),
        ("sparsemax_loss", partial(_against, own.sparsemax_loss, ONE_HOT), PREDICTED),
        ("kl_divergence", own.kl_divergence, DISTRIBUTIONS),
        ("convex_kl_divergence", own.convex_kl_divergence, DISTRIBUTIONS),
        ("generalized_kl_divergence", own.generalized_kl_divergence, DISTRIBUTIONS),
        (
            "kl_divergence_with_log_targets",
            own.kl_divergence_with_log_targets,
            (Point("log p, log q", (np.log([0.3, 0.3, 0.4]), np.log(SOFT))),),
        ),
        ("cosine_similarity", own.cosine_similarity, PAIRS),
        ("cosine_similarity(epsilon=0)", own.cosine_similarity, PAIRS[:2]),
        ("cosine_distance", own.cosine_distance, PAIRS),
        ("smooth_labels", partial(own.smooth_labels, alpha=0.1), PREDICTED[:1]),
        (
            "dice_loss",
            partial(_against, own.dice_loss, ONE_HOT[None]),
            (Point("1×3 numbers", (LOGITS[None],)),),
        ),
        (
            "binary_dice_loss",
            partial(_against, own.binary_dice_loss, ONE_HOT[None]),
            (Point("1×3 numbers", (LOGITS[None],)),),
        ),
        (
            "multiclass_generalized_dice_loss",
            partial(
                _against, own.multiclass_generalized_dice_loss, np.eye(3)[None, :2]
            ),
            (Point("1×2×3 numbers", (sample(1, 2, 3),)),),
        ),
        (
            "make_fenchel_young_loss(logsumexp)",
            partial(_against, own.make_fenchel_young_loss(jax.nn.logsumexp), SOFT),
            PREDICTED,
        ),
        (
            "ranking_softmax_loss",
            partial(_against, own.ranking_softmax_loss, ONE_HOT[None]),
            (Point("1×3 numbers", (LOGITS[None],)),),
        ),
        (
            "ntxent",
            partial(_against, own.ntxent, jnp.array([0, 0, 1, 1])),
            (Point("4×2 numbers", (sample(4, 2),)),),
        ),
        (
            "triplet_margin_loss",
            own.triplet_margin_loss,
            (
                Point(
                    "three of 3", (sample(3), sample(3, start=4), sample(3, start=8))
                ),
                Point(
                    "anchor = positive",
                    (sample(3), sample(3), sample(3, start=8)),
                    True,
                ),
            ),
        ),
        (
            "ctc_loss",
            _ctc(own.ctc_loss),
            (
                Point("4 frames, 3 classes", (sample(1, 4, 3),)),
                Point("4 frames, zeros", (np.zeros((1, 4, 3)),), True),
            ),
        ),
    ]
    projected: Rows = [
        (name, getattr(projections, name), PREDICTED[:3])
        for name in (
            "projection_simplex",
            "projection_l1_ball",
            "projection_l2_ball",
            "projection_linf_ball",
            "projection_non_negative",
            "projection_l1_sphere",
            "projection_l2_sphere",
            "projection_hypercube",
        )
        if hasattr(projections, name)
    ]
    return [
        *(Entry(f"optax.losses.{name}", f, at) for name, f, at in rows),
        *(Entry(f"optax.projections.{name}", f, at) for name, f, at in projected),
    ]


def _against(loss: Callable[..., Any], targets: Any, predicted: Any) -> Any:
    return loss(predicted, targets)


def _of_one_row(loss: Callable[..., Any], label: Any, predicted: Any) -> Any:
    return loss(predicted[None], label[None])


def _ctc(loss: Callable[..., Any]) -> Callable[..., Any]:
    labels, none = jnp.array([[1, 2]]), jnp.zeros((1, 2))

    def of_logits(logits: Any) -> Any:
        return loss(logits, jnp.zeros(logits.shape[:2]), labels, none)

    return of_logits
