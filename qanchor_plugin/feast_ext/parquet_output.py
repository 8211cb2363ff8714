"""Parquet as every reader understands it: instants in UTC microseconds, not Spark's own 12 bytes."""

import contextlib
from collections.abc import Iterator

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import ArrayType, FloatType

from spark_jobs.session import set_within


@contextlib.contextmanager
def utc_microseconds(spark: SparkSession) -> Iterator[None]:
    """Within the block parquet is written with instants that keep their zone for pandas and Arrow."""
    with set_within(spark, "spark.sql.parquet.outputTimestampType", "TIMESTAMP_MICROS"):
        yield


def write_parquet(rows: DataFrame, place: str) -> None:
    """The rows stand at ``place``, a new folder.

    Embeddings are written plainly: otherwise a dictionary of their numbers is tried for every column, and
    given up again.
    """
    writer = rows.write
    for field in rows.schema.fields:
        if isinstance(field.dataType, ArrayType) and isinstance(field.dataType.elementType, FloatType):
            writer = writer.option(f"parquet.enable.dictionary#{field.name}.list.element", "false")
    with utc_microseconds(rows.sparkSession):
        writer.parquet(place)
