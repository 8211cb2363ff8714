"""Parquet as every reader understands it: instants in UTC microseconds, not Spark's own 12 bytes."""

import contextlib
from collections.abc import Iterator

from pyspark.sql import SparkSession

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
