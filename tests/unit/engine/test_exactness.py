"""Packed queries over a cached prefix answer as the full re-encode of each does."""

import numpy as np
import pytest
import torch

from qanchor_plugin.engine import QueryAnchorEngine, SoftPrompt
from qanchor_plugin.engine.config import DEMO
from tests.unit.engine.conftest import DAY, TODAY, RandomVectors

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
PRESETS = ["demo", "paper"]
QUERIES = [
    "Will this household redeem a coupon in the next two months?",
    "beer?",
    "Will this user buy dog or cat food or cat litter, or anything else for a pet, soon?",
]


def _prompt(engine, num=6):
    tokens = np.random.default_rng(num).normal(size=(num, engine.config.token_width)).astype(np.float32)
    return SoftPrompt(tokens=tokens, engine_digest=engine.digest)


def _queries(engine, count):
    made = []
    for number in range(count):
        text = QUERIES[number] if number < len(QUERIES) else f"question {number}?"
        made.append(engine.prepare_query(text, _prompt(engine) if number % 3 == 1 else None))
    return made


def _on(engine_named, name, device, paper_config, dtype="float32"):
    if device == "cpu" and dtype == "float32":
        return engine_named(name)
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    config = DEMO if name == "demo" else paper_config
    return QueryAnchorEngine.untrained(config.with_(dtype=dtype), device=device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("count", [1, 3, 32])
@pytest.mark.parametrize("name", PRESETS)
def test_float32_agrees_to_1e_5(engine_named, paper_config, prefixes_of, name, count, device):
    engine = _on(engine_named, name, device, paper_config)
    prefixes, queries = prefixes_of(engine), _queries(engine, count)
    cutoffs = [TODAY + row * DAY for row in range(len(prefixes))]
    fast = engine.embed(prefixes, queries, cutoffs)
    assert fast.shape == (len(prefixes), count, 128)
    assert fast.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(fast, axis=2), 1.0, atol=1e-5)
    assert np.abs(fast - engine.embed_reference(prefixes, queries, cutoffs)).max() <= 1e-5


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", PRESETS)
def test_bfloat16_agrees_in_direction(engine_named, paper_config, prefixes_of, name, device):
    engine = _on(engine_named, name, device, paper_config, dtype="bfloat16")
    prefixes, queries = prefixes_of(engine), _queries(engine, 5)
    cutoffs = [TODAY] * len(prefixes)
    fast = engine.embed(prefixes, queries, cutoffs)
    slow = engine.embed_reference(prefixes, queries, cutoffs)
    assert (fast * slow).sum(axis=2).min() >= 0.9995


@pytest.mark.parametrize("name", PRESETS)
def test_day_and_index_positions_both_agree(paper_config, users, name):
    config = (DEMO if name == "demo" else paper_config).with_(time="index" if name == "demo" else "day")
    engine = QueryAnchorEngine.untrained(config, device="cpu")
    prefixes = engine.build_prefixes(users, RandomVectors(engine.encoder_dim))
    queries, cutoffs = _queries(engine, 4), [TODAY] * len(prefixes)
    fast = engine.embed(prefixes, queries, cutoffs)
    assert np.abs(fast - engine.embed_reference(prefixes, queries, cutoffs)).max() <= 1e-5


@pytest.mark.parametrize("name", PRESETS)
def test_split_packs_and_batches_change_nothing(engine_named, prefixes_of, name):
    engine = engine_named(name)
    prefixes, queries = prefixes_of(engine), _queries(engine, 6)
    cutoffs = [TODAY] * len(prefixes)
    whole = engine.embed(prefixes, queries, cutoffs)
    small = QueryAnchorEngine(
        engine.config.with_(max_packed_tokens=24, token_budget=128),
        engine.modules,
        engine._encoder,
        engine._tokenizer,
    )
    small.modules.config = small.config
    try:
        np.testing.assert_allclose(small.embed(prefixes, queries, cutoffs), whole, atol=1e-5)
    finally:
        engine.modules.config = engine.config


@pytest.mark.parametrize("name", PRESETS)
def test_a_user_gets_the_same_alone_and_among_others(engine_named, prefixes_of, users, name):
    engine = engine_named(name)
    prefixes, queries = prefixes_of(engine), _queries(engine, 3)
    together = engine.embed(prefixes, queries, [TODAY] * len(prefixes))
    for row, user in enumerate(users):
        alone = prefixes_of(engine, [user])[0]
        assert alone.tokens.tobytes() == prefixes[row].tokens.tobytes()
        assert np.abs(engine.embed([alone], queries, [TODAY])[0] - together[row]).max() <= 1e-6


@pytest.mark.parametrize("name", PRESETS)
def test_queries_do_not_see_each_other(engine_named, prefixes_of, name):
    engine = engine_named(name)
    prefixes = prefixes_of(engine)[3:5]
    first, *others = _queries(engine, 4)
    alone = engine.embed(prefixes, [first], [TODAY] * 2)[:, 0]
    np.testing.assert_allclose(engine.embed(prefixes, [*others, first], [TODAY] * 2)[:, 3], alone, atol=1e-5)


def test_no_prefixes_and_no_queries_are_empty_arrays(demo, prefixes_of):
    assert demo.embed([], _queries(demo, 1), []).shape == (0, 1, 128)
    assert demo.embed(prefixes_of(demo)[:1], [], [TODAY]).shape == (1, 0, 128)


@pytest.mark.parametrize("name", PRESETS)
def test_the_same_call_twice_gives_the_same_bytes(engine_named, prefixes_of, name):
    engine = engine_named(name)
    prefixes, queries = prefixes_of(engine), _queries(engine, 3)
    cutoffs = [TODAY] * len(prefixes)
    again = engine.embed(prefixes, queries, cutoffs)
    assert engine.embed(prefixes, queries, cutoffs).tobytes() == again.tobytes()


def test_gradients_reach_every_part_that_training_changes(paper_config, users):
    engine = QueryAnchorEngine.untrained(paper_config, device="cpu")
    modules = engine.modules.requires_grad_(True)
    vectors = torch.randn(5, 32)
    rows = torch.cat([modules.hierarchy.users(vectors[:1]), modules.hierarchy.events("purchases", vectors)])
    valid = torch.ones(1, 6, dtype=torch.bool)
    kv = modules.prefill(rows[None], torch.arange(6)[None], valid)
    from qanchor_plugin.engine.suffix import pack

    packed = pack([engine.prepare_query("beer?").rows], multiple=1, time="index")
    answer = modules.answer(kv, valid, packed, torch.tensor([6]), torch.zeros(1, 3))
    answer[0, 0, 0].backward()
    assert modules.hierarchy.user.outer.weight.grad.abs().sum() > 0
    assert modules.hierarchy.event["of_purchases"].inner.weight.grad.abs().sum() > 0
    assert modules.projection.inner.weight.grad.abs().sum() > 0
    assert modules.backbone.model.model.layers[0].self_attn.k_proj.weight.grad.abs().sum() > 0
