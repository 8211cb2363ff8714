"""Parquet as every reader understands it: instants in UTC microseconds, not Spark's own 12 bytes."""

import contextlib
from collections.abc import Iterator

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.types import ArrayType, FloatType

_KIND = "spark.sql.parquet.outputTimestampType"


@contextlib.contextmanager
def utc_microseconds(spark: SparkSession) -> Iterator[None]:
    """Within the block parquet is written with instants that keep their zone for pandas and Arrow."""
    before = spark.conf.get(_KIND)
    spark.conf.set(_KIND, "TIMESTAMP_MICROS")
    try:
        yield
    finally:
        spark.conf.set(_KIND, str(before))


def write_parquet(rows: DataFrame, place: str) -> None:
    """The rows stand at ``place``, a new folder.

    Embeddings are written plainly: a dictionary of their numbers is tried for every column otherwise, and
    given up again, for a third of the time.
    """
    writer = rows.write
    for field in rows.schema.fields:
        if isinstance(field.dataType, ArrayType) and isinstance(field.dataType.elementType, FloatType):
            writer = writer.option(f"parquet.enable.dictionary#{field.name}.list.element", "false")
    with utc_microseconds(rows.sparkSession):
        writer.parquet(place)
