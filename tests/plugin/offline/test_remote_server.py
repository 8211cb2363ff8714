"""Feast's remote offline server in front of our store: ordinary and anchor views over Arrow Flight."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from feast import FeatureStore
from feast.offline_server import OfflineServer
from feast.repo_config import RepoConfig
from pyspark.sql import SparkSession

from tests.plugin.conftest import CLOCK
from tests.plugin.offline.anchor_store import store_body

pytestmark = pytest.mark.spark


@pytest.fixture
def remote(base: Path, store: FeatureStore) -> Iterator[FeatureStore]:
    """A store whose offline store is a server on loopback over ``store``."""
    server = OfflineServer(store, "grpc+tcp://127.0.0.1:0", "127.0.0.1")
    thread = threading.Thread(target=server.serve, daemon=True)
    thread.start()
    body = store_body(base) | {"provider": "local"}
    body["offline_store"] = {"type": "remote", "host": "127.0.0.1", "port": server.port}
    del body["batch_engine"]
    yield FeatureStore(config=RepoConfig(repo_path=base, **body))
    server.shutdown()
    thread.join(timeout=30)


def test_a_client_without_spark_reads_ordinary_and_anchor_views_as_of_their_instants(
    remote: FeatureStore, store: FeatureStore, spark: SparkSession
) -> None:
    asked = pd.DataFrame(
        {"user_id": [2, 1, 99], "event_timestamp": [CLOCK, pd.Timestamp("2017-05-10"), CLOCK]}
    )
    asked["event_timestamp"] = pd.to_datetime(asked["event_timestamp"], utc=True)
    refs = ["cheese:embedding", "cheese:num_events", "spend:price"]
    found = remote.get_historical_features(asked, refs, full_feature_names=True).to_df()
    here = store.get_historical_features(asked, refs, full_feature_names=True).to_df()
    pd.testing.assert_frame_equal(found, here)
    assert found["cheese__num_events"].fillna(-1).tolist() == [1, 1, -1]
    assert found["spend__price"].fillna(-1).tolist() == [1.0, 3.0, -1]
