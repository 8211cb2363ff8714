"""A user leaves: the raw bytes of the whole lake are searched before and after."""

import json
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Settings
from qanchor_plugin.engine.event_vectors import VectorSnapshot
from qanchor_plugin.errors import JobBusyError, OnlineStoreError
from qanchor_plugin.prefix_store import LakeTables
from qanchor_plugin.prefix_store.forgotten import ForgottenUsers
from qanchor_plugin.prefix_store.pushed import PushedEvents
from spark_jobs.forget import INCOMPLETE, NOTHING_LEFT, REMOVED, Receipt, forget
from spark_jobs.lock import only_run
from tests.shop import ShopLake, user
from tests.spark.raw_bytes import forms, found_in
from tests.spark.small_lakes import ALL_TABLES, ENCODER, WITH_USERS, fill, made_up, plain_lake

KEY = '{"household_id": 1}'
OWN = ("rye bread", "free range eggs", "bakery", "small home")
"""Texts of household 1 alone; "whole milk" and "dairy" are household 3's too."""


def full_lake(folder: Path) -> ShopLake:
    """The shop, every table of users with a row of households 1 and 2, and a run that mentions 1."""
    lake = plain_lake(folder)
    for name in WITH_USERS:
        if name not in ("behaviour_sequences", "profile_rows"):
            fill(folder, name, 1)
            fill(folder, name, 2)
    lake.complete("dairy", "0" * 32, "2017-12-30", state=f"failed on {KEY}")
    (folder / "_prompts").mkdir()
    with closing(sqlite3.connect(folder / "_prompts" / "answers.sqlite")) as cache, cache:
        cache.execute("create table answers (digest text, content text)")
        cache.execute("insert into answers values ('d', 'They buy rye bread.')")
    return lake


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ShopLake:
    return full_lake(tmp_path_factory.mktemp("forget") / "lake")


@pytest.fixture
def lake(made: ShopLake, tmp_path: Path) -> ShopLake:
    """A copy of its own for every test."""
    return replace(made, folder=Path(shutil.copytree(made.folder, tmp_path / "lake")))


def settings_of(lake: ShopLake) -> Settings:
    return Settings(lake=str(lake.folder), device="cpu")


def leave(lake: ShopLake, **elsewhere: Any) -> Receipt:
    return forget(settings_of(lake), {user(1): KEY}, elsewhere=elsewhere)


def rows_of(lake: ShopLake) -> dict[str, int]:
    tables = LakeTables(str(lake.folder), max_age_seconds=0)
    return {name: tables.read(name).num_rows for name in ALL_TABLES if tables.exists(name)}


def test_no_byte_of_a_forgotten_user_is_left_below_the_lake(lake: ShopLake) -> None:
    needles = forms(user(1), KEY, OWN)
    before = found_in(lake.folder, needles)
    told = {needle for held in before.values() for needle in held}
    assert {user(1), KEY.encode(), *(text.encode() for text in OWN)} <= told
    assert any("_delta_log" in name for name in before), "the log must hold statistics of users to begin with"

    receipt = leave(lake)
    assert receipt.state == REMOVED
    assert found_in(lake.folder, needles) == {}
    assert found_in(lake.folder, forms(user(2), '{"household_id": 2}', ["red wine"]))


def test_only_the_users_rows_and_their_own_texts_are_gone(lake: ShopLake) -> None:
    before = rows_of(lake)
    receipt = leave(lake)
    gone = {name: before[name] - num for name, num in rows_of(lake).items()}
    assert gone == {
        **dict.fromkeys(WITH_USERS, 1), "event_texts": 4, "event_vectors": 4, "job_runs": -1,
    }  # fmt: skip
    texts = LakeTables(str(lake.folder)).read("event_texts")[S.TEXT].to_pylist()
    assert sorted(texts) == ["dairy", "drinks", "red wine", "whole milk"]
    snapshot = VectorSnapshot.open(lake.folder / "_vectors" / ENCODER)
    assert snapshot.num_texts == 4
    assert receipt.tables["behaviour_sequences"]["rows"] == 1
    assert receipt.tables["_vectors"] == {"folders": 1}


def test_every_table_with_users_is_covered_and_any_table_to_come(lake: ShopLake, tmp_path: Path) -> None:
    receipt = leave(lake)
    assert set(WITH_USERS) <= set(receipt.tables)
    later = pa.table({S.USER: pa.array([user(1), user(2)], pa.binary()), "anything": ["a", "b"]})
    write_deltalake(lake.folder / "a_table_to_come", later)
    assert leave(lake).tables["a_table_to_come"]["rows"] == 1
    left = DeltaTable(lake.folder / "a_table_to_come").to_pyarrow_table()
    assert left[S.USER].to_pylist() == [user(2)]


def test_a_second_run_finds_nothing_left_and_says_so(lake: ShopLake) -> None:
    leave(lake)
    before = rows_of(lake)
    receipt = leave(lake)
    assert (receipt.state, receipt.tables) == (NOTHING_LEFT, {})
    assert rows_of(lake) == before | {"job_runs": before["job_runs"] + 1}


def test_the_receipt_names_nobody_and_stays(lake: ShopLake) -> None:
    receipt = leave(lake, cache=lambda users: len(users))
    kept = json.loads((lake.folder / "_receipts" / f"{receipt.run}.json").read_text())
    assert kept["users"] == [ForgottenUsers(lake.folder).digest(user(1))]
    assert kept["elsewhere"] == {"cache": 1}
    assert "Sources are not touched" in kept["note"]
    assert user(1) in ForgottenUsers(lake.folder)
    assert user(2) not in ForgottenUsers(lake.folder)


def test_files_that_no_version_uses_are_searched_too(lake: ShopLake) -> None:
    """Change-data files, replaced files and orphans of a killed run."""
    row = pa.table({S.USER: pa.array([user(1)], pa.binary())})
    other = pa.table({S.USER: pa.array([user(2)], pa.binary())})
    import pyarrow.parquet as pq

    table = lake.folder / "user_prefixes"
    (table / "_change_data").mkdir()
    pq.write_table(row, table / "_change_data" / "cdc-1.parquet")
    pq.write_table(row, table / "part-orphan.parquet")
    pq.write_table(other, table / "part-others-orphan.parquet")
    (table / "part-torn.parquet").write_bytes(b"PAR1 torn")
    receipt = leave(lake)
    assert receipt.tables["user_prefixes"]["data_files"] == 4
    assert (table / "part-others-orphan.parquet").exists()


def test_a_commit_on_its_way_is_waited_for(lake: ShopLake) -> None:
    import os

    import pyarrow.parquet as pq

    young = lake.folder / "scenario_embeddings" / "part-young.parquet"
    pq.write_table(pa.table({S.USER: pa.array([user(1)], pa.binary())}), young)
    receipt = leave(lake)
    assert receipt.state == INCOMPLETE
    assert "not committed yet" in receipt.faults[0]
    assert young.exists()
    os.utime(young, (1, 1))
    assert leave(lake).state == REMOVED
    assert not young.exists()


def test_a_place_that_fails_leaves_the_receipt_incomplete_and_the_lake_clean(lake: ShopLake) -> None:
    def down(users: Any) -> int:
        raise OnlineStoreError("the online store redis at 127.0.0.1:1 failed. Start it.")

    receipt = leave(lake, redis=down, worker=lambda users: 3)
    assert receipt.state == INCOMPLETE
    assert receipt.faults == [
        "redis: OnlineStoreError: the online store redis at 127.0.0.1:1 failed. Start it."
    ]
    assert receipt.elsewhere == {"worker": 3}
    assert found_in(lake.folder, forms(user(1), KEY, OWN)) == {}
    assert leave(lake, redis=lambda users: 1).state == REMOVED


KILLED = """
import os, signal, sys
from qanchor_plugin.declare import Settings
from spark_jobs.forget import forget
lake, last = sys.argv[1], int(sys.argv[2])
seen = 0

def watch(event, arguments):
    global seen
    changes = event in ("os.remove", "os.rename", "shutil.rmtree", "os.mkdir") or (
        event == "open" and isinstance(arguments[2], int) and arguments[2] & (os.O_WRONLY | os.O_RDWR)
    )
    if changes and lake in str(arguments[0]):
        seen += 1
        if seen == last:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
forget(Settings(lake=lake), {bytes.fromhex(sys.argv[3]): sys.argv[4]})
print(seen)
"""
"""Forgets, and kills itself before the given change to a file of the lake."""


def killed_at(lake: ShopLake, change: int) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", KILLED, str(lake.folder), str(change), user(1).hex(), KEY]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def assert_finished_by_another_run(lake: ShopLake, made: ShopLake) -> None:
    for name in (S.PAIRS_TABLE, *S.TABLES):  # readable at every commit
        DeltaTable(lake.folder / name).to_pyarrow_table()
    receipt = leave(lake)
    assert receipt.state == REMOVED
    assert found_in(lake.folder, forms(user(1), KEY, OWN)) == {}
    before, after = rows_of(made), rows_of(lake)
    assert {name: before[name] - after[name] for name in WITH_USERS} == dict.fromkeys(WITH_USERS, 1)
    assert before["event_texts"] - after["event_texts"] == 4


@pytest.mark.parametrize("change", [4, 12, 40])
def test_a_run_that_is_killed_is_finished_by_the_next(lake: ShopLake, made: ShopLake, change: int) -> None:
    assert killed_at(lake, change).returncode == -signal.SIGKILL
    assert_finished_by_another_run(lake, made)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_killed_before_any_change_it_is_finished_by_the_next(made: ShopLake, tmp_path: Path) -> None:
    whole = replace(made, folder=Path(shutil.copytree(made.folder, tmp_path / "whole")))
    num_changes = int(killed_at(whole, 0).stdout)
    assert num_changes > 60
    for change in range(1, num_changes + 1, 3):
        lake = replace(made, folder=Path(shutil.copytree(made.folder, tmp_path / str(change))))
        assert killed_at(lake, change).returncode == -signal.SIGKILL
        assert_finished_by_another_run(lake, made)


def test_it_waits_for_nobody_and_takes_the_lock(lake: ShopLake) -> None:
    before = rows_of(lake)
    with only_run(lake.folder, "a refresh"), pytest.raises(JobBusyError, match="a refresh"):
        leave(lake)
    assert rows_of(lake) == before


def test_a_push_of_a_forgotten_user_is_passed_over(lake: ShopLake) -> None:
    leave(lake)
    shutil.rmtree(lake.folder / "pushed_events")
    pushed = PushedEvents(str(lake.folder))
    rows = [made_up("pushed_events", household) for household in (1, 2, 1)]
    pushed.append(rows)
    pushed.append(rows[:1])
    assert set(pushed.of([user(1), user(2)], ["x"])) == {user(2)}
    assert found_in(lake.folder, forms(user(1), KEY)) == {}


def test_a_reader_on_a_snapshot_whose_files_are_gone_looks_again(lake: ShopLake) -> None:
    tables = LakeTables(str(lake.folder), max_age_seconds=3600)
    before = tables.read("user_prefixes")
    leave(lake)
    after = tables.read("user_prefixes")
    assert (before.num_rows, after.num_rows) == (2, 1)
    assert after[S.USER].to_pylist() == [user(2)]


def test_lifting_takes_a_user_off_the_list(lake: ShopLake) -> None:
    leave(lake)
    listed = ForgottenUsers(lake.folder)
    assert (listed.lift([user(1), user(2)]), listed.lift([user(1)])) == (1, 0)
    assert user(1) not in ForgottenUsers(lake.folder)
