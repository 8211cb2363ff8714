"""``feast serve``: events come in at /push and are in the next answer of /get-online-features."""

import json
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from feast import FeatureStore
from feast.feature_server import get_app

from tests.plugin.online.conftest import Shop
from tests.plugin.online.push_shop import CHEESE, COLUMNS, PUSH, pushing

STATUS, EVENTS = "dairy_buyer__status", "dairy_buyer__num_events"


@contextmanager
def served(store: FeatureStore) -> Iterator[str]:
    """The address at which Feast's own HTTP server answers for the store."""
    server = uvicorn.Server(uvicorn.Config(get_app(store), host="127.0.0.1", port=0, log_level="error"))
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        deadline = time.monotonic() + 20
        while not server.started and time.monotonic() < deadline:
            time.sleep(0.02)
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(timeout=20)


def post(url: str, body: dict[str, Any]) -> tuple[int, Any]:
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=60) as found:
            return found.status, json.loads(found.read() or b"null")
    except urllib.error.HTTPError as error:
        return error.code, json.loads(error.read())


def answer(url: str) -> dict[str, Any]:
    body = {
        "features": ["dairy_buyer:status", "dairy_buyer:num_events"],
        "entities": {"household_id": [1]},
        "full_feature_names": True,
    }
    _, found = post(f"{url}/get-online-features", body)
    names = found["metadata"]["feature_names"]
    return dict(zip(names, [one["values"][0] for one in found["results"]], strict=True))


def frame(row: tuple[Any, ...]) -> dict[str, list[Any]]:
    return dict(zip(COLUMNS.names, [[value] for value in row], strict=True))


def test_an_event_pushed_over_http_is_in_the_next_answer(
    sqlite_shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    store = pushing(sqlite_shop)
    sqlite_shop.put(store, "dairy_buyer", 1, seed=3)
    with served(store) as url:
        assert answer(url)[STATUS] == "stored"
        assert post(f"{url}/push", {"push_source_name": PUSH, "df": frame(CHEESE)}) == (200, None)
        found = answer(url)
        assert (found[STATUS], found[EVENTS]) == ("computed", 4)
        bad = frame((None, *CHEESE[1:]))
        code, told = post(f"{url}/push", {"push_source_name": PUSH, "df": bad})
    assert code == 422
    assert "row 0: household_id: the key is null" in json.dumps(told)
