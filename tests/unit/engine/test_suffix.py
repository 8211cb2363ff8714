"""Packing and masks, by hand."""

import numpy as np
import pytest
import torch

from qanchor_plugin.engine.suffix import (
    PreparedQuery,
    alone,
    block_mask,
    causal_mask,
    pack,
    packs,
    suffix_positions,
)


def _rows(count, value):
    return np.full((count, 3), value, np.float32)


def _numbered(*values):
    return np.array([[value] * 3 for value in values], np.float32)


def test_two_queries_and_a_pad_by_hand():
    packed = pack([_rows(2, 1.0), _rows(1, 2.0)], multiple=4, time="day")
    assert packed.rows_SC[:, 0].tolist() == [1.0, 1.0, 2.0, 0.0]
    assert packed.path_QT.tolist() == [[0, 1], [2, -1]]
    assert packed.last_Q.tolist() == [1, 2]
    valid = torch.tensor([[True, True, False], [True, False, False]])
    mask = block_mask(packed.sees_SS, valid).int()
    assert mask[0].tolist() == [
        # prefix 0 1 2, then tokens a0 a1 b0 pad
        [1, 1, 0, 1, 0, 0, 0],
        [1, 1, 0, 1, 1, 0, 0],
        [1, 1, 0, 0, 0, 1, 0],
        [1, 1, 0, 0, 0, 0, 1],
    ]
    assert mask[1, :, :3].tolist() == [[1, 0, 0]] * 4


def test_what_queries_begin_with_alike_stands_once_by_hand():
    queries = [_numbered(1, 2, 3, 9), _numbered(1, 2, 4, 9), _numbered(2, 9), _numbered(1, 2, 3, 9)]
    packed = pack(queries, multiple=1, time="index")
    # a 2 that begins a query is another token than one after a 1, and every <USER_EMB> (9) is a query's own
    assert packed.rows_SC[:, 0].tolist() == [1, 2, 3, 9, 4, 9, 2, 9, 9]
    assert packed.path_QT.tolist() == [[0, 1, 2, 3], [0, 1, 4, 5], [6, 7, -1, -1], [0, 1, 2, 8]]
    assert packed.last_Q.tolist() == [3, 5, 7, 8]
    assert packed.offset_S.tolist() == [0, 1, 2, 3, 2, 3, 0, 1, 3]
    assert packed.sees_SS.int().tolist() == [
        [1, 0, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 0, 0, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0, 0, 0, 0],
        [1, 1, 0, 0, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 1, 1, 0, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 0, 0],
        [0, 0, 0, 0, 0, 0, 1, 1, 0],
        [1, 1, 1, 0, 0, 0, 0, 0, 1],
    ]


def test_nothing_is_shared_where_positions_follow_from_a_querys_length():
    packed = pack([_numbered(1, 2, 9), _numbered(1, 2, 3, 9)], multiple=1, time="day")
    assert packed.rows_SC[:, 0].tolist() == [1, 2, 9, 1, 2, 3, 9]
    assert suffix_positions(packed, torch.tensor([10]), time="day").tolist() == [[8, 9, 10, 7, 8, 9, 10]]


def test_positions_restart_for_each_query():
    packed = pack([_rows(3, 1.0), _rows(2, 2.0)], multiple=1, time="index")
    start = torch.tensor([10, 700])
    assert suffix_positions(packed, start, time="index").tolist() == [
        [10, 11, 12, 10, 11],
        [700, 701, 702, 700, 701],
    ]
    assert suffix_positions(packed, start, time="day").tolist() == [
        [8, 9, 10, 9, 10],
        [698, 699, 700, 699, 700],
    ]


def test_one_query_alone_is_what_packing_it_gives():
    rows = _numbered(1, 2, 3)
    packed, made = pack([rows], multiple=1, time="index"), alone(torch.from_numpy(rows))
    for name, value in vars(packed).items():
        assert torch.equal(getattr(made, name), value), name


def test_prefill_mask_by_hand():
    mask = causal_mask(torch.tensor([[True, True, False]]))[0].int().tolist()
    assert mask == [[1, 0, 0], [1, 1, 0], [1, 1, 1]]


@pytest.mark.parametrize(("most", "runs"), [(100, [[0, 1, 2]]), (5, [[0, 1], [2]]), (1, [[0], [1], [2]])])
def test_runs_of_queries_keep_order_and_budget(most, runs):
    queries = [
        PreparedQuery(query="q", rows=_rows(count, 0.0), engine_digest="e", soft_prompt_digest=None)
        for count in (3, 2, 4)
    ]
    assert packs(queries, max_tokens=most) == runs
