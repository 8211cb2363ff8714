"""Scenarios that go: renamed, removed in every version, and the whole store torn down."""

import sqlite3
from contextlib import chdir, closing
from datetime import timedelta
from pathlib import Path

import pytest
from feast import FeatureStore
from feast.errors import FeatureViewNotFoundException
from feast.repo_operations import teardown

from qanchor_plugin.feast_ext.anchor_view import anchor_view
from tests.plugin.online.conftest import QUERIES, Shop, read, vector
from tests.shop import PROFILE

CHANGED = "Does this household buy any cheese?"


def views_online(shop: Shop) -> set[str]:
    """Views, with their versions, of which the online store holds a row."""
    if shop.online["type"] == "sqlite":
        path = shop.folder / shop.online["path"]
        return _sqlite_views(path) if path.exists() else set()
    from redis import Redis

    host, port = shop.online["connection_string"].split(":")
    with Redis(host=host, port=int(port)) as client:
        fields = {field for key in client.scan_iter() for field in client.hkeys(key)}
    return {one[len(b"_ts:") :].decode() for one in fields if one.startswith(b"_ts:")}


def _sqlite_views(path: Path) -> set[str]:
    with closing(sqlite3.connect(path)) as connection:
        found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        held = {name for (name,) in found if connection.execute(f"SELECT 1 FROM {name}").fetchone()}
    return {name.removeprefix("shop_") for name in held}


def remove(store: FeatureStore, name: str) -> None:
    """What ``feast apply`` does about a view whose file is gone."""
    view = store.get_feature_view(name)
    store.registry.delete_feature_view(name, "shop")
    store.provider.update_infra("shop", [view], [], [], [], partial=True)
    store.refresh_registry()


def embeddings(store: FeatureStore, name: str) -> tuple[list, list]:
    found = read(store, [f"{name}:embedding", f"{name}:status"], [{"household_id": 1}])
    return found[f"{name}__embedding"], found[f"{name}__status"]


def test_a_renamed_scenario_takes_no_row_along(shop: Shop):
    store = shop.store()
    shop.put(store, "dairy_buyer", 1, seed=3)
    shop.put(store, "wine_buyer", 1, seed=4)
    shop.register(store, anchor_view("milk_buyer", QUERIES["dairy_buyer"], PROFILE, timedelta(days=7)))
    remove(store, "dairy_buyer")
    assert views_online(shop) == {"wine_buyer"}
    with pytest.raises(FeatureViewNotFoundException):
        embeddings(store, "dairy_buyer")
    (computed,), status = embeddings(store, "milk_buyer")
    assert status == ["computed"]
    assert computed != vector(3)
    shop.put(store, "milk_buyer", 1, seed=5)
    assert embeddings(store, "milk_buyer") == ([vector(5)], ["stored"])
    assert embeddings(store, "wine_buyer") == ([vector(4)], ["stored"])


def test_a_removed_scenario_leaves_no_row_of_any_version(shop: Shop):
    store = shop.store()
    shop.put(store, "dairy_buyer", 1, seed=3)
    shop.put(store, "wine_buyer", 1, seed=4)
    shop.register(store, anchor_view("dairy_buyer", CHANGED, PROFILE, timedelta(days=7)))
    store.refresh_registry()
    shop.put(store, "dairy_buyer", 1, seed=5)
    assert views_online(shop) == {"dairy_buyer", "dairy_buyer_v1", "wine_buyer"}
    remove(store, "dairy_buyer")
    assert views_online(shop) == {"wine_buyer"}
    assert embeddings(store, "wine_buyer") == ([vector(4)], ["stored"])


def test_teardown_removes_what_is_online_and_leaves_the_lake(shop: Shop):
    store = shop.store()
    shop.put(store, "dairy_buyer", 1, seed=3)
    before = {path: path.read_bytes() for path in shop.lake.folder.rglob("*") if path.is_file()}
    assert views_online(shop) == {"dairy_buyer"}
    with chdir(shop.folder):  # where the command stands
        teardown(store.config, None)
    assert views_online(shop) == set()
    assert shop.store().list_feature_views() == []
    assert {path: path.read_bytes() for path in shop.lake.folder.rglob("*") if path.is_file()} == before
