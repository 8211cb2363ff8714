"""Engines on disk: the same bits back, or an error that names the file and the next step."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from qanchor_plugin.backend.engines import load_anew, shared_engine
from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.engine.config import DEMO
from qanchor_plugin.engine.load import SHIPPED
from qanchor_plugin.engine.random_shape import random_language_engine
from qanchor_plugin.engine.serving import load_to_serve
from qanchor_plugin.errors import EngineError, MissingExtraError
from tests.unit.engine.conftest import TODAY

MAPPED = Path("/proc/self/maps")
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


@pytest.mark.parametrize("name", ["demo", "paper"])
def test_round_trip_is_bit_equal(engine_named, prefixes_of, users, tmp_path, name):
    engine = engine_named(name)
    engine.save_pretrained(tmp_path / "engine")
    moved = tmp_path / "moved"
    (tmp_path / "engine").rename(moved)
    again = QueryAnchorEngine.load(str(moved), device="cpu")
    assert (again.digest, again.prefix_digest) == (engine.digest, engine.prefix_digest)
    assert (again.kv_digest, again.encoder_id) == (engine.kv_digest, engine.encoder_id)
    one, other = prefixes_of(engine, users[:5]), prefixes_of(again, users[:5])
    for left, right in zip(one, other, strict=True):
        assert left.tokens.tobytes() == right.tokens.tobytes()
    answers = [
        made.embed(prefixes, [made.prepare_query("beer?")], [TODAY] * 5)
        for made, prefixes in ((engine, one), (again, other))
    ]
    assert answers[0].tobytes() == answers[1].tobytes()
    assert not list(moved.rglob("*.bin")) + list(moved.rglob("*.pt"))


def test_a_saved_engine_saves_again(paper, tmp_path):
    paper.save_pretrained(tmp_path / "one")
    QueryAnchorEngine.load(str(tmp_path / "one"), device="cpu").save_pretrained(tmp_path / "two")
    assert QueryAnchorEngine.load(str(tmp_path / "two"), device="cpu").digest == paper.digest


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("load", [load_to_serve, shared_engine, load_anew])
def test_an_engine_to_serve_answers_alike_and_holds_its_linear_weights_once(
    paper, prefixes_of, users, tmp_path, load, device
):
    if device == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    paper.save_pretrained(tmp_path / "engine")
    whole = QueryAnchorEngine.load(str(tmp_path / "engine"), device=device)
    lean = load(str(tmp_path / "engine"), device=device)
    assert (lean.digest, lean.kv_digest, lean.prefix_digest) == (
        whole.digest,
        whole.kv_digest,
        whole.prefix_digest,
    )
    prefixes = prefixes_of(lean, users[:5])
    asked = ([lean.prepare_query("beer?")], [TODAY] * 5)
    kept = lean.prefill(prefixes, scheme="bf16")
    assert lean.embed(prefixes, *asked).tobytes() == whole.embed(prefixes, *asked).tobytes()
    assert kept[0].kv_digest == whole.kv_digest
    layers = lean.modules.backbone.model.base_model.layers
    assert not [one for one in layers.parameters() if one.dim() == 2]
    for refused in (
        lambda: lean.embed_reference(prefixes, *asked),
        lambda: lean.save_pretrained(tmp_path / "again"),
        lambda: lean.modules.prefill(torch.zeros(1, 2, 64), torch.zeros(1, 2), torch.ones(1, 2, dtype=bool)),
    ):
        with pytest.raises(EngineError, match=r"loaded to serve.*Load it anew"):
            refused()


@pytest.mark.skipif(not MAPPED.exists(), reason="the system does not list a process's mapped files")
def test_an_engine_to_serve_lets_its_weights_file_go(paper, tmp_path):
    """Pages of a mapped file stay resident as long as one weight is a view of it."""
    paper.save_pretrained(tmp_path / "engine")
    lean = load_to_serve(str(tmp_path / "engine"), device="cpu")
    assert str(tmp_path) not in MAPPED.read_text()
    whole = QueryAnchorEngine.load(str(tmp_path / "engine"), device="cpu")
    assert str(tmp_path) in MAPPED.read_text()
    assert lean.digest == whole.digest


def test_an_engine_without_a_language_model_is_served_whole(demo, prefixes_of, users):
    lean = load_to_serve("demo", device="cpu")
    prefixes = prefixes_of(lean, users[:2])
    asked = ([lean.prepare_query("beer?")], [TODAY] * 2)
    assert np.abs(lean.embed(prefixes, *asked) - lean.embed_reference(prefixes, *asked)).max() <= 1e-5


def _truncated(path):
    path.write_bytes(path.read_bytes()[:-100])


def _other_shape(path):
    tensors = load_file(path)
    tensors["projection.outer.bias"] = np.zeros(3, np.float32)
    save_file(tensors, path)


def _other_names(path):
    tensors = load_file(path)
    tensors["brain"] = tensors.pop("projection.outer.bias")
    save_file(tensors, path)


def _unknown_key(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"depth": 1}))


@pytest.mark.parametrize(
    ("file", "spoil", "named"),
    [
        ("engine.safetensors", lambda path: path.unlink(), r"engine\.safetensors is absent.*Copy"),
        ("engine.safetensors", _truncated, r"engine\.safetensors is truncated.*Copy or save it again"),
        ("engine.safetensors", _other_shape, r"has shape \(3,\), the config wants \(128,\)"),
        ("engine.safetensors", _other_names, r"\['brain', 'projection.outer.bias'\] are missing or unexp"),
        ("config.json", lambda path: path.unlink(), r"config\.json cannot be read.*save_pretrained"),
        ("config.json", lambda path: path.write_text("{"), r"config\.json: engine config is not JSON"),
        ("config.json", _unknown_key, r"config\.json: engine config has unknown keys \['depth'\]"),
        ("backbone/model.safetensors", lambda path: path.unlink(), r"backbone in .* cannot be loaded"),
        ("backbone/model.safetensors", _truncated, r"backbone in .* cannot be loaded.*Copy"),
    ],
)
def test_spoilt_folders_are_refused(paper, tmp_path, file, spoil, named):
    paper.save_pretrained(tmp_path)
    spoil(tmp_path / file)
    with pytest.raises(EngineError, match=f"(?s){named}"):
        QueryAnchorEngine.load(str(tmp_path), device="cpu")


def test_weights_of_another_architecture(demo, tmp_path):
    demo.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(DEMO.with_(num_layers=3).to_json())
    with pytest.raises(EngineError, match="another architecture"):
        QueryAnchorEngine.load(str(tmp_path), device="cpu")


def test_a_spoilt_sentence_encoder_is_named_when_it_is_needed(paper, tmp_path):
    paper.save_pretrained(tmp_path)
    shutil.copy(tmp_path / "config.json", tmp_path / "encoder" / "config.json")
    engine = QueryAnchorEngine.load(str(tmp_path), device="cpu")
    with pytest.raises(EngineError, match=r"sentence encoder in .*encoder"):
        engine.encode_texts(["beer"])


def test_names_that_are_nothing():
    with pytest.raises(EngineError, match=r"neither a preset \(demo, qwen2.5-0.5b\) nor an existing folder"):
        QueryAnchorEngine.load("dmeo")
    with pytest.raises(EngineError, match="does not exist"):
        QueryAnchorEngine.from_pretrained("nowhere/at/all")
    with pytest.raises(EngineError, match="backbone folder /no/where does not exist"):
        QueryAnchorEngine.untrained(
            DEMO.with_(backbone="hf", backbone_source="/no/where", meaning_dim=0), device="cpu"
        )
    with pytest.raises(MissingExtraError, match="no_such_package"):
        QueryAnchorEngine.untrained(DEMO.with_(encoder_source="package:no_such_package"), device="cpu")


def test_sliding_windows_and_other_widths_are_refused(paper_config, demo):
    shape = {"hidden_size": 32, "num_attention_heads": 2, "num_key_value_heads": 2, "vocab_size": 300}
    shape |= {"num_hidden_layers": 2, "intermediate_size": 32}
    sliding = shape | {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 0}
    with pytest.raises(EngineError, match="sliding_attention"):
        random_language_engine(sliding, config=paper_config, encoder=demo._encoder, device="cpu")
    engine = random_language_engine(shape, config=paper_config, encoder=demo._encoder, device="cpu")
    with pytest.raises(EngineError, match="32 wide, the config says 64"):
        QueryAnchorEngine.from_parts(
            paper_config, model=engine.modules.backbone.model, encoder=demo._encoder, device="cpu"
        )


def test_random_language_engines_are_the_same_each_time(paper_config, demo):
    shape = {"hidden_size": 64, "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 300}
    shape |= {"num_hidden_layers": 1, "intermediate_size": 64}
    made = [
        random_language_engine(shape, config=paper_config, encoder=demo._encoder, device="cpu").digest
        for _ in range(2)
    ]
    assert made[0] == made[1]


def test_the_demo_preset_ships_trained_weights_within_25_megabytes(demo):
    assert SHIPPED["demo"].stat().st_size < 25e6
    fresh = QueryAnchorEngine.untrained(DEMO, device="cpu")
    assert demo.config == fresh.config
    assert demo.digest != fresh.digest
