"""What peers are asked, and how their figures are reckoned."""

import numpy as np
import pytest

from benchmarks.marginal import flops, suffix_to_prefill
from benchmarks.peers.__main__ import _figure, _row
from benchmarks.peers.workload import QUERY_TOKENS, USER_EMB, drawn, measure


class Recorder:
    """Keeps what it is asked; answers zeros."""

    def __init__(self):
        self.seen, self.kept, self.asked = [], [], []

    def fresh(self, users, queries):
        self.seen += [(len(users), len(queries), user.tobytes()) for user in users]
        return np.zeros((len(users), len(queries), 2))

    def keep(self, user):
        self.kept.append(user.tobytes())

    def more(self, queries):
        self.asked += [one.tobytes() for one in queries]
        return np.zeros((len(queries), 2))


def test_no_repetition_sees_a_user_or_query_again_and_the_first_is_not_counted():
    peer = Recorder()
    asked = {"prefix": 8, "users": 2, "queries": [1, 3], "repeats": 2, "seed": 5}
    records = measure(peer, asked)
    assert [(one["case"], one["queries"], one["users"], len(one["seconds"])) for one in records] == [
        ("full", 1, 1, 2),
        ("batch", 1, 2, 2),
        ("batch", 3, 2, 2),
        ("more", 1, 1, 2),
        ("more", 3, 1, 2),
    ]
    assert [one[:2] for one in peer.seen] == [(1, 1)] * 3 + [(2, 1)] * 6 + [(2, 3)] * 6
    assert len({one[2] for one in peer.seen}) == 15
    assert len(peer.kept) == 1
    assert len(set(peer.asked[3:])) == 9


def test_a_repetition_that_takes_long_is_the_only_one_and_counts(monkeypatch):
    monkeypatch.setattr("benchmarks.peers.workload.LONG_SECONDS", 0)
    peer = Recorder()
    records = measure(peer, {"prefix": 8, "users": 2, "queries": [1], "repeats": 2, "seed": 5})
    assert [len(one["seconds"]) for one in records] == [1, 1, 1]
    assert len(peer.asked) == 1


def test_a_query_has_its_tokens_and_the_one_that_is_read():
    queries = drawn("query", 3, QUERY_TOKENS, 1)
    assert queries.shape == (3, QUERY_TOKENS + 1)
    assert (queries[:, -1] == USER_EMB).all()
    assert (queries == drawn("query", 3, QUERY_TOKENS, 1)).all()
    assert drawn("user", 2, 7, 1).shape == (2, 7)


def test_ratios_are_times_of_the_peer_over_the_engines():
    key, own = ("float32", 256, "batch", 10, "vllm"), ("float32", 256, "batch", 10, "qanchor")
    seconds = {key: [4.0, 6.0, 5.0], own: [2.0, 2.0]}
    row = _row(key, seconds[key], 6, seconds)
    assert (row.value, row.baseline, row.ratio) == (15.0, 30.0, 2.0)
    assert row.note == "median 25% slower than the fastest"
    assert _figure(("float32", 256, "more", 10, "vllm"), [0.5], 1) == 500.0


def test_flops_are_those_of_the_reference():
    # reference/serving.md: 0.716 L GF + 43,008 L^2; full 539 GF, suffix of 21 tokens 16.3 GF at 700 (33x)
    assert flops(700, 0) == pytest.approx(0.716e9 * 700 + 43_008 * 700**2, rel=2e-3)
    assert flops(721, 0) == pytest.approx(539e9, rel=2e-3)
    assert flops(21, 700) == pytest.approx(16.3e9, rel=1e-2)
    assert suffix_to_prefill(1050, 21) == pytest.approx(16.95 / 799.2, rel=5e-3)
