"""Hand-computed levels: means over what is present, adapters by name."""

import numpy as np
import pytest
import torch

from qanchor_plugin.engine.build_prefix import restored
from qanchor_plugin.engine.config import DEMO
from qanchor_plugin.engine.features import age_features, summary_features
from qanchor_plugin.engine.hierarchy import HierarchicalEncoder, masked_mean
from qanchor_plugin.engine.prefix import layout
from qanchor_plugin.sequence.slice import MICROS_PER_DAY, Summary
from tests.unit.engine.conftest import TODAY, RandomVectors


def test_masked_mean_leaves_absent_rows_out_whatever_they_hold():
    vectors = torch.tensor([[[1.0, 2.0], [3.0, 6.0], [float("nan"), 9.0]], [[5.0, 5.0]] * 3])
    present = torch.tensor([[True, True, False], [False, False, False]])
    assert masked_mean(vectors, present).tolist() == [[2.0, 4.0], [0.0, 0.0]]


def test_names_with_and_without_an_adapter():
    encoder = HierarchicalEncoder(DEMO.with_(modalities=("items", "keys")))
    assert encoder.adapter_of("items") == "of_items"
    assert encoder.adapter_of("unheard_of") == encoder.adapter_of("another") == "of_default"


def test_an_absent_modality_adds_nothing_to_the_totals():
    encoder = HierarchicalEncoder(DEMO)
    features = torch.zeros(2, 9)
    features[1] = 1.0
    totals = encoder.totals("purchases", features)
    assert totals[0].abs().max() == 0.0
    assert totals[1].abs().max() > 0.0


def test_user_token_is_the_adapter_of_the_mean_over_present_modalities(paper, make_user):
    user = make_user(3, 2, row=False, seed=5)
    vectors = RandomVectors(32)
    prefix = paper.build_prefixes([user], vectors)[0]
    means = [
        vectors.lookup(one.text_id).astype(np.float32).mean(axis=0)
        for one in user.modalities
        if len(one.text_id)
    ]
    assert len(means) == 2  # the household row is missing, and must not pull the mean towards zero
    wanted = paper.modules.hierarchy.user(torch.from_numpy(np.mean(means, axis=0))[None])[0]
    num_template = len(prefix.tokens) - (1 + 2 + 3 + 2 + 4)
    got = restored(prefix.tokens, "bfloat16")[num_template].float()
    torch.testing.assert_close(got, wanted, atol=0.01, rtol=0.01)
    modality = paper.modules.hierarchy.modality(torch.from_numpy(means[1])[None])[0]
    got = restored(prefix.tokens, "bfloat16")[num_template + 2].float()
    torch.testing.assert_close(got, modality, atol=0.01, rtol=0.01)


def test_event_tokens_stand_between_their_start_and_end(paper, make_user):
    user = make_user(2, 0, row=False, seed=6)
    prefix = paper.build_prefixes([user], RandomVectors(32))[0]
    rows = restored(prefix.tokens, "bfloat16").float()[-4:]
    hierarchy = paper.modules.hierarchy
    vectors = torch.from_numpy(RandomVectors(32).lookup(user.modalities[0].text_id).astype(np.float32))
    wanted = torch.cat(
        [
            hierarchy.edge("purchases", end=False)[None],
            hierarchy.events("purchases", vectors),
            hierarchy.edge("purchases", end=True)[None],
        ]
    )
    torch.testing.assert_close(rows, wanted, atol=0.01, rtol=0.01)


def test_summary_features_by_hand():
    summary = Summary(
        count=6,
        count_30=1,
        count_90=3,
        first_at=100 * MICROS_PER_DAY,
        last_at=190 * MICROS_PER_DAY,
        amounts=np.array([9.0, -3.0]),
    )
    rows = summary_features([summary, None], [200 * MICROS_PER_DAY, None])
    plain = np.log1p([6, 1, 3, 10, 100, 6 / (100 / 30), 9, 3]) * [1, 1, 1, 1, 1, 1, 1, -1]
    centre = [1.2, 0.6, 0.9, 3.2, 3.8, 0.7, 1.2, 0.6]
    spread = [1.0, 0.7, 0.9, 1.6, 1.6, 0.5, 1.5, 1.2]
    np.testing.assert_allclose(rows[0, :8], (plain - centre) / spread, rtol=1e-5)
    assert rows[0, 8] == 1.0
    assert not rows[1].any()


def test_age_features_by_hand():
    rows = age_features([9, None, -2, 900])
    np.testing.assert_allclose(rows[0], [np.log(10) / 3, 0.1, 1.0], rtol=1e-6)
    assert rows[1].tolist() == [0.0, 0.0, 0.0]
    assert rows[2].tolist() == [0.0, 0.0, 1.0]
    assert rows[3, 1] == 4.0


@pytest.mark.parametrize("name", ["demo", "paper"])
def test_a_missing_modality_is_as_if_it_were_not_declared(engine_named, make_user, name):
    """The same purchases with and without an empty 'visits' beside them answer alike."""
    engine = engine_named(name)
    user = make_user(8, 0, row=False, seed=9)
    kept = tuple(one for one in user.modalities if one.name == "purchases")
    alone = type(user)(**{**vars(user), "modalities": kept})
    query = [engine.prepare_query("beer?")]
    both = engine.build_prefixes([user, alone], RandomVectors(engine.encoder_dim))
    bodies = [
        one.tokens[-len(layout(slices, engine.config)) :].tobytes()
        for one, slices in zip(both, (user, alone), strict=True)
    ]  # without the template: the paper's names the declared sources
    assert bodies[0] == bodies[1]
    assert np.isfinite(engine.embed(both, query, [TODAY] * 2)).all()
