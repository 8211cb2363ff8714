"""The job that writes ``useru_pairs``: real Spark and Delta, and a real HTTP server as the LLM."""

import json
from dataclasses import replace
from datetime import timedelta

import pytest
from pyspark.sql import SparkSession

from qanchor_plugin import schemas as S
from qanchor_plugin.errors import BackendError, InputDataError
from qanchor_plugin.prefix_store import LakeTables
from qanchor_plugin.training.useru import PairPlan, shard_of
from qanchor_plugin.training.useru.endpoint import EndpointSettings
from qanchor_plugin.training.useru.generators import GeneratorRef
from qanchor_plugin.training.useru.plan import is_held_out
from qanchor_plugin.training.useru.sampled import sampled_pairs
from spark_jobs import build_sequences
from spark_jobs.build_pairs import PairsReport, build, estimate
from spark_jobs.progress import Silent
from spark_jobs.tables import Lake
from tests.spark.world import World, make_world, on
from tests.unit.training.llm_endpoint import Endpoint

pytestmark = [pytest.mark.spark, pytest.mark.timeout(900)]
NUM_USERS, NUM_DAYS = 6, 200
GOOD = json.dumps(
    {"query": "Does this user eat?", "claims": [{"kind": "count", "about": "Food", "value": 1}]}
)


def micros(day: float) -> int:
    return round(on(day).timestamp() * 1_000_000)


PLAN = PairPlan(known_until=micros(150), num_cutoffs=2, num_topics=3, num_absent=1, users_per_shard=2)


def purchases() -> list[tuple]:
    products = ["milk", "bread", "soap", "wine"]
    return [
        (user, on(day + user / 24), on(day + user / 24 + 0.1), "Acme", products[(user + day) % 4],
         "Food" if (user + day) % 3 else "Home", None, 1.25 * user)
        for user in range(1, NUM_USERS + 1) for day in range(0, NUM_DAYS, 3 + user)
    ]  # fmt: skip


def with_sequences(world: World) -> World:
    lake = Lake(world.spark, world.settings)
    lake.ensure()
    profiles = list(world.declarations.profiles.values())
    for one in build_sequences.plan(world.spark, world.settings, profiles, {}, full=True):
        build_sequences.write(lake, world.settings, one, Silent())
    return world


@pytest.fixture(scope="module")
def world(spark: SparkSession, tmp_path_factory: pytest.TempPathFactory) -> World:
    made = make_world(spark, tmp_path_factory.mktemp("pairs"))
    made.add_cards([(1, on(0), "gold")])
    made.add_purchases(purchases())
    return with_sequences(made)


def profile(world: World):
    return world.declarations.profiles["shopper"]


def rows(world: World) -> list[dict]:
    table = LakeTables(world.settings.lake).read("useru_pairs")
    return sorted(table.select(S.USERU_PAIRS.names).to_pylist(), key=lambda row: json.dumps(row, default=str))


@pytest.fixture(scope="module")
def built(world: World) -> tuple[PairsReport, list[dict]]:
    """The first build's report and rows; tests after it may leave other tables of the same users."""
    report = build(world.spark, world.settings, profile(world), PLAN)
    return report, rows(world)


def job_rows(world: World) -> list:
    runs = Lake(world.spark, world.settings).read("job_runs").orderBy(S.RUN)
    return [row for row in runs.collect() if row[S.JOB] == "pairs"]


def test_pairs_of_all_shards_stand_in_one_table_and_a_rerun_is_the_same(world: World, built) -> None:
    report, first = built
    assert len(first) == report.counts.num_pairs
    assert report.num_shards == 3
    assert report.counts.num_users == NUM_USERS
    assert {row[S.KIND] for row in first} == {"future", "uqa", "outcome"}
    for row in first:
        assert row[S.SHARD] == shard_of(row[S.USER], seed=0, num_shards=3)
        assert row[S.HELD_OUT] == is_held_out(row[S.USER])
        assert bool(row[S.ALTERNATIVES]) == (row[S.KIND] == "outcome")
        assert row[S.KIND] != "outcome" or row[S.ANSWER] in row[S.ALTERNATIVES]
    for shard in {row[S.SHARD] for row in first}:
        cutoffs = {row[S.CUTOFF] for row in first if row[S.SHARD] == shard}
        assert len(cutoffs) == 2
        assert max(cutoffs) + timedelta(days=30) < on(150)
    build(world.spark, world.settings, profile(world), PLAN)
    assert rows(world) == first
    told = job_rows(world)[-1]
    assert told[S.STATE] == "succeeded"
    assert told[S.COMPLETE_TO].replace(tzinfo=None) == on(150).replace(tzinfo=None)
    assert json.loads(told[S.COUNTS])["num_outcome"] == report.counts.num_outcome


@pytest.mark.slow
def test_nothing_from_known_until_on_is_read(world: World, built, tmp_path) -> None:
    cut = make_world(world.spark, tmp_path)
    cut.add_cards([(1, on(0), "gold")])
    cut.add_purchases([row for row in purchases() if row[2] < on(150)])
    build(cut.spark, cut.settings, profile(with_sequences(cut)), PLAN)
    assert rows(cut) == built[1]


def test_a_cutoff_before_all_history_leaves_the_former_table(world: World, built) -> None:
    before = rows(world)
    with pytest.raises(InputDataError, match="no pair can be made"):
        build(world.spark, world.settings, profile(world), replace(PLAN, known_until=micros(10)))
    assert rows(world) == before
    assert job_rows(world)[-1][S.STATE] == "failed"


def endpoint(server: Endpoint, folder, **changes) -> GeneratorRef:
    given = {"base_url": server.url, "model": "tiny", "api_key": "secret", "requests_per_minute": 1e6,
             "first_wait_seconds": 0.01, "timeout_seconds": 0.2, "max_attempts": 2}  # fmt: skip
    return GeneratorRef(endpoint=EndpointSettings(**(given | changes)), cache=str(folder / "answers.sqlite"))


@pytest.mark.slow
def test_an_endpoint_that_answers_rubbish_and_times_out_loses_only_those_pairs(
    world: World, built, tmp_path
) -> None:
    script = [(200, GOOD, 0.0), (200, "I cannot help.", 0.0), (200, GOOD, 0.5), (200, GOOD, 0.5)]
    with Endpoint(*script, (200, GOOD, 0.0)) as server:
        ref = endpoint(server, tmp_path, max_given_up=100)
        cost = estimate(world.spark, world.settings, profile(world), PLAN, ref)
        assert server.seen == []
        counts = build(world.spark, world.settings, profile(world), PLAN, ref).counts
        assert cost.num_requests == counts.num_asked > 0
        assert 0 < counts.num_unusable <= 3
        by_rule = [[r for r in some if r[S.KIND] != "uqa"] for some in (rows(world), built[1])]
        assert by_rule[0] == by_rule[1]
        again = estimate(world.spark, world.settings, profile(world), PLAN, ref)
        assert again.num_cached == counts.num_asked - counts.num_unusable
    assert "secret" not in "".join(str(row.asDict()) for row in job_rows(world))


def test_a_dead_endpoint_stops_the_run_and_leaves_the_former_table(world: World, built, tmp_path) -> None:
    before = rows(world)
    with Endpoint((200, GOOD, 0.0)) as server:
        pass
    with pytest.raises(BackendError, match="ConnectionError"):
        build(world.spark, world.settings, profile(world), PLAN, endpoint(server, tmp_path))
    assert rows(world) == before


def test_a_sample_is_even_and_fixed(world: World, built) -> None:
    tables = LakeTables(world.settings.lake)
    sample = sampled_pairs(tables, 6, seed=1)
    assert sample == sampled_pairs(tables, 6, seed=1)
    kinds = [one.kind for one in sample]
    assert sorted(kinds) == ["future", "future", "outcome", "outcome", "uqa", "uqa"]
    assert len({one.shard for one in sample}) == 1
