"""The flat forward against transformers' own, and int8 against float32, on a tiny Qwen2."""

import platform
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from qanchor_plugin.engine import QueryAnchorEngine, attention, forward
from qanchor_plugin.engine import decoder as decoders
from qanchor_plugin.engine.config import DEMO
from qanchor_plugin.engine.decoder import Decoder, supported
from qanchor_plugin.engine.linear import Linear, multiply
from qanchor_plugin.engine.suffix import block_mask, pack, suffix_positions
from qanchor_plugin.errors import EngineError
from tests.unit.engine.conftest import TODAY

LENGTHS = (5, 40, 17)
QUERIES = (
    "beer?",
    "Will this user buy cat food soon?",
    "Will this household redeem a coupon in two months?",
    "Will this household",
    "beer?",
)


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


MASKED = (attention.MaskedPrefill, attention.MaskedAnswer)


@pytest.fixture(params=["flash", "masked"])
def kinds(request, monkeypatch):
    """Attention as on a CPU, and as on other devices."""
    if request.param == "masked":
        monkeypatch.setattr(decoders, "kinds_for", lambda device: MASKED)


def _inputs(engine):
    random = torch.Generator().manual_seed(1)
    rows = torch.randn(3, max(LENGTHS), engine.config.hidden, generator=random)
    positions = torch.arange(max(LENGTHS)).expand(3, -1)
    return rows, positions, torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS).unsqueeze(1)


@pytest.mark.parametrize(("mlp_rows", "prefill_tokens"), [(640, 512), (7, 80), (62, 1)])
def test_keys_values_and_states_are_those_of_transformers(
    paper, monkeypatch, mlp_rows, prefill_tokens, kinds
):
    """Whatever goes together: all at once, two users in a prefill and uneven steps, one user alone."""
    monkeypatch.setattr(decoders, "MLP_ROWS", mlp_rows)
    monkeypatch.setattr(decoders, "PREFILL_TOKENS", prefill_tokens)
    rows, positions, valid = _inputs(paper)
    modules = paper.modules
    packed = pack([paper.prepare_query(one).rows for one in QUERIES], multiple=16, time="index")
    suffix, places = packed.rows_SC.expand(3, -1, -1), suffix_positions(packed, valid.sum(1), time="index")
    with torch.no_grad():  # the flat forward is for inference mode alone
        assert not modules.is_flat
        kv = modules.prefill(rows, positions, valid)
        allowed, is_suffix = block_mask(packed.sees_SS, valid), torch.ones(len(packed.rows_SC))
        states, _ = modules.backbone.encode(suffix, places, allowed, is_suffix, kv, packed.last_Q)
    with torch.inference_mode():
        assert modules.is_flat
        decoder = Decoder(modules.backbone.model)
        flat = decoder.prefill(rows, positions, valid)
        answered = decoder.answer(suffix, places, packed, flat, valid)
    for slow, fast in zip(kv, flat, strict=True):
        real = valid[:, None, :, None]
        assert (slow * real - fast).abs().max() <= 1e-5
    assert (states - answered).abs().max() <= 1e-5


def test_an_answer_without_any_prefix_is_the_query_alone(paper, kinds):
    packed = pack([paper.prepare_query(one).rows for one in QUERIES], multiple=1, time="index")
    valid, places = (
        torch.zeros(1, 0, dtype=torch.bool),
        suffix_positions(packed, torch.zeros(1), time="index"),
    )
    with torch.inference_mode():
        decoder = Decoder(paper.modules.backbone.model)
        cache = decoder.prefill(torch.zeros(1, 0, 64), torch.zeros(1, 0, dtype=torch.int64), valid)
        answered = decoder.answer(packed.rows_SC[None], places, packed, cache, valid)
        for number, text in enumerate(QUERIES):
            rows = torch.from_numpy(paper.prepare_query(text).rows)[None]
            alone = paper.modules.backbone.model.base_model(inputs_embeds=rows).last_hidden_state
            assert (alone[0, -1] - answered[0, number]).abs().max() <= 1e-5


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("device", DEVICES)
def test_masked_attention_embeds_as_the_slow_path(paper_config, prefixes_of, monkeypatch, device, dtype):
    """What CUDA runs; users of 0 to some dozen tokens together, every second from stored keys."""
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    monkeypatch.setattr(decoders, "kinds_for", lambda device: MASKED)
    engine = QueryAnchorEngine.untrained(paper_config.with_(dtype=dtype), device=device)
    prefixes, queries = prefixes_of(engine), [engine.prepare_query(one) for one in QUERIES]
    cutoffs = [TODAY] * len(prefixes)
    with torch.inference_mode():
        assert engine.modules.is_flat
        none_stored = np.zeros(len(prefixes), bool)
        ((places, size),) = forward.forwards(engine.modules, prefixes, none_stored, longest=16)
        assert len(places) == size == len(prefixes)
    exact = engine.embed_reference(prefixes, queries, cutoffs)
    answer = engine.embed(prefixes, queries, cutoffs)
    kept = [one if row % 2 else None for row, one in enumerate(engine.prefill(prefixes, scheme="bf16"))]
    stored = engine.embed(prefixes, queries, cutoffs, kept=kept)
    if dtype == "float32":
        assert np.abs(answer - exact).max() <= 1e-5
    assert (answer * exact).sum(2).min() >= 0.9995
    assert (stored * exact).sum(2).min() >= 0.9995


@pytest.mark.parametrize("answer_tokens", [1, 30])
def test_users_who_do_not_fit_a_step_get_the_same_answers(paper, monkeypatch, prefixes_of, answer_tokens):
    prefixes, queries = prefixes_of(paper), [paper.prepare_query("beer?")]
    cutoffs = [TODAY] * len(prefixes)
    together = paper.embed(prefixes, queries, cutoffs)
    monkeypatch.setattr(forward, "ANSWER_TOKENS", answer_tokens)
    steps = list(_steps(paper, prefixes, queries))
    assert len(steps) > 1
    assert np.abs(paper.embed(prefixes, queries, cutoffs) - together).max() <= 1e-5


@pytest.mark.parametrize(("device", "expected"), [("cpu", [4] * 25), ("cuda", [25] * 4)])
def test_a_cpu_fills_its_suffix_step_and_other_devices_the_token_budget(
    paper_config, monkeypatch, device, expected
):
    """100 users of 140 tokens, packs of 20: 4 x 20 fill a step of 80, 25 x 160 the budget of 4,000."""
    monkeypatch.setattr(forward, "device_of", lambda modules: torch.device(device))
    monkeypatch.setattr(forward, "ANSWER_TOKENS", 80)
    modules = SimpleNamespace(config=paper_config.with_(token_budget=4000))
    chunks = forward._flat_chunks(modules, np.full(100, 140), longest=20)
    assert [size for _, size in chunks] == expected


def _steps(engine, prefixes, queries):
    """The forwards that an answer takes."""
    with torch.inference_mode():
        none_stored = np.zeros(len(prefixes), bool)
        yield from forward.forwards(engine.modules, prefixes, none_stored, queries[0].num_tokens)


def test_weights_changed_after_an_answer_are_the_ones_used(paper_config, prefixes_of):
    engine = QueryAnchorEngine.untrained(paper_config.with_(dtype="bfloat16"), device="cpu")
    prefixes, queries, cutoffs = prefixes_of(engine)[3:5], [engine.prepare_query("beer?")], [TODAY] * 2
    before = engine.embed(prefixes, queries, cutoffs)
    with torch.no_grad():
        engine.modules.backbone.model.base_model.layers[0].mlp.down_proj.weight.mul_(5)
    after = engine.embed(prefixes, queries, cutoffs)
    assert np.abs(after - before).max() > 1e-3
    assert (after * engine.embed_reference(prefixes, queries, cutoffs)).sum(2).min() >= 0.9995


def test_int8_answers_near_float32_and_says_so_in_its_identity(paper, paper_config, prefixes_of):
    engine = QueryAnchorEngine.untrained(paper_config.with_(dtype="int8"), device="cpu")
    prefixes, queries = prefixes_of(engine), [engine.prepare_query(one) for one in QUERIES]
    cutoffs = [TODAY] * len(prefixes)
    answer, exact = (of(prefixes, queries, cutoffs) for of in (engine.embed, engine.embed_reference))
    assert (answer * exact).sum(2).min() >= 0.999
    assert np.abs(answer - exact).max() > 1e-4
    assert len({one.digest for one in (engine, paper)}) == 2
    assert len({one.kv_digest for one in (engine, paper)}) == 2


@pytest.mark.parametrize("num_rows", [0, 1, 21, 300])
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("packed", [True, False])
def test_a_product_and_what_follows_it_are_the_layers(num_rows, bias, packed, monkeypatch):
    """Packed for oneDNN or, where it is not there, as the weights are."""
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: packed)
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    layer = torch.nn.Linear(32, 8, bias=bias)
    rows, other = torch.randn(2 * num_rows, 32)[::2], torch.randn(num_rows, 8)
    with torch.inference_mode():
        ours, theirs = multiply([layer], torch.float32, int8=False), layer(rows)
        assert (type(ours) is Linear) != packed
        torch.testing.assert_close(ours(rows), theirs, rtol=0, atol=1e-6)
        torch.testing.assert_close(ours.silu(rows), torch.nn.functional.silu(theirs), rtol=0, atol=1e-6)
        torch.testing.assert_close(ours.times(rows, other), theirs * other, rtol=0, atol=3e-6)
        torch.testing.assert_close(ours.plus(rows, other), theirs + other, rtol=0, atol=2e-6)


def test_int8_rows_do_not_depend_on_each_other():
    layer = torch.nn.Linear(32, 8)
    times, rows = multiply([layer], torch.float32, int8=True), torch.randn(4, 32)
    together = times(rows * torch.tensor([[1.0], [1.0], [1000.0], [1.0]]))
    assert torch.equal(together[:2], times(rows)[:2])


def test_int8_by_hand():
    layer = torch.nn.Linear(2, 1)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.27, 0.5]]))
        layer.bias.copy_(torch.tensor([3.0]))
    # weight: scale 0.01, [127, 50]; row: scale 2, [127, 64] -> (127 * 127 + 64 * 50) * 0.02 + 3
    answer = multiply([layer], torch.float32, int8=True)(torch.tensor([[254.0, 128.0]]))
    assert answer.item() == pytest.approx((127 * 127 + 64 * 50) * 0.02 + 3, rel=1e-6)


def test_int8_is_refused_where_it_cannot_run():
    with pytest.raises(EngineError, match="dtype 'int8' is for language models"):
        DEMO.with_(dtype="int8")


def test_other_kinds_of_models_go_through_transformers():
    from transformers import Gemma2Config, Gemma2ForCausalLM

    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = Gemma2ForCausalLM(Gemma2Config(**shape, num_key_value_heads=1, head_dim=8, vocab_size=10))
    assert not supported(model)
