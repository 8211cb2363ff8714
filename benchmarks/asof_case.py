"""One case of the as-of benchmark: its tables, and what a store takes to answer it."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
from deltalake import write_deltalake

END = datetime(2025, 1, 1, tzinfo=UTC)
SPAN_MICROS = 365 * 86_400_000_000
FEATURES = ("a", "b", "c")
_CHUNK = 2_000_000


@dataclass(frozen=True, kw_only=True)
class Case:
    """How much history stands against how many entity rows.

    Attributes:
        folder: its tables, one a view.
        views: feature views of the call, three doubles each.
        rows: history rows of each.
        entities: entity rows.
        keys: distinct keys of both.
    """

    folder: str
    views: int
    rows: int
    entities: int
    keys: int


def write_case(case: Case) -> None:
    """The tables stand: keys and instants at random over a year, the same in every run."""
    random = np.random.default_rng(7)
    for view in range(case.views):
        for start in range(0, case.rows, _CHUNK):
            size = min(_CHUNK, case.rows - start)
            table = pa.table(
                {
                    "user_id": random.integers(0, case.keys, size),
                    "at": _instants(random, size),
                    **{name: random.integers(0, 1000, size).astype(np.float64) for name in FEATURES},
                }
            )
            write_deltalake(Path(case.folder) / f"view_{view}", table, mode="append")


def entity_frame(case: Case, num_rows: int) -> pd.DataFrame:
    """The first of the case's entity rows, at random keys and instants."""
    random = np.random.default_rng(11)
    at = _instants(random, case.entities).to_pandas()
    frame = pd.DataFrame({"user_id": random.integers(0, case.keys, case.entities), "event_timestamp": at})
    return frame.head(num_rows)


def measure(case: Case, store_type: str) -> dict[str, Any]:
    """Seconds, peaks of memory (MB) and the sums of the answer, in a session of this process."""
    from benchmarks.driver_memory import _jvm_of_this_process, peak_mb
    from qanchor_plugin.declare import Settings
    from spark_jobs.session import get_session

    folder = Path(case.folder)
    settings = Settings(
        lake=str(folder / "lake"),
        log_folder=str(folder / "logs"),
        spark_master="local[2]",
        spark_conf={"spark.driver.memory": "3g", "spark.executor.metrics.pollingInterval": "50ms"}
        | {"spark.executor.heartbeatInterval": "1s"},
    )
    spark = get_session(settings)
    store = _store(case, store_type, settings.lake)
    _answer(store, case, min(500, case.entities))  # warms the JVM
    started = time.perf_counter()
    sums = _answer(store, case, case.entities)
    seconds = time.perf_counter() - started
    time.sleep(2.5)  # two heartbeats: the peaks are told by them
    told = spark.sparkContext._jsc.sc().statusStore().executorList(False).apply(0).peakMemoryMetrics()
    memory = told.get().getMetricValue("OnHeapUnifiedMemory") / 2**20
    jvm = peak_mb(str(_jvm_of_this_process()))
    spark.stop()
    return {"seconds": seconds, "memory_mb": max(memory, 0.01), "jvm_mb": jvm, "sums": sums}


def _store(case: Case, store_type: str, lake: str) -> Any:
    from feast import Entity, FeatureStore, FeatureView, Field, RepoConfig, ValueType
    from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
    from feast.table_format import DeltaFormat
    from feast.types import Float64

    name = store_type.rsplit(".", 1)[-1].lower()
    folder = Path(case.folder)
    store = FeatureStore(
        config=RepoConfig(
            project="asof",
            provider="local",
            registry={"path": str(folder / f"{name}.db")},
            online_store={"type": "sqlite", "path": str(folder / f"{name}-online.db")},
            offline_store={"type": store_type},
            entity_key_serialization_version=3,
            repo_path=folder,
            qanchor={"lake": lake},
        )
    )
    user = Entity(name="user", join_keys=["user_id"], value_type=ValueType.INT64)
    views = [
        FeatureView(
            name=f"view_{number}",
            entities=[user],
            ttl=timedelta(0),
            schema=[Field(name=one, dtype=Float64) for one in FEATURES],
            source=SparkSource(
                name=f"view_{number}",
                path=str(folder / f"view_{number}"),
                table_format=DeltaFormat(),
                timestamp_field="at",
            ),
        )
        for number in range(case.views)
    ]
    store.apply([user, *views])
    return store


def _answer(store: Any, case: Case, num_rows: int) -> list[float]:
    """The sums of every feature of the answer, and how many rows it has."""
    from pyspark.sql import functions as F

    names = [f"view_{number}:{one}" for number in range(case.views) for one in FEATURES]
    asked = entity_frame(case, num_rows)
    frame = store.get_historical_features(asked, names, full_feature_names=True).to_spark_df()
    sums = [F.sum(name.replace(":", "__")) for name in names]
    return list(frame.agg(F.count(F.lit(1)).cast("double"), *sums).collect()[0])


def _instants(random: np.random.Generator, size: int) -> pa.Array:
    micros = round(END.timestamp() * 1_000_000) - random.integers(1, SPAN_MICROS, size)
    return pa.array(micros, pa.timestamp("us", tz="UTC"))
