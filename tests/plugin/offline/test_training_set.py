"""``qanchor training-set``: chunks, resumption, what is refused, what is said beforehand and afterwards."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from feast import FeatureStore

from qanchor_plugin.feast_ext import training_chunks
from qanchor_plugin.feast_ext.training_set import Request, build_training_set
from tests.plugin.conftest import CLOCK
from tests.qanchor_command import Qanchor

pytestmark = pytest.mark.spark

FEATURES = ("cheese:embedding", "cheese:num_events", "served:num_events")
ROWS = [
    (1, datetime(2017, 4, 1, tzinfo=UTC), "a"),  # nothing yet
    (1, datetime(2017, 5, 10, tzinfo=UTC), "b"),  # the first purchase
    (1, datetime(2017, 5, 11, tzinfo=UTC), "c"),  # sees the same, a day later
    (1, CLOCK, "d"),  # both purchases
    (99, CLOCK, "e"),  # nobody
    (2, CLOCK - timedelta(days=1), "f"),  # nothing yet
    (2, CLOCK, "g"),
    (2, CLOCK + timedelta(days=8), "h"),  # after what the lake is complete to
]
PREFILLS = 5  # of user 1: none, one, two purchases; of user 2: none, one


@pytest.fixture
def entities(tmp_path: Path) -> Path:
    path = tmp_path / "labels.parquet"
    pd.DataFrame(ROWS, columns=["user_id", "event_timestamp", "label"]).to_parquet(path)
    return path


def request_of(entities: Path, folder: Path, **changes: Any) -> Request:
    given = {"entities": str(entities), "features": FEATURES, "rows_per_chunk": 1}
    given |= {"output": folder / "out", "checkpoint": folder / "work", **changes}
    return Request(**given)


def test_an_interrupted_retrieval_goes_on_and_ends_in_the_table_of_one_call(
    store: FeatureStore, entities: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = training_chunks._one_chunk, []

    def broken(run: Any, checkpoint: Any, rows: Any, number: int, counts: Any) -> Any:
        calls.append(number)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(run, checkpoint, rows, number, counts)

    monkeypatch.setattr(training_chunks, "_one_chunk", broken)
    asked = request_of(entities, tmp_path)
    with pytest.raises(KeyboardInterrupt):
        build_training_set(store, asked)
    assert not asked.output.exists()
    report = build_training_set(store, asked)
    assert calls[1] == calls[2]
    assert sorted(set(calls)) == sorted({*calls[:1], *calls[2:]})
    assert (report["rows"], report["chunks"]) == (8, 8)
    assert report["resumed_chunks"] == calls[1]  # all before the one that broke, those without rows too
    assert report["prefills"] == PREFILLS
    assert {kind: n for kind, n in report["views"]["cheese"].items() if n} == {
        "computed": 7,
        "empty": 2,
        "unknown": 1,
        "late": 1,
    }
    assert {kind: n for kind, n in report["views"]["served"].items() if n} == {
        "stored": 3,
        "missing": 5,
        "late": 1,
    }
    made = pd.read_parquet(asked.output)
    once = store.get_historical_features(
        pd.read_parquet(entities), list(FEATURES), full_feature_names=True
    ).to_df()
    assert list(made.columns) == list(once.columns)
    assert made["label"].tolist() == list("abcdefgh")
    pd.testing.assert_frame_equal(made, once, check_dtype=False)
    looked = pd.read_parquet(report["rows_to_look_at"])
    found = looked[looked["view"] == "cheese"].sort_values(["reason", "label"])
    pairs = list(zip(found["reason"], found["label"], strict=True))
    assert pairs == [("empty", "a"), ("empty", "f"), ("late", "h"), ("unknown", "e")]
    assert build_training_set(store, asked) == report


def test_a_checkpoint_of_other_inputs_is_refused_and_says_which(
    qanchor: Qanchor, store: FeatureStore, base: Path, entities: Path, tmp_path: Path
) -> None:
    given = ("--entities", str(entities), "--repo", str(base), "--checkpoint", str(tmp_path / "work"))
    out = ("--output", str(tmp_path / "out"), "--json")
    said = qanchor("training-set", *given, *out, "--features", "cheese:num_events", "--mode", "as_served")
    assert said.code == 0, said.err
    kinds = {kind: n for kind, n in said.json["views"]["cheese"].items() if n}
    assert kinds == {"stored": 2, "missing": 5, "outside_ttl": 1, "late": 1}
    other = qanchor("training-set", *given, *out, "--features", "cheese:num_events", "--mode", "exact")
    assert other.code == 1
    assert "begun with other inputs: mode was 'as_served', is 'exact'" in " ".join(other.err.split())
    entities.write_bytes(entities.read_bytes() + b" ")
    changed = qanchor("training-set", *given, *out, "--features", "cheese:num_events", "--mode", "as_served")
    assert "entities_digest was" in " ".join(changed.err.split())


def test_a_dry_run_counts_distinct_prefills_and_writes_nothing(
    qanchor: Qanchor, store: FeatureStore, base: Path, entities: Path, tmp_path: Path
) -> None:
    before = sorted(tmp_path.rglob("*"))
    given = ("--entities", str(entities), "--repo", str(base), "--features", "cheese:embedding")
    said = qanchor("training-set", *given, "--dry-run", "--json")
    assert said.code == 0, said.err
    found = said.json
    assert (found["rows"], found["prefills"], found["chunks"]) == (8, PREFILLS, 1)
    assert [(one["users"], one["blind"], one["scenarios"]) for one in found["reads"]] == [(3, 1, 1)]
    assert found["seconds"] > 0 < found["seconds_per_prefill"]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"--entities": "absent.parquet"}, "there is no such file"),
        ({"--features": "cheese"}, "write VIEW:FEATURE"),
        ({"--entities": "SELECT 1L AS user_id"}, "no single column holds instants"),
        ({"--entities": "SELECT now() AS event_timestamp"}, "no column ['user_id']"),
    ],
)
def test_what_cannot_be_retrieved_is_refused_with_what_to_do(
    qanchor: Qanchor,
    store: FeatureStore,
    base: Path,
    entities: Path,
    tmp_path: Path,
    changes: dict[str, str],
    told: str,
) -> None:
    given = {"--entities": str(entities), "--features": "cheese:embedding", "--repo": str(base)}
    given |= {"--output": str(tmp_path / "out"), **changes}
    said = qanchor("training-set", *[part for pair in given.items() for part in pair])
    assert (said.code, said.out) == (1, "")
    assert told in " ".join(said.err.split())
    assert "Traceback" not in said.err


def any_rows(work: Path) -> bool:
    """Whether a chunk that has rows is done."""
    return any(json.loads(one.read_text())["rows"] for one in work.glob("chunks/*.json"))


@pytest.mark.slow
def test_a_killed_process_loses_only_its_chunk(
    store: FeatureStore, base: Path, entities: Path, tmp_path: Path
) -> None:
    work, out = tmp_path / "work", tmp_path / "out"
    command = [sys.executable, "-m", "qanchor_plugin.cli.main", "training-set", "--json"]
    command += ["--entities", str(entities), "--repo", str(base), "--rows-per-chunk", "1"]
    command += ["--features", ",".join(FEATURES), "--output", str(out), "--checkpoint", str(work)]
    first = subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        ended = time.monotonic() + 400
        while not any_rows(work) and first.poll() is None:
            assert time.monotonic() < ended, "no chunk with rows was done in time"
            time.sleep(0.05)
    finally:
        os.killpg(first.pid, signal.SIGKILL)
        first.wait()
    assert not out.exists()
    stood = len(list(work.glob("chunks/*.json")))
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr[-3000:]
    report = json.loads(second.stdout)
    assert 1 <= report["resumed_chunks"] == stood < report["chunks"] == 8
    once = store.get_historical_features(
        pd.read_parquet(entities), list(FEATURES), full_feature_names=True
    ).to_df()
    pd.testing.assert_frame_equal(pd.read_parquet(out), once, check_dtype=False)
