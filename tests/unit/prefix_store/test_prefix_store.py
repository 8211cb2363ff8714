"""Prefix tiers: bounded, and a corrupt or foreign entry is a counted miss."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from qanchor_plugin import schemas as S
from qanchor_plugin.errors import LakeError
from qanchor_plugin.prefix_store import (
    DeltaTier,
    LakeTables,
    MemoryTier,
    entry_from_row,
    entry_to_row,
)
from tests.unit.prefix_store.entries import entry


def row_of(one, **changed):
    row = {S.PROFILE: "p", S.USER_KEY: "{}", S.USER_BUCKET: 0, S.BATCH: "r1", S.CUTOFF: 0}
    return {**row, **entry_to_row(one), **changed}


def test_memory_evicts_the_least_recently_used_by_bytes():
    size = entry().size_bytes  # 3 * 4 * 4 + 3 * 4 = 60
    assert size == 60
    tier = MemoryTier(max_bytes=2 * size)
    tier.put(entry(b"u1"))
    tier.put(entry(b"u2"))
    assert tier.get(b"u1", "p1") is not None
    tier.put(entry(b"u3"))
    assert tier.get(b"u2", "p1") is None
    assert tier.get(b"u1", "p1") is not None
    assert tier.held_bytes == 120


def test_memory_keeps_nothing_larger_than_its_bound():
    tier = MemoryTier(max_bytes=59)
    tier.put(entry())
    assert len(tier) == 0


def test_memory_misses_another_identity_and_another_user():
    tier = MemoryTier(max_bytes=1000)
    tier.put(entry(b"u1", "p1"))
    assert tier.get(b"u1", "p2") is None
    assert tier.get(b"u2", "p1") is None


def test_memory_counts_a_corrupt_entry_and_drops_it():
    tier = MemoryTier(max_bytes=1000)
    good = entry()
    tier.put(good)
    good.tokens[1, 2] = 7.0
    assert tier.get(b"u1", "p1") is None
    assert (tier.num_corrupt, len(tier), tier.held_bytes) == (1, 0, 0)


def test_an_entry_made_foreign_is_not_sound():
    stolen = dataclasses.replace(entry(b"u1"), user=b"u2")
    assert not stolen.is_sound(user=b"u2", prefix_id="p1")
    cast = dataclasses.replace(entry(), tokens_dtype="bfloat16")
    assert not cast.is_sound(user=b"u1", prefix_id="p1")


def test_row_round_trip_is_byte_exact():
    one = entry(fill=0.1)
    back = entry_from_row(row_of(one))
    assert back.is_sound(user=b"u1", prefix_id="p1")
    np.testing.assert_array_equal(back.tokens, one.tokens)
    assert back.positions.tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "changed",
    [
        {S.TOKENS: b"\0" * 47},
        {S.POSITIONS: b"\0" * 8},
        {S.TOKENS_DTYPE: "float8"},
        {S.NUM_TOKENS: 0},
    ],
)
def test_rows_of_impossible_size_are_no_entry(changed):
    assert entry_from_row(row_of(entry(), **changed)) is None


def test_delta_tier_answers_sound_rows_and_counts_the_others(tmp_path):
    rows = [
        row_of(entry(b"u1", "p1", 1.0)),
        row_of(entry(b"u1", "old", 2.0)),
        row_of(entry(b"u2", "p2", 3.0), **{S.TOKENS: b"\1" * 48}),  # bytes changed after writing
        row_of(entry(b"u3", "p1", 4.0)),
    ]
    table = pa.Table.from_pylist(rows, schema=S.USER_PREFIXES)
    write_deltalake(tmp_path / "user_prefixes", table, partition_by=[S.PROFILE, S.USER_BUCKET])
    tier = DeltaTier(LakeTables(str(tmp_path)))
    found = tier.get_many("p", [(b"u1", "p1"), (b"u2", "p2"), (b"u4", "p1")])
    assert list(found) == [b"u1"]
    assert found[b"u1"].tokens[0, 0] == 1.0
    assert found[b"u1"].as_of == 1_500_000_000_000_000
    assert tier.num_corrupt == 1
    assert tier.get_many("other_profile", [(b"u1", "p1")]) == {}


def test_delta_tier_without_a_table_has_nothing(tmp_path):
    assert DeltaTier(LakeTables(str(tmp_path))).get_many("p", [(b"u1", "p1")]) == {}


def test_tables_see_a_later_commit_and_name_what_is_missing(tmp_path):
    tables = LakeTables(str(tmp_path), max_age_seconds=0)
    with pytest.raises(LakeError, match=r"no table 'event_texts' yet. Run feast materialize"):
        tables.read("event_texts")
    first = pa.Table.from_pylist([{S.TEXT_ID: b"1", S.TEXT: "a"}], schema=S.EVENT_TEXTS)
    write_deltalake(tmp_path / "event_texts", first)
    assert tables.read("event_texts").num_rows == 1
    tables.append("event_texts", first)
    assert tables.read("event_texts").num_rows == 2


def test_tables_name_a_corrupt_table(tmp_path):
    tables = LakeTables(str(tmp_path))
    rows = pa.Table.from_pylist([{S.TEXT_ID: b"1", S.TEXT: "a"}], schema=S.EVENT_TEXTS)
    write_deltalake(tmp_path / "event_texts", rows)
    for file in (tmp_path / "event_texts").glob("*.parquet"):
        file.unlink()
    with pytest.raises(LakeError, match=r"event_texts.*cannot be read"):
        tables.read("event_texts")
