"""The chunks of a training set: each one historical call of Feast's, written, counted, then committed."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import pyarrow.parquet as pq
from feast import FeatureStore
from pyspark.sql import DataFrame, SparkSession

from qanchor_plugin.declare import Settings
from qanchor_plugin.feast_ext.anchor_history import EXACT, forced_mode
from qanchor_plugin.feast_ext.historical import anchors
from qanchor_plugin.feast_ext.parquet_output import write_parquet
from qanchor_plugin.feast_ext.training_checkpoint import Checkpoint
from qanchor_plugin.feast_ext.training_report import counts_of
from qanchor_plugin.feast_ext.training_rows import Asked, chunk_of, chunk_sizes
from spark_jobs.failures import named_failures
from spark_jobs.progress import Progress
from spark_jobs.progress import stage as shown
from spark_jobs.retrieval_counts import RetrievalCounts, counted

STAGE = "rows of the training set"
_NOTHING = {"rows": 0, "views": {}, "prefills": 0, "engine_seconds": 0.0, "seconds": 0.0}


@dataclass(frozen=True, kw_only=True)
class TrainingRun:
    """A retrieval in progress."""

    store: FeatureStore
    settings: Settings
    spark: SparkSession
    asked: Asked
    at: str
    columns: tuple[str, ...]
    complete_to: datetime | None
    mode: str

    @property
    def views(self) -> list[str]:
        """Names of the anchor views, as columns are named."""
        return [one.view.projection.name_to_use() for one in anchors(self.asked.wanted)]

    @property
    def num_groups(self) -> int:
        """How many times a row is counted while it is answered."""
        default = self.store.config.offline_store.point_in_time
        with forced_mode(self.mode or None):
            exact = [one for one in anchors(self.asked.wanted) if one.mode(default) == EXACT]
        return len({(one.source.profile.name, one.source.scenario.engine) for one in exact})


def do_chunks(
    run: TrainingRun, checkpoint: Checkpoint, manifest: Mapping[str, Any], progress: Progress
) -> dict[str, Any]:
    """Every chunk is done; what this process did of it."""
    rows, num_chunks = run.spark.read.parquet(checkpoint.rows), manifest["chunks"]
    done = {n: told for n in range(num_chunks) if (told := checkpoint.done(n)) is not None}
    groups = run.num_groups
    started = time.perf_counter()
    with shown(run.spark, progress, STAGE, manifest["rows"] * max(1, groups)) as bar:
        bar.add(sum(told["rows"] for told in done.values()) * max(1, groups))
        with counted(run.spark, rows=bar if groups else None) as counts:
            sizes = chunk_sizes(rows, num_chunks)
            for number in [n for n in range(num_chunks) if n not in done]:
                if not sizes.get(number):
                    checkpoint.commit(number, _NOTHING)
                    continue
                told = _one_chunk(run, checkpoint, chunk_of(rows, number, num_chunks), number, counts)
                bar.add(0 if groups else told["rows"])
    return {"resumed_chunks": len(done), "seconds": round(time.perf_counter() - started, 3)}


def _one_chunk(
    run: TrainingRun, checkpoint: Checkpoint, rows: DataFrame, number: int, counts: RetrievalCounts
) -> dict[str, Any]:
    began, before = time.perf_counter(), (counts.prefills.value, counts.engine_micros.value)
    hidden = [f"{view}:{one}" for view in run.views for one in ("status", "num_events")]
    features = list(dict.fromkeys([*run.asked.features, *hidden]))
    place = checkpoint.place(number)
    with forced_mode(run.mode or None), named_failures(f"chunk {number} of the training set"):
        job: Any = run.store.get_historical_features(rows, features, full_feature_names=True)
        if run.asked.on_demand:  # they run on the driver only, a chunk at a time
            place.mkdir(parents=True)
            pq.write_table(job.to_arrow(), place / "part-0.parquet")
        else:
            write_parquet(job.to_spark_df(), str(place))
        answered = run.spark.read.parquet(str(place))
        told = counts_of(answered, run.views, run.at, run.complete_to)
    told |= {
        "prefills": counts.prefills.value - before[0],
        "engine_seconds": round((counts.engine_micros.value - before[1]) / 1e6, 3),
        "seconds": round(time.perf_counter() - began, 3),
        "lake_versions": lake_versions(run.spark, run.settings),
    }
    checkpoint.commit(number, told)
    return told


def lake_versions(spark: SparkSession, settings: Settings) -> dict[str, int]:
    """Delta versions of what exact answers read."""
    from spark_jobs.tables import Lake

    lake = Lake(spark, settings)
    return {name: lake.version(name) for name in ("behaviour_sequences", "profile_rows")}
