"""From a push to the answer that has seen it, against the refresh that brings the same event.

A store over SQLite, the demo engine, one scenario a policy. Each push is of one event of one user; the next
read computes. The other way is timed on the same lake: the row appended to the source, then
feast materialize.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from contextlib import chdir
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, PushSource, RepoConfig, ValueType
from feast.data_source import PushMode
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.table_format import DeltaFormat

from benchmarks.results import Row, keep, machine
from benchmarks.shop import END, QUESTIONS, write_purchases
from qanchor_plugin.declare import Modality, Profile
from qanchor_plugin.feast_ext import anchor_view, push_view

COMMAND = "python -m benchmarks.push"
EVENTS = 100
READ = ["first:embedding", "first:status", "first:num_events"]


def main() -> None:
    """The seconds stand in results/performance.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=500, help="users in the lake")
    parser.add_argument("--pushes", type=int, default=50, help="pushes timed")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch, chdir(scratch):
        write_purchases(Path("purchases"), num_users=given.users, events_per_user=EVENTS)
        store = _store(Path(scratch))
        refresh = _seconds(lambda: _materialize(store))
        _push(store, 0, PushMode.ONLINE)
        _read(store, 0)
        timed = [_push_and_read(store, 1 + number % (given.users - 1)) for number in range(given.pushes)]
        stored = [_seconds(lambda: _read(store, given.users - 1)) for _ in range(given.pushes)]
        _push(store, 1, PushMode.OFFLINE)
        batch = _seconds(lambda: _materialize(store))
    pushes, reads = np.array(timed).T
    print(f"first refresh {refresh:.1f} s; a day's {batch:.1f} s; stored read {np.median(stored):.4f} s")
    _keep(pushes, reads, stored, batch)


def _keep(pushes: np.ndarray, reads: np.ndarray, stored: list[float], batch: float) -> None:
    whole = float(np.median(pushes + reads))
    figures: list[dict[str, Any]] = [
        {
            "row": "from push to an answer that has seen it, median",
            "value": 1000 * whole,
            "baseline": 1000 * batch,
            "baseline_name": "append to the source, then feast materialize",
            "ratio": batch / whole,
        },
        {"row": "of that, store.push of one event, median", "value": 1000 * float(np.median(pushes))},
        {"row": "of that, the read, median", "value": 1000 * float(np.median(reads))},
        {"row": "push and read, 95th percentile", "value": 1000 * float(np.quantile(pushes + reads, 0.95))},
        {"row": "a stored read beside it, median", "value": 1000 * float(np.median(stored))},
    ]
    rows = [
        Row(table="push", unit="ms", n=len(pushes), command=COMMAND, machine=machine(), **one)
        for one in figures
    ]
    keep("performance", rows)


def _store(folder: Path) -> FeatureStore:
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    source = SparkSource(
        name="purchases",
        path=str(folder / "purchases"),
        table_format=DeltaFormat(),
        timestamp_field="bought_at",
    )
    modality = Modality(
        "purchases", source, "{brand} {product}", group_by=("category",), amounts=("price",), max_events=64
    )
    profile = Profile("shoppers", user, [modality], window=timedelta(days=365))
    push = PushSource(name="purchases_push", batch_source=source)
    views = [
        anchor_view(name, query, profile) for name, query in zip(("first", "second"), QUESTIONS, strict=False)
    ]
    plugin = "qanchor_plugin.feast_ext"
    store = FeatureStore(
        config=RepoConfig(
            project="bench",
            provider=f"{plugin}.provider.QAnchorProvider",
            registry=str(folder / "registry.db"),
            online_store={"type": "sqlite", "path": str(folder / "online.db")},
            offline_store={"type": f"{plugin}.offline_store.QAnchorOfflineStore"},
            batch_engine={"type": f"{plugin}.compute_engine.QAnchorComputeEngine"},
            entity_key_serialization_version=3,
            repo_path=folder,
            qanchor={
                "lake": "lake",
                "clock": END.isoformat(),
                "device": "cpu",
                "max_compute_ms": 60_000,
                "spark_master": "local[2]",
                "spark_conf": {"spark.driver.memory": "1g"},
            },
        )
    )
    store.apply([user, push, push_view(push, profile), *views])
    return store


def _materialize(store: FeatureStore) -> None:
    store.materialize(END - timedelta(days=365), END)


def _push(store: FeatureStore, user: int, to: PushMode) -> None:
    row = {
        "user_id": [user],
        "bought_at": [END - timedelta(seconds=1)],
        "brand": ["brand new"],
        "product": [f"product {time.monotonic_ns()}"],
        "category": ["category 1"],
        "price": [1.0],
    }
    store.push("purchases_push", pd.DataFrame(row), to=to)


def _read(store: FeatureStore, user: int) -> dict[str, list[Any]]:
    return store.get_online_features(READ, [{"user_id": user}], full_feature_names=True).to_dict()


def _push_and_read(store: FeatureStore, user: int) -> tuple[float, float]:
    before = _read(store, user)["first__num_events"][0]
    pushed = _seconds(lambda: _push(store, user, PushMode.ONLINE))
    started = time.perf_counter()
    found = _read(store, user)
    read = time.perf_counter() - started
    if found["first__num_events"] != [before + 1]:
        raise SystemExit(f"user {user}: {before} events before the push, {found} after it")
    return pushed, read


def _seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
