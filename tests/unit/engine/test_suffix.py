"""Packing and masks, by hand."""

import numpy as np
import pytest
import torch

from qanchor_plugin.engine.suffix import (
    PreparedQuery,
    block_mask,
    causal_mask,
    pack,
    packs,
    suffix_positions,
)


def _rows(count, value):
    return np.full((count, 3), value, np.float32)


def test_two_queries_and_a_pad_by_hand():
    packed = pack([_rows(2, 1.0), _rows(1, 2.0)], multiple=4)
    assert packed.rows_SC[:, 0].tolist() == [1.0, 1.0, 2.0, 0.0]
    assert packed.query_S.tolist() == [0, 0, 1, -1]
    assert packed.last_Q.tolist() == [1, 2]
    valid = torch.tensor([[True, True, False], [True, False, False]])
    mask = block_mask(packed.query_S, valid).int()
    assert mask[0].tolist() == [
        # prefix 0 1 2, then tokens a0 a1 b0 pad
        [1, 1, 0, 1, 0, 0, 0],
        [1, 1, 0, 1, 1, 0, 0],
        [1, 1, 0, 0, 0, 1, 0],
        [0, 0, 0, 0, 0, 0, 1],
    ]
    assert mask[1, :, :3].tolist() == [[1, 0, 0], [1, 0, 0], [1, 0, 0], [0, 0, 0]]


def test_positions_restart_for_each_query():
    packed = pack([_rows(3, 1.0), _rows(2, 2.0)], multiple=1)
    start = torch.tensor([10, 700])
    assert suffix_positions(packed, start, time="index").tolist() == [
        [10, 11, 12, 10, 11],
        [700, 701, 702, 700, 701],
    ]
    assert suffix_positions(packed, start, time="day").tolist() == [
        [8, 9, 10, 9, 10],
        [698, 699, 700, 699, 700],
    ]


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
