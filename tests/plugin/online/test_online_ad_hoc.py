"""A query that nobody registered, through the on-demand view, in process and over HTTP."""

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, Float32, Int64, String

from qanchor_plugin.errors import DeclarationError, InputDataError
from qanchor_plugin.feast_ext.on_demand import ADHOC_EMBEDDING, answer_adhoc
from tests.plugin.online.conftest import QUERIES, Shop, read, vector


def ad_hoc_view(profile: str = "journey"):
    @on_demand_feature_view(
        sources=[RequestSource(name="anchor_request", schema=[Field(name="anchor_query", dtype=String)])],
        schema=[
            Field(name="embedding", dtype=Array(Float32)),
            Field(name="embedding_id", dtype=String),
            Field(name="num_events", dtype=Int64),
            Field(name="status", dtype=String),
        ],
        mode="pandas",
        tags={"qanchor.adhoc_profile": profile},
    )
    def ad_hoc(inputs: pd.DataFrame) -> pd.DataFrame:
        from qanchor_plugin.feast_ext.on_demand import answer_adhoc

        return answer_adhoc(inputs, "journey")

    return ad_hoc


@pytest.fixture
def ad_hoc_shop(sqlite_shop: Shop) -> Shop:
    store = sqlite_shop.store()
    view = ad_hoc_view()
    view.infer_features()  # what apply does: the function runs on dummy input
    store.registry.apply_feature_view(view, "shop")
    return sqlite_shop


FEATURES = [f"ad_hoc:{name}" for name in ("embedding", "embedding_id", "num_events", "status")]


def ask(store, rows, features=FEATURES, asynchronous=False):
    return read(store, list(features), rows, asynchronous)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_registered_query_asked_ad_hoc_gives_the_registered_vector(ad_hoc_shop: Shop, asynchronous):
    store = ad_hoc_shop.store()
    rows = [
        {"household_id": 2, "anchor_query": QUERIES["wine_buyer"]},
        {"household_id": 4, "anchor_query": QUERIES["wine_buyer"]},
        {"household_id": 1, "anchor_query": QUERIES["dairy_buyer"]},
    ]
    found = ask(store, rows, [*FEATURES, "dairy_buyer:embedding", "wine_buyer:embedding"], asynchronous)
    assert found["ad_hoc__status"] == ["computed", "unknown", "computed"]
    assert found["ad_hoc__num_events"] == [1, None, 3]
    assert found["ad_hoc__embedding"][1] is None
    for row, name in ((0, "wine_buyer"), (2, "dairy_buyer")):
        np.testing.assert_allclose(
            found["ad_hoc__embedding"][row], found[f"{name}__embedding"][row], atol=1e-5
        )


def test_an_ad_hoc_view_alone_is_answered(ad_hoc_shop: Shop):
    found = ask(ad_hoc_shop.store(), [{"household_id": 1, "anchor_query": "Bread lover?"}])
    assert found["ad_hoc__status"] == ["computed"]
    assert np.linalg.norm(found["ad_hoc__embedding"][0]) == pytest.approx(1, abs=1e-4)


def test_bad_requests_are_named(ad_hoc_shop: Shop):
    store = ad_hoc_shop.store()
    with pytest.raises(InputDataError, match=r"the request has no \['household_id'\]"):
        ask(store, [{"anchor_query": "Bread lover?"}])
    with pytest.raises(InputDataError, match=r"rows \[0\] have no 'anchor_query'"):
        ask(store, [{"household_id": 1, "anchor_query": "  "}])


def test_a_profile_that_no_scenario_declares_is_named(ad_hoc_shop: Shop):
    from qanchor_plugin.feast_ext import on_demand

    store = ad_hoc_shop.store()
    asker = on_demand.AdhocAsker(store.provider.settings, lambda: None, store.registry, "shop")
    with (
        on_demand.answering_with(asker),
        pytest.raises(DeclarationError, match=r"'other' is not known .* \(known: \['journey'\]\)"),
    ):
        answer_adhoc(pd.DataFrame({"anchor_query": ["x"], "household_id": [1]}), "other")


def test_outside_a_request_only_feasts_own_sample_is_answered():
    sample = answer_adhoc(pd.DataFrame({"anchor_query": ["hello world"]}), "journey")
    assert sample["status"].tolist() == ["missing"]
    with pytest.raises(InputDataError, match="outside a request"):
        answer_adhoc(pd.DataFrame({"anchor_query": ["Bread lover?"]}), "journey")


def test_historically_the_offline_stores_vector_is_passed_on():
    rows = pd.DataFrame({"anchor_query": ["a", "b"], ADHOC_EMBEDDING: [vector(1), None]})
    found = answer_adhoc(rows, "journey")
    assert found["embedding"].tolist() == [vector(1), None]
    assert found["status"].tolist() == ["computed", "unknown"]


def test_feast_serve_answers_the_same_over_http(ad_hoc_shop: Shop, tmp_path: Path):
    store = ad_hoc_shop.store()
    ad_hoc_shop.put(store, "dairy_buyer", 1, seed=3)
    features = ["dairy_buyer:embedding", "dairy_buyer:status", "ad_hoc:embedding", "ad_hoc:status"]
    ids, query = [1, 2, 4], "Bread lover?"
    rows = [{"household_id": one, "anchor_query": query} for one in ids]
    with closing(socket.socket()) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    feast = shutil.which("feast", path=str(Path(sys.executable).parent))
    command = [feast, "--chdir", str(ad_hoc_shop.folder), "serve", "--host", "127.0.0.1", "--port", str(port)]
    with (tmp_path / "serve.log").open("w") as log:
        server = subprocess.Popen([*command, "--workers", "1"], stdout=log, stderr=subprocess.STDOUT)
        try:
            body = {
                "features": features,
                "entities": {"household_id": ids, "anchor_query": [query] * 3},
                "full_feature_names": True,
            }
            there = _posted(f"http://127.0.0.1:{port}/get-online-features", body, server)
        finally:
            server.terminate()
            server.wait(timeout=30)
    assert there["dairy_buyer__status"] == ["stored", "computed", "unknown"]
    assert there["ad_hoc__status"] == ["computed", "computed", "unknown"]
    here = ask(store, rows, features)
    for name in ("dairy_buyer__embedding", "ad_hoc__embedding"):
        assert [one is None for one in there[name]] == [False, False, True]
        np.testing.assert_allclose(there[name][:2], here[name][:2], atol=1e-5)


def _posted(url: str, body: dict, server: subprocess.Popen) -> dict:
    """The columns of the answer; waits until the server listens."""
    request = urllib.request.Request(
        url, json.dumps(body).encode(), {"Content-Type": "application/json"}, method="POST"
    )
    deadline = time.monotonic() + 120
    while True:
        try:
            with urllib.request.urlopen(request, timeout=120) as response:
                answer = json.load(response)
            break
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        except OSError:
            assert server.poll() is None, "feast serve ended"
            assert time.monotonic() < deadline, "feast serve does not answer"
            time.sleep(0.2)
    names = answer["metadata"]["feature_names"]
    return {name: column["values"] for name, column in zip(names, answer["results"], strict=True)}
