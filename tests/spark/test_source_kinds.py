"""How each kind of source is read again, and what of the lake is written for it: no engine is asked."""

import shutil
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Declarations, Modality, Profile, Settings, SourceSpec
from spark_jobs.refresh import refresh
from spark_jobs.tables import Lake
from tests.spark.changing import append, create, purchase
from tests.spark.records import HOUSEHOLD, card, purchases
from tests.spark.test_refresh import folded, key
from tests.spark.world import CARDS, PURCHASES, World, on

pytestmark = [pytest.mark.spark, pytest.mark.timeout(900)]

FIRST = [
    purchase(1, on(-40), "milk"),
    purchase(1, on(0), "bread"),
    purchase(2, on(0), "milk"),
    purchase(3, on(0), "soap"),
]


def world_of(spark: SparkSession, folder: Path, *modalities: Modality) -> World:
    """A store of these modalities and no scenario: a refresh makes sequences and nothing else."""
    settings = Settings(lake=str(folder / "lake"), clock=on(30), device="cpu")
    profile = Profile("shopper", HOUSEHOLD, list(modalities), window=timedelta(days=90))
    return World(spark, folder, settings, Declarations.of("test", [profile], []))


def run(world: World, **options: Any) -> dict[str, Any]:
    """What the refresh counted of the purchases, or nothing when it read none."""
    report = refresh(world.spark, world.settings, world.declarations, end=on(30), **options)
    counts: dict[str, Any] = report.counts["sequences"]
    return counts.get("purchases", {})


def texts_of(world: World, user: int) -> list[bytes]:
    events = folded(world).get(key(user), {}).get("purchases")
    return [] if events is None else [bytes(one) for one in events[2]]


def batches(world: World) -> dict[tuple[str, str], set[str]]:
    """Which versions the rows of each user and month came from."""
    found: dict[tuple[str, str], set[str]] = {}
    for row in Lake(world.spark, world.settings).read("behaviour_sequences").collect():
        found.setdefault((row[S.USER_KEY], row[S.MONTH]), set()).add(row[S.BATCH].split(".")[1])
    return found


def changed_users(world: World) -> int:
    return Lake(world.spark, world.settings).read("changed_users").select(S.USER).distinct().count()


def same_as_full(world: World) -> None:
    """A lake built now from the start holds the same events."""
    again = replace(world, settings=replace(world.settings, lake=str(world.folder / "again")))
    shutil.rmtree(world.folder / "again", ignore_errors=True)
    run(again, full=True)
    assert folded(world) == folded(again)


@pytest.fixture
def delta(spark: SparkSession, tmp_path: Path) -> World:
    """A Delta source with a change feed, its first rows in the lake."""
    create(tmp_path / "purchases", FIRST)
    world = world_of(spark, tmp_path, purchases(str(tmp_path / "purchases"), known_at="created"))
    assert run(world)["read"] == "whole"
    return world


@pytest.mark.slow
def test_an_update_and_a_deletion_write_the_touched_months_alone(delta: World) -> None:
    source = f"delta.`{delta.folder / 'purchases'}`"
    append(delta.folder / "purchases", [purchase(2, on(1), "wine"), purchase(3, on(1), "wine")])
    delta.spark.sql(f"UPDATE {source} SET product = 'butter' WHERE household_id = 1 AND product = 'bread'")
    delta.spark.sql(f"DELETE FROM {source} WHERE household_id = 3 AND product = 'soap'")
    counts = run(delta)
    assert counts == {"rows": 3, "updated": 1, "deleted": 1, "changed_users": 2, "read": "changed"}
    assert batches(delta) == {
        (key(1), "2024-01"): {"0-0"},
        (key(1), "2024-02"): {"1-3"},
        (key(2), "2024-02"): {"0-0", "1-3"},
        (key(3), "2024-02"): {"1-3"},
    }
    same_as_full(delta)
    assert run(delta) == {}


@pytest.mark.slow
def test_a_user_who_is_deleted_from_the_source_is_gone(delta: World) -> None:
    delta.spark.sql(f"DELETE FROM delta.`{delta.folder / 'purchases'}` WHERE household_id = 3")
    assert run(delta)["changed_users"] == 1
    assert key(3) not in folded(delta)
    assert changed_users(delta) == 1
    same_as_full(delta)


@pytest.mark.slow
def test_a_vacuumed_feed_is_said_and_only_what_differs_is_written(delta: World) -> None:
    source = delta.folder / "purchases"
    delta.spark.sql(f"UPDATE delta.`{source}` SET product = 'butter' WHERE product = 'bread'")
    shutil.rmtree(source / "_change_data")
    delta.spark.catalog.clearCache()
    counts = run(delta)
    assert (counts["read"], counts["rows"], counts["changed_users"]) == ("compared", 4, 1)
    assert "the change feed of versions 1-1 cannot be read any more" in counts["why"]
    assert {batch for found in batches(delta).values() for batch in found} == {"0-0", "0-1"}
    told = Lake(delta.spark, delta.settings).read("job_runs").where("job = 'sequences'")
    assert "cannot be read any more" in told.orderBy(S.RUN).collect()[-1][S.MESSAGE]
    same_as_full(delta)


@pytest.mark.slow
def test_a_table_made_anew_is_compared(delta: World) -> None:
    shutil.rmtree(delta.folder / "purchases")
    delta.spark.sparkContext._jvm.org.apache.spark.sql.delta.DeltaLog.clearCache()  # the next day's process
    create(delta.folder / "purchases", [*FIRST[1:], purchase(4, on(2), "milk")])
    counts = run(delta)
    assert (counts["read"], counts["changed_users"]) == ("compared", 2)
    assert "another table than it was" in counts["why"]
    assert key(4) in folded(delta)
    same_as_full(delta)
    assert run(delta) == {}


@pytest.mark.slow
def test_other_sources_are_compared_within_the_look_back(spark: SparkSession, tmp_path: Path) -> None:
    """on(0) is 27 February: 7 days before the newest event (2 March) is February, January is too long ago."""
    source = SourceSpec(name="purchases", path=str(tmp_path / "p"), format="parquet", event_at="at")
    modality = Modality(
        "purchases", source, text="{brand} {product}", group_by=("category", "aisle"), amounts=("value",)
    )
    world = world_of(spark, tmp_path, modality)

    def add(rows: list[tuple]) -> None:
        spark.createDataFrame(rows, PURCHASES).coalesce(1).write.mode("append").parquet(str(tmp_path / "p"))

    add([*FIRST, purchase(2, on(4), "wine")])
    assert run(world)["read"] == "whole"
    assert run(world) == {}
    add([purchase(1, on(-3), "soap"), purchase(2, on(5), "milk"), purchase(3, on(-40), "bread")])
    counts = run(world)
    assert (counts["read"], counts["changed_users"], counts["rows"]) == ("compared", 2, 6)
    assert "events before 2024-02-01 are taken as they are" in counts["why"]
    assert (len(texts_of(world, 1)), len(texts_of(world, 2)), len(texts_of(world, 3))) == (3, 3, 1)
    assert run(world) == {}
    run(world, full=True)
    assert len(texts_of(world, 3)) == 2


@pytest.mark.slow
def test_tabular_rows_that_change_replace_their_user_s(spark: SparkSession, tmp_path: Path) -> None:
    world = world_of(spark, tmp_path, card(str(tmp_path / "card")), card_of_no_time(str(tmp_path / "fixed")))
    for name in ("card", "fixed"):
        world.add(spark.createDataFrame([(1, on(0), "gold"), (2, on(0), "blue")], CARDS), name)
        spark.sql(
            f"ALTER TABLE delta.`{tmp_path / name}` SET TBLPROPERTIES (delta.enableChangeDataFeed = true)"
        )
    refresh(spark, world.settings, world.declarations, end=on(30))
    DeltaTable(tmp_path / "card").update({"tier": "'red'"}, predicate="household_id = 2")
    world.add(spark.createDataFrame([(1, on(3), "black")], CARDS), "fixed")
    report = refresh(spark, world.settings, world.declarations, end=on(30))
    assert {name: one["changed_users"] for name, one in report.counts["sequences"].items()} == {
        "card": 1,
        "fixed": 1,
    }
    rows = Lake(spark, world.settings).read("profile_rows").groupBy(S.MODALITY, S.USER_KEY).count().collect()
    assert {(row[0], row[1]): row[2] for row in rows} == {
        (name, key(user)): 1 for name in ("card", "fixed") for user in (1, 2)
    }
    same_as_full(world)


def card_of_no_time(path: str) -> Modality:
    source = SourceSpec(name="fixed", path=path, event_at="")
    return Modality("fixed", source, text="tier {tier}", kind="tabular", static=True)
