"""Ordinary feature views through Feast's own calls: every form of entity rows, zones, duplicates, names."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, RequestSource, ValueType
from feast.errors import FeastEntityDFMissingColumnsError
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import (
    SavedDatasetSparkStorage,
    SparkSource,
)
from feast.on_demand_feature_view import on_demand_feature_view
from feast.table_format import DeltaFormat
from feast.types import Float64, Int64
from pyspark.sql import SparkSession

from tests.plugin.conftest import StoreMaker

pytestmark = pytest.mark.spark

REFS = ["spend:total", "spend:visits"]


def day(number: int, hour: int = 0) -> datetime:
    return datetime(2017, 5, number, hour, tzinfo=UTC)


@pytest.fixture(scope="module")
def spend_folder(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [
        ("1", 11, day(1), day(1), 10.0, 1),
        ("1", 11, day(5), day(9), 20.0, 2),
        ("11", 1, day(3), day(3), 30.0, 3),
        ("7", 7, day(2), day(2), None, 4),
    ]
    folder = tmp_path_factory.mktemp("spend") / "spend"
    schema = (
        "shop string, card long, spent_at timestamp, loaded_at timestamp, total_spend double, visits long"
    )
    spark.createDataFrame(rows, schema).write.format("delta").save(str(folder))
    return folder


@pytest.fixture
def store(make_store: StoreMaker, spend_folder: Path) -> FeatureStore:
    shop = Entity(name="shop", join_keys=["shop"], value_type=ValueType.STRING)
    card = Entity(name="card", join_keys=["card"], value_type=ValueType.INT64)
    source = SparkSource(
        name="spend",
        path=str(spend_folder),
        table_format=DeltaFormat(),
        timestamp_field="spent_at",
        created_timestamp_column="loaded_at",
        field_mapping={"total_spend": "total"},
    )
    spend = FeatureView(
        name="spend",
        entities=[shop, card],
        ttl=timedelta(days=10),
        source=source,
        schema=[Field(name="total", dtype=Float64), Field(name="visits", dtype=Int64)],
    )

    @on_demand_feature_view(
        sources=[spend, RequestSource(name="asked", schema=[Field(name="factor", dtype=Float64)])],
        schema=[Field(name="scaled", dtype=Float64)],
        mode="pandas",
    )
    def scaled(inputs: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"scaled": inputs["total"] * inputs["factor"]})

    made = make_store()
    made.apply([shop, card, spend, scaled])
    return made


@pytest.fixture
def tokyo(spark: SparkSession) -> Iterator[None]:
    before = spark.conf.get("spark.sql.session.timeZone")
    spark.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    yield
    spark.conf.set("spark.sql.session.timeZone", before)


def frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "card": [11, 1, 11, 11, 99],
            "shop": ["1", "11", "1", "1", "1"],
            "event_timestamp": pd.to_datetime(
                ["2017-05-06", "2017-05-06", "2017-05-06", "2017-05-04 23:59:59.999999999", "2017-05-06"],
                format="ISO8601",
            ),
            "label": [1, 2, 3, 4, 5],
        }
    )


def test_a_pandas_frame_keeps_its_order_its_duplicates_and_itself(store: FeatureStore) -> None:
    given = frame()
    kept = given.copy(deep=True)
    found = store.get_historical_features(given, REFS).to_df()
    pd.testing.assert_frame_equal(given, kept)
    assert list(found.columns) == ["card", "shop", "event_timestamp", "label", "total", "visits"]
    assert found["label"].tolist() == [1, 2, 3, 4, 5]
    assert found["total"].tolist()[:4] == [20.0, 30.0, 20.0, 10.0]
    assert pd.isna(found["total"][4])
    assert found["event_timestamp"][0] == pd.Timestamp("2017-05-06", tz="UTC")


def test_rows_written_later_do_not_count_when_asked_so(store: FeatureStore) -> None:
    job = store.get_historical_features(frame(), REFS, filter_by_created_timestamp=True)
    assert job.to_df()["total"].tolist()[:4] == [10.0, 30.0, 10.0, 10.0]


def test_zones_do_not_move_what_is_seen(store: FeatureStore, tokyo: None, spark: SparkSession) -> None:
    given = frame()
    given["event_timestamp"] = (
        given["event_timestamp"].dt.tz_localize("UTC").dt.tz_convert("America/New_York")
    )
    expected = [20.0, 30.0, 20.0, 10.0]
    naive, aware = (store.get_historical_features(one, REFS).to_df() for one in (frame(), given))
    assert naive["total"].tolist()[:4] == expected
    assert aware["total"].tolist()[:4] == expected
    assert aware["event_timestamp"][0] == pd.Timestamp("2017-05-06", tz="UTC")
    text = "SELECT '1' AS shop, 11L AS card, timestamp_ntz'2017-05-05 00:00:00' AS event_timestamp"
    assert store.get_historical_features(text, REFS).to_df()["total"].tolist() == [20.0]
    before = text.replace("2017-05-05 00", "2017-05-04 23")
    assert store.get_historical_features(before, REFS).to_df()["total"].tolist() == [10.0]


def test_sql_and_spark_frames_full_names_and_lazy_frames(store: FeatureStore, spark: SparkSession) -> None:
    text = "SELECT '11' AS shop, 1L AS card, timestamp'2017-05-06 00:00:00Z' AS at"
    by_text = store.get_historical_features(text, REFS, full_feature_names=True)
    assert by_text.to_spark_df().columns == ["shop", "card", "at", "spend__total", "spend__visits"]
    assert by_text.to_arrow().column("spend__total").to_pylist() == [30.0]
    by_frame = store.get_historical_features(spark.sql(text), REFS).to_df()
    assert by_frame["visits"].tolist() == [3]


def test_without_entity_rows_every_key_of_the_range_stands_at_its_end(store: FeatureStore) -> None:
    job = store.get_historical_features(None, REFS, start_date=day(1), end_date=day(4))
    found = job.to_df().sort_values("shop").reset_index(drop=True)
    assert found["shop"].tolist() == ["1", "11", "7"]
    assert found["card"].tolist() == [11, 1, 7]
    assert found["visits"].tolist() == [1, 3, 4]
    assert set(found["entity_ts"]) == {pd.Timestamp("2017-05-04", tz="UTC")}


def test_an_on_demand_view_over_a_view_works_in_to_df(store: FeatureStore) -> None:
    given = frame().assign(factor=2.0)
    found = store.get_historical_features(given, ["scaled:scaled"]).to_df()
    assert found["scaled"].tolist()[:4] == [40.0, 60.0, 40.0, 20.0]


def test_a_missing_join_key_is_named(store: FeatureStore) -> None:
    with pytest.raises(FeastEntityDFMissingColumnsError, match="card"):
        store.get_historical_features(frame().drop(columns="card"), REFS)


def test_no_rows_give_no_rows(store: FeatureStore) -> None:
    found = store.get_historical_features(frame().head(0), REFS).to_df()
    assert len(found) == 0
    assert "visits" in found.columns


def test_a_saved_dataset_is_written_and_read_back(store: FeatureStore) -> None:
    job = store.get_historical_features(frame(), REFS)
    store.create_saved_dataset(from_=job, name="kept", storage=SavedDatasetSparkStorage(table="kept_spend"))
    back = store.get_saved_dataset("kept").to_df()
    assert sorted(back["total"].dropna().tolist()) == [10.0, 20.0, 20.0, 30.0]


def test_batches_and_remote_storage_hold_the_same_rows_in_order(store: FeatureStore, tmp_path: Path) -> None:
    job = store.get_historical_features(frame(), REFS)
    once = job.to_arrow()
    assert pa.Table.from_batches(job.to_arrow_batches()).to_pylist() == once.to_pylist()
    assert not job.supports_remote_storage_export()
    store.config.offline_store.staging_location = str(tmp_path)
    staged = store.get_historical_features(frame(), REFS)
    assert staged.supports_remote_storage_export()
    parts = [path for path in staged.to_remote_storage() if path.endswith(".parquet")]
    labels = sorted(pd.concat([pd.read_parquet(one) for one in parts])["label"])
    assert labels == [1, 2, 3, 4, 5]
    assert staged.to_arrow()["total"].to_pylist() == once["total"].to_pylist()


def test_an_answer_is_persisted_as_files(store: FeatureStore, tmp_path: Path) -> None:
    job = store.get_historical_features(frame(), REFS)
    job.persist(SavedDatasetSparkStorage(path=str(tmp_path / "kept"), file_format="parquet"))
    assert pd.read_parquet(tmp_path / "kept")["label"].sort_values().tolist() == [1, 2, 3, 4, 5]


def test_pulls_take_the_range_with_both_ends_and_the_newest_of_each_key(store: FeatureStore) -> None:
    provider = store._get_provider()
    source = store.get_data_source("spend")
    asked = {
        "config": store.config,
        "data_source": source,
        "join_key_columns": ["shop", "card"],
        "feature_name_columns": ["total_spend", "visits"],
        "timestamp_field": "spent_at",
        "created_timestamp_column": "loaded_at",
        "start_date": day(1),
        "end_date": day(5),
    }
    newest = provider.offline_store.pull_latest_from_table_or_query(**asked).to_df().sort_values("shop")
    assert newest["total"].tolist()[:2] == [20.0, 30.0]
    assert list(newest.columns) == ["shop", "card", "total", "visits", "spent_at", "loaded_at"]
    every = provider.offline_store.pull_all_from_table_or_query(**asked).to_df()
    assert len(every) == 4
    none = provider.offline_store.pull_all_from_table_or_query(
        **{**asked, "start_date": day(6), "end_date": day(9)}
    )
    assert len(none.to_df()) == 0


def test_every_null_free_key_of_another_type_still_joins(store: FeatureStore) -> None:
    given = frame()
    given["card"] = [11.0, 1.0, None, 11.0, 99.0]
    found = store.get_historical_features(given, REFS).to_df()
    assert found["visits"].tolist()[:2] == [2, 3]
    assert pd.isna(found["visits"][2])
