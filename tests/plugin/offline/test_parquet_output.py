"""Files of historical features as other readers find them."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyspark.sql import SparkSession

from qanchor_plugin.feast_ext.parquet_output import write_parquet

pytestmark = pytest.mark.spark


def test_instants_are_utc_microseconds_and_only_embeddings_have_no_dictionary(
    spark: SparkSession, tmp_path: Path
) -> None:
    rows = spark.range(50).selectExpr(
        "timestamp_micros(id) AS at", "'same' AS label", "array(CAST(1 AS float)) AS embedding"
    )
    write_parquet(rows, str(tmp_path / "rows"))
    (file, *_) = sorted((tmp_path / "rows").glob("*.parquet"))
    assert pq.read_schema(file).field("at").type == pa.timestamp("us", tz="UTC")
    group = pq.read_metadata(file).row_group(0)
    columns = [group.column(number) for number in range(group.num_columns)]
    has_dictionary = {one.path_in_schema.split(".")[0]: one.has_dictionary_page for one in columns}
    assert (has_dictionary["label"], has_dictionary["embedding"]) == (True, False)
