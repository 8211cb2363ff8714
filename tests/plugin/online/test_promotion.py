"""A new engine beside the old: built before it is promoted, served by one apply, never mixed with the old."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from feast import FeatureStore
from pyspark.sql import SparkSession

from qanchor_plugin.declare import Modality, Profile
from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.engine.config import DEMO
from qanchor_plugin.errors import DeclarationError
from qanchor_plugin.feast_ext.anchor_view import anchor_view
from qanchor_plugin.feast_ext.declarations import (
    declarations_from_registry,
    pending_declarations,
    settings_from_config,
)
from spark_jobs.refresh import refresh
from tests.plugin.online.conftest import read
from tests.plugin.online.test_online_materialize import END, HOUSEHOLD, START, open_store, source

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(900)]
USERS = [{"household_id": 1}, {"household_id": 2}]


@pytest.fixture
def folder(spark: SparkSession, tmp_path: Path) -> Path:
    """Two households' purchases and an untrained engine beside the shipped one."""
    rows = [
        (1, datetime(2017, 5, 1, 9, tzinfo=UTC), "cheese", "dairy", 3.0),
        (2, datetime(2017, 5, 30, tzinfo=UTC), "milk", "dairy", 1.0),
    ]
    schema = "household_id long, bought_at timestamp, product string, category string, price double"
    spark.createDataFrame(rows, schema).coalesce(1).write.format("delta").save(str(tmp_path / "raw"))
    QueryAnchorEngine.untrained(DEMO.with_(seed=5), device="cpu").save_pretrained(tmp_path / "other")
    return tmp_path


def view_of(folder: Path, engine: str):
    modality = Modality("purchases", source("purchases", folder / "raw"), "{product}", amounts=("price",))
    profile = Profile("journey", HOUSEHOLD, [modality], window=timedelta(days=90))
    query = "Does this household buy dairy?"
    return anchor_view("dairy", query, profile, timedelta(days=7), engine=engine)


def online(store: FeatureStore, view: str = "dairy") -> tuple[list[str], np.ndarray]:
    found = read(store, [f"{view}:embedding", f"{view}:status"], USERS)
    return found[f"{view}__status"], np.array(found[f"{view}__embedding"], dtype=object)


def test_a_new_engine_is_built_beside_the_old_and_one_apply_promotes_it(
    spark: SparkSession, folder: Path
) -> None:
    store = open_store(folder, {"type": "sqlite", "path": str(folder / "online.db")})
    store.apply([HOUSEHOLD, view_of(folder, "demo")])
    store.materialize(START, END)
    before = online(store)
    assert before[0] == ["stored", "stored"]
    assert not pending_declarations(store.registry, "shop").scenarios

    newer = view_of(folder, str(folder / "other"))
    store.apply([newer], no_promote=True)
    waiting = pending_declarations(store.registry, "shop")
    served = declarations_from_registry(store.registry, "shop")
    assert waiting.scenarios["dairy"].engine_digest != served.scenarios["dairy"].engine_digest
    report = refresh(spark, settings_from_config(store.config), waiting, end=END)
    assert next(iter(report.counts["embeddings"].values()))["written"] == 2
    status, vectors = online(store)
    assert status == before[0]
    assert vectors.tolist() == before[1].tolist(), "the old version is served on"

    store.apply([newer])
    assert not pending_declarations(store.registry, "shop").scenarios
    assert online(store)[0] == ["missing", "missing"], "the old engine's rows are never the new one's"
    store.materialize(START, END)
    status, vectors = online(store)
    assert status == ["stored", "stored"]
    assert np.abs(vectors.astype(float) - before[1].astype(float)).max() > 0.05
    rows = store.provider.tables.read("scenario_embeddings", columns=["embedding_id"])
    assert rows.num_rows == 4, "the promotion computed nothing: two rows of each engine"


def test_nothing_waits_where_all_is_served(folder: Path) -> None:
    from qanchor_plugin.cli.repo import Repo

    store = open_store(folder, {"type": "sqlite", "path": str(folder / "online.db")})
    store.apply([HOUSEHOLD, view_of(folder, "demo")])
    here = Repo(path=folder, config=store.config, settings=settings_from_config(store.config))
    with pytest.raises(DeclarationError, match="feast apply --no-promote"):
        here.declarations(pending=True)
