"""Whatever changes the bytes of a cached thing changes its digest, and nothing else does."""

import json
import shutil

import pytest
import torch

from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.engine.config import DEMO
from qanchor_plugin.engine.event_encoder import EventEncoder


def _digests(engine):
    return engine.digest, engine.prefix_digest, engine.kv_digest, engine.encoder_id


def _changed(engine, other):
    names = ("digest", "prefix", "kv", "encoder")
    pairs = zip(names, _digests(engine), _digests(other), strict=True)
    return {name for name, one, two in pairs if one != two}


def _untrained(config):
    return QueryAnchorEngine.untrained(config, device="cpu")


def test_the_same_config_gives_the_same_digests(demo, paper, paper_config):
    assert _changed(demo, QueryAnchorEngine.load("demo", device="cpu")) == set()
    assert _changed(paper, _untrained(paper_config)) == set()


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({"time": "index"}, {"digest", "prefix", "kv"}),
        ({"epoch": "1999-01-01"}, {"digest", "prefix", "kv"}),
        ({"rope_base": 500.0}, {"digest", "prefix", "kv"}),
        ({"token_dtype": "float32"}, {"digest", "prefix", "kv"}),
        ({"dtype": "bfloat16"}, {"digest", "prefix", "kv"}),
        ({"seed": 2}, {"digest", "prefix", "kv"}),
        ({"betas": (15.0, 7.0)}, {"digest", "kv"}),
        ({"projection_dim": 300}, {"digest"}),
        ({"token_budget": 99, "name": "other"}, set()),
    ],
)
def test_config_of_the_demo(changes, changed):
    demo, other = _untrained(DEMO), _untrained(DEMO.with_(**changes))
    if "projection_dim" in changes:  # the seed's later draws differ, too: compare the config's part alone
        other.modules.hierarchy.load_state_dict(demo.modules.hierarchy.state_dict())
        other.modules.backbone.load_state_dict(demo.modules.backbone.state_dict())
        other.modules.start.copy_(demo.modules.start)
    assert _changed(demo, other) == changed


@pytest.mark.parametrize(
    ("changes", "changed"),
    [
        ({"template": "Sources: {sources}"}, {"digest", "prefix", "kv"}),
        ({"query_template": "Q: {query}"}, {"digest"}),
        ({"dtype": "bfloat16"}, {"digest", "prefix", "kv"}),
    ],
)
def test_config_of_the_paper_s_preset(paper, paper_config, changes, changed):
    assert _changed(paper, _untrained(paper_config.with_(**changes))) == changed


@pytest.mark.parametrize(
    ("weight", "changed"),
    [
        ("hierarchy.user.outer.weight", {"digest", "prefix", "kv"}),
        ("hierarchy.edges.of_default", {"digest", "prefix", "kv"}),
        ("backbone.model.model.embed_tokens.weight", {"digest", "prefix", "kv"}),
        ("backbone.model.model.layers.1.self_attn.v_proj.weight", {"digest", "kv"}),
        ("projection.outer.bias", {"digest"}),
        ("suffix.user_emb", {"digest"}),
    ],
)
def test_weights(paper, paper_config, weight, changed):
    other = _untrained(paper_config)
    with torch.no_grad():
        other.modules.get_parameter(weight).view(-1)[0] += 1.0
    assert _changed(paper, other) == changed
    is_projection = weight.startswith("projection.")
    assert (other.projection_digest != paper.projection_digest) == is_projection


def test_rope_of_the_language_model(paper, paper_config, language_model_folder, tmp_path):
    folder = tmp_path / "lm"
    shutil.copytree(language_model_folder, folder)
    given = json.loads((folder / "config.json").read_text())
    given["rope_parameters"]["rope_theta"] = 5000.0
    (folder / "config.json").write_text(json.dumps(given))
    other = _untrained(paper_config.with_(backbone_source=str(folder)))
    assert _changed(paper, other) == {"digest", "prefix", "kv"}


def test_tokenizer(paper, paper_config):
    from qanchor_plugin.engine.load import load_language_model
    from qanchor_plugin.engine.random_shape import byte_tokenizer

    model, _ = load_language_model(paper_config.backbone_source, torch.float32)
    tokenizer = byte_tokenizer(("<|endoftext|>", "<|one_more|>"))
    other = QueryAnchorEngine.from_parts(paper_config, model=model, tokenizer=tokenizer, device="cpu")
    assert _changed(paper, other) == {"digest", "prefix", "kv"}


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "1_Pooling/config.json"])
def test_the_event_encoder_s_files(sentence_encoder_folder, tmp_path, file):
    folder = tmp_path / "encoder"
    shutil.copytree(sentence_encoder_folder, folder)
    one = EventEncoder(str(sentence_encoder_folder), dim=32)
    assert EventEncoder(str(folder), dim=32).encoder_id == one.encoder_id
    changed = tmp_path / "changed"
    shutil.copytree(sentence_encoder_folder, changed)
    with (changed / file).open("ab") as stream:
        stream.write(b" ")
    assert EventEncoder(str(changed), dim=32).encoder_id != one.encoder_id


def test_identity_needs_no_loaded_encoder():
    engine = QueryAnchorEngine.load("demo", device="cpu")
    assert len(engine.digest) == 32
    assert engine.count_query_tokens("beer?") == 4
    assert not engine._encoder.is_loaded
