"""From committed rows to the online store, without a whole table on the driver.

SQLite is one file on the driver's disk: rows come to it in bounded Arrow batches. Every other store is
written by the executors, which send back counts.
"""

import io
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

import pyarrow as pa
from feast import RepoConfig, utils
from feast.infra.common.materialization_job import MaterializationTask
from feast.infra.common.serde import SerializedArtifacts
from feast.infra.key_encoding_utils import deserialize_entity_key
from feast.infra.online_stores.helpers import get_online_store_from_config
from feast.protos.feast.types.Value_pb2 import FloatList, Value

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Settings
from qanchor_plugin.feast_ext import online_rows as R
from qanchor_plugin.feast_ext.online_rows import Anchor, WriteRow
from qanchor_plugin.feast_ext.online_write import OnlineWriter

ROWS_PER_BATCH = 2_000
"""Rows of one write (1 MB of vectors); ``materialization.online_write_batch_size`` overrides it."""

_PAYLOAD = "payload"
_WRITTEN = "written"
_KNOWN = "known"
_COLUMNS = (S.USER, S.EMBEDDING, S.EMBEDDING_ID, S.CUTOFF, S.AS_OF, S.NUM_EVENTS)

ToRows = Callable[[Any, pa.RecordBatch], list[WriteRow]]


def write_anchor(
    config: RepoConfig, task: MaterializationTask, spark: Any, settings: Settings, started_at: datetime
) -> int:
    """Every user's newest committed embedding of the view's identity stands online; how many were written.

    Args:
        started_at: start of the run, the rows' event timestamp: a later run always wins.

    Raises:
        OnlineStoreError: the store failed; the lake has the rows, run the same command again.
    """
    newest = newest_rows(spark, settings, Anchor.of(task.feature_view))
    return _write(config, task, newest, _AnchorRows(started_at))


def newest_rows(spark: Any, settings: Settings, anchor: Anchor) -> Any:
    """A DataFrame of one row a user: the newest cutoff, then the newest serving, of this identity.

    The embedding of a user of whom no behaviour is left in the lake is null: written, it takes the place of
    what is online, and a read finds nobody.
    """
    from pyspark.sql import functions as F

    from spark_jobs.tables import Lake
    from spark_jobs.users import behaviour

    lake = Lake(spark, settings)
    rows = lake.read("scenario_embeddings").where(
        (F.col(S.SCENARIO) == anchor.scenario.name) & (F.col(S.SCENARIO_ID) == anchor.scenario_id)
    )
    order = F.struct(S.CUTOFF, S.SERVED_AT, S.BATCH)
    best = rows.groupBy(S.USER).agg(F.max_by(F.struct(*_COLUMNS[1:]), order).alias("best"))
    known = behaviour(lake, anchor.profile).select(S.USER).distinct().withColumn(_KNOWN, F.lit(True))
    newest = best.select(S.USER, "best.*").join(known, on=S.USER, how="left")
    return newest.withColumn(S.EMBEDDING, F.when(F.col(_KNOWN), F.col(S.EMBEDDING))).drop(_KNOWN)


def write_ordinary(config: RepoConfig, task: MaterializationTask, job: Any) -> int:
    """Every row of an offline retrieval stands in the online store; how many were written."""
    return _write(config, task, job.to_spark_df(), _ordinary_rows)


def _write(config: RepoConfig, task: MaterializationTask, rows: Any, to_rows: ToRows) -> int:
    size = config.materialization_config.online_write_batch_size or ROWS_PER_BATCH
    if str(getattr(config.online_store, "type", "")).lower().endswith(("sqlite", "sqliteonlinestore")):
        return _write_from_driver(config, task, rows, to_rows, size)
    return _write_from_executors(config, task, rows, to_rows, size)


def _write_from_driver(
    config: RepoConfig, task: MaterializationTask, rows: Any, to_rows: ToRows, size: int
) -> int:
    writer = OnlineWriter(config, get_online_store_from_config(config.online_store))
    packed = rows.mapInArrow(_packer(size), f"{_PAYLOAD} binary")
    unknown: Any = None  # counting first would run the query twice
    progress = task.tqdm_builder(unknown) if task.tqdm_builder else None
    written = 0
    for row in packed.toLocalIterator():
        for batch in pa.ipc.open_stream(io.BytesIO(row[_PAYLOAD])):
            written += writer.write(task.feature_view, to_rows(task.feature_view, batch))
            if progress is not None:
                progress.update(batch.num_rows)
    if progress is not None:
        progress.close()
    return written


def _write_from_executors(
    config: RepoConfig, task: MaterializationTask, rows: Any, to_rows: ToRows, size: int
) -> int:
    from spark_jobs.failures import named_failures

    artifacts = SerializedArtifacts.serialize(feature_view=task.feature_view, repo_config=config)
    counts = rows.mapInArrow(_executor_writer(artifacts, to_rows, size), f"{_WRITTEN} bigint")
    with named_failures(f"online rows of {task.feature_view.name}"):
        return int(counts.groupBy().sum(_WRITTEN).collect()[0][0] or 0)


def _packer(size: int) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Rows become Arrow streams of at most ``size`` rows: cheap to hand to the driver one by one."""

    def pack(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in _bounded(batches, size):
            sink = io.BytesIO()
            with pa.ipc.new_stream(sink, batch.schema) as stream:
                stream.write_batch(batch)
            yield pa.RecordBatch.from_pydict({_PAYLOAD: pa.array([sink.getvalue()], pa.binary())})

    return pack


def _executor_writer(
    artifacts: SerializedArtifacts, to_rows: ToRows, size: int
) -> Callable[[Iterator[pa.RecordBatch]], Iterator[pa.RecordBatch]]:
    """Writes a partition through one store object; yields the count alone."""

    def write(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        view, store, _, config = artifacts.unserialize()
        writer = OnlineWriter(config, store)
        written = sum(writer.write(view, to_rows(view, batch)) for batch in _bounded(batches, size))
        yield pa.RecordBatch.from_pydict({_WRITTEN: pa.array([written], pa.int64())})

    return write


def _bounded(batches: Iterable[pa.RecordBatch], size: int) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        for start in range(0, batch.num_rows, size):
            yield batch.slice(start, size)


class _AnchorRows:
    """Rows of ``scenario_embeddings`` as online rows, their event timestamp the run's start."""

    def __init__(self, started_at: datetime) -> None:
        self._started_at = started_at

    def __call__(self, view: Any, batch: pa.RecordBatch) -> list[WriteRow]:
        named = {name: batch.column(number) for number, name in enumerate(batch.schema.names)}
        cutoff, as_of = (named[name].cast(pa.int64()).to_pylist() for name in (S.CUTOFF, S.AS_OF))
        columns = (named[name].to_pylist() for name in (S.USER, S.EMBEDDING, S.EMBEDDING_ID, S.NUM_EVENTS))
        return [
            (deserialize_entity_key(user), _stored(vector, name, at, newest, count), self._started_at, None)
            for user, vector, name, count, at, newest in zip(*columns, cutoff, as_of, strict=True)
        ]


def _stored(
    vector: list[float] | None, name: str, cutoff: int, as_of: int | None, num_events: int
) -> dict[str, Value]:
    return {
        S.EMBEDDING: Value() if vector is None else Value(float_list_val=FloatList(val=vector)),
        S.EMBEDDING_ID: Value(string_val=name),
        S.CUTOFF: Value(unix_timestamp_val=cutoff // R.MICROS),
        S.AS_OF: Value() if as_of is None else Value(unix_timestamp_val=as_of // R.MICROS),
        S.NUM_EVENTS: Value(int64_val=num_events),
        R.STATUS: Value(string_val=R.STORED),
        R.DATA_AS_OF: Value(unix_timestamp_val=cutoff // R.MICROS),
    }


def _ordinary_rows(view: Any, batch: pa.RecordBatch) -> list[WriteRow]:
    """Rows of an ordinary feature view as online rows, converted by Feast batch by batch.

    A RecordBatch, never a table: of a table Feast's conversion reads the first chunk alone.
    """
    if not batch.num_rows:
        return []
    keys = {column.name: column.dtype.to_value_type() for column in view.entity_columns}
    return utils._convert_arrow_to_proto(batch, view, keys)
