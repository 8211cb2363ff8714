"""Label-free figures against numbers worked out by hand."""

import numpy as np
import pytest

from qanchor_plugin.training.sanity import effective_rank, judged

NONE = np.zeros((0, 2))


def of(embeddings, questions, **kwargs):
    given = {"scored": NONE, "opened": NONE} | kwargs
    return judged(np.array(embeddings, np.float64), questions, num_users=2, **given)


def test_rank_counts_directions():
    axes = np.concatenate([np.eye(4), -np.eye(4)])
    assert effective_rank(axes) == pytest.approx(4.0)
    assert effective_rank(np.ones((5, 3))) == 1.0
    # variances 9 and 1: shares .9 and .1
    expected = np.exp(-(0.9 * np.log(0.9) + 0.1 * np.log(0.1)))
    assert effective_rank(np.array([[3, 0], [-3, 0], [0, 1], [0, -1.0]])) == pytest.approx(expected)


def test_variance_is_shared_between_questions_and_users():
    # question a: (1,0) and (0,1); question b: (-1,0) and (0,-1)
    found = of([[1, 0], [0, 1], [-1, 0], [0, -1]], ["a", "a", "b", "b"])
    # centre 0, means (.5,.5) and (-.5,-.5): between .5, total 1
    assert found.question_share == pytest.approx(0.5)
    assert found.mean_cosine == pytest.approx(0.0)
    assert found.mean_norm == pytest.approx(1.0)


def test_accuracies_are_means_and_nan_without_pairs():
    found = of([[1, 0], [0, 1]], ["a", "a"], scored=np.array([[1, 0], [1, 1], [0, 1], [1, 1.0]]))
    assert (found.outcome_accuracy, found.outcome_baseline) == (0.75, 0.75)
    assert np.isnan(found.future_accuracy)
    assert found.to_dict()["future_accuracy"] is None


def test_collapse_and_deafness_are_named():
    same = of([[1, 0], [1, 1e-3], [1, 0], [1, 1e-3]], ["a", "a", "b", "b"])
    assert [one.split(":")[0] for one in same.warnings] == ["collapse", "collapse", "the query is not heard"]
    deaf = of([[1, 0], [1, 0], [0, 1], [0, 1]], ["a", "a", "b", "b"])
    assert any(one.startswith("the user is not heard") for one in deaf.warnings)


def test_a_wide_embedding_that_hears_both_has_no_warning():
    random = np.random.default_rng(0)
    questions = [one for one in "abcd" for _ in range(50)]
    offsets = np.repeat(random.normal(size=(4, 16)), 50, axis=0)
    rows = random.normal(size=(200, 16)) + offsets
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    found = of(rows, questions, scored=np.array([[1.0, 0.0]]))
    assert found.warnings == ()


def test_worse_than_the_usual_answer_is_named():
    random = np.random.default_rng(1)
    rows = random.normal(size=(40, 8))
    found = of(rows, ["a", "b"] * 20, scored=np.array([[0.0, 1.0]]))
    assert "most frequent answer" in found.warnings[-1]
