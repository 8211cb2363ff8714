"""The rows a trainer asks about: a frame, a query or nothing, brought to one form."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pandas as pd
import pyarrow as pa
from feast.errors import FeastEntityDFMissingColumnsError, InvalidEntityType
from feast.infra.offline_stores.offline_utils import infer_event_timestamp_from_entity_df
from feast.type_map import spark_schema_to_np_dtypes
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.feast_ext.asof_join import quoted

ROW = "__qanchor_row"
"""The row's number: what answers come back under."""

NO_FRAME_AT = "entity_ts"
"""The instant column of rows that nobody gave, as Feast's Spark store names it."""


@dataclass(frozen=True, kw_only=True)
class EntityRows:
    """Entity rows in Spark.

    Attributes:
        rows: the caller's columns and ``ROW`` (bigint, distinct, the same however often it is computed);
            later, features beside them.
        asked: the rows as they were given and ``ROW``: cheap to compute again, whatever was joined since.
        at: the column with the row's instant, a Spark timestamp.
        columns: the caller's columns, in order.
        first / last: bounds of the instants; None without rows.
        ordered: whether the answer is put back into the rows' order.
        num_rows: how many rows there are.
    """

    rows: DataFrame
    asked: DataFrame
    at: str
    columns: tuple[str, ...]
    first: datetime | None
    last: datetime | None
    ordered: bool
    num_rows: int


def entity_rows(spark: SparkSession, given: Any) -> EntityRows:
    """The rows of a pandas frame, a Spark frame or an SQL text; the frame given is not changed.

    Instants without a zone are UTC; nanoseconds are cut to the microsecond, so nothing later is seen.

    Raises:
        InvalidEntityType: something else was given.
        InputDataError: an instant cannot be read.
    """
    if isinstance(given, pd.DataFrame):
        return _of_pandas(spark, given)
    if isinstance(given, str):
        return of_spark(spark.sql(given))
    if isinstance(given, DataFrame):
        return of_spark(given)
    raise InvalidEntityType(type(given))


def of_spark(given: DataFrame, *, at: str | None = None) -> EntityRows:
    """The rows of a Spark frame, computed once and kept on the executors, so that row numbers stand."""
    zoneless = [(name, "timestamp" if kind == "timestamp_ntz" else kind) for name, kind in given.dtypes]
    at = at or _instant_column(dict(zip(given.columns, spark_schema_to_np_dtypes(zoneless), strict=True)))
    numbered = given.withColumn(at, quoted(at).cast("timestamp")).withColumn(
        ROW, F.monotonically_increasing_id()
    )
    rows = numbered.localCheckpoint(eager=True)
    asked = [F.unix_micros(F.min(quoted(at))), F.unix_micros(F.max(quoted(at))), F.count(F.lit(1))]
    bounds = rows.agg(*asked).collect()[0]
    return EntityRows(
        rows=rows,
        asked=rows,
        at=at,
        columns=tuple(given.columns),
        first=_instant(bounds[0]),
        last=_instant(bounds[1]),
        ordered=False,
        num_rows=bounds[2],
    )


def check_join_keys(entity: EntityRows, wanted: Iterable[str]) -> None:
    """Nothing when every join key is there; else FeastEntityDFMissingColumnsError."""
    expected = set(wanted)
    missing = expected - set(entity.columns)
    if missing:
        raise FeastEntityDFMissingColumnsError(expected, missing)


def _of_pandas(spark: SparkSession, given: pd.DataFrame) -> EntityRows:
    at = _instant_column(dict(zip(given.columns, given.dtypes, strict=True)))
    instants = utc_instants(given[at])
    table = pa.Table.from_pandas(given.assign(**{at: instants}), preserve_index=False)
    table = table.replace_schema_metadata(None).append_column(ROW, pa.array(range(len(given)), pa.int64()))
    rows = spark.createDataFrame(_microseconds(table))
    bounds = instants.dropna()
    return EntityRows(
        rows=rows,
        asked=rows,
        at=at,
        columns=tuple(given.columns),
        first=None if bounds.empty else bounds.min().to_pydatetime(),
        last=None if bounds.empty else bounds.max().to_pydatetime(),
        ordered=True,
        num_rows=len(given),
    )


def utc_instants(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """The column as UTC instants, cut to microseconds; zoneless values are UTC, nulls stay."""
    try:
        is_text = column.dtype == object or pd.api.types.is_string_dtype(column.dtype)
        instants = pd.to_datetime(column, utc=True, format="ISO8601" if is_text else None)
    except (ValueError, TypeError) as error:
        raise InputDataError(
            f"entity rows: column {column.name!r} holds what is no instant ({error}). "
            "Give timestamps, or texts like 2017-05-01T12:00:00Z."
        ) from error
    return instants.dt.floor("us").astype("datetime64[us, UTC]")


def _microseconds(table: pa.Table) -> pa.Table:
    """Every timestamp column as UTC microseconds: Spark has nothing finer."""
    fields: list[pa.Field] = []
    for field in table.schema:
        if pa.types.is_timestamp(field.type):
            fields.append(pa.field(field.name, pa.timestamp("us", tz="UTC")))
        else:
            fields.append(field)
    return table.cast(pa.schema(fields), safe=False)


def _instant_column(types: dict[str, Any]) -> str:
    return infer_event_timestamp_from_entity_df(types)


def _instant(value: int | None) -> datetime | None:
    return (
        None
        if value is None
        else datetime.fromtimestamp(value // 1_000_000, UTC).replace(microsecond=value % 1_000_000)
    )


def distinct_keys(frames: Sequence[DataFrame], keys: Sequence[str], at: datetime) -> EntityRows:
    """One row for every key found in any of the frames, all at one instant; keys a frame lacks are null."""
    aligned = [
        frame.select(*[quoted(key) if key in frame.columns else F.lit(None).alias(key) for key in keys])
        for frame in frames
    ]
    union = aligned[0]
    for frame in aligned[1:]:
        union = union.unionByName(frame)
    micros = int(at.timestamp()) * 1_000_000 + at.microsecond
    rows = union.distinct().select(
        *[quoted(key) for key in keys], F.timestamp_micros(F.lit(micros)).alias(NO_FRAME_AT)
    )
    return of_spark(rows, at=NO_FRAME_AT)
