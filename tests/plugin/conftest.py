"""A small store of our own: a Delta table of purchases, one profile, a lake in a temporary folder."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from feast import Entity, FeatureStore, FeatureView, RepoConfig, ValueType
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.table_format import DeltaFormat

from qanchor_plugin.declare import Modality, Profile
from qanchor_plugin.feast_ext import anchor_view

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

CLOCK = datetime(2017, 6, 1, tzinfo=UTC)
QUERY = "Will they buy cheese?"


@pytest.fixture(scope="session")
def purchases_folder(spark: "SparkSession", tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Delta: users 1 to 3; user 2 bought last on the day of the clock, user 3 once, long ago."""
    folder = tmp_path_factory.mktemp("raw") / "purchases"
    rows = [
        (1, datetime(2017, 5, 1, 9, tzinfo=UTC), "oak", "cheese", "dairy", 3.0),
        (1, datetime(2017, 5, 20, 9, tzinfo=UTC), "elm", "bread", "bakery", 2.0),
        (2, datetime(2017, 6, 1, tzinfo=UTC), "oak", "milk", "dairy", 1.0),
        (3, datetime(2017, 1, 1, tzinfo=UTC), "fir", "wine", "drinks", 9.0),
    ]
    schema = "user_id long, bought_at timestamp, brand string, product string, category string, price double"
    spark.createDataFrame(rows, schema).coalesce(1).write.format("delta").save(str(folder))
    return folder


def purchases_source(folder: Path) -> SparkSource:
    """The purchases as a Feast source, made anew."""
    return SparkSource(
        name="purchases", path=str(folder), table_format=DeltaFormat(), timestamp_field="bought_at"
    )


def shopper() -> Entity:
    """The only entity."""
    return Entity(name="shopper", join_keys=["user_id"], value_type=ValueType.INT64)


def journey(folder: Path, **changes: Any) -> Profile:
    """The profile over the purchases, made anew."""
    modality = Modality(
        "purchases",
        purchases_source(folder),
        text="{brand} {product}",
        group_by=("category",),
        amounts=("price",),
        max_events=8,
    )
    return Profile("journey", shopper(), [modality], **{"window": timedelta(days=90), **changes})


def cheese_view(folder: Path, **changes: Any) -> FeatureView:
    """An anchor view over the profile, made anew."""
    given = {
        "name": "cheese",
        "query": QUERY,
        "ttl": timedelta(days=7),
        "profile": journey(folder),
        **changes,
    }
    return anchor_view(**given)


StoreMaker = Callable[..., FeatureStore]


@pytest.fixture
def make_store(tmp_path: Path) -> StoreMaker:
    """Opens the store of this test: ``make_store(registry="file" | "sql", **qanchor settings)``."""

    def make(registry: str = "file", **settings: Any) -> FeatureStore:
        path = {"file": str(tmp_path / "registry.db"), "sql": f"sqlite:///{tmp_path / 'registry.sqlite'}"}[
            registry
        ]
        return FeatureStore(
            config=RepoConfig(
                project="shop",
                provider="qanchor_plugin.feast_ext.provider.QAnchorProvider",
                registry={
                    "registry_type": registry,
                    "path": path,
                    "cache_ttl_seconds": 0,
                    "enable_online_feature_view_versioning": True,
                },
                online_store={"type": "sqlite", "path": str(tmp_path / "online.db")},
                offline_store={"type": "qanchor_plugin.feast_ext.offline_store.QAnchorOfflineStore"},
                batch_engine={"type": "qanchor_plugin.feast_ext.compute_engine.QAnchorComputeEngine"},
                entity_key_serialization_version=3,
                repo_path=tmp_path,
                qanchor={"lake": "lake", "clock": CLOCK.isoformat(), "device": "cpu", **settings},
            )
        )

    return make
