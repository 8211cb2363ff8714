"""Materialise through Feast: real Spark, Delta, SQLite and Redis; online equals the engine asked directly."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from feast import Entity, FeatureStore, FeatureView, Field, RepoConfig, ValueType
from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.table_format import DeltaFormat
from feast.types import Float64, Int64

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Modality, Profile
from qanchor_plugin.errors import OnlineStoreError
from qanchor_plugin.feast_ext.anchor_view import anchor_view
from qanchor_plugin.feast_ext.online_rows import Anchor, entity_user, micros_of
from tests.plugin.online.conftest import household_key, read

pytestmark = pytest.mark.spark

SCENARIOS = {"dairy": "Does this household buy dairy?", "wine": "Will this household buy wine?"}
HOUSEHOLD = Entity(name="household", join_keys=["household_id"], value_type=ValueType.INT64)
START, END = datetime(2017, 1, 1, tzinfo=UTC), datetime(2017, 6, 1, tzinfo=UTC)
IDS = (1, 2, 3)


def source(name: str, path: Path) -> SparkSource:
    return SparkSource(name=name, path=str(path), table_format=DeltaFormat(), timestamp_field="bought_at")


def ordinary(name: str, path: Path) -> FeatureView:
    return FeatureView(
        name=name,
        entities=[HOUSEHOLD],
        schema=[Field(name="household_id", dtype=Int64), Field(name="price", dtype=Float64)],
        source=source(f"{name}_source", path),
        ttl=timedelta(0),
    )


@pytest.fixture(scope="module")
def folder(spark, tmp_path_factory) -> Path:
    """A feature repo's folder with its raw table: households 1 to 3; 3 bought once, long ago."""
    folder = tmp_path_factory.mktemp("materialise")
    rows = [
        (1, datetime(2017, 5, 1, 9, tzinfo=UTC), "cheese", "dairy", 3.0),
        (1, datetime(2017, 5, 20, 9, tzinfo=UTC), "bread", "bakery", 2.0),
        (2, datetime(2017, 5, 30, tzinfo=UTC), "milk", "dairy", 1.0),
        (3, datetime(2016, 1, 1, tzinfo=UTC), "wine", "drinks", 9.0),
    ]
    schema = "household_id long, bought_at timestamp, product string, category string, price double"
    spark.createDataFrame(rows, schema).coalesce(1).write.format("delta").save(str(folder / "raw"))
    return folder


def open_store(folder: Path, online: dict) -> FeatureStore:
    return FeatureStore(
        config=RepoConfig(
            project="shop",
            provider="qanchor_plugin.feast_ext.provider.QAnchorProvider",
            registry={
                "path": str(folder / "registry.db"),
                "cache_ttl_seconds": 0,
                "enable_online_feature_view_versioning": True,
            },
            online_store=online,
            offline_store={"type": "qanchor_plugin.feast_ext.offline_store.QAnchorOfflineStore"},
            batch_engine={"type": "qanchor_plugin.feast_ext.compute_engine.QAnchorComputeEngine"},
            entity_key_serialization_version=3,
            repo_path=folder,
            qanchor={"lake": "lake", "clock": END.isoformat(), "device": "cpu", "on_miss": "null"},
        )
    )


@pytest.fixture(scope="module")
def store(folder: Path) -> FeatureStore:
    """Applied and materialised up to END."""
    modality = Modality(
        "purchases",
        source("purchases", folder / "raw"),
        "{product}",
        group_by=("category",),
        amounts=("price",),
    )
    profile = Profile("journey", HOUSEHOLD, [modality], window=timedelta(days=90))
    store = open_store(folder, {"type": "sqlite", "path": str(folder / "online.db")})
    views = [anchor_view(name, query, profile, timedelta(days=7)) for name, query in SCENARIOS.items()]
    store.apply([HOUSEHOLD, *views, ordinary("spend", folder / "raw")])
    store.materialize(START, END)
    return store


def directly(store: FeatureStore, name: str, end: datetime = END):
    anchor = Anchor.of(store.get_feature_view(name))
    users = [entity_user(household_key(one)) for one in IDS]
    return [row[0] for row in store.provider.backend.embed(users, micros_of(end), [anchor.ask("demo")])]


def online(store: FeatureStore, *fields: str):
    features = [f"{name}:{field}" for name in SCENARIOS for field in fields]
    return read(store, [*features, "spend:price"], [{"household_id": one} for one in (*IDS, 4)])


def test_online_rows_are_what_the_engine_gives_at_the_end(store: FeatureStore):
    found = online(store, "embedding", "embedding_id", "status", "num_events", "cutoff")
    for name in SCENARIOS:
        expected = directly(store, name)
        assert found[f"{name}__status"] == ["stored"] * 3 + ["missing"]
        assert found[f"{name}__num_events"] == [2, 1, 0, None]
        assert found[f"{name}__embedding_id"][:3] == [one.embedding_id for one in expected]
        assert [one.replace(tzinfo=UTC) for one in found[f"{name}__cutoff"][:3]] == [END] * 3
        vectors = np.array(found[f"{name}__embedding"][:3])
        np.testing.assert_allclose(vectors, [one.embedding for one in expected], atol=1e-5)
    assert found["spend__price"] == [2.0, 1.0, None, None]


def test_an_earlier_end_writes_history_only(store: FeatureStore):
    before = online(store, "embedding")
    earlier = END - timedelta(days=20)
    store.materialize(START, earlier, feature_views=list(SCENARIOS))
    assert online(store, "embedding") == before
    rows = store.provider.tables.read("scenario_embeddings", columns=[S.SCENARIO, S.CUTOFF]).to_pylist()
    assert earlier in {row[S.CUTOFF] for row in rows}


def test_a_fault_is_a_job_in_error_in_its_place(store: FeatureStore, folder: Path):
    views = [ordinary("broken", folder / "nothing"), store.get_feature_view("dairy")]
    views.append(store.get_feature_view("spend"))
    tasks = [MaterializationTask("shop", view, START, END) for view in views]
    jobs = store.provider.batch_engine.materialize(store.registry, tasks)
    assert [job.status() for job in jobs] == [
        MaterializationJobStatus.ERROR,
        MaterializationJobStatus.SUCCEEDED,
        MaterializationJobStatus.SUCCEEDED,
    ]
    assert [job.task.feature_view.name for job in jobs] == ["broken", "dairy", "spend"]
    assert "nothing" in str(jobs[0].error())
    assert [job.num_written for job in jobs] == [0, 3, 2]


def test_redis_is_written_by_the_executors(store: FeatureStore, folder: Path, redis_port: int):
    other = open_store(folder, {"type": "redis", "connection_string": f"127.0.0.1:{redis_port}"})
    other.materialize(START, END)
    expected, found = online(store, "embedding", "status"), online(other, "embedding", "status")
    assert found["wine__status"] == ["stored"] * 3 + ["missing"]
    assert found == expected


def test_a_redis_that_is_down_is_the_jobs_error(store: FeatureStore, folder: Path):
    other = open_store(folder, {"type": "redis", "connection_string": "127.0.0.1:1"})
    task = MaterializationTask("shop", store.get_feature_view("dairy"), START, END)
    (job,) = other.provider.batch_engine.materialize(other.registry, [task])
    assert isinstance(job.error(), OnlineStoreError)
    assert str(job.error()).startswith("the online store redis at 127.0.0.1:1 failed")


def test_a_removed_scenario_leaves_no_rows_online(store: FeatureStore, folder: Path):
    import sqlite3

    def tables() -> set[str]:
        with sqlite3.connect(folder / "online.db") as connection:
            found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            names = {name for (name,) in found}
        connection.close()
        return names

    kept = [HOUSEHOLD, store.get_feature_view("dairy"), store.get_feature_view("spend")]
    assert "shop_wine" in tables()
    store.apply(kept, objects_to_delete=[store.get_feature_view("wine")], partial=False)
    assert {name for name in tables() if name.startswith("shop_wine")} == set()
    assert "shop_dairy" in tables()
