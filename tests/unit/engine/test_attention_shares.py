"""Attention recomputed from the modules' inputs is the attention that they pay."""

import numpy as np
import pytest
import torch

from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.engine.meaning import MeaningAttention
from qanchor_plugin.errors import EngineError
from qanchor_plugin.evaluation.attention import (
    QUESTION,
    START,
    USER_TOKEN,
    last_attention,
    modality_attention,
    sources_of,
)

QUERY = "Will they buy cheese?"


def test_the_weights_reproduce_what_each_block_attends_to(
    demo: QueryAnchorEngine, users, prefixes_of
) -> None:
    user, prefix = users[4], prefixes_of(demo, [users[4]])[0]
    outputs, hiddens = [], []

    def keep(module: MeaningAttention, arguments: tuple, output: tuple) -> None:
        hiddens.append(arguments[0])
        outputs.append(output[0])

    layers = demo.modules.backbone.layers
    hooks = [block.attention.register_forward_hook(keep) for block in layers]
    weights = last_attention(demo, user, prefix, demo.prepare_query(QUERY))
    for hook in hooks:
        hook.remove()
    assert len(weights) == len(layers) == len(outputs)
    for block, weights_HN, hidden, output in zip(layers, weights, hiddens, outputs, strict=True):
        np.testing.assert_allclose(weights_HN.sum(1), 1, atol=1e-5)
        attention = block.attention
        with torch.inference_mode():
            values_HND = attention._heads(attention.value(hidden))[0]
            read_HD = (torch.from_numpy(weights_HN)[:, None] @ values_HND)[:, 0]
            expected = attention.out(read_HD.flatten())
        np.testing.assert_allclose(expected.numpy(), output[0, -1].numpy(), atol=1e-4)


def test_every_token_has_a_source(demo: QueryAnchorEngine, users, prefixes_of) -> None:
    user, prefix = (
        users[4],
        prefixes_of(demo, [users[4]])[0],
    )  # 33 purchases of which 20 are kept, 9 visits of 6
    query = demo.prepare_query(QUERY)
    sources = sources_of(demo, user, prefix, len(prefix.tokens) + query.num_tokens)
    assert sources.count(QUESTION) == query.num_tokens
    assert (sources.count(START), sources.count(USER_TOKEN)) == (1, 1)
    num_groups = {name: sum(one.modality == name for one in user.groups) for name in ("purchases", "visits")}
    # events, groups, one summary, a start and an end
    assert sources.count("purchases") == 20 + num_groups["purchases"] + 3
    assert sources.count("visits") == 6 + num_groups["visits"] + 3


def test_shares_sum_to_one_and_are_means_over_users(demo: QueryAnchorEngine, users, prefixes_of) -> None:
    chosen, query = users[4:6], demo.prepare_query(QUERY)
    prefixes = prefixes_of(demo, chosen)
    both = modality_attention(demo, chosen, prefixes, query)
    each = [modality_attention(demo, [a], [b], query) for a, b in zip(chosen, prefixes, strict=True)]
    assert sum(both.values()) == pytest.approx(1, abs=1e-5)
    assert both["visits"] == pytest.approx((each[0]["visits"] + each[1]["visits"]) / 2, abs=1e-6)
    assert "purchases" not in each[1]  # users[5] has none


def test_a_language_model_is_refused(paper: QueryAnchorEngine, users, prefixes_of) -> None:
    with pytest.raises(EngineError, match="backbones of kind 'meaning'"):
        modality_attention(paper, users[:1], prefixes_of(paper, users[:1]), paper.prepare_query(QUERY))
