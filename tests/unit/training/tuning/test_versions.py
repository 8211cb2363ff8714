"""Versions on disk: numbered upwards, never written over."""

import json

import numpy as np
import pytest

from qanchor_plugin.engine import SoftPrompt
from qanchor_plugin.engine.weights import read_tensors
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.training.tuning import TunedPrompt
from qanchor_plugin.training.tuning.versions import versions, write_version


def _tuned(value):
    prompt = SoftPrompt(tokens=np.full((2, 4), value, np.float32), engine_digest="e")
    return TunedPrompt(
        soft_prompt=prompt,
        prototypes=np.eye(2, 128, dtype=np.float32),
        losses=(0.7, 0.5),
        held_out_losses=((0, 0.7), (2, 0.6)),
        best_step=2,
        num_rows=18,
        num_held_out=2,
    )


def test_a_new_version_leaves_the_earlier_as_it_was(tmp_path):
    first = write_version(tmp_path / "churn", _tuned(1.0), {"seed": 3})
    before = {one.name: one.read_bytes() for one in first.iterdir()}
    second = write_version(tmp_path / "churn", _tuned(2.0), {"seed": 4})
    assert [one.name for one in (first, second)] == ["v1", "v2"]
    assert {one.name: one.read_bytes() for one in first.iterdir()} == before
    assert SoftPrompt.load(first).tokens[0, 0] == 1.0  # going back is naming it
    assert SoftPrompt.load(second).tokens[0, 0] == 2.0
    assert sorted(one.name for one in (tmp_path / "churn").iterdir()) == ["v1", "v2"]


def test_numbers_go_on_from_the_highest(tmp_path):
    for name in ("v2", "v10", "vx", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "v11").write_text("a file")
    assert versions(tmp_path) == [2, 10]
    assert versions(tmp_path / "absent") == []


def test_the_record_says_what_was_tuned(tmp_path):
    folder = write_version(tmp_path, _tuned(1.0), {"seed": 3, "scenario": "churn"})
    record = json.loads((folder / "tuning.json").read_text())
    assert record["version"] == "v1"
    assert (record["seed"], record["scenario"], record["num_rows"], record["best_step"]) == (
        3,
        "churn",
        18,
        2,
    )
    assert record["soft_prompt_digest"] == SoftPrompt.load(folder).digest
    assert record["held_out_losses"] == [[0, 0.7], [2, 0.6]]
    np.testing.assert_array_equal(
        read_tensors(folder / "prototypes.safetensors")["prototypes"], np.eye(2, 128)
    )


def test_a_folder_that_cannot_be_written_leaves_nothing_behind(tmp_path):
    (tmp_path / "taken").write_text("a file")
    with pytest.raises(InputDataError, match="cannot be written"):
        write_version(tmp_path / "taken", _tuned(1.0), {})
    with pytest.raises(TypeError):
        write_version(tmp_path / "churn", _tuned(1.0), {"seed": object()})
    assert list((tmp_path / "churn").iterdir()) == []
