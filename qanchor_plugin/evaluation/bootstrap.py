"""Household bootstraps, joint over tasks and models, so that differences are paired."""

import numpy as np
import numpy.typing as npt

from qanchor_plugin.evaluation.metrics import Float64, weighted_auc_ks

NUM_BOOTSTRAPS = 400


def bootstrap_weights(num_users: int, *, num_bootstraps: int = NUM_BOOTSTRAPS, seed: int = 0) -> Float64:
    """(B + 1, n) how often each user is drawn; row 0 is the sample itself (all ones)."""
    draws = np.random.default_rng(seed).integers(0, num_users, (num_bootstraps, num_users))
    flat = draws + np.arange(num_bootstraps)[:, None] * num_users
    counts = np.bincount(flat.ravel(), minlength=num_bootstraps * num_users)
    return np.vstack([np.ones(num_users), counts.reshape(num_bootstraps, num_users).astype(np.float64)])


def bootstrap_metrics(labels: npt.NDArray[np.bool_], ranks: Float64, weights: Float64) -> Float64:
    """(2, B + 1): AUC and KS under each weighting, averaged over repeats.

    Args:
        labels: (n,) bool.
        ranks: (R, n) out-of-fold ranks.
        weights: (B + 1, n) of :func:`bootstrap_weights`; the same for every task and model.
    """
    return np.mean([np.stack(weighted_auc_ks(labels, one, weights)) for one in ranks], axis=0)


def standard_error(values: Float64) -> Float64:
    """Standard deviation over bootstraps: of (..., B + 1) values, those behind row 0."""
    return np.nanstd(values[..., 1:], axis=-1, ddof=1)
