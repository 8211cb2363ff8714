"""store.push of behaviour: the next online read has seen the event, whatever is stored and whoever reads."""

import threading
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
from deltalake import DeltaTable
from feast.data_source import PushMode

from qanchor_plugin.feast_ext import push_policy
from qanchor_plugin.prefix_store import pushed
from tests.plugin.online.conftest import Shop, vector
from tests.plugin.online.push_shop import (
    CHEESE,
    PUSH,
    RAW,
    answer,
    batch_brings,
    bought,
    computed_afresh,
    pushing,
)
from tests.shop import user


@pytest.fixture(autouse=True)
def in_the_shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def rows_pushed(shop: Shop) -> int:
    return DeltaTable(shop.lake.folder / "pushed_events").to_pyarrow_table().num_rows


def test_the_next_read_includes_a_pushed_event_and_the_one_after_is_stored(shop: Shop):
    store = pushing(shop)
    shop.put(store, "dairy_buyer", 1, seed=3)
    assert answer(store)["embedding"] == vector(3)
    store.push(PUSH, bought(CHEESE))
    first = answer(store)
    assert (first["status"], first["num_events"]) == ("computed", 4)
    expected = computed_afresh(store)
    assert first["embedding_id"] == expected.embedding_id
    np.testing.assert_allclose(first["embedding"], expected.embedding, atol=1e-5)
    again = answer(store)
    assert (again["status"], again["num_events"]) == ("stored", 4)
    assert again["embedding"] == first["embedding"]
    assert answer(store, household_id=2)["num_events"] == 1


def test_a_stale_answer_is_served_at_once_and_the_read_after_is_fresh(shop: Shop):
    store = pushing(shop)
    shop.put(store, "wine_buyer", 1, seed=4)
    store.push(PUSH, bought(CHEESE))
    first = answer(store, "wine_buyer")
    assert (first["status"], first["embedding"]) == ("stale", vector(4))
    assert first["data_as_of"].isoformat() == "2017-12-31T23:59:59+00:00"
    deadline = time.monotonic() + 30
    while (found := answer(store, "wine_buyer"))["status"] == "stale" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert (found["status"], found["num_events"]) == ("stored", 4)
    store.provider.write_back.flush()
    assert answer(store, "wine_buyer")["embedding_id"] == computed_afresh(store, "wine_buyer").embedding_id


def test_another_process_of_the_store_sees_the_push_within_a_second(sqlite_shop: Shop, monkeypatch):
    """Another process: a view of the lake that shares nothing with the pusher's."""
    store = pushing(sqlite_shop)
    other = sqlite_shop.store()
    apart = pushed.PushedEvents(other.provider.settings.lake)
    other.provider.backend.reader.pushed = apart
    other.provider.__dict__["pushes"] = push_policy.PushPolicy(apart)
    sqlite_shop.put(store, "dairy_buyer", 1, seed=3)
    assert answer(other)["status"] == "stored"
    store.push(PUSH, bought(CHEESE))
    time.sleep(push_policy.LOOK_SECONDS)
    found = answer(other)
    assert (found["status"], found["num_events"]) == ("computed", 4)


def test_a_row_that_a_refresh_wrote_without_the_event_is_not_served_as_fresh(sqlite_shop: Shop):
    store = pushing(sqlite_shop)
    store.push(PUSH, bought(CHEESE))
    assert answer(store)["num_events"] == 4
    store.provider.write_back.flush()
    sqlite_shop.put(store, "dairy_buyer", 1, seed=3)
    assert answer(store)["num_events"] == 4
    restarted = sqlite_shop.store()
    found = answer(restarted)
    assert (found["status"], found["num_events"]) == ("computed", 4)


def test_push_then_batch_then_clean_up_is_one_event_throughout(sqlite_shop: Shop):
    store = pushing(sqlite_shop)
    store.push(PUSH, bought(CHEESE))
    before = answer(store)
    batch_brings(sqlite_shop, CHEESE)
    assert computed_afresh(store).embedding_id == before["embedding_id"]
    table = DeltaTable(sqlite_shop.lake.folder / "pushed_events")
    table.delete()
    assert computed_afresh(store).embedding_id == before["embedding_id"]
    assert (answer(store)["num_events"], rows_pushed(sqlite_shop)) == (4, 0)


def test_a_reader_with_old_sequences_loses_no_event_that_was_cleaned_up(sqlite_shop: Shop):
    """It holds a snapshot of the sequences from before the batch caught up, for an hour."""
    from qanchor_plugin.backend import LakeReader
    from qanchor_plugin.prefix_store import LakeTables
    from tests.shop import PROFILE

    store = pushing(sqlite_shop)
    store.push(PUSH, bought(CHEESE))
    lake = store.provider.settings.lake
    reader = LakeReader(LakeTables(lake, max_age_seconds=3600), pushed=pushed.shared_pushed(lake))

    def num_purchases() -> int:
        return len(reader.histories(PROFILE, [user(1)])[user(1)].events["purchases"])

    alone = LakeReader(LakeTables(lake)).histories(PROFILE, [user(1)])[user(1)]
    assert (num_purchases(), len(alone.events["purchases"])) == (4, 3)
    batch_brings(sqlite_shop, CHEESE)
    assert num_purchases() == 4
    DeltaTable(sqlite_shop.lake.folder / "pushed_events").delete()
    assert num_purchases() == 4


def test_batch_then_push_of_the_same_event_is_one_event(sqlite_shop: Shop):
    store = pushing(sqlite_shop)
    batch_brings(sqlite_shop, CHEESE)
    before = computed_afresh(store)
    store.push(PUSH, bought(CHEESE))
    assert computed_afresh(store).embedding_id == before.embedding_id
    assert before.num_events == 4


def test_the_same_deed_twice_in_a_push_is_two_and_a_push_sent_again_is_none_more(sqlite_shop: Shop):
    store = pushing(sqlite_shop)
    store.push(PUSH, bought(CHEESE, CHEESE))
    assert answer(store)["num_events"] == 5
    store.push(PUSH, bought(CHEESE, CHEESE))
    assert (answer(store)["num_events"], rows_pushed(sqlite_shop)) == (5, 4)
    batch_brings(sqlite_shop, CHEESE)
    assert computed_afresh(store).num_events == 5
    batch_brings(sqlite_shop, CHEESE)
    assert computed_afresh(store).num_events == 5


def test_a_user_known_by_a_push_alone_is_answered(sqlite_shop: Shop):
    store = pushing(sqlite_shop)
    assert answer(store, household_id=44)["status"] == "unknown"
    store.push(PUSH, bought((44, *CHEESE[1:])))
    found = answer(store, household_id=44)
    assert (found["status"], found["num_events"]) == ("computed", 1)


def test_threads_push_at_once_and_every_event_is_read(sqlite_shop: Shop):
    store = pushing(sqlite_shop)

    def push(household_id: int) -> None:
        for number in range(5):
            store.push(PUSH, bought((household_id, CHEESE[1], f"cheese {number}", "dairy", 1.0)))

    threads = [threading.Thread(target=push, args=(101 + n,)) for n in range(3)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert [answer(store, household_id=101 + n)["num_events"] for n in range(3)] == [5, 5, 5]


def test_offline_goes_to_the_source_itself_and_both_to_both(sqlite_shop: Shop):
    store = pushing(sqlite_shop)
    store.push(PUSH, bought(CHEESE), to=PushMode.OFFLINE)
    (row,) = DeltaTable(RAW).to_pyarrow_table().to_pylist()
    assert row["bought_at"].isoformat() == "2017-12-31T12:00:00+00:00"
    assert (row["household_id"], row["product"], row["amount"]) == (1, "goat cheese", 3.0)
    assert answer(store)["num_events"] == 3
    store.push(PUSH, bought(CHEESE), to=PushMode.ONLINE_AND_OFFLINE)
    assert DeltaTable(RAW).to_pyarrow_table().num_rows == 2
    assert answer(store)["num_events"] == 4


@pytest.mark.filterwarnings("ignore:1 pushed events lie after now:UserWarning")
def test_an_event_is_missed_from_the_instant_on_that_a_reader_could_see_it(sqlite_shop: Shop):
    store = pushing(sqlite_shop)
    sqlite_shop.put(store, "dairy_buyer", 1, seed=3)
    store.push(PUSH, bought((1, "2018-01-01T00:00:05Z", *CHEESE[2:])))
    assert answer(store)["embedding"] == vector(3)
    later = sqlite_shop.store(clock="2018-01-01T00:00:05Z")
    found = answer(later)
    assert (found["status"], found["num_events"]) == ("computed", 4)


def test_the_log_keeps_no_user_and_no_text(sqlite_shop: Shop):
    store = pushing(sqlite_shop)
    store.push(PUSH, bought((987654321, *CHEESE[1:])))
    log = b"".join(
        one.read_bytes() for one in (sqlite_shop.lake.folder / "pushed_events/_delta_log").glob("*")
    )
    assert b"push" in log
    for secret in (b"987654321", b"goat cheese", user(987654321)):
        assert secret not in log


@pytest.mark.filterwarnings("default::UserWarning")
def test_an_event_after_the_fixed_clock_is_kept_and_said_to_be_unseen(sqlite_shop: Shop):
    store = pushing(sqlite_shop)
    late = (1, "2018-01-01T00:00:01Z", *CHEESE[2:])
    with pytest.warns(UserWarning, match=r"1 pushed events lie after now \(2018-01-01T00:00:00\+00:00"):
        store.push(PUSH, bought(CHEESE, late))
    assert (answer(store)["num_events"], rows_pushed(sqlite_shop)) == (4, 2)
    with warnings.catch_warnings(action="error", category=UserWarning):
        assert answer(sqlite_shop.store(clock="2018-01-01T00:00:01Z"))["num_events"] == 5
