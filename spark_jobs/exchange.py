"""Rows of a lake table in place of others, in one commit that rewrites only the files they stand in."""

from collections.abc import Sequence

from delta.tables import DeltaTable
from pyspark.sql import DataFrame
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from spark_jobs.failures import named_failures
from spark_jobs.tables import Lake

_GONE = "__gone"


def exchange(
    lake: Lake, name: str, rows: DataFrame, *, gone: DataFrame, keys: Sequence[str], where: str
) -> None:
    """``rows`` stand in the table, earlier rows that match ``where`` and keys of ``gone`` do not: one commit.

    Args:
        rows: of the table's columns.
        gone: one row a combination of ``keys`` (columns of the table).
        where: an SQL condition on the table, named ``t``; on partitions it spares files from being read.
    """
    columns = S.TABLES[name].names
    leaving = gone.select(*keys).withColumn(_GONE, F.lit(True))
    source = rows.select(*columns).withColumn(_GONE, F.lit(False))
    source = source.unionByName(leaving, allowMissingColumns=True)
    same = " AND ".join(f"t.{key} = s.{key}" for key in keys)
    with named_failures(lake.path(name)):
        (
            DeltaTable.forPath(lake.spark, lake.path(name))
            .alias("t")
            .merge(source.alias("s"), f"s.{_GONE} AND {where} AND {same}")
            .whenMatchedDelete()
            .whenNotMatchedInsert(
                condition=f"NOT s.{_GONE}", values={column: f"s.{column}" for column in columns}
            )
            .execute()
        )
