"""Every baseline of the Complete Journey by name, ready for :class:`Comparison`."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.evaluation.comparison import Comparison
from qanchor_plugin.evaluation.counts import category_features, count_features, matrix, own_features
from qanchor_plugin.evaluation.journey import Journey
from qanchor_plugin.evaluation.probe import Scorer, lightgbm_probe, logistic_probe
from qanchor_plugin.evaluation.tasks import Cut
from qanchor_plugin.evaluation.text_baselines import Encode, mean_event_vectors, profile_vectors

Matrix = npt.NDArray[np.floating]
NUM_CATEGORIES = 178
"""The most category counts that a baseline has."""


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Features, (n, d) for all tasks or one for each, and what reads them."""

    features: Matrix | Mapping[str, Matrix]
    scorer: Scorer = logistic_probe


def hand_made_baselines(journey: Journey, cut: Cut, households: npt.NDArray[np.int64]) -> dict[str, Baseline]:
    """Counts, category counts and the own-category feature, by logistic regression and LightGBM."""
    counts = matrix(count_features(journey, cut, households))
    with_100, with_178 = (
        np.hstack([counts, matrix(category_features(journey, cut, households, num_categories=most))])
        for most in (100, NUM_CATEGORIES)
    )
    own = own_features(journey, cut, households)
    return {
        "counts, LR": Baseline(features=counts),
        "counts, LightGBM": Baseline(features=counts, scorer=lightgbm_probe),
        "counts and 100 categories, LR": Baseline(features=with_100),
        "counts and 100 categories, LightGBM": Baseline(features=with_100, scorer=lightgbm_probe),
        "counts and 178 categories, LR": Baseline(features=with_178),
        "counts and 178 categories, LightGBM": Baseline(features=with_178, scorer=lightgbm_probe),
        "counts and own category, LR": Baseline(
            features={task: np.hstack([counts, matrix(columns)]) for task, columns in own.items()}
        ),
    }


def text_baselines(
    journey: Journey, cut: Cut, households: npt.NDArray[np.int64], encode: Encode
) -> dict[str, Baseline]:
    """A sentence encoder without a user model: pooled events, and the profile as one text."""
    return {
        "mean-pooled MiniLM, LR": Baseline(features=mean_event_vectors(journey, cut, households, encode)),
        "MiniLM over the profile text, LR": Baseline(
            features=profile_vectors(journey, cut, households, encode)
        ),
    }


def vectors_baseline(path: str | Path, households: npt.NDArray[np.int64]) -> Baseline:
    """Vectors made elsewhere (CoLES): an ``.npz`` with household_id (N,) and vectors (N, d).

    Raises:
        InputDataError: a household has no vector.
    """
    with np.load(path, allow_pickle=False) as stored:
        ids, vectors = stored["household_id"], stored["vectors"].astype(np.float64)
    order = np.argsort(ids)
    place = np.minimum(np.searchsorted(ids[order], households), len(ids) - 1)
    found = ids[order][place] == households
    if not found.all():
        raise InputDataError(
            f"{path} has no vector for {int((~found).sum())} of {len(households)} households; "
            "make it again at this cut (benchmarks/coles/run.py)."
        )
    return Baseline(features=vectors[order][place])


def add_baselines(comparison: Comparison, baselines: Mapping[str, Baseline]) -> None:
    """Probe every baseline into ``comparison``."""
    for name, baseline in baselines.items():
        comparison.add(name, baseline.features, scorer=baseline.scorer)
