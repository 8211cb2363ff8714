"""Online reads of anchor views, over SQLite and a real Redis, sync and async."""

import asyncio
import logging
import time

import numpy as np
import pytest

from qanchor_plugin.errors import InputDataError, OnlineMissError, OnlineStoreError
from qanchor_plugin.feast_ext import counters
from qanchor_plugin.feast_ext.online_rows import Anchor
from tests.plugin.online.conftest import QUERIES, Shop, put_spend, vector
from tests.plugin.online.conftest import read as read_rows
from tests.shop import PROFILE, at, user

FEATURES = ["dairy_buyer:embedding", "dairy_buyer:status"]


def read(store, features=FEATURES, ids=(1,), asynchronous=False):
    return read_rows(store, list(features), [{"household_id": one} for one in ids], asynchronous)


def counted(counter, *labels):
    return counter.labels(*labels)._value.get()


def computed(store, household_id, name="dairy_buyer", cutoff=None):
    """The embedding that the backend gives for the registered scenario, asked directly."""
    anchor = Anchor.of(store.get_feature_view(name))
    ask = anchor.ask("demo")
    return store.provider.backend.embed([user(household_id)], cutoff or at("2018-01-01"), [ask])[0][0]


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_fresh_row_is_answered_from_the_store_beside_an_ordinary_view(shop: Shop, asynchronous):
    store = shop.store()
    shop.put(store, "dairy_buyer", 1, seed=3)
    put_spend(store, 1, 12.5)
    features = [*FEATURES, "dairy_buyer:num_events", "dairy_buyer:data_as_of", "spend:total"]
    found = read(store, features, ids=(1, 1), asynchronous=asynchronous)
    assert found["dairy_buyer__embedding"] == [vector(3)] * 2
    assert found["dairy_buyer__status"] == ["stored"] * 2
    assert found["dairy_buyer__num_events"] == [5, 5]
    assert [one.isoformat() for one in found["dairy_buyer__data_as_of"]] == ["2018-01-01T00:00:00+00:00"] * 2
    assert found["spend__total"] == [12.5, 12.5]
    assert set(found) == {
        "household_id",
        "spend__total",
        *(f"dairy_buyer__{name}" for name in ("embedding", "status", "num_events", "data_as_of")),
    }
    assert "backend" not in store.provider.__dict__ or not store.provider.backend._engines


@pytest.mark.parametrize("asynchronous", [False, True])
def test_misses_of_two_views_are_computed_in_one_call_in_request_order(shop: Shop, asynchronous):
    store = shop.store()
    shop.put(store, "dairy_buyer", 1, seed=3)
    features = [f"{name}:{field}" for name in QUERIES for field in ("embedding", "status")]
    before = sum(_calls(store))
    found = read(store, features, ids=(2, 1, 4, 2), asynchronous=asynchronous)
    assert sum(_calls(store)) == before + 1
    assert found["household_id"] == [2, 1, 4, 2]
    assert found["dairy_buyer__status"] == ["computed", "stored", "unknown", "computed"]
    assert found["wine_buyer__status"] == ["computed", "computed", "unknown", "computed"]
    assert found["dairy_buyer__embedding"][1] == vector(3)
    assert found["dairy_buyer__embedding"][2] is None
    for name, row in (("dairy_buyer", 0), ("dairy_buyer", 3), ("wine_buyer", 0)):
        expected = computed(store, 2, name).embedding
        np.testing.assert_allclose(found[f"{name}__embedding"][row], expected, atol=1e-5)
    np.testing.assert_allclose(
        found["wine_buyer__embedding"][1], computed(store, 1, "wine_buyer").embedding, atol=1e-5
    )


def _calls(store):
    return [
        sample.value for sample in counters.COMPUTE_SECONDS.collect()[0].samples if "_count" in sample.name
    ]


def test_a_computed_answer_is_written_back_and_then_stored(shop: Shop):
    store = shop.store()
    first = read(store, ["dairy_buyer:embedding", "dairy_buyer:embedding_id", "dairy_buyer:status"])
    store.provider.write_back.flush()
    again = read(store, ["dairy_buyer:embedding", "dairy_buyer:embedding_id", "dairy_buyer:status"])
    assert first["dairy_buyer__status"] == ["computed"]
    assert again["dairy_buyer__status"] == ["stored"]
    assert again["dairy_buyer__embedding"] == first["dairy_buyer__embedding"]
    assert again["dairy_buyer__embedding_id"] == first["dairy_buyer__embedding_id"]


@pytest.mark.parametrize(
    ("cutoff", "status"), [("2017-12-25", "stored"), ("2017-12-24", "computed")]
)  # ttl 7 days at 2018-01-01: exactly seven days old is fresh
def test_a_row_older_than_its_ttl_is_a_miss(shop: Shop, cutoff, status):
    store = shop.store()
    shop.put(store, "dairy_buyer", 1, seed=3, cutoff=cutoff)
    assert read(store)["dairy_buyer__status"] == [status]


def test_the_watermark_keeps_a_clean_row_fresh(sqlite_shop: Shop):
    store = sqlite_shop.store()
    sqlite_shop.put(store, "dairy_buyer", 1, seed=3, cutoff="2017-06-01")
    identity = Anchor.of(store.get_feature_view("dairy_buyer")).scenario_id
    sqlite_shop.lake.complete("dairy_buyer", identity, "2017-12-31")
    found = read(store, [*FEATURES, "dairy_buyer:data_as_of"])
    assert found["dairy_buyer__status"] == ["stored"]
    assert found["dairy_buyer__data_as_of"][0].isoformat() == "2017-12-31T00:00:00+00:00"


@pytest.mark.parametrize("foreign", ["f" * 16 + "-" + "a" * 16, "", "not an identity"])
def test_a_row_of_another_identity_is_never_served(shop: Shop, foreign):
    store = shop.store()
    before = counted(counters.MISSES, "foreign")
    shop.put(store, "dairy_buyer", 1, seed=3, embedding_id=foreign or "-")
    found = read(store)
    assert found["dairy_buyer__status"] == ["computed"]
    assert found["dairy_buyer__embedding"][0] != vector(3)
    assert counted(counters.MISSES, "foreign") == before + 1


def test_on_miss_null_answers_null_and_says_why(shop: Shop):
    store = shop.store(on_miss="null")
    shop.put(store, "dairy_buyer", 1, seed=3)
    shop.put(store, "dairy_buyer", 3, seed=4, cutoff="2017-06-01")
    found = read(store, ids=(1, 2, 3))
    assert found["dairy_buyer__embedding"] == [vector(3), None, None]
    assert found["dairy_buyer__status"] == ["stored", "missing", "stale"]


def test_on_miss_error_names_the_scenarios(sqlite_shop: Shop):
    store = sqlite_shop.store(on_miss="error")
    sqlite_shop.put(store, "dairy_buyer", 1, seed=3)
    assert read(store)["dairy_buyer__status"] == ["stored"]
    with pytest.raises(OnlineMissError, match=r"1 answers of \['dairy_buyer'\].*on_miss: error"):
        read(store, ids=(1, 2))


def test_a_dead_backend_leaves_stored_and_stale_rows_readable(shop: Shop, caplog):
    store = shop.store()
    shop.put(store, "dairy_buyer", 1, seed=3)
    shop.put(store, "dairy_buyer", 2, seed=4, cutoff="2017-06-01")
    for table in shop.lake.folder.iterdir():
        table.rename(table.with_name(table.name + "-gone"))
    before = counted(counters.BACKEND_FAILURES, "error")
    with caplog.at_level(logging.WARNING):
        found = read(store, ids=(1, 2, 3))
    assert found["dairy_buyer__status"] == ["stored", "stale", "missing"]
    assert found["dairy_buyer__embedding"] == [vector(3), vector(4), None]
    assert counted(counters.BACKEND_FAILURES, "error") == before + 1
    assert "has no table 'behaviour_sequences' yet" in caplog.text


def test_over_budget_is_answered_late(sqlite_shop: Shop):
    warm = sqlite_shop.store()
    computed(warm, 1)
    store = sqlite_shop.store(max_compute_ms=1)
    store.provider.misses._warm.add("demo")
    before = counted(counters.BACKEND_FAILURES, "budget")
    found = read(store)
    assert found["dairy_buyer__status"] == ["missing"]
    assert found["dairy_buyer__embedding"] == [None]
    assert counted(counters.BACKEND_FAILURES, "budget") == before + 1
    store.provider.misses.close()
    store.provider.write_back.flush()
    assert read(store)["dairy_buyer__status"] == ["stored"]


def test_computed_answers_are_appended_to_the_history(sqlite_shop: Shop):
    from deltalake import write_deltalake

    from qanchor_plugin import schemas as S

    path = sqlite_shop.lake.folder / "scenario_embeddings"
    write_deltalake(
        path, S.SCENARIO_EMBEDDINGS.empty_table(), partition_by=list(S.PARTITIONED_BY["scenario_embeddings"])
    )
    store = sqlite_shop.store()
    read(store, ids=(1, 4))
    store.provider.write_back.flush()
    rows = store.provider.tables.read("scenario_embeddings").to_pylist()
    expected = computed(store, 1)
    assert [(row[S.SCENARIO], row[S.USER_KEY], row[S.BATCH]) for row in rows] == [
        ("dairy_buyer", '{"household_id": 1}', "online")
    ]
    assert rows[0][S.EMBEDDING_ID] == expected.embedding_id
    assert rows[0][S.SERVED_AT].isoformat() == "2018-01-01T00:00:00+00:00"


def test_the_event_loop_goes_on_while_misses_are_computed(shop: Shop):
    store = shop.store()

    async def both():
        ticks = []

        async def tick():
            while True:
                ticks.append(time.monotonic())
                await asyncio.sleep(0.005)

        ticking = asyncio.create_task(tick())
        rows = [{"household_id": one} for one in (1, 2, 3)]
        found = await store.get_online_features_async(FEATURES, rows, full_feature_names=True)
        ticking.cancel()
        await store.provider.online_store.close()
        return found.to_dict(), max(np.diff(ticks))

    found, longest = asyncio.run(both())
    assert found["dairy_buyer__status"] == ["computed"] * 3
    assert longest < 1.0


def test_a_null_key_is_named(sqlite_shop: Shop):
    store = sqlite_shop.store()
    with pytest.raises(InputDataError, match=r"entity rows \[1\] have no 'household_id'"):
        read(store, ids=(1, None))


def test_a_store_that_is_down_is_named(make_shop, redis_port):
    shop = make_shop({"type": "redis", "connection_string": f"127.0.0.1:{redis_port}"})
    shop.online = {"type": "redis", "connection_string": "127.0.0.1:1,password=secret"}
    with pytest.raises(OnlineStoreError, match=r"redis at 127\.0\.0\.1:1 failed.*Start it") as raised:
        read(shop.store())
    assert "secret" not in str(raised.value)


def test_a_table_that_was_never_made_asks_for_apply(sqlite_shop: Shop):
    sqlite_shop.online = {"type": "sqlite", "path": "other.db"}
    with pytest.raises(OnlineStoreError, match="Run feast apply"):
        read(sqlite_shop.store())


def test_a_changed_query_is_a_version_of_its_own(shop: Shop):
    from qanchor_plugin.feast_ext.anchor_view import anchor_view

    store = shop.store()
    shop.put(store, "dairy_buyer", 1, seed=3)
    changed = anchor_view("dairy_buyer", "Does this household buy any cheese?", PROFILE)
    shop.register(store, changed)
    store.refresh_registry()
    versions = [one["version"] for one in store.list_feature_view_versions("dairy_buyer")]
    assert len(versions) == 2
    old, new = sorted(versions)
    found = read(store, ["dairy_buyer:embedding", "dairy_buyer:status"])
    assert found["dairy_buyer__status"] == ["computed"]
    features = [f"dairy_buyer@{old}:embedding", f"dairy_buyer@{old}:status"]
    stored = store.get_online_features(features, [{"household_id": 1}]).to_dict()
    assert stored["embedding"] == [vector(3)]
    assert stored["status"] == ["stored"]
    assert new != old


def test_a_removed_scenario_leaves_no_version_online(sqlite_shop: Shop):
    import sqlite3

    from qanchor_plugin.feast_ext.anchor_view import anchor_view

    def tables() -> set[str]:
        with sqlite3.connect(sqlite_shop.folder / "online.db") as connection:
            found = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
            names = {name for (name,) in found}
        connection.close()
        return names

    store = sqlite_shop.store()
    sqlite_shop.register(store, anchor_view("dairy_buyer", "Does this household buy any cheese?", PROFILE))
    store.refresh_registry()
    assert {"shop_dairy_buyer", "shop_dairy_buyer_v1"} <= tables()
    removed = store.get_feature_view("dairy_buyer")
    store.provider.update_infra("shop", [removed], [], [], [], partial=True)
    assert tables() == {"shop_wine_buyer", "shop_spend"}
