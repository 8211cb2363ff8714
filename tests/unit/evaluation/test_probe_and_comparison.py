"""Folds, the probe and paired differences, where the truth is known."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.evaluation import probe
from qanchor_plugin.evaluation.comparison import Comparison
from qanchor_plugin.evaluation.folds import fixed_folds
from qanchor_plugin.evaluation.probe import (
    _path,
    _percentile_ranks,
    lightgbm_probe,
    logistic_probe,
    out_of_fold_ranks,
)

RNG = np.random.default_rng(5)
LABELS = RNG.random(400) < 0.3
NOISE = RNG.normal(size=(400, 3))
SIGNAL = np.column_stack([LABELS + RNG.normal(size=400), NOISE])


def test_folds_are_the_stated_ones():
    folds = fixed_folds(LABELS)
    assert len(folds) == 3
    for repeat in (0, 1, 2):
        stated = StratifiedKFold(5, shuffle=True, random_state=repeat).split(np.zeros(400), LABELS)
        for (train, test), (stated_train, stated_test) in zip(folds[repeat], stated, strict=True):
            assert (train == stated_train).all()
            assert (test == stated_test).all()


def test_rows_of_a_user_are_in_one_fold():
    users = np.arange(400) % 150
    for repeat in fixed_folds(LABELS, users=users):
        assert sorted(np.concatenate([test for _, test in repeat])) == list(range(400))
        for train, test in repeat:
            assert not set(users[train]) & set(users[test])
            assert abs(LABELS[test].mean() - LABELS.mean()) < 0.1


def test_labels_of_too_few_users_are_refused():
    with pytest.raises(InputDataError, match="at least 5 users"):
        fixed_folds(LABELS, users=np.where(LABELS, np.arange(400) % 4, 4 + np.arange(400)))


def test_one_class_is_refused():
    with pytest.raises(InputDataError, match="0 of 20 labels are positive"):
        fixed_folds(np.zeros(20, bool))


def test_percentile_ranks_by_hand():
    # sorted 1, 2, 2, 3: ranks 1, 2.5, 2.5, 4 of 4
    assert _percentile_ranks(np.array([2.0, 1.0, 3.0, 2.0])).tolist() == [0.625, 0.25, 1.0, 0.625]


def test_the_probe_is_a_standardised_logistic_regression():
    train, test = SIGNAL[:300] * 50 + 7, SIGNAL[300:] * 50 + 7
    (scores,) = _path(train, LABELS[:300], test, (0.01,))
    mean, scale = train.mean(0), train.std(0)
    model = LogisticRegression(C=0.01, tol=1e-10, max_iter=1000).fit((train - mean) / scale, LABELS[:300])
    np.testing.assert_allclose(scores, (test - mean) / scale @ model.coef_[0], atol=1e-3)


@pytest.mark.parametrize("strength", [1e-4, 1e-2, 1.0])
def test_many_rows_reach_the_same_optimum_by_another_road(monkeypatch, strength):
    random = np.random.default_rng(6)
    shared = random.normal(size=(probe.MANY_ROWS, 4))
    rows = np.hstack(
        [shared, shared @ random.normal(size=(4, 8)) + 0.1 * random.normal(size=(len(shared), 8))]
    )
    labels = rows[:, 0] + rows[:, 5] + random.normal(size=len(rows)) > 1
    (newton,) = _path(rows, labels, rows, (strength,))
    monkeypatch.setattr(probe, "MANY_ROWS", len(rows) + 1)
    (lbfgs,) = _path(rows, labels, rows, (strength,))
    assert np.abs(newton - lbfgs).max() < 1e-3 * np.abs(lbfgs).max()
    assert np.abs(newton - lbfgs).max() > 0  # it was another road


def test_test_rows_never_touch_their_own_score():
    folds = fixed_folds(LABELS)[:1]
    before = out_of_fold_ranks(SIGNAL, LABELS, folds)
    _, test = folds[0][0]
    changed = SIGNAL.copy()
    changed[test[0]] *= 100  # one test row of fold 0: the others of that fold keep their order
    after = out_of_fold_ranks(changed, LABELS, folds)
    others = test[1:]
    assert (np.argsort(before[0, others]) == np.argsort(after[0, others])).all()


def test_every_user_is_ranked_once_a_repeat():
    ranks = out_of_fold_ranks(SIGNAL, LABELS, fixed_folds(LABELS))
    assert ranks.shape == (3, 400)
    assert ((ranks > 0) & (ranks <= 1)).all()


@pytest.mark.parametrize("scorer", [logistic_probe, lightgbm_probe])
def test_differences_are_paired(scorer):
    comparison = Comparison({"one": LABELS, "two": ~LABELS})
    comparison.add("signal", SIGNAL, scorer=scorer)
    comparison.add("noise", {"one": NOISE, "two": NOISE}, scorer=scorer)
    # AUC of one shift of 1 between unit normals is Phi(1 / sqrt 2) = .760
    signal = comparison.estimate("signal", "one")
    assert abs(signal.value - 0.76) < 3 * signal.standard_error
    noise = comparison.estimate("noise")
    assert abs(noise.value - 0.5) < 3 * noise.standard_error
    gain = comparison.difference("signal", "noise")
    assert gain.value == pytest.approx(comparison.estimate("signal").value - noise.value)
    assert gain.value > 3 * gain.standard_error
    itself = comparison.difference("signal", "signal")
    assert (itself.value, itself.standard_error, itself.num_users) == (0.0, 0.0, 400)


def test_the_probe_does_not_choose_a_penalty_that_knows_users_again():
    """Twenty rows a user, who is told by 30 numbers of its own; the label is the user's and has nothing to do
    with them. Inner folds that part a user's rows praise learning users by heart."""
    random = np.random.default_rng(8)
    users = np.repeat(np.arange(60), 20)
    rows = (random.normal(size=(60, 30)))[users] + 0.1 * random.normal(size=(1200, 30))
    labels = (random.random(60) < 0.5)[users]
    apart, by_heart = logistic_probe(rows, labels, rows, users), logistic_probe(rows, labels, rows)
    assert np.abs(apart).max() < 0.5 * np.abs(by_heart).max()


def test_an_inner_fold_without_a_positive_does_not_choose_the_penalty():
    """Positives of two users cannot stand in three folds. The label is the first of 40 numbers, so the
    least penalty reads best; were the fold's NaN taken for the best, it would be the greatest."""
    users = np.concatenate([np.zeros(20), np.ones(20), 2 + np.arange(200)]).astype(np.int64)
    labels = users < 2
    rows = np.random.default_rng(9).normal(size=(240, 40))
    rows[:, 0] = 3 * labels + rows[:, 0]
    greatest = _path(rows, labels, rows, (probe.C_GRID[0],))[0]
    assert np.abs(logistic_probe(rows, labels, rows, users)).max() > 2 * np.abs(greatest).max()


def test_standard_errors_are_of_users_not_of_their_rows():
    """Four equal rows a user say no more than one."""
    users = np.repeat(np.arange(400), 4)
    once, four = Comparison({"one": LABELS}), Comparison({"one": np.repeat(LABELS, 4)}, users=users)
    once.add("signal", SIGNAL)
    four.add("signal", np.repeat(SIGNAL, 4, axis=0))
    told, found = once.estimate("signal"), four.estimate("signal")
    assert found.num_users == 400
    assert found.value == pytest.approx(told.value, abs=0.01)
    assert found.standard_error == pytest.approx(told.standard_error, rel=0.1)


def test_bad_input_is_named():
    comparison = Comparison({"one": LABELS})
    with pytest.raises(InputDataError, match="must be \\(400, d\\)"):
        comparison.add("short", SIGNAL[:10])
    with pytest.raises(InputDataError, match=r"columns \[2\] hold NaN"):
        comparison.add("nan", np.where(np.arange(4) == 2, np.nan, SIGNAL))
    with pytest.raises(InputDataError, match="no figure for model 'absent'"):
        comparison.estimate("absent")
    with pytest.raises(InputDataError, match="0 of 0 labels are positive"):
        Comparison({"one": LABELS[:0]})
    with pytest.raises(InputDataError, match="same users"):
        Comparison({"one": LABELS, "two": LABELS[:7]})
