"""The linear probe: what a standardised logistic regression reads from frozen features."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.evaluation.folds import Fold, Users, splits
from qanchor_plugin.evaluation.metrics import auc
from qanchor_plugin.extras import require

C_GRID = (1e-4, 1e-3, 3e-3, 1e-2, 1e-1, 1.0)
NUM_INNER_FOLDS = 3
MANY_ROWS = 5_000
"""From so many training rows on, Newton steps on the (d, d) Hessian reach the same optimum sooner
than L-BFGS, whose every step reads all rows again."""

Float64 = npt.NDArray[np.float64]
Scorer = Callable[..., Float64]
"""(training features, training labels, test features) -> test scores; where a user has several rows it is
given the training rows' users, too (``users=``)."""


def logistic_probe(
    train: Float64, labels: npt.NDArray[np.bool_], test: Float64, users: Users = None
) -> Float64:
    """Scores of ``test`` (n_test,) from a logistic regression whose C an inner 3-fold chose by AUC.

    Rows of one user (``users``, a number a row) are on one side of every inner fold: else the weakest
    penalty, which knows users again, would look best.
    """
    reached = np.zeros(len(C_GRID))
    for fitted, held in splits(labels, NUM_INNER_FOLDS, seed=0, users=users):
        scores = _path(train[fitted], labels[fitted], train[held], C_GRID)
        reached += np.nan_to_num([auc(labels[held], one) for one in scores])  # NaN: a fold of one class
    best = C_GRID[int(np.argmax(reached))]
    return _path(train, labels, test, (best,))[0]


def lightgbm_probe(
    train: Float64, labels: npt.NDArray[np.bool_], test: Float64, users: Users = None
) -> Float64:
    """Scores of ``test`` (n_test,) from 150 small, strongly regularised trees (one thread, seeded).

    It chooses nothing, so ``users`` do not matter.
    """
    lightgbm = require("lightgbm", purpose="The LightGBM baseline")
    model = lightgbm.train(
        {
            "objective": "binary",
            "learning_rate": 0.03,
            "num_leaves": 7,
            "min_data_in_leaf": 20,
            "feature_fraction": 0.5,
            "bagging_fraction": 0.8,
            "bagging_freq": 1,
            "lambda_l2": 5.0,
            "num_threads": 1,
            "seed": 0,
            "deterministic": True,
            "force_row_wise": True,
            "verbosity": -1,
        },
        lightgbm.Dataset(train, labels.astype(np.float64)),
        num_boost_round=150,
    )
    return np.asarray(model.predict(test, num_threads=1))


def out_of_fold_ranks(
    features: npt.NDArray[Any],
    labels: npt.NDArray[np.bool_],
    folds: Sequence[Sequence[Fold]],
    *,
    scorer: Scorer = logistic_probe,
    users: Users = None,
) -> Float64:
    """(R, n) out-of-fold scores, percentile-ranked within their fold (0 to 1], one row a repeat.

    Args:
        features: (n, d), finite.
        labels: (n,) bool.
        folds: R repeats, each of whose test rows cover every row once.
        users: (n,) the rows' users by number where one has several rows; the scorer is told.

    Raises:
        InputDataError: rows do not match, or a feature is not finite.
    """
    features = np.ascontiguousarray(features, np.float64)
    if features.ndim != 2 or len(features) != len(labels):
        raise InputDataError(f"features are {features.shape}; they must be ({len(labels)}, d).")
    if not np.isfinite(features).all():
        broken = sorted(set(np.nonzero(~np.isfinite(features))[1].tolist()))
        raise InputDataError(f"feature columns {broken[:10]} hold NaN or infinity; fill them first.")
    ranks = np.full((len(folds), len(labels)), np.nan)
    for repeat, repeat_folds in enumerate(folds):
        for train, test in repeat_folds:
            known = {} if users is None else {"users": users[train]}
            scores = scorer(features[train], labels[train], features[test], **known)
            ranks[repeat, test] = _percentile_ranks(scores)
    return ranks


def _percentile_ranks(scores: Float64) -> Float64:
    values, place, counts = np.unique(scores, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return ((last - (counts - 1) / 2) / len(scores))[place] if len(values) else scores


def _path(
    train: Float64, labels: npt.NDArray[np.bool_], test: Float64, strengths: Sequence[float]
) -> list[Float64]:
    """Test scores for each C (ascending: each fit starts from the one before).

    Features are standardised by the training rows; constant ones become zero.
    """
    linear = require("sklearn.linear_model", purpose="Evaluation")
    mean, scale = train.mean(0), train.std(0)
    scale = np.where(scale > 1e-12, scale, np.inf)
    train, test = (train - mean) / scale, (test - mean) / scale
    scores = []
    solver = "newton-cholesky" if len(train) >= MANY_ROWS else "lbfgs"
    model = linear.LogisticRegression(solver=solver, tol=1e-5, max_iter=2000, warm_start=True)
    for strength in strengths:
        model.set_params(C=strength).fit(train, labels)
        scores.append(test @ model.coef_[0])
    return scores
