"""Who is looked at, what is answered and why: hand-counted; explain says it, the refresh does it."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from deltalake import DeltaTable
from pyspark.sql import SparkSession

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Declarations, Scenario
from qanchor_plugin.engine import QueryAnchorEngine
from qanchor_plugin.feast_ext.materialize_online import newest_rows
from qanchor_plugin.feast_ext.online_rows import Anchor
from spark_jobs.due import is_due
from spark_jobs.engines import engine_on_driver
from spark_jobs.estimate import estimate
from spark_jobs.explain import explain
from spark_jobs.identity import entity_key
from spark_jobs.refresh import refresh
from tests.spark.changing import append, create, purchase
from tests.spark.records import HOUSEHOLD
from tests.spark.test_refresh import lake_of, versions
from tests.spark.world import DAY, World, make_world, on

pytestmark = [pytest.mark.spark, pytest.mark.timeout(900)]


def run(world: World, day: float) -> dict[str, Any]:
    return dict(refresh(world.spark, world.settings, world.declarations, end=on(day)).counts)


def explained(world: World, day: float) -> dict[str, Any]:
    """The explanation; nothing was written meanwhile."""
    before = versions(world), lake_of(world).version("job_runs")
    told = explain(world.spark, world.settings, world.declarations, end=on(day))
    assert (versions(world), lake_of(world).version("job_runs")) == before
    return told


def only(parts: dict[str, Any]) -> dict[str, Any]:
    """The one group's."""
    (found,) = parts.values()
    return dict(found)


def with_scenarios(world: World, *more: Scenario, **changed: Any) -> World:
    declared = world.declarations
    scenarios = [replace(one, **changed) for one in (*declared.scenarios.values(), *more)]
    return replace(world, declarations=Declarations.of("test", declared.profiles.values(), scenarios))


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> World:
    """Users 1 and 2 bought on day 0, user 2 on day 2 as well, user 3 has a card; a window of 3 days."""
    world = make_world(spark, tmp_path_factory.mktemp("dirty"), window=3 * DAY)
    rows = [purchase(1, on(0), "milk"), purchase(2, on(0), "soap"), purchase(2, on(2), "milk")]
    create(world.folder / "purchases", rows)
    world.add_cards([(3, on(0), "gold")])
    return world


@pytest.fixture(scope="module")
def lived(world: World) -> tuple[World, dict[str, Any], dict[str, Any], dict[str, Any]]:
    """The store after two refreshes, with what both counted and what was said before the second."""
    first = run(world, 2.5)
    append(world.folder / "purchases", [purchase(2, on(3.25), "wine")])
    said = explained(world, 3.5)
    return world, first, said, run(world, 3.5)


def test_the_first_look_is_at_everyone(lived: tuple) -> None:
    _, first, _, _ = lived
    assert only(first["prefixes"]) == {"users": 3, "written": 3, "reasons": {"everyone": 3}}
    assert only(first["embeddings"])["reasons"] == {
        "milk_buyer": {"new_scenario": 3},
        "churn": {"new_scenario": 3},
    }


def test_news_and_time_make_dirty_and_nothing_else(lived: tuple) -> None:
    """Day 0 leaves the window on day 3: user 1 by time alone, user 2 has news; user 3's card stays."""
    _, _, _, second = lived
    looked = only(second["prefixes"])
    assert looked == {"users": 2, "written": 2, "reasons": {"new_events": 1, "time_passed": 1}}
    answers = only(second["embeddings"])["reasons"]
    assert answers["churn"] == {"new_prefix": 2, "aged": 1}
    turn = is_due(entity_key([HOUSEHOLD], [3]), made_day=_day(2.5), end_day=_day(3.5), ttl_days=7)
    assert answers["milk_buyer"] == {"new_prefix": 2} | ({"aged": 1} if turn else {})


def test_explain_said_so_before(lived: tuple) -> None:
    _, _, said, second = lived
    assert said["sources"]["card"] == {"read": "nothing"}
    source = said["sources"]["purchases"]
    assert (source["read"], source["rows"], source["users"], source["new_texts"]) == (
        "added",
        1,
        {"new_events": 1},
        1,
    )
    assert only(said["prefixes"]) == {"users": 2, "reasons": {"new_events": 1, "time_passed": 1}}
    assert only(said["embeddings"])["scenarios"] == only(second["embeddings"])["reasons"]
    assert list(said["texts"].values()) == list(second["vectors"].values()) == [1]
    seconds = said["estimated_seconds"]
    assert set(seconds) == {"sequences", "vectors", "prefixes", "embeddings", "total"}
    assert 0 < seconds["total"] < 600


def test_a_new_scenario_is_answered_from_stored_soft_tokens(lived: tuple) -> None:
    world = with_scenarios(
        lived[0], replace(lived[0].declarations.scenarios["churn"], name="wine", query="Wine?")
    )
    said = explained(world, 3.5)
    assert only(said["prefixes"])["users"] == 0
    counts = run(world, 3.5)
    assert (counts["sequences"], counts["texts"], list(counts["vectors"].values())) == ({}, {"new": 0}, [0])
    assert only(counts["prefixes"]) == {"users": 0, "written": 0, "unchanged": 1}
    made = only(counts["embeddings"])
    assert made == {"users": 3, "written": 3, "reasons": {"wine": {"new_scenario": 3}}}
    assert only(said["embeddings"])["answers"] == 3


def test_a_new_engine_stands_beside_the_old_and_neither_answers_for_the_other(
    lived: tuple, tmp_path: Path
) -> None:
    old = lived[0]
    config = engine_on_driver("demo", "cpu").config
    engine = QueryAnchorEngine.untrained(config.with_(seed=config.seed + 1), device="cpu")
    engine.save_pretrained(tmp_path / "engine")
    new = with_scenarios(old, engine=str(tmp_path / "engine"), engine_digest=engine.digest)
    counts = run(new, 3.5)
    assert only(counts["prefixes"])["reasons"] == {"everyone": 3}
    assert only(counts["embeddings"])["reasons"]["churn"] == {"new_scenario": 3}
    rows = lake_of(new).read("scenario_embeddings").where("scenario = 'churn'").collect()
    newest = {
        (row[S.SCENARIO_ID], row[S.USER_KEY]): row for row in sorted(rows, key=lambda row: row[S.CUTOFF])
    }
    assert Counter(scenario for scenario, _ in newest) == {_id(old): 3, _id(new): 3}
    for (_, user), row in newest.items():
        assert row[S.EMBEDDING_ID].startswith(row[S.SCENARIO_ID][:16]), user
    ours, theirs = (np.array(newest[_id(one), '{"household_id": 2}'][S.EMBEDDING]) for one in (old, new))
    assert float(ours @ theirs) < 0.99
    again = run(old, 3.5)
    assert (only(again["prefixes"]).get("written"), only(again["embeddings"])["written"]) == (0, 0)


def test_a_user_whose_source_rows_went_is_answered_no_more(lived: tuple) -> None:
    """User 1 is deleted from the source: no prefix is looked for, and the row written online is empty."""
    world = lived[0]
    DeltaTable(world.folder / "purchases").delete("household_id = 1")
    counts = run(world, 3.5)
    assert counts["sequences"]["purchases"]["changed_users"] == 1
    assert only(counts["prefixes"])["users"] == 0
    anchor = Anchor(
        scenario=world.declarations.scenarios["churn"],
        profile=world.declarations.profiles["shopper"],
        scenario_id=_id(world),
    )
    rows = newest_rows(world.spark, world.settings, anchor).collect()
    stands = {bytes(row[S.USER]): row[S.EMBEDDING] is not None for row in rows}
    assert stands == {entity_key([HOUSEHOLD], [user]): user != 1 for user in (1, 2, 3)}


def test_turns_are_spread_and_never_later_than_the_ttl() -> None:
    users = [n.to_bytes(4, "little") for n in range(2_000)]
    on_a_day = [sum(is_due(u, made_day=d, end_day=d + 1, ttl_days=7) for u in users) for d in range(7)]
    assert sum(on_a_day) == 2_000  # each once within the ttl
    assert max(on_a_day) < 2 * 2_000 / 7
    assert all(is_due(user, made_day=100, end_day=107, ttl_days=7.9) for user in users)
    assert all(is_due(user, made_day=100, end_day=101, ttl_days=0.5) for user in users)
    assert not any(is_due(user, made_day=0, end_day=9_999, ttl_days=0) for user in users)


def test_an_estimate_is_a_line_through_past_runs() -> None:
    assert estimate(40, []) is None
    assert estimate(40, [(10, 2.0), (20, 3.0)]) == 5.0
    assert estimate(40, [(10, 2.0)]) == 8.0
    assert estimate(5, [(10, 2.0), (10, 4.0)]) == 3.0
    assert estimate(40, [(10, 3.0), (20, 2.0)]) == 2.5


def _day(day: float) -> int:
    return int(on(day).timestamp()) // 86_400


def _id(world: World) -> str:
    return world.declarations.scenario_id(world.declarations.scenarios["churn"])
