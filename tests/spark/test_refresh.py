"""The whole refresh on real Spark, Delta and the demo engine: idempotent, resumable, day by day."""

import json
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from pyspark.sql import DataFrame, Row, SparkSession
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from qanchor_plugin.identity import text_id
from spark_jobs.dirty import standing_at
from spark_jobs.failures import named_failures
from spark_jobs.point_in_time import ExtraQueries, embed_at
from spark_jobs.refresh import refresh
from spark_jobs.runs import consumed
from spark_jobs.served import as_served
from spark_jobs.tables import Lake
from spark_jobs.users import behaviour, histories
from spark_jobs.wide_answers import answer_column
from tests.spark.world import World, make_world, on, purchases_of_day

pytestmark = [pytest.mark.spark, pytest.mark.timeout(900)]
DATA = [name for name in S.TABLES if name != "job_runs"]
CARDS = [(1, on(0), "gold"), (2, on(0), "blue"), (5, on(0), "grey")]


def lake_of(world: World) -> Lake:
    return Lake(world.spark, world.settings)


def versions(world: World) -> dict[str, int]:
    return {name: lake_of(world).version(name) for name in DATA}


def run(world: World, day: float) -> object:
    return refresh(world.spark, world.settings, world.declarations, end=on(day))


@pytest.fixture(scope="module")
def daily(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Refreshed after day 2 and after day 4; the last rows of day 3 arrive late, with day 4."""
    world = make_world(spark, tmp_path_factory.mktemp("daily"))
    world.add_cards(CARDS)
    world.add_purchases([row for day in (0, 1, 2) for row in purchases_of_day(day)])
    run(world, 3)
    world.add_purchases(purchases_of_day(3)[1:])
    world.add_purchases([*purchases_of_day(4), *purchases_of_day(3)[:1]])
    run(world, 5)
    return world


@pytest.fixture(scope="module")
def at_once(daily: World, tmp_path_factory: pytest.TempPathFactory) -> World:
    """The same sources, refreshed once into a lake of its own."""
    lake = str(tmp_path_factory.mktemp("at_once") / "lake")
    world = replace(daily, settings=replace(daily.settings, lake=lake))
    run(world, 5)
    return world


def folded(world: World) -> dict[str, dict[str, list]]:
    profile = world.declarations.profiles["shopper"]
    rows = behaviour(lake_of(world), profile).toArrow()
    return {
        one.user_key: {
            name: [a.tolist() for a in (e.event_at, e.known_at, e.text_id, e.groups, e.amounts)]
            for name, e in one.events.items()
        }
        for one in histories(rows, profile)
    }


def newest(world: World) -> dict[tuple[str, str], tuple[str, np.ndarray]]:
    rows = lake_of(world).read("scenario_embeddings").orderBy(S.CUTOFF, S.BATCH).collect()
    return {(r[S.SCENARIO], r[S.USER_KEY]): (r[S.EMBEDDING_ID], np.array(r[S.EMBEDDING])) for r in rows}


def prefixes(world: World) -> dict[str, str]:
    """Identity of every user's newest prefix."""
    rows = lake_of(world).read("user_prefixes").orderBy(S.CUTOFF, S.BATCH).collect()
    return {row[S.USER_KEY]: row[S.PREFIX_ID] for row in rows}


def key(user: int) -> str:
    return json.dumps({"household_id": user})


def test_sequences_hold_every_row_once_whichever_batch_brought_it(daily: World) -> None:
    events = folded(daily)
    assert {user: len(one.get("purchases", [[]])[0]) for user, one in events.items()} == {
        key(1): 6, key(2): 5, key(3): 5, key(4): 1, key(5): 0,
    }  # fmt: skip
    rows = lake_of(daily).read("behaviour_sequences").collect()
    assert sorted({row[S.BATCH].split(".")[1] for row in rows}) == ["0-0", "1-2"]
    assert {row[S.MONTH] for row in rows} == {"2024-02", "2024-03"}


def test_day_by_day_ends_as_all_at_once(daily: World, at_once: World) -> None:
    assert folded(daily) == folded(at_once)
    for table, columns in {
        "event_texts": [S.TEXT_ID, S.TEXT],
        "event_vectors": [S.ENCODER_ID, S.TEXT_ID, S.VECTOR],
    }.items():
        ours, theirs = (
            Counter(tuple(row) for row in lake_of(w).read(table).select(*columns).collect())
            for w in (daily, at_once)
        )
        assert ours == theirs
        assert max(ours.values()) == 1
    assert prefixes(daily) == prefixes(at_once)
    ours_by, theirs_by = newest(daily), newest(at_once)
    same = {one for one in ours_by if ours_by[one][0] == theirs_by[one][0]}
    assert len(ours_by) == 2 * 5
    assert same >= {("churn", key(user)) for user in range(1, 6)} | {
        ("milk_buyer", key(n)) for n in (1, 2, 3)
    }
    for one in same:
        np.testing.assert_allclose(ours_by[one][1], theirs_by[one][1], atol=1e-6)


def test_running_again_changes_no_table(at_once: World) -> None:
    before = versions(at_once)
    report = run(at_once, 5)
    assert versions(at_once) == before
    assert report.counts["sequences"] == {}
    assert [one["unchanged"] for one in report.counts["prefixes"].values()] == [1]


def test_every_user_has_a_unit_vector_and_honest_counts(at_once: World) -> None:
    rows = lake_of(at_once).read("scenario_embeddings").collect()
    assert {(row[S.SCENARIO], row[S.USER_KEY]): row[S.NUM_EVENTS] for row in rows} == {
        (scenario, key(user)): num
        for scenario in ("milk_buyer", "churn")
        for user, num in ((1, 6), (2, 5), (3, 5), (4, 1), (5, 0))
    }
    for row in rows:
        assert len(row[S.EMBEDDING]) == S.EMBEDDING_DIM
        assert np.linalg.norm(row[S.EMBEDDING]) == pytest.approx(1.0, abs=1e-5)
        assert (row[S.AS_OF] is None) == (row[S.NUM_EVENTS] == 0)


def test_job_runs_say_what_is_complete_to_when(daily: World) -> None:
    runs = lake_of(daily).read("job_runs")
    scenarios = runs.where(F.col(S.SCENARIO).isNotNull()).select(
        S.SCENARIO, F.unix_micros(S.COMPLETE_TO).alias("to")
    )
    ends = [round(on(day).timestamp() * 1_000_000) for day in (3, 5)]
    assert sorted(map(tuple, scenarios.collect())) == sorted(
        (name, end) for name in ("milk_buyer", "churn") for end in ends
    )
    assert {row[S.STATE] for row in runs.collect()} == {"succeeded"}


def test_a_run_killed_before_its_record_is_not_counted_twice(spark: SparkSession, daily: World) -> None:
    """Rows carry their batch, so what was consumed is known without ``job_runs``."""
    without_runs = standing_at(consumed(lake_of(daily), []))
    profile = daily.declarations.profiles["shopper"]
    assert {m.name: without_runs[m.sequence_digest].last for m in profile.modalities} == {
        "purchases": 2, "card": 0,
    }  # fmt: skip


def asked(world: World, rows: list[tuple]) -> DataFrame:
    users = {r[S.USER_KEY]: bytes(r[S.USER]) for r in lake_of(world).read("scenario_embeddings").collect()}
    given = [(n, users.get(key(user), b"never seen") if user else None, at, q) for n, user, at, q in rows]
    return world.spark.createDataFrame(given, "row_id long, user binary, at timestamp, anchor_query string")


def answered(made: DataFrame, scenarios: list[str]) -> dict[tuple[int, str], Row]:
    """Answers by (row, scenario), each with its cutoff in microseconds as ``cut``."""
    return {
        (row["row_id"], name): row
        for name in scenarios
        for row in made.select(
            "row_id", f"{answer_column(name)}.*", F.unix_micros(f"{answer_column(name)}.cutoff").alias("cut")
        ).collect()
    }


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_point_in_time_equals_what_was_materialised(at_once: World, zone: str) -> None:
    rows, names = asked(at_once, [(n, n, on(5), None) for n in range(1, 6)]), ["milk_buyer", "churn"]
    at_once.spark.conf.set("spark.sql.session.timeZone", zone)
    try:
        with named_failures("test"):
            wide = embed_at(at_once.spark, at_once.settings, at_once.declarations, rows, names)
            made = answered(wide, names)
    finally:
        at_once.spark.conf.set("spark.sql.session.timeZone", "UTC")
    stored = newest(at_once)
    assert len(made) == 10
    for (row_id, scenario), row in made.items():
        identity, vector = stored[scenario, key(row_id)]
        assert row["embedding_id"] == identity
        assert row["cut"] == round(on(5).timestamp() * 1_000_000)
        np.testing.assert_allclose(np.array(row["embedding"]), vector, atol=1e-5)


def test_rows_see_only_their_past_and_bring_their_own_query(at_once: World) -> None:
    rows = asked(
        at_once,
        [
            (1, 4, on(0.5), "Will they buy milk?"),
            (2, 4, on(1), "Will they buy milk?"),
            (3, 99, on(5), "Will they buy milk?"),
            (4, None, on(5), "Will they buy milk?"),
            (5, 4, None, "Will they buy milk?"),
            (6, 4, on(1), None),
            (7, 4, on(1), "Will they buy milk?"),
            (8, 2, on(5), "Something else?"),
        ],
    )
    extra = ExtraQueries(profile="shopper")
    made = embed_at(at_once.spark, at_once.settings, at_once.declarations, rows, ["milk_buyer"], extra)
    found = answered(made, ["milk_buyer", "anchor_query"])
    assert len(found) == 16
    assert {n: found[n, "milk_buyer"]["num_events"] for n in range(1, 9)} == {
        1: 0, 2: 1, 3: None, 4: None, 5: None, 6: 1, 7: 1, 8: 5,
    }  # fmt: skip
    assert found[3, "milk_buyer"]["embedding"] is None
    assert found[6, "anchor_query"]["embedding"] is None
    assert found[2, "milk_buyer"]["embedding"] == found[7, "milk_buyer"]["embedding"]
    for row_id in (1, 2, 7):
        own, declared = found[row_id, "anchor_query"], found[row_id, "milk_buyer"]
        assert own["embedding_id"] == declared["embedding_id"]
        np.testing.assert_allclose(own["embedding"], declared["embedding"], atol=1e-6)
    assert found[8, "anchor_query"]["embedding_id"] != found[8, "milk_buyer"]["embedding_id"]


def test_as_served_is_what_stood_then_and_was_fresh(daily: World) -> None:
    """Both runs were served at the clock, day 30, complete to day 5, with a ttl of 7 days."""
    rows = asked(daily, [(1, 1, on(29), None), (2, 1, on(30), None), (3, 99, on(30), None)])
    fresh = daily.declarations
    stale = as_served(daily.spark, daily.settings, fresh, rows, ["churn"]).collect()
    assert [row["embedding_id"] for row in sorted(stale)] == [None, None, None]
    scenarios = [replace(one, ttl=on(40) - on(0)) for one in fresh.scenarios.values()]
    longer = type(fresh).of("test", fresh.profiles.values(), scenarios)
    found = {
        r["row_id"]: r for r in as_served(daily.spark, daily.settings, longer, rows, ["churn"]).collect()
    }
    assert found[1]["embedding_id"] is None
    assert found[2]["embedding_id"] == newest(daily)["churn", key(1)][0]
    assert found[3]["embedding_id"] is None


def test_texts_of_groups_and_tabular_rows_are_texts_too(at_once: World) -> None:
    ids = {bytes(row[S.TEXT_ID]) for row in lake_of(at_once).read("event_texts").collect()}
    assert text_id("Solo cheese") in ids
    assert text_id("tier gold") in ids
    assert text_id("Food") in ids
