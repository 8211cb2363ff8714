"""Day by day, however the source changed, is as all at once: sequences, prefixes, embeddings."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession

from qanchor_plugin import schemas as S
from qanchor_plugin.identity import embedding_id
from qanchor_plugin.sequence.slice import MICROS_PER_DAY
from spark_jobs.refresh import refresh
from spark_jobs.refresh_steps import RefreshReport
from tests.spark.changing import ChangingPurchases
from tests.spark.test_refresh import folded, lake_of, newest, prefixes
from tests.spark.world import World, make_world, on

pytestmark = [pytest.mark.spark, pytest.mark.timeout(1800)]


def run(world: World, day: float, **options: object) -> RefreshReport:
    return refresh(world.spark, world.settings, world.declarations, end=on(day), **options)  # type: ignore[arg-type]


def in_another_lake(world: World, lake: Path) -> World:
    return replace(world, settings=replace(world.settings, lake=str(lake)))


def assert_same(daily: World, at_once: World, end: float) -> None:
    """Everything that a reader can see of known users agrees."""
    known = folded(at_once)
    assert folded(daily) == known
    ours, theirs = prefixes(daily), prefixes(at_once)
    assert {user: ours[user] for user in known} == {user: theirs[user] for user in known}
    answers, expected = newest(daily), newest(at_once)
    for user in known:
        assert answers["churn", user][0] == expected["churn", user][0]
        np.testing.assert_allclose(answers["churn", user][1], expected["churn", user][1], atol=1e-6)
    assert_of_the_newest_prefix(daily, set(known), end)


def assert_of_the_newest_prefix(world: World, known: set[str], end: float) -> None:
    """The answers that serve for 7 days: each of its user's newest prefix, at its own cutoff, younger."""
    scenario = world.declarations.scenarios["milk_buyer"]
    identity, prefix_of = world.declarations.scenario_id(scenario), prefixes(world)
    rows = lake_of(world).read("scenario_embeddings").where(f"{S.SCENARIO} = 'milk_buyer'")
    last = {row[S.USER_KEY]: row for row in rows.orderBy(S.CUTOFF, S.BATCH).collect()}
    for user in known:
        cutoff = last[user][S.CUTOFF].replace(tzinfo=on(0).tzinfo)
        day = round(cutoff.timestamp() * 1_000_000) // MICROS_PER_DAY
        made = embedding_id(scenario=identity, prefix=prefix_of[user], suffix_day=day)
        assert last[user][S.EMBEDDING_ID] == made
        assert on(end) - cutoff < scenario.ttl


def lived(spark: SparkSession, folder: Path, *, seed: int, days: int, num_users: int, check: bool) -> World:
    world = make_world(spark, folder, window=timedelta(days=3))
    world.add_cards([(user, on(0), "gold") for user in (1, 2)])
    source = ChangingPurchases(folder / "purchases", seed=seed, num_users=num_users)
    for day in range(2, 2 + days):
        source.live_through(day)
        report = run(world, day + 1)
        read = report.counts["sequences"]["purchases"]["read"]
        assert read in (("whole",) if day == 2 else ("changed", "added"))  # some days only add
        if check:
            at_once = in_another_lake(world, folder / f"at_once_{day}")
            run(at_once, day + 1, full=True)
            assert_same(world, at_once, day + 1)
    return world


def test_two_days_of_changes_end_as_one_full_build(spark: SparkSession, tmp_path: Path) -> None:
    world = lived(spark, tmp_path, seed=3, days=2, num_users=6, check=False)
    at_once = in_another_lake(world, tmp_path / "at_once")
    run(at_once, 4, full=True)
    assert_same(world, at_once, 4)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [11, 12, 13])
def test_every_day_of_a_week_of_changes_is_as_a_full_build(
    spark: SparkSession, tmp_path: Path, seed: int
) -> None:
    lived(spark, tmp_path, seed=seed, days=6, num_users=12, check=True)
