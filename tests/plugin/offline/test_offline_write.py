"""Rows pushed offline, and logs of served features: written as the source is, and read back."""

from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from deltalake import DeltaTable
from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, PushSource, ValueType
from feast.data_source import PushMode
from feast.feature_logging import LoggingConfig
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.table_format import DeltaFormat
from feast.types import Array, Float64, Int64
from pyspark.sql import SparkSession

from qanchor_plugin.errors import DeclarationError, InputDataError
from qanchor_plugin.feast_ext.feature_logging import DeltaLoggingDestination
from qanchor_plugin.feast_ext.offline_write import spark_readable
from tests.plugin.conftest import StoreMaker

pytestmark = pytest.mark.spark

SCHEMA = "user long, at timestamp, value long, scores array<float>"
AT = datetime(2024, 5, 1, tzinfo=UTC)
NANOS = pd.Timestamp("2024-05-05 00:00:00.000000999", tz="UTC")


def applied(make_store: StoreMaker, source: SparkSource, **service: object) -> FeatureStore:
    user = Entity(name="user_e", join_keys=["user"], value_type=ValueType.INT64)
    push = PushSource(name="pushed", batch_source=source)
    view = FeatureView(
        name="v",
        entities=[user],
        source=push,
        schema=[Field(name="value", dtype=Int64), Field(name="scores", dtype=Array(Float64))],
    )
    store = make_store()
    store.apply([user, push, view, FeatureService(name="s", features=[view], **service)])
    return store


def rows(**changes: object) -> pd.DataFrame:
    given = {"user": [1, 2], "at": [NANOS, NANOS], "value": [7, None], "scores": [[1.5], None], **changes}
    return pd.DataFrame(given)


@pytest.mark.parametrize("form", ["delta", "delta, called parquet", "parquet", "table"])
def test_pushed_rows_are_in_the_source_and_nothing_else_changed(
    make_store: StoreMaker, spark: SparkSession, tmp_path: Path, form: str
) -> None:
    place = tmp_path / "source"
    first = spark.createDataFrame([(1, AT, 1, [0.5])], SCHEMA).coalesce(1)
    if form == "table":
        first.write.format("delta").saveAsTable("offline_write_table")
        source = SparkSource(name="b", table="offline_write_table", timestamp_field="at")
    elif form == "parquet":
        first.write.parquet(str(place))
        source = SparkSource(name="b", path=str(place), file_format="parquet", timestamp_field="at")
    else:
        first.write.format("delta").save(str(place))
        called = "parquet" if "called" in form else None
        source = SparkSource(
            name="b", path=str(place), table_format=DeltaFormat(), file_format=called, timestamp_field="at"
        )
    store = applied(make_store, source)
    store.push("pushed", rows(), to=PushMode.OFFLINE)
    asked = pd.DataFrame({"user": [1, 2, 1], "event_timestamp": [NANOS, NANOS, pd.Timestamp(AT)]})
    found = store.get_historical_features(asked, ["v:value", "v:scores"]).to_arrow()
    assert found["value"].to_pylist() == [7, None, 1]
    assert found["scores"].to_pylist() == [[1.5], None, [0.5]]
    if form.startswith("delta"):
        assert DeltaTable(place).version() == 1
        assert DeltaTable(place).to_pyarrow_table().num_rows == 3
    spark.sql("DROP TABLE IF EXISTS offline_write_table")


def test_what_cannot_be_written_is_refused_with_the_columns_it_needs(
    make_store: StoreMaker, spark: SparkSession, tmp_path: Path
) -> None:
    place = str(tmp_path / "source")
    spark.createDataFrame([(1, AT, 1, [0.5])], SCHEMA).write.format("delta").save(place)
    query = SparkSource(name="q", query=f"SELECT * FROM delta.`{place}`", timestamp_field="at")
    store = applied(make_store, query)
    with pytest.raises(DeclarationError, match="cannot be written"):
        store.push("pushed", rows(), to=PushMode.OFFLINE)
    view = store.get_feature_view("v")
    view.batch_source = SparkSource(name="b", path=place, table_format=DeltaFormat(), timestamp_field="at")
    table = pa.Table.from_pandas(rows().drop(columns="scores"))
    with pytest.raises(InputDataError, match=r"missing \['scores'\], unknown \[\]"):
        store._get_provider().offline_store.offline_write_batch(store.config, view, table, None)
    assert DeltaTable(place).version() == 0


def test_instants_are_cut_never_rounded_up_and_unsigned_numbers_and_categories_become_plain() -> None:
    given = pa.table(
        {
            "ns": pa.array([NANOS.value], pa.timestamp("ns", tz="Asia/Tokyo")),
            "naive": pa.array([NANOS.value], pa.timestamp("ns")),
            "unsigned": pa.array([7], pa.uint32()),
            "category": pa.array(["a"]).dictionary_encode(),
            "many": pa.array([[NANOS.value]], pa.list_(pa.timestamp("ns"))),
        }
    )
    made = spark_readable(given)
    cut = NANOS.floor("us").to_pydatetime()
    assert made.to_pylist() == [
        {"ns": cut, "naive": cut, "unsigned": 7, "category": "a", "many": [cut]},
    ]


def test_logs_of_served_features_are_delta_and_read_back_through_feast(
    make_store: StoreMaker, spark: SparkSession, tmp_path: Path
) -> None:
    place, logs = tmp_path / "source", tmp_path / "logs"
    spark.createDataFrame([(1, AT, 1, [0.5])], SCHEMA).write.format("delta").save(str(place))
    source = SparkSource(name="b", path=str(place), table_format=DeltaFormat(), timestamp_field="at")
    config = LoggingConfig(destination=DeltaLoggingDestination(path=str(logs)))
    store = applied(make_store, source, logging_config=config)
    service = store.get_feature_service("s")
    assert service.logging_config.destination.path == str(logs)
    from feast.feature_logging import FeatureServiceLoggingSource

    schema = FeatureServiceLoggingSource(service, store.project).get_schema(store.registry)
    at = pd.Timestamp(AT)
    one = dict.fromkeys(schema.names)
    one |= {"user": 1, "v__value": 7, "__log_timestamp": at, "__log_date": at.date(), "__request_id": "r"}
    for _ in range(2):
        store.write_logged_features(pa.Table.from_pylist([one], schema=schema), source=service)
    assert DeltaTable(logs).version() == 1
    back = store._get_provider().offline_store.pull_all_from_table_or_query(
        store.config, service.logging_config.destination.to_data_source(), [], [], "__log_timestamp"
    )
    assert back.to_arrow()["v__value"].to_pylist() == [7, 7]
