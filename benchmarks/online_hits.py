"""What an online hit costs beside stock Feast: the same stored rows, read in turn by both, from SQLite.

Stock Feast reads an ordinary feature view of the same fields through its own provider; ours judges each row
(identity, freshness, empty or not) before it is served. Both are asked for the embedding alone.
"""

import argparse
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from deltalake import write_deltalake
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.feature_view import DUMMY_ENTITY
from feast.inference import update_feature_views_with_inferred_features_and_entities
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import FloatList, Value

from benchmarks.results import Row, keep, machine
from qanchor_plugin import schemas as S
from qanchor_plugin.declare import EntityRef, Modality, Profile, SourceSpec
from qanchor_plugin.feast_ext.anchor_view import anchor_view
from qanchor_plugin.feast_ext.declarations import is_anchor
from qanchor_plugin.feast_ext.online_rows import Anchor, WriteRow

COMMAND = "python -m benchmarks.online_hits"
CLOCK = datetime(2024, 7, 1, tzinfo=UTC)
NUM_USERS = 1_000
BLOCK = 50
"""Reads of one store before the other's turn: Feast keeps what a request resolves to for one registry at a
time, and a service has one."""

ALLOWED_RATIO, ALLOWED_MICROS = 1.1, 50.0
USER = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)


def main() -> None:
    """The medians stand in results/performance.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--reads", type=int, default=2000, help="timed reads of each store and size")
    reads = parser.parse_args().reads
    with tempfile.TemporaryDirectory() as scratch:
        stock, ours = stock_store(Path(scratch) / "stock"), anchor_store(Path(scratch) / "ours")
        rows = [row for size in (1, 100) for row in _compared(stock, ours, size, reads)]
    for row in rows:
        print(f"{row.row}: {row.value:.3f} {row.unit}, {row.baseline_name} {row.baseline:.3f}")
    keep("performance", rows)


def _compared(stock: FeatureStore, ours: FeatureStore, size: int, reads: int) -> list[Row]:
    """The rows of one request size."""
    random = np.random.default_rng(size)
    requests = [
        [{"user_id": int(one)} for one in random.choice(NUM_USERS, size, replace=False)] for _ in range(reads)
    ]
    seconds: dict[str, list[float]] = {"stock": [], "ours": []}
    blocks = [requests[start : start + BLOCK] for start in range(0, reads, BLOCK)]
    for block in blocks:
        for name, store in (("stock", stock), ("ours", ours)):
            for request in block[:2]:
                _seconds(store, request)
            seconds[name] += [_seconds(store, request) for request in block]
    theirs, own = (statistics.median(seconds[name]) * 1000 for name in ("stock", "ours"))
    named = "1 row" if size == 1 else f"{size} rows"
    row = _row(f"{named}, anchor view", own, "ms", theirs, "stock Feast", n=reads)
    return [row, _against(size, own, theirs, reads)]


def _seconds(store: FeatureStore, request: list[dict[str, int]]) -> float:
    started = time.perf_counter()
    store.get_online_features(["purchase:embedding"], request, full_feature_names=True)
    return time.perf_counter() - started


def _against(size: int, own: float, theirs: float, reads: int) -> Row:
    """What is added, against what is allowed (milliseconds in)."""
    if size == 1:
        added = max((own - theirs) * 1000, 1.0)
        return _row("1 row, added by anchors", added, "µs", ALLOWED_MICROS, "allowed", n=reads)
    return _row(f"{size} rows, times stock Feast", own / theirs, "x", ALLOWED_RATIO, "allowed", n=reads)


def _row(name: str, value: float, unit: str, baseline: float, baseline_name: str, *, n: int) -> Row:
    return Row(
        table="online-hits",
        row=name,
        value=round(value, 4),
        unit=unit,
        baseline=round(baseline, 4),
        baseline_name=baseline_name,
        ratio=baseline / value,
        n=n,
        command=COMMAND,
        machine=machine(),
    )


def stock_store(folder: Path) -> FeatureStore:
    """Feast as it comes, over the rows."""
    view = FeatureView(
        name="purchase",
        entities=[USER],
        schema=[
            Field(name="user_id", dtype=_anchor_view().entity_columns[0].dtype),
            *_anchor_view().features,
        ],
        source=FileSource(name="file", path=str(folder / "none.parquet"), timestamp_field="at"),
    )
    return _filled(_opened(folder, provider="local"), view)


def anchor_store(folder: Path) -> FeatureStore:
    """Ours, over the same rows, with a lake that says that they are fresh."""
    provider = "qanchor_plugin.feast_ext.provider.QAnchorProvider"
    settings = {"lake": "lake", "clock": CLOCK.isoformat(), "device": "cpu", "on_miss": "error"}
    store = _filled(_opened(folder, provider=provider, qanchor=settings), _anchor_view())
    anchor = Anchor.of(store.get_feature_view("purchase"))
    run = dict.fromkeys(S.JOB_RUNS.names) | {
        S.STATE: "succeeded",
        S.SCENARIO: "purchase",
        S.SCENARIO_ID: anchor.scenario_id,
        S.COMPLETE_TO: CLOCK,
    }
    write_deltalake(folder / "lake" / "job_runs", pa.Table.from_pylist([run], schema=S.JOB_RUNS))
    return store


def _anchor_view() -> FeatureView:
    source = SourceSpec(name="purchases", path="purchases", event_at="bought_at")
    entity = EntityRef(name="user", join_key="user_id", value_type="INT64")
    profile = Profile("shoppers", entity, [Modality("purchases", source, "{product}")])
    return anchor_view("purchase", "Will they buy again?", profile, timedelta(days=7))


def _opened(folder: Path, **given: Any) -> FeatureStore:
    folder.mkdir(parents=True)
    return FeatureStore(
        config=RepoConfig(
            project="hits",
            registry={"path": str(folder / "registry.db"), "cache_ttl_seconds": 3600},
            online_store={"type": "sqlite", "path": str(folder / "online.db")},
            entity_key_serialization_version=3,
            repo_path=folder,
            **given,
        )
    )


def _filled(store: FeatureStore, view: FeatureView) -> FeatureStore:
    """The view is registered and every user's row stands online; no source is read."""
    for entity in (USER, DUMMY_ENTITY):
        store.registry.apply_entity(entity, "hits")
    update_feature_views_with_inferred_features_and_entities(store.provider, [view], [USER], store.config)
    store.registry.apply_feature_view(view, "hits")
    kept = store.get_feature_view(view.name)
    store.provider.online_store.update(store.config, [], [kept], [], [USER], partial=True)
    identity = Anchor.of(kept).scenario_id[:16] if is_anchor(kept) else "0" * 16
    rows: list[WriteRow] = [(_key(user), _features(user, identity), CLOCK, None) for user in range(NUM_USERS)]
    store.provider.online_write_batch(store.config, kept, rows, None)
    return store


def _key(user: int) -> EntityKey:
    return EntityKey(join_keys=["user_id"], entity_values=[Value(int64_val=user)])


def _features(user: int, identity: str) -> dict[str, Value]:
    vector = np.random.default_rng(user).normal(size=S.EMBEDDING_DIM)
    seconds = int(CLOCK.timestamp())
    return {
        S.EMBEDDING: Value(float_list_val=FloatList(val=(vector / np.linalg.norm(vector)).tolist())),
        S.EMBEDDING_ID: Value(string_val=f"{identity}-{'a' * 16}"),
        S.CUTOFF: Value(unix_timestamp_val=seconds),
        S.AS_OF: Value(unix_timestamp_val=seconds),
        S.NUM_EVENTS: Value(int64_val=12),
        "status": Value(string_val="stored"),
        "data_as_of": Value(unix_timestamp_val=seconds),
    }


if __name__ == "__main__":
    main()
