"""What a Python task finds in its process before its first row."""

from collections.abc import Iterator

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

pytestmark = pytest.mark.spark

MANY = 200_000
"""Objects of torch and sentence-transformers: half a million when this was written."""


def test_libraries_are_there_and_no_collection_walks_them(spark: SparkSession) -> None:
    def seen(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        import gc
        import sys

        loaded = [name in sys.modules for name in ("torch", "sentence_transformers")]
        for _ in batches:
            yield pa.RecordBatch.from_pydict({"loaded": [all(loaded)], "frozen": [gc.get_freeze_count()]})

    row = spark.range(1).mapInArrow(seen, "loaded boolean, frozen long").collect()[0]
    assert row["loaded"]
    assert row["frozen"] > MANY
