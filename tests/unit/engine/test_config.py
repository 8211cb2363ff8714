"""Engine configs: presets, JSON round trip, refusals."""

import json

import pytest

from qanchor_plugin.engine import PRESETS, EngineConfig
from qanchor_plugin.engine.config import DEMO, QWEN
from qanchor_plugin.errors import EngineError


@pytest.mark.parametrize("config", PRESETS.values(), ids=PRESETS)
def test_json_round_trip(config):
    assert EngineConfig.from_json(config.to_json()) == config


def test_presets_are_what_the_design_says():
    assert (QWEN.backbone_source, QWEN.encoder_source) == ("Qwen/Qwen2.5-0.5B-Instruct", "thenlper/gte-base")
    assert (QWEN.hidden, QWEN.projection_dim, QWEN.embedding_dim) == (896, 512, 128)
    assert (QWEN.time, QWEN.group_tokens) == ("index", False)
    assert (DEMO.hidden, DEMO.num_heads, DEMO.betas, DEMO.encoder_dim) == (256, 4, (15.0, 7.5), 384)
    assert (DEMO.time, DEMO.group_tokens, DEMO.token_width) == ("day", True, 256 + DEMO.meaning_dim)
    assert EngineConfig.from_dict(DEMO.to_dict() | {"epoch": "1970-01-11"}).epoch_day == 10


def test_unknown_and_absent_keys_are_named():
    with pytest.raises(EngineError, match=r"unknown keys \['depth'\]"):
        EngineConfig.from_dict(DEMO.to_dict() | {"depth": 3})
    given = DEMO.to_dict()
    del given["hidden"]
    with pytest.raises(EngineError, match="hidden"):
        EngineConfig.from_dict(given)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"backbone": "gpt"}, r"backbone is 'gpt'; accepted are \['meaning', 'hf'\]"),
        ({"dtype": "int4"}, "dtype is 'int4'"),
        ({"time": "hours"}, "time is 'hours'"),
        ({"hidden": 130}, "hidden 130 does not divide into 4 heads"),
        ({"betas": ()}, "0 betas"),
        ({"num_layers": 0}, "must be positive"),
        ({"epoch": "yesterday"}, "epoch is 'yesterday'"),
        ({"query_template": "q"}, "does not hold {query}"),
        ({"token_budget": 0}, "token_budget is 0"),
        ({"backbone": "hf"}, "backbone_source is empty"),
    ],
)
def test_values_that_do_not_fit_are_named(changes, named):
    with pytest.raises(EngineError, match=named):
        DEMO.with_(**changes)


@pytest.mark.parametrize("text", ["{", "[1]", json.dumps("demo")])
def test_text_that_is_no_config(text):
    with pytest.raises(EngineError, match=r"not (a )?JSON"):
        EngineConfig.from_json(text)
