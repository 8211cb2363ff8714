"""Small feature stores over the shop lake: SQLite, and a real Redis server on a free port."""

import asyncio
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, ValueType
from feast.feature_view import DUMMY_ENTITY
from feast.inference import update_feature_views_with_inferred_features_and_entities
from feast.protos.feast.types.EntityKey_pb2 import EntityKey
from feast.protos.feast.types.Value_pb2 import FloatList, Value
from feast.types import Float64, Int64

from qanchor_plugin.feast_ext import online_rows as R
from qanchor_plugin.feast_ext.anchor_view import anchor_view
from qanchor_plugin.feast_ext.online_rows import Anchor
from qanchor_plugin.prefix_store import LakeTables
from tests.shop import PROFILE, ShopLake, demo_engine, shop_lake

QUERIES = {
    "dairy_buyer": "Does this household buy dairy?",
    "wine_buyer": "Will this household buy wine next month?",
}
HOUSEHOLD = Entity(name="household", join_keys=["household_id"], value_type=ValueType.INT64)


def household_key(household_id: int) -> EntityKey:
    return EntityKey(join_keys=["household_id"], entity_values=[Value(int64_val=household_id)])


def vector(seed: int) -> list[float]:
    """A literal unit vector: one at ``seed``, zero elsewhere."""
    return np.eye(128, dtype=np.float32)[seed].tolist()


@dataclass
class Shop:
    """One feature store over its own lake."""

    folder: Path
    lake: ShopLake
    online: dict[str, Any]
    settings: dict[str, Any]
    stores: list[FeatureStore] = field(default_factory=list)

    def write_yaml(self, **settings: Any) -> None:
        """feature_store.yaml says so."""
        self.settings = {**self.settings, **settings}
        body = {
            "project": "shop",
            "provider": "qanchor_plugin.feast_ext.provider.QAnchorProvider",
            "entity_key_serialization_version": 3,
            "registry": {"path": "registry.db", "enable_online_feature_view_versioning": True},
            "online_store": self.online,
            "offline_store": {"type": "qanchor_plugin.feast_ext.offline_store.QAnchorOfflineStore"},
            "qanchor": self.settings,
        }
        (self.folder / "feature_store.yaml").write_text(yaml.safe_dump(body))

    def store(self, **settings: Any) -> FeatureStore:
        """A fresh store object over the same registry, with these settings changed."""
        self.write_yaml(**settings)
        store = FeatureStore(repo_path=str(self.folder))
        store.provider.__dict__["tables"] = LakeTables(str(self.lake.folder), max_age_seconds=0)
        self.stores.append(store)
        return store

    def close(self) -> None:
        """No thread of any store runs on."""
        for store in self.stores:
            held = store.provider.__dict__
            for name in ("misses", "write_back"):
                if name in held:
                    held[name].close()

    def register(self, store: FeatureStore, *views: Any) -> None:
        """The views are in the registry and the online store has their tables (no source is read)."""
        for entity in (HOUSEHOLD, DUMMY_ENTITY):
            store.registry.apply_entity(entity, "shop")
        update_feature_views_with_inferred_features_and_entities(
            store.provider, list(views), [HOUSEHOLD], store.config
        )
        for view in views:
            store.registry.apply_feature_view(view, "shop")
        kept = [store.get_feature_view(view.name) for view in views]
        store.provider.online_store.update(store.config, [], kept, [], [HOUSEHOLD], partial=True)

    def put(
        self,
        store: FeatureStore,
        view_name: str,
        household_id: int,
        *,
        seed: int,
        cutoff: str = "2018-01-01",
        embedding_id: str | None = None,
        written_at: datetime | None = None,
    ) -> None:
        """A literal row, as materialise writes it, stands in the online store."""
        view = store.get_feature_view(view_name)
        identity = Anchor.of(view).scenario_id[:16]
        instant = round(datetime.fromisoformat(cutoff).replace(tzinfo=UTC).timestamp())
        features = {
            "embedding": Value(float_list_val=FloatList(val=vector(seed))),
            "embedding_id": Value(string_val=embedding_id or f"{identity}-{'a' * 16}"),
            "cutoff": Value(unix_timestamp_val=instant),
            "as_of": Value(unix_timestamp_val=instant),
            "num_events": Value(int64_val=5),
            "status": Value(string_val=R.STORED),
        }
        at = written_at or datetime.now(UTC)
        store.provider.online_write_batch(
            store.config, view, [(household_key(household_id), features, at, None)], None
        )


def spend_view(folder: Path) -> FeatureView:
    """An ordinary feature view."""
    return FeatureView(
        name="spend",
        entities=[HOUSEHOLD],
        schema=[Field(name="household_id", dtype=Int64), Field(name="total", dtype=Float64)],
        source=FileSource(name="spend_file", path=str(folder / "spend.parquet"), timestamp_field="at"),
    )


def put_spend(store: FeatureStore, household_id: int, total: float) -> None:
    """A literal row of the ordinary view."""
    row = (household_key(household_id), {"total": Value(double_val=total)}, datetime.now(UTC), None)
    store.provider.online_write_batch(store.config, store.get_feature_view("spend"), [row], None)


@pytest.fixture(scope="session")
def redis_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real redis-server on a free port of loopback."""
    binary = shutil.which("redis-server")
    if binary is None:
        pytest.skip("no redis-server on the PATH; Debian: apt-get install redis-server")
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folder = tmp_path_factory.mktemp("redis")
    command = [binary, "--port", str(port), "--bind", "127.0.0.1", "--save", "", "--dir", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _await_port(port)
        yield port
    finally:
        server.terminate()
        server.wait(timeout=10)


def _await_port(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with closing(socket.socket()) as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError(f"nothing listens on port {port}")


@pytest.fixture(params=["sqlite", "redis"])
def online(request: pytest.FixtureRequest) -> dict[str, Any]:
    """The online store's configuration: both kinds."""
    if request.param == "sqlite":
        return {"type": "sqlite", "path": "online.db"}
    port = request.getfixturevalue("redis_port")
    from redis import Redis

    with Redis(port=port) as client:
        client.flushall()
    return {"type": "redis", "connection_string": f"127.0.0.1:{port}"}


@pytest.fixture
def make_shop(tmp_path: Path) -> Iterator[Callable[[dict[str, Any]], Shop]]:
    made: list[Shop] = []

    def make(online: dict[str, Any]) -> Shop:
        lake = shop_lake(tmp_path / "lake", demo_engine())
        settings = {
            "lake": "lake",
            "clock": "2018-01-01T00:00:00Z",
            "engine": "demo",
            "device": "cpu",
            "max_compute_ms": 60_000,
        }
        shop = Shop(folder=tmp_path, lake=lake, online=online, settings=settings)
        store = shop.store()
        views = [anchor_view(name, query, PROFILE, timedelta(days=7)) for name, query in QUERIES.items()]
        shop.register(store, *views, spend_view(tmp_path))
        made.append(shop)
        return shop

    yield make
    for one in made:
        one.close()


def read(
    store: FeatureStore, features: list[str], rows: list[dict[str, Any]], asynchronous: bool = False
) -> dict[str, list[Any]]:
    """Columns of an online read with full feature names; an asynchronous one closes its connections."""
    if not asynchronous:
        return store.get_online_features(features, rows, full_feature_names=True).to_dict()

    async def answer() -> dict[str, list[Any]]:
        found = await store.get_online_features_async(features, rows, full_feature_names=True)
        await store.provider.online_store.close()
        return found.to_dict()

    return asyncio.run(answer())


@pytest.fixture
def shop(make_shop: Callable[[dict[str, Any]], Shop], online: dict[str, Any]) -> Shop:
    """The shop over SQLite, then over Redis."""
    return make_shop(online)


@pytest.fixture
def sqlite_shop(make_shop: Callable[[dict[str, Any]], Shop]) -> Shop:
    """The shop over SQLite alone, where the store's kind does not matter."""
    return make_shop({"type": "sqlite", "path": "online.db"})
