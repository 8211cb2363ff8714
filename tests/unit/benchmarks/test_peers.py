"""What peers are asked, and how their figures are reckoned."""

import numpy as np
import pytest

from benchmarks.marginal import flops, suffix_to_prefill
from benchmarks.peers.__main__ import Measured, _figure, _row, _times
from benchmarks.peers.workload import ALIKE_TOKENS, QUERY_TOKENS, USER_EMB, drawn, measure
from benchmarks.world.declarations import QUERIES
from feast_repo.evaluation.questions import right_queries
from qanchor_plugin.engine.config import DEMO
from qanchor_plugin.engine.event_encoder import EventEncoder
from qanchor_plugin.engine.suffix import pack


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
    asked = {"prefix": 8, "users": 2, "queries": [1, 3], "alike": [3], "repeats": 2, "seed": 5}
    records = measure(peer, asked)
    assert [(one["case"], one["queries"], one["users"], len(one["seconds"])) for one in records] == [
        ("full", 1, 1, 2),
        ("batch", 1, 2, 2),
        ("batch", 3, 2, 2),
        ("batch-alike", 3, 2, 2),
        ("more", 1, 1, 2),
        ("more", 3, 1, 2),
        ("more-alike", 3, 1, 2),
    ]
    assert [one[:2] for one in peer.seen] == [(1, 1)] * 3 + [(2, 1)] * 6 + [(2, 3)] * 12
    assert len({one[2] for one in peer.seen}) == 21
    assert len(peer.kept) == 1
    assert len(set(peer.asked[3:])) == 18


def test_a_repetition_that_takes_long_is_the_only_one_and_counts(monkeypatch):
    monkeypatch.setattr("benchmarks.peers.workload.LONG_SECONDS", 0)
    peer = Recorder()
    records = measure(peer, {"prefix": 8, "users": 2, "queries": [1], "alike": [], "repeats": 2, "seed": 5})
    assert [len(one["seconds"]) for one in records] == [1, 1, 1]
    assert len(peer.asked) == 1


def test_a_query_has_its_tokens_and_the_one_that_is_read():
    queries = drawn("query", 3, QUERY_TOKENS, 1)
    assert queries.shape == (3, QUERY_TOKENS + 1)
    assert (queries[:, -1] == USER_EMB).all()
    assert (queries == drawn("query", 3, QUERY_TOKENS, 1)).all()
    assert drawn("user", 2, 7, 1).shape == (2, 7)


def test_queries_that_begin_alike_share_just_their_first_tokens():
    queries = drawn("query", 3, QUERY_TOKENS, 1, alike=ALIKE_TOKENS)
    same = (queries == queries[0]).all(axis=0)
    assert same.tolist() == [True] * ALIKE_TOKENS + [False] * (QUERY_TOKENS - ALIKE_TOKENS) + [True]


@pytest.mark.parametrize(
    ("queries", "whole", "packed"), [(right_queries(), 120, 91), (QUERIES, 143, 100)], ids=["store", "world"]
)
def test_scenarios_of_one_repository_share_what_the_docs_say(queries, whole, packed):
    """docs/engine-speed.md: word pieces, with the template's first words before each query."""
    encoder = EventEncoder(DEMO.encoder_source, dim=DEMO.encoder_dim)
    texts = [f"Query: {one}" for one in queries.values()]
    ids = encoder.model.tokenizer(texts, add_special_tokens=False)["input_ids"]
    rows = [np.array([*one, USER_EMB], np.float32)[:, None] for one in ids]
    assert sum(map(len, rows)) == whole
    assert len(pack(rows, multiple=1, time="index").rows_SC) == packed
    assert 1 - packed / whole == pytest.approx(ALIKE_TOKENS / QUERY_TOKENS, abs=0.06)


def test_users_of_another_length_begin_otherwise():
    short, long = drawn("user", 2, 700, 1), drawn("user", 2, 1050, 1)
    assert (short[0] == long[0, :700]).mean() < 0.01


def test_ratios_are_times_of_the_peer_over_the_engines():
    key, own = ("float32", 256, "batch", 10, "vllm"), ("float32", 256, "batch", 10, "qanchor")
    seconds = {key: [4.0, 6.0, 5.0], own: [2.0, 2.0]}
    row = _row(key, seconds[key], 6, seconds)
    assert (row.value, row.baseline, row.ratio) == (15.0, 30.0, 2.0)
    assert row.note == "median 25% slower than the fastest"
    assert row.table == "peers-batch-10"
    others = {("bfloat16", 700, *one[2:]): took for one, took in seconds.items()}
    key = ("bfloat16", 700, *key[2:])
    assert _row(key, others[key], 6, others).table == "peers-batch-10-bfloat16-700"
    cell = _times(key, others)
    assert (cell.table, cell.value) == ("peers-times-bfloat16-700", 2.0)
    assert (cell.row, cell.column) == ("batch of users, 10 queries each", "vllm")
    assert _figure(("float32", 256, "more", 10, "vllm"), [0.5], 1) == 500.0


def test_a_peer_that_is_left_out_of_a_dtype_is_said_in_its_tables_and_stays_in_the_others():
    found = Measured(left_out={("bfloat16", "llama.cpp"): "failed with 1; see the log"})
    for dtype in ("float32", "bfloat16"):
        found.seconds[dtype, 256, "more", 10, "qanchor"] = [1.0]
        found.users[dtype, 256, "more", 10, "qanchor"] = 1
    (said,) = [one for one in found.rows() if one.value is None]
    assert said.table == "peers-more-10-bfloat16"
    assert said.row.startswith("llama.cpp, bfloat16")
    assert said.note == "left out: failed with 1; see the log"


def test_flops_are_those_of_the_reference():
    # reference/serving.md: 0.716 L GF + 43,008 L^2; full 539 GF, suffix of 21 tokens 16.3 GF at 700 (33x)
    assert flops(700, 0) == pytest.approx(0.716e9 * 700 + 43_008 * 700**2, rel=2e-3)
    assert flops(721, 0) == pytest.approx(539e9, rel=2e-3)
    assert flops(21, 700) == pytest.approx(16.3e9, rel=1e-2)
    assert suffix_to_prefill(1050, 21) == pytest.approx(16.95 / 799.2, rel=5e-3)
