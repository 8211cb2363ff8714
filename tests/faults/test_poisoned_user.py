"""A user whose stored rows make the engine's input impossible: left out and named, everyone else done."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession
from pyspark.sql import functions as F

from qanchor_plugin import schemas as S
from qanchor_plugin.errors import InputDataError
from spark_jobs.isolation import FAILED_USERS, NUM_FAILED_USERS
from spark_jobs.ledger import opened
from spark_jobs.refresh import refresh
from spark_jobs.tables import Lake
from tests.spark.world import World, make_world, on, purchases_of_day

pytestmark = [pytest.mark.spark, pytest.mark.slow, pytest.mark.timeout(1800)]
POISONED = '{"household_id": 3}'


@pytest.fixture
def world(spark: SparkSession, tmp_path: Path) -> World:
    made = make_world(spark, tmp_path)
    made.add_cards([(1, on(0), "gold")])
    made.add_purchases([row for day in (0, 1) for row in purchases_of_day(day)])
    return made


def spoil(world: World, groups: Callable[[list[bytes]], list[bytes]], users: tuple[str, ...]) -> None:
    """The group ids of the users' stored events are others."""
    table = opened(Path(world.settings.lake), "behaviour_sequences")

    def change(rows: pa.Table) -> pa.Table:
        keys, given = rows[S.USER_KEY].to_pylist(), rows[S.GROUPS].to_pylist()
        spoilt = [groups(one) if key in users else one for key, one in zip(keys, given, strict=True)]
        place = rows.schema.get_field_index(S.GROUPS)
        field = rows.schema.field(S.GROUPS)
        return rows.set_column(place, field, pa.array(spoilt, field.type))

    table.rewrite(table.files(), change)


def answers(world: World) -> dict[tuple[str, str], tuple[str, int]]:
    rows = Lake(world.spark, world.settings).read("scenario_embeddings").orderBy(S.CUTOFF, S.BATCH).collect()
    return {(r[S.SCENARIO], r[S.USER_KEY]): (r[S.EMBEDDING_ID], r[S.NUM_EVENTS]) for r in rows}


def test_one_user_fails_alone_is_named_and_is_looked_at_again(world: World, tmp_path: Path) -> None:
    sound = replace(world, settings=replace(world.settings, lake=str(tmp_path / "undisturbed")))
    for one in (world, sound):
        refresh(one.spark, one.settings, one.declarations, end=on(2))
    before = answers(world)
    spoil(world, lambda ids: [one + b"x" for one in ids], (POISONED,))
    world.add_purchases(purchases_of_day(2))

    report = refresh(world.spark, world.settings, world.declarations, end=on(3))
    (counts,) = report.counts["prefixes"].values()
    assert counts[NUM_FAILED_USERS] == 1
    assert list(counts[FAILED_USERS]) == [POISONED]
    told = Lake(world.spark, world.settings).read("job_runs").where(F.col(S.RUN) == report.run)
    message = told.where(F.col(S.JOB) == "prefixes").first()
    assert message is not None
    assert f"1 users were left out: {POISONED}" in message[S.MESSAGE]
    assert json.loads(message[S.COUNTS])

    refresh(sound.spark, sound.settings, sound.declarations, end=on(3))
    expected, found = answers(sound), answers(world)
    ours = {key for key in expected if key[1] == POISONED}
    assert {key: found[key] for key in expected.keys() - ours} == {
        key: expected[key] for key in expected.keys() - ours
    }
    assert {key: found[key] for key in ours} == {key: before[key] for key in ours}, "the last sound answer"

    spoil(world, lambda ids: [one[:32] for one in ids], (POISONED,))
    mended = refresh(world.spark, world.settings, world.declarations, end=on(3))
    assert FAILED_USERS not in next(iter(mended.counts["prefixes"].values()))
    assert answers(world) == expected


def test_a_fault_of_everybody_is_the_runs_fault(world: World) -> None:
    refresh(world.spark, world.settings, world.declarations, end=on(2))
    keys = tuple(f'{{"household_id": {number}}}' for number in (1, 2, 3, 4))
    spoil(world, lambda ids: [one + b"x" for one in ids], keys)
    world.add_purchases(purchases_of_day(2))
    with pytest.raises(InputDataError, match="not all 32 bytes"):
        refresh(world.spark, world.settings, world.declarations, end=on(3))
