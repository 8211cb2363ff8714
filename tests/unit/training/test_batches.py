"""Batches of pairs from a real Delta lake: what is in them, what is read for them, what is refused."""

import json
import logging
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from deltalake import DeltaTable

from qanchor_plugin.engine.config import DEMO
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.identity import text_id
from qanchor_plugin.prefix_store import LakeTables
from qanchor_plugin.training.batches import BatchPlan, PairBatch, PairBatches
from qanchor_plugin.training.pair_table import PairTable, last_build
from tests.shop import ShopLake, at, home_row, user
from tests.unit.training.pair_lake import (
    CUTOFFS,
    HELD_OUT,
    NUM_HOUSEHOLDS,
    PROFILE,
    QUESTIONS,
    RandomVectors,
    behaviour_lake,
    built,
    literal_pairs,
    pair_lake,
    shard_of,
    write_pairs,
)

PLAN = BatchPlan(readings_per_step=4, queries_per_step=2, steps_per_shard=2, max_cached_shards=2)


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory) -> ShopLake:
    return pair_lake(tmp_path_factory.mktemp("pairs") / "lake")


def batches_of(lake: ShopLake, plan: BatchPlan = PLAN) -> PairBatches:
    return PairBatches(LakeTables(str(lake.folder)), PROFILE, DEMO, RandomVectors(), plan=plan)


def households(batch: PairBatch) -> list[int]:
    known = {user(number): number for number in range(NUM_HOUSEHOLDS)}
    return [known[one.user] for one in batch.readings]


def test_a_batch_asks_all_its_readings_the_same_questions_and_one_other_each(lake):
    batch = batches_of(lake).batch(0)
    assert len(batch.readings) == 4
    by_reading = [
        [query for row, query in zip(batch.reading_of_pair, batch.queries, strict=True) if row == reading]
        for reading in range(4)
    ]
    asked = set(by_reading[0]) & set(QUESTIONS)
    assert len(asked) == 2
    for household, queries in zip(households(batch), by_reading, strict=True):
        assert len(queries) == 3
        assert set(queries) & set(QUESTIONS) == asked
        (other,) = set(queries) - asked
        assert other.startswith(f"Does household {household} like")
    for query, alternatives, answer in zip(batch.queries, batch.alternatives, batch.answers, strict=True):
        assert (len(alternatives) == 4) == (query in QUESTIONS)
        assert not alternatives or answer in alternatives


def test_a_batch_is_of_one_shard_and_of_no_user_twice(lake):
    batches = batches_of(lake)
    for step in range(16):
        found = households(batches.batch(step))
        assert len({shard_of(one) for one in found}) == 1
        assert len(set(found)) == len(found)
        assert not set(found) & set(HELD_OUT)


def test_the_rows_of_a_reading_point_at_the_vectors_of_its_texts(lake):
    batch = batches_of(lake).batch(3)
    vectors = RandomVectors()
    assert batch.vectors_VE.dtype == torch.float32
    goods = {
        name: vectors.lookup(np.frombuffer(text_id(name), np.uint8).reshape(1, 16))[0]
        for name in ("whole milk", "rye bread", "red wine", "eggs", "small home")
    }
    household, reading = households(batch)[0], batch.readings[0]
    from tests.unit.training.pair_lake import events_of

    expected = [goods[event[1]] for event in events_of(household) if at(event[0]) <= reading.cutoff]
    expected.append(goods["small home"])
    assert len(reading.event_text) == len(expected)
    np.testing.assert_array_equal(
        batch.vectors_VE[reading.event_text].numpy(), np.array(expected, np.float32)
    )
    used = {int(row) for one in batch.readings for row in (*one.event_text, *one.group_text)}
    assert used == set(range(len(batch.vectors_VE)))  # no text that no reading needs


def test_a_batch_depends_on_the_step_and_the_seed_alone(lake):
    first, second = batches_of(lake), batches_of(lake)
    forwards = [first.batch(step) for step in range(9)]
    for step in reversed(range(9)):
        again = second.batch(step)
        assert again.to_json() == forwards[step].to_json()
        assert torch.equal(again.vectors_VE, forwards[step].vectors_VE)
        np.testing.assert_array_equal(again.readings[0].event_text, forwards[step].readings[0].event_text)
    other = batches_of(lake, BatchPlan(**{**vars(PLAN), "seed": 1}))
    assert [other.batch(step).to_json() for step in range(9)] != [one.to_json() for one in forwards]


def test_every_round_visits_every_shard_for_as_many_steps(lake):
    batches = batches_of(lake)
    visited = [shard_of(households(batches.batch(step))[0]) for step in range(16)]
    assert visited[::2] == visited[1::2]
    assert Counter(visited[:8]) == Counter(visited[8:]) == {0: 2, 1: 2, 2: 2, 3: 2}


def test_a_table_of_many_shards_is_never_read_whole(lake):
    batches = batches_of(lake)
    assert batches.table.num_rows_read == 0
    batches.batch(0)
    batches.batch(1)
    one_shard = 6 * 2 * 5  # users, cutoffs, pairs
    assert one_shard - 10 <= batches.table.num_rows_read <= one_shard
    for step in range(8):
        batches.batch(step)
        assert len(batches._cached) <= 2
    total = DeltaTable(str(lake.folder / "useru_pairs")).to_pyarrow_dataset().count_rows()
    assert total == NUM_HOUSEHOLDS * 2 * 5
    assert batches.table.num_rows_read == total - len(HELD_OUT) * 2 * 5


def test_held_out_batches_are_the_held_out_users_and_the_same_each_time(lake):
    batches = batches_of(lake)
    first, second = list(batches.held_out()), list(batches.held_out())
    assert [households(one) for one in first] == [[one] for one in HELD_OUT]
    assert [one.to_json() for one in first] == [one.to_json() for one in second]
    assert [one.to_json() for one in batches_of(lake).held_out()] == [one.to_json() for one in first]
    assert len(list(batches_of(lake, BatchPlan(held_out_batches=1)).held_out())) == 1


def test_users_that_are_trained_on_are_each_seen_once_at_their_newest_cutoff(lake):
    sights = list(batches_of(lake).newest_sights())
    expected = sorted(user(one) for one in range(NUM_HOUSEHOLDS) if one not in HELD_OUT)
    assert sorted(one.history.user for one in sights) == expected
    assert {one.cutoff for one in sights} == {max(CUTOFFS)}
    newest = max(int(one.events()["purchases"].event_at.max()) for one in sights)
    assert min(CUTOFFS) < newest <= max(CUTOFFS)


def test_rows_of_another_version_of_the_table_are_not_seen(tmp_path):
    lake = pair_lake(tmp_path / "lake")
    batches = batches_of(lake)
    before = batches_of(lake).batch(0).to_json()
    write_pairs(lake.folder, literal_pairs([1, 2]))
    assert batches.table.version == 0
    assert batches.batch(0).to_json() == before
    assert PairTable(str(lake.folder)).version == 1


def test_questions_are_those_that_are_trained_on_each_once(lake):
    asked = PairTable(str(lake.folder)).questions(most=10_000)
    assert asked == sorted(set(asked))
    assert set(QUESTIONS) <= set(asked)
    assert "Does household 4 like wine?" in asked
    assert not any(f"household {one} " in question for one in HELD_OUT for question in asked)
    assert PairTable(str(lake.folder), kinds=["outcome"]).questions(most=10_000) == sorted(QUESTIONS)


def test_no_shard_is_read_for_questions_once_there_are_enough(lake):
    table = PairTable(str(lake.folder), kinds=["uqa"])
    first = table.shards(held_out=False)[0]
    asked = table.questions(most=1)
    of_first = [one for one in range(NUM_HOUSEHOLDS) if shard_of(one) == first and one not in HELD_OUT]
    assert asked == sorted(
        f"Does household {one} like {topic}?" for one in of_first for topic in ("wine", "bread")
    )


def test_fewer_users_than_a_batch_are_all_taken_and_counted(lake, caplog):
    batches = batches_of(lake, BatchPlan(readings_per_step=48))
    with caplog.at_level(logging.WARNING):
        sizes = [len(batches.batch(step).readings) for step in range(3)]
    assert all(5 <= size <= 6 for size in sizes)
    assert batches.num_small_batches == 3
    assert len([one for one in caplog.records if "48 are planned" in one.message]) == 1


def test_only_pairs_of_the_chosen_kinds_are_read(lake):
    batch = batches_of(lake, BatchPlan(readings_per_step=4, kinds=("uqa",), other_pairs_per_reading=2)).batch(
        0
    )
    assert len(batch.queries) == 8
    assert batch.alternatives == ((),) * 8
    with pytest.raises(InputDataError, match=r"kinds \['dreams'\].*qanchor pairs"):
        batches_of(lake, BatchPlan(kinds=("dreams",)))


def test_without_pairs_the_command_that_makes_them_is_named(tmp_path):
    lake = behaviour_lake(tmp_path / "lake", range(2))
    with pytest.raises(InputDataError, match=r"no table 'useru_pairs'.*qanchor pairs --until"):
        batches_of(lake)
    write_pairs(lake.folder, [])
    with pytest.raises(InputDataError, match=r"holds no pairs.*qanchor pairs --until"):
        batches_of(lake)
    write_pairs(lake.folder, literal_pairs(HELD_OUT))
    with pytest.raises(InputDataError, match=r"all pairs .* held-out users"):
        batches_of(lake)


def test_users_without_any_event_are_refused_and_a_few_are_not(tmp_path):
    lake = ShopLake(tmp_path / "lake")
    behaviour_lake(lake.folder, range(NUM_HOUSEHOLDS))
    early = (at("2016-01-01"),)
    write_pairs(lake.folder, literal_pairs(range(6), early))
    with pytest.raises(InputDataError, match=r"all 5 users of shard 0 .* are empty.*1 cutoffs|all 5 users"):
        batches_of(lake).batch(0)
    write_pairs(lake.folder, literal_pairs([0, 1, 2, 3], early) + literal_pairs([4], CUTOFFS))
    assert len(batches_of(lake).batch(0).readings) == 4


def test_one_modality_is_enough(tmp_path):
    lake = ShopLake(tmp_path / "lake")
    lake.append("profile_rows", [home_row(99, "small")])
    from tests.shop import sequence_row
    from tests.unit.training.pair_lake import events_of

    lake.append("behaviour_sequences", [sequence_row(one, events_of(one)) for one in range(6)])
    write_pairs(lake.folder, literal_pairs(range(6)))
    batch = batches_of(lake).batch(0)
    assert all(len(one.total_modality) == 1 for one in batch.readings)


def test_pairs_about_users_that_the_lake_lacks_are_refused(tmp_path):
    lake = behaviour_lake(tmp_path / "lake", range(3))
    write_pairs(lake.folder, literal_pairs(range(5)))
    with pytest.raises(InputDataError, match=r"2 of 5 users of shard 0 .*another profile or lake"):
        batches_of(lake).batch(0)


@pytest.mark.parametrize("change", [{"readings_per_step": 0}, {"max_cached_shards": 0}, {"seed": -1}])
def test_a_plan_that_makes_no_sense_is_refused(change):
    (name,) = change
    with pytest.raises(InputDataError, match=name):
        BatchPlan(**change)


def test_a_plan_that_leaves_a_batch_without_pairs_is_refused(lake):
    with pytest.raises(InputDataError, match="has no pairs"):
        batches_of(lake, BatchPlan(queries_per_step=0, other_pairs_per_reading=0)).batch(0)


def test_the_last_build_says_how_far_the_pairs_look(tmp_path):
    lake = pair_lake(tmp_path / "lake")
    assert last_build(LakeTables(str(lake.folder))) is None
    built(lake, "2017-10-01", run="r2")
    built(lake, "2017-12-01", run="r1")
    found = last_build(LakeTables(str(lake.folder)))
    assert found is not None
    assert (found.known_until, found.profile_digest) == (at("2017-10-01"), PROFILE.digest)


def test_a_batch_tells_a_person_whom_it_was_about(lake):
    told = json.loads(json.dumps(batches_of(lake).batch(0).to_json()))
    assert set(told) == {"readings", "pairs"}
    assert bytes.fromhex(told["readings"][0]["user"]) in {user(one) for one in range(NUM_HOUSEHOLDS)}
    assert told["pairs"][0].keys() == {"reading", "query", "answer"}
    assert Path(lake.folder).is_dir()
