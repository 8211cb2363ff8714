"""Users are Feast's own serialised entity keys, byte for byte."""

import pytest
from feast.infra.key_encoding_utils import serialize_entity_key
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import Value
from pyspark.sql import SparkSession

from qanchor_plugin.declare import EntityRef
from qanchor_plugin.errors import DeclarationError
from spark_jobs.identity import with_user_key

pytestmark = pytest.mark.spark

HOUSEHOLD = EntityRef(name="household", join_key="household_id", value_type="INT64")
SHOP = EntityRef(name="shop", join_key="shop", value_type="INT32")
CARD = EntityRef(name="card", join_key="card", value_type="STRING")
AREA = EntityRef(name="area", join_key="area", value_type="STRING")
FIELD = {"INT64": "int64_val", "INT32": "int32_val", "STRING": "string_val"}


def feast_key(entities: list[EntityRef], values: list[object]) -> bytes:
    key = EntityKey(
        join_keys=[entity.join_key for entity in entities],
        entity_values=[Value(**{FIELD[e.value_type]: v}) for e, v in zip(entities, values, strict=True)],
    )
    return serialize_entity_key(key, entity_key_serialization_version=3)


@pytest.mark.parametrize(
    ("entities", "schema", "rows"),
    [
        ([HOUSEHOLD], "household_id long", [(7,), (-(2**63),), (7,)]),
        ([SHOP], "shop int", [(1,), (-5,)]),
        ([CARD], "card string", [("a",), ("ünïcode",), ("",)]),
        ([HOUSEHOLD, CARD], "household_id long, card string", [(1, "11"), (11, "1")]),
        ([CARD, AREA], "card string, area string", [("1", "11"), ("11", "1")]),
        ([SHOP, HOUSEHOLD], "shop int, household_id long", [(3, 9)]),
    ],
)
def test_keys_equal_feasts(spark: SparkSession, entities: list[EntityRef], schema: str, rows: list) -> None:
    found = with_user_key(spark.createDataFrame(rows, schema), entities).collect()
    assert [bytes(row["user"]) for row in found] == [feast_key(entities, list(row)) for row in rows]


def test_composite_keys_that_concatenate_alike_differ(spark: SparkSession) -> None:
    rows = spark.createDataFrame([("1", "11"), ("11", "1")], "card string, area string")
    found = [row["user"] for row in with_user_key(rows, [CARD, AREA]).collect()]
    assert found[0] != found[1]


def test_the_readable_key_is_json_in_declared_order(spark: SparkSession) -> None:
    rows = spark.createDataFrame([(7, 'q"ü')], "household_id long, card string")
    found = with_user_key(rows, [HOUSEHOLD, CARD]).collect()[0]
    assert found["user_key"] == '{"household_id": 7, "card": "q\\"ü"}'


def test_a_null_or_foreign_key_is_a_null_user(spark: SparkSession) -> None:
    rows = spark.createDataFrame(
        [("7", "x"), ("seven", "x"), (None, "x"), ("7", None)], "household_id string, card string"
    )
    found = with_user_key(rows, [HOUSEHOLD, CARD]).collect()
    assert [row["user"] is None for row in found] == [False, True, True, True]
    assert [row["user_key"] is None for row in found] == [False, True, True, True]
    assert bytes(found[0]["user"]) == feast_key([HOUSEHOLD, CARD], [7, "x"])


def test_an_entity_that_feast_cannot_serialise_is_named(spark: SparkSession) -> None:
    odd = EntityRef(name="price", join_key="price", value_type="DOUBLE")
    with pytest.raises(DeclarationError, match="'price' has value type DOUBLE"):
        with_user_key(spark.createDataFrame([(1.5,)], "price double"), [odd])
