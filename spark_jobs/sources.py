"""Behaviour sources: read as declared, with the version they hold; what changed is told in source_changes."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from qanchor_plugin.declare import SourceSpec
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.identity import digest

Since = Callable[[], datetime | None]
_TOKEN = re.compile(r"([0-9a-f]{12})\.(\d+)-(\d+)")


@dataclass(frozen=True, kw_only=True)
class SourceVersion:
    """What a source holds now.

    Attributes:
        table: 12 hex characters: the Delta table's id; of another source, the place it is read from.
        number: the Delta version; 0 for other sources.
        location: the Delta table's folder, "" for other sources.
        by_name: whether columns are stored under their own names (no Delta column mapping).
        has_feed: whether the Delta table keeps a change data feed now.
        fingerprint: of another source, what it holds from ``since`` on; "" for Delta.
        since: of another source, the instant before which it is not looked at; None looks at all of it.
    """

    table: str
    number: int
    location: str = ""
    by_name: bool = True
    has_feed: bool = False
    fingerprint: str = ""
    since: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Batch:
    """A range of source versions, both ends included; its text names the rows that came of it."""

    table: str
    first: int
    last: int

    def __str__(self) -> str:
        return f"{self.table}.{self.first}-{self.last}"

    @classmethod
    def parse(cls, text: str) -> "Batch":
        """The batch that ``str`` wrote; InputDataError for anything else."""
        found = _TOKEN.fullmatch(text)
        if found is None:
            raise InputDataError(f"batch {text!r} was not written by these jobs; rebuild with full=True.")
        return cls(table=found.group(1), first=int(found.group(2)), last=int(found.group(3)))


def read_source(spark: SparkSession, source: SourceSpec, *, version: int | None = None) -> DataFrame:
    """The source's rows, ``field_mapping`` applied.

    Args:
        version: of a Delta source; None reads the newest.

    Raises:
        InputDataError: the place cannot be read; names it.
    """
    return mapped(unmapped(spark, source, version), source)


def source_columns(spark: SparkSession, source: SourceSpec) -> dict[str, str]:
    """Column name (after ``field_mapping``) to Spark type, such as ``{"amount": "double"}``."""
    return dict(read_source(spark, source).dtypes)


def mapped_name(source: SourceSpec, column: str) -> str:
    """The name that a source column has after ``field_mapping``."""
    return source.field_mapping.get(column, column)


def source_version(spark: SparkSession, source: SourceSpec, *, since: Since | None = None) -> SourceVersion:
    """Which table and version the source holds now.

    Args:
        since: asked of a source that is not Delta: events before it are not looked at.
    """
    unmapped(spark, source, None)
    table = _delta_table(spark, source)
    if table is None:
        start = None if since is None else since()
        return SourceVersion(
            table=digest("source", source.path, source.table, source.query)[:12],
            number=0,
            fingerprint=_fingerprint(spark, source, start),
            since=start,
        )
    detail = table.detail().select("id", "location", "properties").collect()[0]
    properties = detail["properties"] or {}
    return SourceVersion(
        table=digest("delta", detail["id"])[:12],
        number=int(table.history(1).select("version").collect()[0]["version"]),
        location=detail["location"],
        by_name=properties.get("delta.columnMapping.mode", "none") == "none",
        has_feed=properties.get("delta.enableChangeDataFeed", "false").lower() == "true",
    )


def place(source: SourceSpec) -> str:
    """Where the source is read, for messages."""
    return source.path or source.table or f"query {source.query[:80]!r}"


def unmapped(spark: SparkSession, source: SourceSpec, version: int | None) -> DataFrame:
    """The source's rows under its own column names; else as :func:`read_source`."""
    reader = spark.read if version is None else spark.read.option("versionAsOf", version)
    try:
        if source.path:
            return reader.format(source.format).load(source.path)
        return reader.table(source.table) if source.table else spark.sql(source.query)
    except AnalysisException as error:
        raise InputDataError(
            f"source {source.name!r} cannot be read from {place(source)} ({source.format}): "
            f"{error.getCondition() or error}. Check that it exists, from the folder the command runs in."
        ) from error


def mapped(rows: DataFrame, source: SourceSpec) -> DataFrame:
    """The rows with ``field_mapping`` applied."""
    return rows.withColumnsRenamed({old: new for old, new in source.field_mapping.items() if old != new})


def _delta_table(spark: SparkSession, source: SourceSpec) -> DeltaTable | None:
    if source.path:
        return DeltaTable.forPath(spark, source.path) if source.format == "delta" else None
    if not source.table:
        return None
    try:
        return DeltaTable.forName(spark, source.table)
    except AnalysisException:  # a view, or a table of another format: fingerprinted instead
        return None


def _fingerprint(spark: SparkSession, source: SourceSpec, since: datetime | None) -> str:
    """12 hex characters of the files' names, sizes and times; of the rows for tables and queries."""
    if source.path:
        files = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(source.path)
        times = F.unix_micros("modificationTime")
        listed = files.select("path", times.alias("at"), "length").collect()
        return digest("files", sorted([row["path"], row["at"], row["length"]] for row in listed))[:12]
    rows = unmapped(spark, source, None)
    if since is not None and source.event_at:
        rows = rows.where(F.col(f"`{source.event_at}`").try_cast("timestamp") >= F.lit(since))
    each = F.xxhash64(F.to_json(F.struct("*"))).cast("decimal(38,0)")
    found = rows.agg(F.count(F.lit(1)).alias("num"), F.sum(each).alias("sum")).collect()[0]
    return digest("rows", found["num"], str(found["sum"]))[:12]
