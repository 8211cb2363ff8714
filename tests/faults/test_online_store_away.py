"""Redis dies in the middle of materialise, after the lake's commit, and comes back empty."""

import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from feast import Entity, FeatureStore, RepoConfig, ValueType
from feast.infra.common.materialization_job import MaterializationJobStatus, MaterializationTask
from feast.infra.offline_stores.contrib.spark_offline_store.spark_source import SparkSource
from feast.table_format import DeltaFormat
from pyspark.sql import SparkSession

from qanchor_plugin.declare import Modality, Profile
from qanchor_plugin.errors import OnlineStoreError
from qanchor_plugin.feast_ext.anchor_view import anchor_view
from tests.plugin.online.conftest import read

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(1800)]
START, END = datetime(2017, 1, 1, tzinfo=UTC), datetime(2017, 6, 1, tzinfo=UTC)
HOUSEHOLD = Entity(name="household", join_keys=["household_id"], value_type=ValueType.INT64)
IDS = tuple(range(1, 13))


class Redis:
    """A redis-server on one port, killed and started at will."""

    def __init__(self, folder: Path) -> None:
        with closing(socket.socket()) as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._folder = folder
        self._server: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self._server = subprocess.Popen(
            [*command, "--dir", str(self._folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.05)
        raise AssertionError("redis-server does not listen")

    def kill(self) -> None:
        if self._server is not None:
            self._server.kill()
            self._server.wait()
            self._server = None


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    if shutil.which("redis-server") is None:
        pytest.skip("no redis-server on the PATH; Debian: apt-get install redis-server")
    server = Redis(tmp_path)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def store(spark: SparkSession, tmp_path: Path, redis: Redis) -> FeatureStore:
    rows = [(one, datetime(2017, 5, one, tzinfo=UTC), f"thing {one}") for one in IDS]
    frame = spark.createDataFrame(rows, "household_id long, bought_at timestamp, product string")
    frame.coalesce(1).write.format("delta").save(str(tmp_path / "raw"))
    source = SparkSource(
        name="purchases",
        path=str(tmp_path / "raw"),
        table_format=DeltaFormat(),
        timestamp_field="bought_at",
    )
    profile = Profile("journey", HOUSEHOLD, [Modality("purchases", source, "{product}")])
    store = FeatureStore(
        config=RepoConfig(
            project="shop",
            provider="qanchor_plugin.feast_ext.provider.QAnchorProvider",
            registry={"path": str(tmp_path / "registry.db"), "enable_online_feature_view_versioning": True},
            online_store={"type": "redis", "connection_string": f"127.0.0.1:{redis.port}"},
            offline_store={"type": "qanchor_plugin.feast_ext.offline_store.QAnchorOfflineStore"},
            batch_engine={"type": "qanchor_plugin.feast_ext.compute_engine.QAnchorComputeEngine"},
            entity_key_serialization_version=3,
            repo_path=tmp_path,
            qanchor={"lake": "lake", "clock": END.isoformat(), "device": "cpu", "on_miss": "null"},
        )
    )
    store.apply([HOUSEHOLD, anchor_view("thing", "Will they buy a thing?", profile, timedelta(days=7))])
    return store


def test_a_redis_that_dies_meanwhile_is_the_jobs_error_and_the_next_run_fills_it(
    store: FeatureStore, redis: Redis, tmp_path: Path
) -> None:
    commits = tmp_path / "lake" / "scenario_embeddings" / "_delta_log"

    def kill_at_the_commit() -> None:
        deadline = time.monotonic() + 300
        while not (commits / f"{1:020d}.json").exists() and time.monotonic() < deadline:
            time.sleep(0.002)
        redis.kill()

    watcher = threading.Thread(target=kill_at_the_commit)
    watcher.start()
    task = MaterializationTask("shop", store.get_feature_view("thing"), START, END)
    (job,) = store.provider.batch_engine.materialize(store.registry, [task])
    watcher.join()
    assert isinstance(job.error(), OnlineStoreError)
    vectors = store.provider.tables.read("scenario_embeddings")
    assert vectors.num_rows == len(IDS), "the lake has what the store lacks"

    redis.start()
    before = {name: store.provider.tables.read(name).num_rows for name in ("user_prefixes", "event_vectors")}
    (again,) = store.provider.batch_engine.materialize(store.registry, [task])
    assert again.status() == MaterializationJobStatus.SUCCEEDED
    assert {name: store.provider.tables.read(name).num_rows for name in before} == before, "no model ran"
    found = read(store, ["thing:embedding", "thing:status"], [{"household_id": one} for one in IDS])
    assert found["thing__status"] == ["stored"] * len(IDS)
    by_key = dict(zip(vectors["user_key"].to_pylist(), vectors["embedding"].to_pylist(), strict=True))
    for one, vector in zip(IDS, found["thing__embedding"], strict=True):
        np.testing.assert_array_equal(vector, by_key[f'{{"household_id": {one}}}'])
