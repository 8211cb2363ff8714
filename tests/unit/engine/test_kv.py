"""Stored keys and values answer as a prefill does: the fast path against the slow one, per scheme."""

import dataclasses

import numpy as np
import pytest
import torch

from qanchor_plugin.engine import EngineConfig, Prefix, QueryAnchorEngine
from qanchor_plugin.engine.config import DEMO, QWEN
from qanchor_plugin.engine.kv import SCHEMES
from qanchor_plugin.engine.kv_codec import payload_bytes
from qanchor_plugin.engine.random_shape import random_language_engine
from qanchor_plugin.errors import EngineError
from tests.unit.engine.conftest import DAY, TODAY

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
QUERIES = ["Will this household redeem a coupon?", "beer?", "Does it buy for a pet, or for a baby, soon?"]
STRESS = {
    "hidden_size": 256,
    "intermediate_size": 512,
    "num_hidden_layers": 6,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 300,
    "rope_parameters": {"rope_type": "default", "rope_theta": 1000000.0},
}


def least_cosine(first: np.ndarray, second: np.ndarray) -> float:
    return float((first * second).sum(-1).min())


def on(engine_named, name: str, device: str, paper_config: EngineConfig, dtype: str) -> QueryAnchorEngine:
    if device == "cpu" and dtype == "float32":
        return engine_named(name)
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    config = DEMO if name == "demo" else paper_config
    return QueryAnchorEngine.untrained(config.with_(dtype=dtype), device=device)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("name", ["demo", "paper"])
def test_a_stored_cache_answers_as_the_full_re_encode(
    engine_named, paper_config, prefixes_of, name, scheme, device
):
    engine = on(engine_named, name, device, paper_config, "float32")
    prefixes, queries = prefixes_of(engine), [engine.prepare_query(one) for one in QUERIES]
    cutoffs = [TODAY + row * DAY for row in range(len(prefixes))]
    kept = engine.prefill(prefixes, scheme=scheme)
    answer = engine.embed(prefixes, queries, cutoffs, kept=kept)
    reference = engine.embed_reference(prefixes, queries, cutoffs)
    assert least_cosine(answer, reference) >= 0.9999
    assert np.abs(answer - reference).max() > 0, "rounded keys cannot give the very same bits in float32"


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("name", ["demo", "paper"])
def test_bf16_of_a_bf16_engine_changes_no_bit(engine_named, paper_config, prefixes_of, name, device):
    engine = on(engine_named, name, device, paper_config, "bfloat16")
    prefixes, queries = prefixes_of(engine), [engine.prepare_query(one) for one in QUERIES]
    cutoffs = [TODAY] * len(prefixes)
    kept = engine.prefill(prefixes, scheme="bf16")
    loaded = engine.embed(prefixes, queries, cutoffs, kept=kept)
    if device == "cpu":
        np.testing.assert_array_equal(loaded, engine.embed(prefixes, queries, cutoffs))
    else:
        assert least_cosine(loaded, engine.embed(prefixes, queries, cutoffs)) >= 0.9999


def test_stored_and_prefilled_users_stand_in_one_call_in_order(paper, prefixes_of):
    prefixes, queries = prefixes_of(paper), [paper.prepare_query(one) for one in QUERIES]
    cutoffs = [TODAY] * len(prefixes)
    kept = paper.prefill(prefixes, scheme="bf16")
    mixed = [one if row % 2 else None for row, one in enumerate(kept)]
    together = paper.embed(prefixes, queries, cutoffs, kept=mixed)
    plain, loaded = (paper.embed(prefixes, queries, cutoffs, kept=one) for one in (None, kept))
    np.testing.assert_allclose(together[::2], plain[::2], atol=1e-5)
    np.testing.assert_allclose(together[1::2], loaded[1::2], atol=1e-5)
    assert np.abs(plain - loaded).max() > 1e-4, "else it could not be told which was taken"


def test_bytes_of_a_prefix_are_those_of_the_formula(paper, demo):
    # paper: 2 layers x (key + value) x 2 heads x 16 wide; int8 adds 4 bytes a channel of a key (2 x 2 x 16)
    # and 2 bytes a token and 16 channels of a value (2 x 2).
    # demo: 2 layers x (2 key + 4 value heads) x 64 wide.
    assert payload_bytes(paper.modules, "bf16", 10) == 10 * 2 * 2 * 2 * 16 * 2
    assert payload_bytes(paper.modules, "int8", 10) == 10 * 2 * 2 * 2 * 16 + 4 * 64 + 2 * 4 * 10
    assert payload_bytes(demo.modules, "bf16", 10) == 10 * 2 * (2 + 4) * 64 * 2


def stressed(bias: float, dtype: str = "float32") -> QueryAnchorEngine:
    """Qwen's shape, smaller, with random weights and key biases of a given standard deviation."""
    config = QWEN.with_(dtype=dtype, encoder_source=DEMO.encoder_source, encoder_dim=DEMO.encoder_dim)
    engine = random_language_engine(STRESS, config=config, device="cpu")
    drawn = torch.Generator().manual_seed(5)
    for layer in engine.modules.backbone.model.model.layers:
        layer.self_attn.k_proj.bias.data = bias * torch.randn(128, generator=drawn)
    return engine


def soft_prefix(engine: QueryAnchorEngine, num_tokens: int, seed: int) -> Prefix:
    rows = 0.02 * np.random.default_rng(seed).normal(size=(num_tokens, engine.token_width))
    bits = torch.from_numpy(rows).to(torch.bfloat16).view(torch.uint16).numpy()
    return Prefix(
        user=b"u%d" % seed,
        visible_digest="v",
        as_of=TODAY,
        num_events=num_tokens,
        tokens=bits,
        positions=np.arange(num_tokens, dtype=np.int32),
    )


def test_int8_holds_under_key_biases_of_30():
    engine = stressed(30.0)
    prefixes = [soft_prefix(engine, 256, seed) for seed in range(2)]
    queries = [engine.prepare_query(f"Will they buy {number}?") for number in range(10)]
    truth = engine.embed_reference(prefixes, queries, [TODAY] * 2)
    kept = engine.prefill(prefixes, scheme="int8")
    assert least_cosine(engine.embed(prefixes, queries, [TODAY] * 2, kept=kept), truth) >= 0.9995
    wrong = [
        dataclasses.replace(one, payload=_shaken(one.payload, 4 * (6 * 2 * 64) + 2 * (6 * 2 * 256 * 4)))
        for one in kept
    ]
    assert least_cosine(engine.embed(prefixes, queries, [TODAY] * 2, kept=wrong), truth) < 0.9995


def _shaken(payload: np.ndarray, start: int) -> np.ndarray:
    """Every eight-bit number moved by up to 12: what a scale spent on the bias costs."""
    moved = payload.copy()
    numbers = moved[start:].view(np.int8)
    noise = np.random.default_rng(0).integers(-12, 13, len(numbers))
    numbers[:] = np.clip(numbers + noise, -127, 127).astype(np.int8)
    return moved


def test_keys_of_another_engine_length_or_size_are_refused(paper, prefixes_of):
    prefixes, queries = prefixes_of(paper)[2:4], [paper.prepare_query("beer?")]
    kept = paper.prefill(prefixes, scheme="int8")
    for bad, told in (
        (dataclasses.replace(kept[0], kv_digest="0" * 32), "of engine 0000"),
        (kept[1], "were given for a prefix of"),
        (dataclasses.replace(kept[0], payload=kept[0].payload[:-1]), "were given for a prefix of"),
    ):
        with pytest.raises(EngineError, match=told):
            paper.embed(prefixes, queries, [TODAY] * 2, kept=[bad, None])
    with pytest.raises(EngineError, match=r"'int4' is unknown; accepted are \['bf16', 'int8'\]"):
        paper.prefill(prefixes, scheme="int4")


def test_what_changes_a_key_changes_the_kv_identity():
    first, bias = stressed(30.0), stressed(31.0)
    assert first.kv_digest != bias.kv_digest
    assert first.kv_digest == stressed(30.0).kv_digest
    heads = random_language_engine(
        {**STRESS, "num_attention_heads": 8, "num_key_value_heads": 4}, config=first.config, device="cpu"
    )
    other_heads = heads.modules.backbone.model.model.layers[0].self_attn.k_proj.weight.shape
    assert other_heads == first.modules.backbone.model.model.layers[0].self_attn.k_proj.weight.shape
    heads.modules.load_state_dict(first.modules.state_dict())
    heads.forget_digests()
    assert heads.prefix_digest == first.prefix_digest, "the same weights of the same shapes"
    assert heads.kv_digest != first.kv_digest, "but laid out as other heads"
