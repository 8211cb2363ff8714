"""Source rows of users on the list of the forgotten are passed over, whatever type their key has."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

from qanchor_plugin.declare import EntityRef
from qanchor_plugin.prefix_store.forgotten import ForgottenUsers
from spark_jobs.identity import entity_key
from spark_jobs.transforms.forgotten import without_forgotten

pytestmark = pytest.mark.spark
SHOP = EntityRef(name="shop", join_key="shop", value_type="STRING")
CARD = EntityRef(name="card", join_key="card_id", value_type="INT64")


def test_only_listed_users_rows_are_left_out(spark: SparkSession, tmp_path: Path) -> None:
    given = [("1", 11, "a"), ("11", 1, "b"), ("1", 11, "c"), (None, 11, "d"), ("1", None, "e")]
    rows = spark.createDataFrame(given, "shop string, card_id int, product string")
    entities = (CARD, SHOP)
    assert without_forgotten(rows, entities, tmp_path) is rows, "nobody is listed: nothing is looked at"
    ForgottenUsers(tmp_path).add([entity_key(entities, [11, "1"])])
    kept = without_forgotten(rows, entities, tmp_path)
    assert kept.columns == rows.columns
    assert sorted(row["product"] for row in kept.collect()) == ["b", "d", "e"]
