"""What a source holds that the lake does not: added rows, a change feed, or all of it to compare."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from urllib.parse import unquote

from py4j.protocol import Py4JJavaError
from pyspark import StorageLevel
from pyspark.errors import AnalysisException, PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from qanchor_plugin.declare import SourceSpec
from spark_jobs.sources import (
    Batch,
    Since,
    SourceVersion,
    mapped,
    mapped_name,
    read_source,
    source_version,
    unmapped,
)

WHOLE, ADDED, CHANGED, COMPARED = "whole", "added", "changed", "compared"
CHANGE_TYPE = "_change_type"
INSERT, AFTER = "insert", "update_postimage"
FINGERPRINT = "fingerprint/"
"""Before a modality's digest in ``source_versions``: what a source that is not Delta held."""

_LOG = logging.getLogger(__name__)
_LOG_SCHEMA = (
    "add STRUCT<path: STRING, dataChange: BOOLEAN, deletionVector: STRUCT<storageType: STRING>>,"
    " remove STRUCT<path: STRING, dataChange: BOOLEAN>"
)


@dataclass(frozen=True, kw_only=True)
class Consumed:
    """What the lake has of one source.

    Attributes:
        batches: those that rows carry, and the one last recorded.
        recorded: the one that ``job_runs`` recorded last; None when no run ended.
        fingerprint: what a source that is not Delta held then.
    """

    batches: Sequence[Batch] = field(default_factory=tuple)
    recorded: Batch | None = None
    fingerprint: str = ""

    @property
    def standing(self) -> Batch | None:
        """The table that the lake has rows of, from its first version to the last; None where it has none."""
        table = (
            self.recorded.table if self.recorded is not None else next((b.table for b in self.batches), None)
        )
        newest = None if table is None else self.newest(table)
        return None if table is None or newest is None else Batch(table=table, first=0, last=newest)

    def newest(self, table: str) -> int | None:
        """The last version of this table that is in the lake; None where that cannot be told.

        Rows of an earlier table may stand beside those of a later one: the record says which came last.
        """
        if self.recorded is not None and self.recorded.table != table:
            return None
        return max((batch.last for batch in self.batches if batch.table == table), default=None)


@dataclass(frozen=True, kw_only=True)
class Increment:
    """Source rows to be brought into the lake.

    Attributes:
        kind: ``whole`` (every row, in place of what was), ``added`` (new rows), ``changed`` (the rows of a
            change feed, with ``_change_type``), ``compared`` (rows to be held against the stored ones).
        rows: ``field_mapping`` applied.
        batch: the name of the rows that come of it.
        replaces: whether every earlier batch of the modality must go.
        why: why not an increment was read; "" when one was, or nothing was there before.
        since: of ``compared``: events before it are not among the rows.
        version: the Delta version that was read; None for other sources.
        fingerprint: of a source that is not Delta.
    """

    kind: str
    rows: DataFrame
    batch: Batch
    replaces: bool = False
    why: str = ""
    since: datetime | None = None
    version: int | None = None
    fingerprint: str = ""


def increment(
    spark: SparkSession,
    source: SourceSpec,
    consumed: Consumed,
    *,
    full: bool = False,
    since: Since | None = None,
) -> Increment | None:
    """The rows that ``consumed`` does not cover; None when the source stands where it stood.

    Args:
        full: every row, in place of what was.
        since: asked of a source that is not Delta: events before it are taken as unchanged.
    """
    if full or not consumed.batches:
        since = None
    now = source_version(spark, source, since=since)
    if not full and consumed.batches:
        read = _delta if now.location else _other
        return read(spark, source, consumed, now)
    newest = consumed.newest(now.table)
    number = now.number if now.location else (0 if newest is None else newest + 1)
    return _read(
        spark,
        source,
        now,
        WHOLE,
        Batch(table=now.table, first=0, last=number),
        replaces=bool(consumed.batches),
    )


def _read(
    spark: SparkSession,
    source: SourceSpec,
    now: SourceVersion,
    kind: str,
    batch: Batch,
    *,
    replaces: bool = False,
    why: str = "",
) -> Increment:
    """The source's rows as of ``now``, from ``now.since`` on."""
    since = now.since
    version = now.number if now.location else None
    rows = read_source(spark, source, version=version)
    if since is not None:
        rows = rows.where(
            F.col(f"`{mapped_name(source, source.event_at)}`").try_cast("timestamp") >= F.lit(since)
        )
    return Increment(
        kind=kind,
        rows=rows,
        batch=batch,
        replaces=replaces,
        why=why,
        since=since,
        version=version,
        fingerprint=now.fingerprint,
    )


def _delta(
    spark: SparkSession, source: SourceSpec, consumed: Consumed, now: SourceVersion
) -> Increment | None:
    newest = consumed.newest(now.table)
    if newest == now.number:
        return None
    if newest is None or newest > now.number:
        why = "the source is another table than it was"
        return _read(spark, source, now, COMPARED, Batch(table=now.table, first=0, last=now.number), why=why)
    batch = Batch(table=now.table, first=newest + 1, last=now.number)
    versions = f"versions {batch.first}-{batch.last}"
    added = _added_rows(spark, source, now, batch.first)
    if added is not None:
        return Increment(kind=ADDED, rows=added, batch=batch, version=now.number)
    why = (
        f"{versions} did more than add rows, and the source keeps no change feed (delta.enableChangeDataFeed)"
    )
    if now.has_feed:
        feed = _feed(spark, source, batch)
        if isinstance(feed, DataFrame):
            return Increment(kind=CHANGED, rows=feed, batch=batch, version=now.number)
        why = f"the change feed of {versions} cannot be read any more (vacuumed or cleaned away: {feed})"
    _LOG.warning("source %s: %s; it is read whole and compared", source.name, why)
    return _read(spark, source, now, COMPARED, Batch(table=now.table, first=0, last=now.number), why=why)


def _other(
    spark: SparkSession, source: SourceSpec, consumed: Consumed, now: SourceVersion
) -> Increment | None:
    since = now.since
    if consumed.fingerprint and consumed.fingerprint == now.fingerprint:
        return None
    newest = consumed.newest(now.table)
    number = 0 if newest is None else newest + 1
    first = 0 if since is None else number
    why = "the source is not Delta" + (
        "" if since is None else f"; events before {since:%Y-%m-%d} are taken as they are"
    )
    return _read(spark, source, now, COMPARED, Batch(table=now.table, first=first, last=number), why=why)


def _feed(spark: SparkSession, source: SourceSpec, batch: Batch) -> DataFrame | str:
    """The change feed of the versions, held on disk; in one line why it cannot be read, if so."""
    reader = spark.read.format("delta").option("readChangeFeed", "true")
    reader = reader.option("startingVersion", batch.first).option("endingVersion", batch.last)
    try:
        rows = reader.load(source.path) if source.path else reader.table(source.table)
        rows = mapped(rows, source).persist(StorageLevel.DISK_ONLY)
        rows.count()  # a file that was vacuumed away is missed only when it is read
    except (PySparkException, Py4JJavaError) as error:
        return _first_line(error)
    return rows


def _first_line(error: Exception) -> str:
    condition = error.getCondition() if isinstance(error, PySparkException) else None
    return condition or (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _added_rows(spark: SparkSession, source: SourceSpec, now: SourceVersion, first: int) -> DataFrame | None:
    """Rows that versions ``first`` to now added; None when a version did anything but add rows.

    Also None when that can no longer be told (log cleaned) or read (files vacuumed, column mapping).
    """
    if not now.by_name:
        return None
    commits = [f"{now.location}/_delta_log/{number:020d}.json" for number in range(first, now.number + 1)]
    try:
        log = spark.read.schema(_LOG_SCHEMA).json(commits).collect()
        if any(row["remove"] is not None and row["remove"]["dataChange"] for row in log):
            return None
        added = [row["add"] for row in log if row["add"] is not None and row["add"]["dataChange"]]
        if any(one["deletionVector"] is not None for one in added):
            return None
        return _rows_of(spark, source, now, [unquote(one["path"]) for one in added])
    except AnalysisException:
        return None


def _rows_of(spark: SparkSession, source: SourceSpec, now: SourceVersion, files: list[str]) -> DataFrame:
    schema = unmapped(spark, source, now.number).schema
    if not files:
        return mapped(spark.createDataFrame([], schema), source)
    paths = [one if "://" in one or one.startswith("/") else f"{now.location}/{one}" for one in files]
    rows = spark.read.schema(schema).option("basePath", now.location).parquet(*paths)
    return mapped(rows, source)
