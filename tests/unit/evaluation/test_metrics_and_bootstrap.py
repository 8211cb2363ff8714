"""AUC, KS and their bootstraps, by hand and against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from qanchor_plugin.evaluation.bootstrap import bootstrap_metrics, bootstrap_weights, standard_error
from qanchor_plugin.evaluation.metrics import auc, ks, weighted_auc_ks


def test_auc_and_ks_by_hand():
    labels = np.array([True, False, True, False])
    scores = np.array([0.9, 0.8, 0.8, 0.1])
    # pairs: .9>.8, .9>.1, .8=.8 (half), .8>.1 -> 3.5 of 4; at <= .1: negatives 1/2, positives 0
    assert auc(labels, scores) == 3.5 / 4
    assert ks(labels, scores) == 0.5


def test_auc_without_a_class_is_nan():
    assert np.isnan(auc(np.zeros(3, bool), np.arange(3)))
    assert np.isnan(ks(np.ones(3, bool), np.arange(3)))


def test_weights_count_as_repeated_rows():
    rng = np.random.default_rng(0)
    labels, scores = rng.random(50) < 0.3, rng.integers(0, 9, 50).astype(float)
    weights = rng.integers(0, 4, (5, 50))
    areas, gaps = weighted_auc_ks(labels, scores, weights)
    for weight, area, gap in zip(weights, areas, gaps, strict=True):
        drawn = np.repeat(np.arange(50), weight)
        assert area == pytest.approx(roc_auc_score(labels[drawn], scores[drawn]), abs=1e-12)
        assert gap == pytest.approx(ks(labels[drawn], scores[drawn]), abs=1e-12)


def test_bootstrap_weights_are_seeded_draws_behind_the_sample_itself():
    weights = bootstrap_weights(30, num_bootstraps=7, seed=3)
    assert weights.shape == (8, 30)
    assert (weights[0] == 1).all()
    assert (weights.sum(1) == 30).all()
    assert (weights == bootstrap_weights(30, num_bootstraps=7, seed=3)).all()
    assert (weights != bootstrap_weights(30, num_bootstraps=7, seed=4)).any()


def test_standard_error_of_an_auc_is_what_theory_says():
    # Hanley and McNeil: AUC .5 with 100 against 100: se = sqrt((1/12)(201)/(100 * 100)) = .0409
    rng = np.random.default_rng(0)
    labels = np.arange(200) < 100
    metrics = bootstrap_metrics(labels, rng.random((1, 200)), bootstrap_weights(200, seed=1))
    assert standard_error(metrics)[0] == pytest.approx(0.0409, abs=0.004)


def test_repeats_are_averaged():
    labels = np.array([True, False])
    ranks = np.array([[1.0, 0.5], [0.5, 1.0]])
    assert bootstrap_metrics(labels, ranks, np.ones((1, 2))).tolist() == [[0.5], [1.0]]
