"""Maintenance: nobody's newest row goes, readers see the same rows, and what is kept small is counted."""

import os
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from qanchor_plugin import schemas as S
from qanchor_plugin.backend import LakeReader
from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import InputDataError, JobBusyError
from qanchor_plugin.prefix_store import LakeTables
from spark_jobs.ledger import opened
from spark_jobs.lock import only_run
from spark_jobs.maintain import MaintainPlan, MaintainReport, maintain
from tests.shop import PROFILE, ShopLake, sequence_row, user
from tests.spark.small_lakes import fill, plain_lake

NOW = datetime(2018, 6, 1, tzinfo=UTC)
READ = """
import os, sys
from pathlib import Path
from deltalake import DeltaTable
lake, stop, seen = Path(sys.argv[1]), Path(sys.argv[2]), set()
while not stop.exists():
    for name in ("user_prefixes", "event_texts"):
        table = DeltaTable(str(lake / name)).to_pyarrow_table()
        seen.add((name, table.num_rows, hash(tuple(sorted(map(repr, table.to_pylist()))))))
    print("read", flush=True)
print(len(seen), flush=True)
os._exit(0)  # an interpreter that ends may meet a running thread of Arrow's and abort
"""


def on(month: int) -> datetime:
    return datetime(2018, month, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> ShopLake:
    """Household 1 has prefixes and embeddings of five months, 2 of the first alone; one file each."""
    lake = plain_lake(tmp_path_factory.mktemp("maintain") / "lake")
    for month in range(1, 6):
        for household in (1, 2) if month == 1 else (1,):
            at = {S.BATCH: f"run{month}", S.CUTOFF: on(month), S.SERVED_AT: on(month)}
            fill(lake.folder, "user_prefixes", household, **at, tokens=bytes(range(200)) * 3000)
            fill(lake.folder, "scenario_embeddings", household, **at)
    lake.complete("dairy", "0" * 32, "2017-12-30")
    return lake


@pytest.fixture
def lake(made: ShopLake, tmp_path: Path) -> Path:
    """A copy of its own for every test."""
    return Path(shutil.copytree(made.folder, tmp_path / "lake"))


def run(lake: Path, **plan: object) -> MaintainReport:
    return maintain(Settings(lake=str(lake), clock=NOW), MaintainPlan(**plan))  # type: ignore[arg-type]


def cutoffs(lake: Path, name: str) -> list[tuple[bytes, int]]:
    rows = LakeTables(str(lake)).read(name, columns=[S.USER, S.CUTOFF]).to_pylist()
    return sorted((row[S.USER], row[S.CUTOFF].month) for row in rows)


def data_files(lake: Path, name: str) -> list[Path]:
    return sorted(one for one in (lake / name).rglob("*.parquet") if "_delta_log" not in one.parts)


def test_what_newer_rows_replaced_goes_with_age_and_newest_rows_stay(lake: Path) -> None:
    report = run(lake)
    assert report.tables["user_prefixes"]["rows_retired"] == 4, "of January to April: May's is the newest"
    assert cutoffs(lake, "user_prefixes") == sorted([(user(1), 5), (user(2), 1)])
    assert "rows_retired" not in report.tables["scenario_embeddings"], "history stays unless asked"
    assert len(cutoffs(lake, "scenario_embeddings")) == 6


def test_embeddings_go_only_as_told(lake: Path) -> None:
    report = run(lake, keep_embeddings=70, keep_prefixes=None)
    assert report.tables["scenario_embeddings"]["rows_retired"] == 3
    assert cutoffs(lake, "scenario_embeddings") == sorted([(user(1), 4), (user(1), 5), (user(2), 1)])
    assert len(cutoffs(lake, "user_prefixes")) == 6


def test_small_files_of_a_partition_become_one_in_order_of_users(lake: Path) -> None:
    before = {name: rows(lake, name) for name in ("user_prefixes", "event_texts", "behaviour_sequences")}
    report = run(lake, keep_prefixes=None)
    assert report.tables["user_prefixes"] == {"files_before": 6, "files_after": 1, "files_vacuumed": 0}
    assert {name: rows(lake, name) for name in before} == before
    (path,) = (Path(one.removeprefix("file://")) for one in DeltaTable(lake / "user_prefixes").file_uris())
    with pq.ParquetFile(path) as file:
        assert file.metadata.num_row_groups == 6, "600 kB of tokens a row, a megabyte a group"
        tokens = file.schema_arrow.names.index("tokens")
        assert file.metadata.row_group(0).column(tokens).compression == "UNCOMPRESSED"
        users = file.read([S.USER])[S.USER].to_pylist()
    assert users == sorted(users)


def test_batches_of_a_users_month_become_one_row_and_the_history_stays(lake: Path) -> None:
    shop = ShopLake(lake)
    for number, events in enumerate(
        (
            [("2018-02-03", "rye bread", "bakery", 1.0), ("2018-02-03", "rye bread", "bakery", 1.0)],
            [("2018-02-01", "whole milk", "dairy", 2.0)],
            [("2018-02-02", "red wine", "drinks", 3.0)],
            [("2018-02-09", "whole milk", "dairy", 4.0)],
        )
    ):
        row = sequence_row(7, events) | {S.BATCH: f"0123456789ab.{2 * number}-{2 * number + 1}"}
        shop.append("behaviour_sequences", [row])
    shop.append("behaviour_sequences", [sequence_row(8, [("2018-02-01", "red wine", "drinks", 5.0)])])
    reader = LakeReader(LakeTables(str(lake), max_age_seconds=0))
    before = reader.histories(PROFILE, [user(7), user(8), user(1)])
    run(lake)
    after = reader.histories(PROFILE, [user(7), user(8), user(1)])
    for one, history in before.items():
        for name, events in history.events.items():
            for column in ("event_at", "known_at", "text_id", "groups", "amounts"):
                np.testing.assert_array_equal(
                    getattr(events, column), getattr(after[one].events[name], column)
                )
    stored = LakeTables(str(lake)).read("behaviour_sequences", where=ds.field(S.MONTH) == "2018-02")
    told = {row[S.USER]: (row[S.BATCH], row[S.NUM_EVENTS]) for row in stored.to_pylist()}
    assert told == {user(7): ("0123456789ab.0-7", 5), user(8): ("r1", 1)}
    assert stored.num_rows == 2


def rows(lake: Path, name: str) -> list[str]:
    return sorted(map(repr, LakeTables(str(lake)).read(name).to_pylist()))


def test_the_log_keeps_no_bounds_of_users_in_what_is_folded(lake: Path) -> None:
    run(lake, keep_prefixes=None)
    adds = pa.table(DeltaTable(lake / "user_prefixes").get_add_actions(flatten=True))
    assert adds["min.batch"].to_pylist() == ["run1"]
    kept = {name for name in adds.column_names if name.startswith(("min.", "max.")) and adds[name][0].as_py()}
    assert kept == {f"{end}.{name}" for end in ("min", "max") for name in (S.PREFIX_DIGEST, S.BATCH)}


def test_replaced_files_stay_for_a_week_and_then_go(lake: Path) -> None:
    run(lake, keep_prefixes=None)
    assert len(data_files(lake, "user_prefixes")) == 7
    old = DeltaTable(lake / "user_prefixes", version=5).to_pyarrow_table()
    assert old.num_rows == 6, "a reader of the version before reads on"
    report = run(lake, keep_prefixes=None, keep_files=1)
    assert report.tables["user_prefixes"]["files_vacuumed"] == 0, "replaced a moment ago"


def test_a_dry_run_counts_the_same_and_changes_nothing(lake: Path) -> None:
    before = {str(one): one.stat().st_mtime_ns for one in lake.rglob("*") if one.is_file()}
    told = run(lake, dry_run=True)
    lock = lake / "_refresh.lock"
    after = {str(one): one.stat().st_mtime_ns for one in lake.rglob("*") if one.is_file() and one != lock}
    assert after == before
    assert told.dry_run
    done = run(lake)
    assert told.tables["user_prefixes"]["rows_retired"] == done.tables["user_prefixes"]["rows_retired"] == 4
    assert told.tables["event_texts"] == done.tables["event_texts"]


def test_a_second_run_has_nothing_to_do_and_the_ledger_has_both(lake: Path) -> None:
    first, second = run(lake), run(lake)
    tables = {name: counts for name, counts in second.tables.items() if name != "job_runs"}
    assert all(counts["files_before"] == counts["files_after"] for counts in tables.values())
    found = LakeTables(str(lake)).read("job_runs", where=ds.field(S.JOB) == "maintain")
    assert sorted(found[S.RUN].to_pylist()) == sorted([first.run, second.run])


def test_an_append_beside_a_rewrite_is_kept(lake: Path) -> None:
    """Serving processes append answers without the lock: their rows stay whoever commits first."""
    table = opened(lake, "scenario_embeddings")
    files = table.files()
    fill(lake, "scenario_embeddings", 3, batch="online", cutoff=on(5), served_at=on(5))
    table.fold(files, [S.USER])
    assert len(cutoffs(lake, "scenario_embeddings")) == 7
    assert len(DeltaTable(lake / "scenario_embeddings").file_uris()) == 2


def test_never_under_a_running_refresh(lake: Path) -> None:
    with only_run(lake, "a refresh"), pytest.raises(JobBusyError, match="a refresh"):
        run(lake)


@pytest.mark.parametrize("plan", [{"keep_files": 0}, {"min_files": 1}])
def test_a_plan_that_could_hurt_readers_is_refused(plan: dict[str, int]) -> None:
    with pytest.raises(InputDataError, match="accepted"):
        MaintainPlan(**plan)  # type: ignore[arg-type]


def test_readers_in_another_process_see_the_same_rows_all_the_while(lake: Path, tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    command = [sys.executable, "-c", READ, str(lake), str(stop)]
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    reader = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert reader.stdout is not None
    assert reader.stdout.readline() == "read\n"
    run(lake, keep_prefixes=None)
    stop.touch()
    said, _ = reader.communicate(timeout=60)
    assert reader.returncode == 0
    assert said.splitlines()[-1] == "2", "one state of each of the two tables"
