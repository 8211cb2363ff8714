"""AUC and KS, with household weights: many bootstraps in one pass.

Shape letters: n users, B weightings (bootstraps).
"""

from typing import Any

import numpy as np
import numpy.typing as npt

Float64 = npt.NDArray[np.float64]


def auc(labels: npt.NDArray[Any], scores: npt.NDArray[Any]) -> float:
    """Area under the ROC curve, ties count half; NaN when a class is absent."""
    return float(weighted_auc_ks(labels, scores, np.ones((1, len(labels))))[0][0])


def ks(labels: npt.NDArray[Any], scores: npt.NDArray[Any]) -> float:
    """Largest gap between the classes' score distributions (0 to 1); NaN when a class is absent."""
    return float(weighted_auc_ks(labels, scores, np.ones((1, len(labels))))[1][0])


def weighted_auc_ks(
    labels: npt.NDArray[Any], scores: npt.NDArray[Any], weights: npt.NDArray[Any]
) -> tuple[Float64, Float64]:
    """((B,) AUC, (B,) KS), a user counted as often as its weight says.

    Args:
        labels: (n,) bool.
        scores: (n,), higher is more likely positive.
        weights: (B, n), zero or more.
    """
    scores = np.asarray(scores, np.float64)
    order = np.argsort(scores, kind="stable")
    starts = np.flatnonzero(np.r_[True, np.diff(scores[order]) != 0])
    ordered = np.asarray(weights, np.float64)[:, order]
    positive = np.asarray(labels, bool)[order]
    gained = np.add.reduceat(np.where(positive, ordered, 0.0), starts, axis=1)
    missed = np.add.reduceat(np.where(positive, 0.0, ordered), starts, axis=1)
    num_positive, num_negative = gained.sum(1), missed.sum(1)
    below = np.cumsum(missed, axis=1)
    pairs = (gained * (below - missed / 2)).sum(1)
    with np.errstate(invalid="ignore", divide="ignore"):
        area = pairs / (num_positive * num_negative)
        gaps = np.cumsum(gained, axis=1) / num_positive[:, None] - below / num_negative[:, None]
    return area, np.abs(gaps).max(axis=1)
