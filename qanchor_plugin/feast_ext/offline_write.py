"""Rows written into a Spark source: what ``store.push`` and ``write_to_offline_store`` send offline.

Feast's own Spark store fails on pandas' nanoseconds and appends plain parquet files into Delta directories,
where no reader of Delta ever sees them.
"""

from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from feast import FeatureView
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from pyspark.errors import AnalysisException
from pyspark.sql import Column, DataFrame, SparkSession
from pyspark.sql import functions as F
from pyspark.sql.types import ArrayType, DataType, MapType, StructField, StructType

from qanchor_plugin.errors import DeclarationError, InputDataError
from qanchor_plugin.feast_ext.asof_join import quoted
from qanchor_plugin.feast_ext.parquet_output import utc_microseconds
from qanchor_plugin.feast_ext.spark_source import format_of, is_absent, read
from spark_jobs.failures import named_failures


def append_rows(spark: SparkSession, view: FeatureView, table: pa.Table) -> None:
    """The rows stand in the view's source, in its own types and one commit; a Delta source gets Delta.

    A path that holds nothing yet is made, with the types of the rows.

    Raises:
        DeclarationError: the source is a query, a temporary view, or not Spark's.
        InputDataError: the rows' columns are not the source's.
        LakeError: the disk is full or the folder cannot be written; nothing was committed.
    """
    source = view.batch_source
    if not isinstance(source, SparkSource) or not (source.path or source.table):
        raise DeclarationError(
            f"feature view {view.name!r} reads {_named(source)}, which cannot be written. Declare its source "
            "as SparkSource(path=..., table_format=DeltaFormat()) or SparkSource(table=...)."
        )
    rows = spark.createDataFrame(spark_readable(table))
    if not (source.path and is_absent(spark, source)):
        rows = _as_stored(rows, read(spark, source).schema, view)
    with named_failures(str(source.path or source.table)), utc_microseconds(spark):
        if source.path:
            rows.write.format(format_of(spark, source)).mode("append").save(source.path)
        else:
            _insert(rows, source.table)


def spark_readable(table: pa.Table) -> pa.Table:
    """The table in types that Spark has: instants as UTC microseconds (zoneless ones are UTC), no
    dictionaries, no unsigned numbers; an index that pandas left is not a column.

    Finer instants are cut to the microsecond, so that no row seems later than it was.
    """
    columns, fields = [], []
    for field, column in zip(table.schema, table.columns, strict=True):
        kind = _readable_type(field.type)
        if pa.types.is_timestamp(field.type) and field.type.unit == "ns":
            column = pc.floor_temporal(column, unit="microsecond")
        columns.append(column if kind == field.type else column.cast(kind, safe=False))
        fields.append(pa.field(field.name, kind))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _readable_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind):
        return pa.timestamp("us", tz="UTC")
    if pa.types.is_dictionary(kind):
        return _readable_type(kind.value_type)
    if pa.types.is_unsigned_integer(kind):
        return pa.int64()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return pa.list_(_readable_type(kind.value_type))
    return kind


def _as_stored(rows: DataFrame, schema: StructType, view: FeatureView) -> DataFrame:
    if set(rows.columns) != set(schema.names):
        missing, extra = (
            sorted(set(schema.names) - set(rows.columns)),
            sorted(set(rows.columns) - set(schema.names)),
        )
        raise InputDataError(
            f"the rows' columns are not those of the source of {view.name!r}: missing {missing}, unknown "
            f"{extra}. Give exactly {schema.names}."
        )
    given = {field.name: field.dataType for field in rows.schema}
    return rows.select(*[_cast(field, given[field.name]) for field in schema])


def _cast(field: StructField, given: DataType) -> Column:
    """The column as stored; what pandas made a struct becomes the map it was meant to be."""
    column = quoted(field.name)
    is_map = isinstance(field.dataType, MapType) or (
        isinstance(field.dataType, ArrayType) and isinstance(field.dataType.elementType, MapType)
    )
    if is_map and given != field.dataType:
        return F.from_json(F.to_json(column), field.dataType.simpleString()).alias(field.name)
    return column.cast(field.dataType).alias(field.name)


def _insert(rows: DataFrame, table: str) -> None:
    try:
        rows.write.insertInto(table)
    except AnalysisException as error:
        raise DeclarationError(
            f"table {table!r} cannot be written ({str(error).splitlines()[0]}). A temporary view is read "
            "only: name a table of the catalog, or a path."
        ) from error


def _named(source: Any) -> str:
    return f"the {type(source).__name__} {getattr(source, 'name', '')!r}" if source else "no batch source"
