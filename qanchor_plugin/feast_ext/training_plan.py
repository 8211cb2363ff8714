"""What a training set would take, before it is begun: counted without an engine, timed on a few rows."""

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from feast import FeatureStore
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from qanchor_plugin.feast_ext.anchor_history import forced_mode, plan_anchors
from qanchor_plugin.feast_ext.declarations import settings_from_config
from qanchor_plugin.feast_ext.entity_rows import of_spark
from qanchor_plugin.feast_ext.historical import anchors
from qanchor_plugin.feast_ext.training_rows import NUMBER, SPREAD, Asked
from spark_jobs.failures import named_failures
from spark_jobs.retrieval_counts import counted

if TYPE_CHECKING:
    from spark_jobs.plan_point_in_time import PlannedRead

SAMPLE_ROWS = 32
CHUNK_SECONDS = 300.0
_MOST_CHUNKS = 10_000


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """What a retrieval would do.

    Attributes:
        rows: entity rows.
        reads: what each profile and engine would be asked; none for a pure lookup.
        prefills: distinct (user, visible events), over all of them.
        seconds_per_prefill: of the engine, on one core's task; None for a pure lookup.
        sample_seconds: what the sample took, all of Spark's own work included.
        seconds: the whole, when it is cut into ``chunks``.
        chunks: of at most some five minutes each.
    """

    rows: int
    reads: "tuple[PlannedRead, ...]"
    prefills: int
    seconds_per_prefill: float | None
    sample_seconds: float
    seconds: float
    chunks: int


@dataclass(frozen=True, kw_only=True)
class _Timed:
    """A sample that was read: seconds of the call, of its tasks inside the engine, and its prefills."""

    seconds: float
    engine_seconds: float
    prefills: int


def planned_chunks(
    store: FeatureStore,
    rows: DataFrame,
    asked: Asked,
    *,
    num_rows: int,
    rows_per_chunk: int | None,
    mode: str | None,
) -> int:
    """How many chunks: so that each has some ``rows_per_chunk`` rows, or takes at most some five minutes."""
    if rows_per_chunk is not None:
        return max(1, -(-num_rows // rows_per_chunk))
    if num_rows <= 10 * SAMPLE_ROWS:
        return 1
    with forced_mode(mode), named_failures("the estimate of the training set"):
        timed = _timed(store, _sample(rows), asked)
    return chunks_of(timed.engine_seconds, num_rows, _slots(rows))


def estimated(
    store: FeatureStore, rows: DataFrame, asked: Asked, *, num_rows: int, mode: str | None
) -> Estimate:
    """Rows, prefills and time, from a count of what is visible and a timed sample.

    Args:
        rows: staged entity rows.
    """
    sample = _sample(rows)
    with forced_mode(mode), named_failures("the estimate of the training set"):
        reads = _planned(store, rows.drop(NUMBER, SPREAD), asked)
        _timed(store, sample, asked)  # loads engines and warms Spark
        timed = _timed(store, sample, asked)
    prefills = sum(one.prefills for one in reads)
    each = timed.engine_seconds / timed.prefills if timed.prefills else None
    slots = _slots(rows)
    fixed = max(0.0, timed.seconds - timed.engine_seconds / slots)
    chunks = chunks_of(timed.engine_seconds, num_rows, slots)
    return Estimate(
        rows=num_rows,
        reads=tuple(reads),
        prefills=prefills,
        seconds_per_prefill=each,
        sample_seconds=timed.seconds,
        seconds=prefills * (each or 0.0) / slots + fixed * chunks,
        chunks=chunks,
    )


def _sample(rows: DataFrame) -> DataFrame:
    """A few rows of users as they come, the same ones each time."""
    return rows.orderBy(F.xxhash64(NUMBER), NUMBER).limit(SAMPLE_ROWS).drop(NUMBER, SPREAD)


def chunks_of(engine_seconds: float, num_rows: int, slots: int) -> int:
    """How many chunks hold five minutes each if no two rows share a prefill.

    Args:
        engine_seconds: that the sample's rows took, over all tasks.
        slots: tasks that run at once.
    """
    work = engine_seconds * num_rows / min(num_rows, SAMPLE_ROWS) / slots
    return min(_MOST_CHUNKS, max(1, round(work / CHUNK_SECONDS)))


def _planned(store: FeatureStore, rows: DataFrame, asked: Asked) -> "list[PlannedRead]":
    requests = anchors(asked.wanted)
    default = store.config.offline_store.point_in_time
    settings = settings_from_config(store.config)
    return plan_anchors(settings, of_spark(rows), requests, default_mode=default)


def _timed(store: FeatureStore, rows: DataFrame, asked: Asked) -> _Timed:
    """These rows read, without what on-demand views do on the driver."""
    with counted(rows.sparkSession) as counts:
        began = time.perf_counter()
        job: Any = store.get_historical_features(rows, list(asked.features), full_feature_names=True)
        job.to_spark_df().write.format("noop").mode("overwrite").save()
        seconds = time.perf_counter() - began
    return _Timed(
        seconds=seconds, engine_seconds=counts.engine_micros.value / 1e6, prefills=counts.prefills.value
    )


def _slots(rows: DataFrame) -> int:
    """Tasks that run at once."""
    context = rows.sparkSession.sparkContext
    cpus = int(context.getConf().get("spark.task.cpus", "1") or 1)
    return max(1, context.defaultParallelism // cpus)


__all__ = ["Estimate", "chunks_of", "estimated", "planned_chunks"]
