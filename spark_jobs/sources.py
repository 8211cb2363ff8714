"""Behaviour sources: read as declared, with a version, and as increments where rows were only added."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from delta.tables import DeltaTable
from pyspark.errors import AnalysisException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from qanchor_plugin.declare import SourceSpec
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.identity import digest

_TOKEN = re.compile(r"([0-9a-f]{12})\.(\d+)-(\d+)")
_LOG_SCHEMA = (
    "add STRUCT<path: STRING, dataChange: BOOLEAN, deletionVector: STRUCT<storageType: STRING>>,"
    " remove STRUCT<path: STRING, dataChange: BOOLEAN>"
)


@dataclass(frozen=True, kw_only=True)
class SourceVersion:
    """What a source holds now.

    Attributes:
        table: 12 hex characters: the Delta table's id, or the fingerprint of what another source holds.
        number: the Delta version; 0 for other sources.
        location: the Delta table's folder, "" for other sources.
        by_name: whether columns are stored under their own names (no Delta column mapping).
    """

    table: str
    number: int
    location: str = ""
    by_name: bool = True


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


@dataclass(frozen=True, kw_only=True)
class Increment:
    """Source rows not yet in the lake.

    Attributes:
        rows: as :func:`read_source` gives them.
        batch: their name.
        replaces: whether every earlier batch of the modality must go.
    """

    rows: DataFrame
    batch: Batch
    replaces: bool


def read_source(spark: SparkSession, source: SourceSpec, *, version: int | None = None) -> DataFrame:
    """The source's rows, ``field_mapping`` applied.

    Args:
        version: of a Delta source; None reads the newest.

    Raises:
        InputDataError: the place cannot be read; names it.
    """
    return _mapped(_unmapped(spark, source, version), source)


def source_columns(spark: SparkSession, source: SourceSpec) -> dict[str, str]:
    """Column name (after ``field_mapping``) to Spark type, such as ``{"amount": "double"}``."""
    return dict(read_source(spark, source).dtypes)


def mapped_name(source: SourceSpec, column: str) -> str:
    """The name that a source column has after ``field_mapping``."""
    return source.field_mapping.get(column, column)


def source_version(spark: SparkSession, source: SourceSpec) -> SourceVersion:
    """Which table and version the source holds now."""
    _unmapped(spark, source, None)
    table = _delta_table(spark, source)
    if table is None:
        return SourceVersion(table=_fingerprint(spark, source), number=0)
    detail = table.detail().select("id", "location", "properties").collect()[0]
    mapping = (detail["properties"] or {}).get("delta.columnMapping.mode", "none")
    return SourceVersion(
        table=digest("delta", detail["id"])[:12],
        number=int(table.history(1).select("version").collect()[0]["version"]),
        location=detail["location"],
        by_name=mapping == "none",
    )


def increment(
    spark: SparkSession, source: SourceSpec, consumed: Iterable[Batch], *, full: bool = False
) -> Increment | None:
    """The rows that no batch in ``consumed`` covers; None when the source stands where it stood.

    When every newer version only added rows, those rows; otherwise the whole source, replacing what was.
    """
    now = source_version(spark, source)
    seen = list(consumed)
    same_table = all(batch.table == now.table for batch in seen)
    newest = max((batch.last for batch in seen), default=-1) if same_table else -1
    if seen and same_table and newest == now.number and not full:
        return None
    whole = Batch(table=now.table, first=0, last=now.number)
    if seen and same_table and 0 <= newest < now.number and not full:
        added = _added_rows(spark, source, now, newest + 1)
        if added is not None:
            batch = Batch(table=now.table, first=newest + 1, last=now.number)
            return Increment(rows=added, batch=batch, replaces=False)
    version = now.number if now.location else None
    return Increment(
        rows=read_source(spark, source, version=version), batch=whole, replaces=bool(seen) or full
    )


def place(source: SourceSpec) -> str:
    """Where the source is read, for messages."""
    return source.path or source.table or f"query {source.query[:80]!r}"


def _unmapped(spark: SparkSession, source: SourceSpec, version: int | None) -> DataFrame:
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


def _mapped(rows: DataFrame, source: SourceSpec) -> DataFrame:
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


def _fingerprint(spark: SparkSession, source: SourceSpec) -> str:
    """12 hex characters of the files' names, sizes and times; of the rows for tables and queries."""
    if source.path:
        files = spark.read.format("binaryFile").option("recursiveFileLookup", "true").load(source.path)
        times = F.unix_micros("modificationTime")
        listed = files.select("path", times.alias("at"), "length").collect()
        return digest("files", sorted([row["path"], row["at"], row["length"]] for row in listed))[:12]
    rows = _unmapped(spark, source, None)
    each = F.xxhash64(F.to_json(F.struct("*"))).cast("decimal(38,0)")
    found = rows.agg(F.count(F.lit(1)).alias("num"), F.sum(each).alias("sum")).collect()[0]
    return digest("rows", found["num"], str(found["sum"]))[:12]


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
    schema = _unmapped(spark, source, now.number).schema
    if not files:
        return _mapped(spark.createDataFrame([], schema), source)
    paths = [one if "://" in one or one.startswith("/") else f"{now.location}/{one}" for one in files]
    rows = spark.read.schema(schema).option("basePath", now.location).parquet(*paths)
    return _mapped(rows, source)
