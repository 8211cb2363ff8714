"""The example's own feature_store.yaml serves from Redis once the lines in its comment replace SQLite's."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from redis import Redis

from tests.plugin.online.conftest import Shop, read, vector

REPO = Path(__file__).resolve().parents[3]
SQLITE = ["online_store:", "  type: sqlite", "  path: data/online_store.db"]
ADDRESS = "localhost:6379"


def changed(shipped: list[str]) -> list[str]:
    """The file with the commented lines in force, in SQLite's place."""
    place, comment = shipped.index(SQLITE[0]), shipped.index("#   online_store:")
    assert shipped[place : place + len(SQLITE)] == SQLITE
    lines = [line.removeprefix("#   ") for line in shipped[comment:place]]
    assert len(lines) == 4
    return [*shipped[:place], *lines, *shipped[place + len(SQLITE) :]]


def test_four_lines_of_the_shipped_configuration_serve_from_redis(
    make_shop: Callable[[dict[str, Any]], Shop], redis_port: int
):
    shipped = (REPO / "feature_store.yaml").read_text()
    before, after = yaml.safe_load(shipped), yaml.safe_load("\n".join(changed(shipped.splitlines())))
    online = after["online_store"]
    assert {**after, "online_store": before["online_store"]} == before
    assert online["connection_string"] == ADDRESS

    online["connection_string"] = f"127.0.0.1:{redis_port}"
    with Redis(port=redis_port) as client:
        client.flushall()
        shop = make_shop(online)
        store = shop.store()
        shop.put(store, "dairy_buyer", 1, seed=3)
        found = read(store, ["dairy_buyer:embedding", "dairy_buyer:status"], [{"household_id": 1}])
        assert found["dairy_buyer__embedding"] == [vector(3)]
        assert found["dairy_buyer__status"] == ["stored"]
        assert client.dbsize() == 1
    assert not list(shop.folder.glob("*online*.db"))
