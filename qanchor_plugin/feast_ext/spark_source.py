"""A Feast ``SparkSource`` as a Spark frame, read as what it is on disk."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
from delta.tables import DeltaTable
from feast.data_source import DataSource
from feast.errors import DataSourceNotFoundException
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from py4j.protocol import Py4JJavaError
from pyspark.errors import PySparkException
from pyspark.sql import DataFrame, SparkSession
from pyspark.sql import functions as F

from qanchor_plugin.errors import DeclarationError

_NANOS = "spark.sql.legacy.parquet.nanosAsLong"
"""Without it Spark refuses parquet with nanoseconds, which is what pandas writes."""


def read(spark: SparkSession, source: DataSource) -> DataFrame:
    """The rows of a Spark source, in its own column names.

    A folder with a Delta log is read as Delta whatever the source says: as parquet it would give back rows
    that were deleted or replaced. Nanoseconds are cut to the microsecond.

    Raises:
        DeclarationError: a source that is not Spark's.
        DataSourceNotFoundException: nothing readable stands at its path.
    """
    if not isinstance(source, SparkSource):
        raise DeclarationError(
            f"source {source.name!r} is a {type(source).__name__}; QAnchorOfflineStore reads SparkSource "
            "and AnchorSource. Declare it as a SparkSource(path=..., table_format=DeltaFormat())."
        )
    if source.table or source.query:
        return spark.sql(f"SELECT * FROM {source.get_table_query_string()}")
    try:
        return _loaded(spark, source)
    except (PySparkException, Py4JJavaError) as error:
        raise DataSourceNotFoundException(source.path) from error


def format_of(spark: SparkSession, source: SparkSource) -> str:
    """``delta`` where a Delta log stands or is declared, else the source's own format."""
    if source.table_format is not None:
        return str(source.table_format.format_type.value)
    return "delta" if DeltaTable.isDeltaTable(spark, source.path) else str(source.file_format)


def is_absent(spark: SparkSession, source: SparkSource) -> bool:
    """Whether nothing stands at the source's path yet."""
    jvm: Any = spark._jvm
    path = jvm.org.apache.hadoop.fs.Path(source.path)
    files = path.getFileSystem(spark._jsc.hadoopConfiguration())
    return not files.exists(path)


def _loaded(spark: SparkSession, source: SparkSource) -> DataFrame:
    kind = format_of(spark, source)
    properties = {} if source.table_format is None else source.table_format.properties
    if kind == "parquet":
        spark.conf.set(_NANOS, "true")
    rows = spark.read.format(kind).options(**properties).load(source.path)
    if kind != "parquet":
        return rows
    nanos = [name for name in _nanosecond_columns(source) if dict(rows.dtypes).get(name) == "bigint"]
    for name in nanos:
        escaped = name.replace("`", "``")  # whole numbers throughout: a double has no room for them
        micros = F.expr(f"(`{escaped}` - pmod(`{escaped}`, 1000)) div 1000")
        rows = rows.withColumn(name, F.timestamp_micros(micros))
    return rows


def _nanosecond_columns(source: SparkSource) -> list[str]:
    """Columns that parquet's own schema calls nanoseconds; of remote files, the two that are instants."""
    path = Path(source.path.removeprefix("file://"))
    if not path.exists():
        return [name for name in (source.timestamp_field, source.created_timestamp_column) if name]
    files = pads.dataset(path, format="parquet", exclude_invalid_files=False).schema
    return [one.name for one in files if pa.types.is_timestamp(one.type) and one.type.unit == "ns"]
