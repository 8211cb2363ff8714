"""The margin filter's precision and recall, by hand and on the synthetic world's twins."""

import numpy as np
import pytest

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.evaluation.margin_filter import margin_filter_quality
from qanchor_plugin.evaluation.synthetic import World, chunks
from qanchor_plugin.evaluation.synthetic.counts import world_thing_counts


def test_precision_and_recall_by_hand():
    user = np.array([[1.0, 0.0], [1.0, 0.0], [0.9, np.sqrt(1 - 0.81)], [0.0, 1.0]])
    answer = np.array([[0.6, 0.8], [0.6, 0.8], [0.6, 0.8], [0.0, 1.0]])
    # 0, 1, 2 are alike (uu 1 and .9, above .6 + .1 and, for row 2, uv .889 + .1 is above its uu of .9);
    # row 2: bound .989, nothing above it; row 3: bound 1.1, nothing above it
    quality = margin_filter_quality(user, answer, np.array([0, 0, 1, 2]), margin=0.1)
    # removed: (0,1), (0,2), (1,0), (1,2); (0,2): uu .9 > .7 -> removed, not planted
    assert (quality.num_removed, quality.num_planted) == (4, 2)
    assert (quality.precision, quality.recall) == (0.5, 1.0)


def test_nothing_removed_and_nothing_planted_are_nan():
    quality = margin_filter_quality(np.eye(2), np.eye(2), np.array([0, 1]), margin=0.1)
    assert np.isnan([quality.precision, quality.recall]).all()


def test_planted_twins_are_found_by_what_they_did():
    tables = next(chunks(World(num_users=1_000, seed=1)))
    things = world_thing_counts(tables, 1_000)
    seen = things / np.linalg.norm(things, axis=1, keepdims=True)
    noise = np.random.default_rng(0).normal(size=seen.shape)
    future = seen + 0.5 * noise / np.linalg.norm(noise, axis=1, keepdims=True)  # cosine with seen: .894
    users = np.arange(1_000)
    same = np.where(users % 20 == 19, users - 1, users)
    quality = margin_filter_quality(seen, future, same, margin=0.0)
    assert quality.num_planted == 100
    assert quality.precision > 0.9
    assert quality.recall > 0.8
    assert margin_filter_quality(seen, future, same, margin=0.2).num_removed == 0  # none is above 1


def test_sizes_must_agree():
    with pytest.raises(InputDataError, match="2, 2 and 1 rows"):
        margin_filter_quality(np.eye(2), np.eye(2), np.array([0]), margin=0.1)
