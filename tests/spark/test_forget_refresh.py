"""Forgetting in a lake that the refresh made, and refreshing over sources that still hold the user."""

from pathlib import Path

import numpy as np
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from spark_jobs.forget import REMOVED, forget
from spark_jobs.refresh import refresh
from spark_jobs.tables import Lake
from tests.spark.raw_bytes import forms, found_in
from tests.spark.world import World, make_world, on, purchases_of_day

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(1800)]
KEY = '{"household_id": 4}'
OWN = ("Solo cheese", "tier plum")


@pytest.fixture
def world(spark: SparkSession, tmp_path: Path) -> World:
    made = make_world(spark, tmp_path)
    made.add_cards([(1, on(0), "gold"), (4, on(0), "plum")])
    made.add_purchases([row for day in (0, 1) for row in purchases_of_day(day)])
    refresh(made.spark, made.settings, made.declarations, end=on(2))
    return made


def newest(world: World) -> dict[tuple[str, str], np.ndarray]:
    rows = Lake(world.spark, world.settings).read("scenario_embeddings").orderBy(S.CUTOFF, S.BATCH).collect()
    return {(row[S.SCENARIO], row[S.USER_KEY]): np.array(row[S.EMBEDDING]) for row in rows}


def test_a_forgotten_user_does_not_come_back_and_nobody_else_changes(world: World) -> None:
    lake = Lake(world.spark, world.settings)
    row = lake.read("behaviour_sequences").where(F.col(S.USER_KEY) == KEY).select(S.USER).first()
    assert row is not None
    user, before = bytes(row[S.USER]), newest(world)
    needles = forms(user, KEY, OWN)
    assert found_in(lake.folder, needles)

    receipt = forget(world.settings, {user: KEY})
    assert receipt.state == REMOVED
    assert found_in(lake.folder, needles) == {}
    assert {key[1] for key in newest(world)} == {key[1] for key in before} - {KEY}, "Spark reads on"

    again = [(4, on(2.5), on(2.5), "Solo", "cheese", "Food", "cold", 9.0)]
    world.add_purchases([*purchases_of_day(2), *again])
    for full in (False, True):
        refresh(world.spark, world.settings, world.declarations, end=on(3), full=full)
        assert found_in(lake.folder, needles) == {}
    after = newest(world)
    assert {key[1] for key in after} == {key[1] for key in before} - {KEY}
    assert lake.read("behaviour_sequences").agg(F.sum(S.NUM_EVENTS)).collect()[0][0] == 3 * 3 + 1
