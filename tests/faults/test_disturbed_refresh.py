"""Two refreshes at once, writers to the sources meanwhile, dead workers and executors, skewed clocks."""

import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from pyspark.sql import SparkSession

from qanchor_plugin import schemas as S
from spark_jobs.refresh import refresh
from spark_jobs.tables import Lake
from spark_jobs.users import behaviour, histories
from tests.faults.drivers import END, assert_same_rows, reading, rows_of, start
from tests.spark.world import World, make_world, on, purchases_of_day

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(1800)]
WRITER = """
import sys, time
from datetime import datetime, timedelta, timezone
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
path, num = sys.argv[1], int(sys.argv[2])
schema = DeltaTable(path).to_pyarrow_dataset().schema
start = datetime(2024, 2, 27, tzinfo=timezone.utc)
for number in range(num):
    at = start + timedelta(days=2, hours=number)
    row = {"household_id": number % 3 + 1, "at": at, "created": at, "brand": "Late",
           "product": f"thing {number}", "category": "Food", "aisle": None, "value": 1.0}
    write_deltalake(path, pa.Table.from_pylist([row], schema=schema), mode="append")
    time.sleep(0.2)
"""


@pytest.fixture
def world(spark: SparkSession, tmp_path: Path) -> World:
    made = make_world(spark, tmp_path)
    made.add_cards([(1, on(0), "gold"), (2, on(0), "blue"), (5, on(0), "grey")])
    made.add_purchases([row for day in (0, 1, 2) for row in purchases_of_day(day)])
    return made


def over(world: World, lake: Path) -> World:
    return replace(world, settings=replace(world.settings, lake=str(lake)))


def run(world: World, end: datetime = END, **given: Any) -> None:
    refresh(world.spark, world.settings, world.declarations, end=end, **given)


def content(world: World) -> tuple[dict[str, Any], dict[tuple[str, str], str]]:
    """Every user's events, and their newest answer's identity, whichever batches brought them."""
    lake = Lake(world.spark, world.settings)
    profile = world.declarations.profiles["shopper"]
    events = {
        one.user_key: {
            name: [column.tolist() for column in (e.event_at, e.known_at, e.text_id, e.groups, e.amounts)]
            for name, e in one.events.items()
        }
        for one in histories(behaviour(lake, profile).toArrow(), profile)
    }
    rows = lake.read("scenario_embeddings").orderBy(S.CUTOFF, S.BATCH).collect()
    return events, {(row[S.SCENARIO], row[S.USER_KEY]): row[S.EMBEDDING_ID] for row in rows}


def test_of_two_started_together_one_works_and_the_other_says_so(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "both"
    with reading(folder / "lake") as stop:
        drivers = [start(world, folder), start(world, folder)]
        codes = sorted(one.process.wait(timeout=600) for one in drivers)
        told = stop()
    assert told["faults"] == []
    assert codes == [0, 1]
    assert "another run holds the lake" in (folder / "driver.log").read_text()
    run(over(world, folder / "lake"))
    run(over(world, tmp_path / "alone"))
    assert_same_rows(rows_of(world, folder / "lake"), rows_of(world, tmp_path / "alone"))


def test_a_writer_to_the_sources_meanwhile_is_read_whole_by_the_next_run(
    world: World, tmp_path: Path
) -> None:
    ours = over(world, tmp_path / "disturbed")
    with subprocess.Popen([sys.executable, "-c", WRITER, str(world.folder / "purchases"), "12"]) as writer:
        for _ in range(2):
            run(ours)
        assert writer.wait(timeout=120) == 0
    run(ours)
    alone = over(world, tmp_path / "alone")
    run(alone)
    assert content(ours) == content(alone)
    assert sum(len(one.get("purchases", [[]])[0]) for one in content(ours)[0].values()) == 3 * 3 + 1 + 1 + 12


@pytest.mark.parametrize("num_commits", [3, 5])
def test_a_python_worker_dies(world: World, tmp_path: Path, num_commits: int) -> None:
    folder = tmp_path / "worker"
    driver = start(world, folder, master="local[2,4]")
    killed = []
    try:
        driver.run_until(lambda one: one.num_commits() >= len(S.TABLES) + num_commits)
        driver.run_until(lambda one: bool(killed) or (one.kill_a_worker() and not killed.append(True)))
        driver.process.wait(timeout=600)
    finally:
        driver.kill()
    assert killed, "no worker was there to kill"
    run(over(world, folder / "lake"))
    run(over(world, tmp_path / "alone"))
    assert_same_rows(rows_of(world, folder / "lake"), rows_of(world, tmp_path / "alone"))


def _command_of(process: psutil.Process) -> str:
    """Empty where the process has ended meanwhile, as Python workers do all the time."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def test_an_executor_dies(world: World, tmp_path: Path) -> None:
    folder = tmp_path / "executor"
    driver = start(world, folder, master="local-cluster[2,1,1024]")
    try:
        driver.run_until(lambda one: one.num_commits() >= len(S.TABLES) + 2, seconds=600)
        children = psutil.Process(driver.process.pid).children(recursive=True)
        executors = [one for one in children if "CoarseGrainedExecutorBackend" in _command_of(one)]
        assert executors, "local-cluster started no executor process"
        executors[0].kill()
        driver.process.wait(timeout=900)
    finally:
        driver.kill()
    run(over(world, folder / "lake"))
    run(over(world, tmp_path / "alone"))
    assert_same_rows(rows_of(world, folder / "lake"), rows_of(world, tmp_path / "alone"))


def test_skewed_created_timestamps_hide_or_show_an_event_but_break_nothing(
    world: World, tmp_path: Path
) -> None:
    """A source's clock is ten days ahead for one row, and ten days behind for another."""
    ahead, behind = on(2.2) + timedelta(days=10), on(2.3) - timedelta(days=10)
    world.add_purchases(
        [
            (2, on(2.2), ahead, "Skew", "ahead", "Food", None, 1.0),
            (3, on(2.3), behind, "Skew", "behind", "Food", None, 1.0),
        ]
    )
    daily, alone = over(world, tmp_path / "daily"), over(world, tmp_path / "alone")
    seen = {}
    for day in (2.25, 3, 14):
        run(daily, end=on(day))
        seen[day] = num_events(daily)
    run(alone, end=on(14))
    assert content(daily) == content(alone)
    assert [seen[day][2] for day in (2.25, 3, 14)] == [3, 3, 4], "known on day 12.2 only"
    assert [seen[day][3] for day in (2.25, 3, 14)] == [3, 4, 4], "never seen before it happened"
    assert datetime.now(UTC) > ahead


def num_events(world: World) -> dict[int, int]:
    rows = Lake(world.spark, world.settings).read("scenario_embeddings").orderBy(S.CUTOFF, S.BATCH).collect()
    return {int(row[S.USER_KEY].split(": ")[1].rstrip("}")): row[S.NUM_EVENTS] for row in rows}
