"""The tiers together, the policy, and the field's recurring cache-identity bugs, each one a test."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from deltalake import write_deltalake

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Settings
from qanchor_plugin.engine import kv as kv_module
from qanchor_plugin.prefix_store import (
    Calibration,
    KVPolicy,
    LakeTables,
    TieredPrefixes,
    calibration_path,
    entry_to_row,
    kv_policy,
)
from qanchor_plugin.prefix_store.calibration import TierSpeed
from tests.unit.prefix_store.entries import ENGINE, entry, kept

ALWAYS = KVPolicy(mode="always", schemes=("bf16", "int8"), kv_digest=ENGINE)
ASKED = [(b"u1", "p1")]


@pytest.fixture
def settings(tmp_path) -> Settings:
    return Settings(lake=str(tmp_path / "lake"), prefix_folder=str(tmp_path / "disk"), kv="always")


@pytest.fixture
def store(settings) -> TieredPrefixes:
    return TieredPrefixes(settings, LakeTables(settings.lake, max_age_seconds=0))


def in_delta(settings, *entries) -> None:
    common = {S.PROFILE: "p", S.USER_KEY: "{}", S.USER_BUCKET: 0, S.BATCH: "r1", S.CUTOFF: 0}
    rows = pa.Table.from_pylist([{**common, **entry_to_row(one)} for one in entries], schema=S.USER_PREFIXES)
    path = f"{settings.lake}/user_prefixes"
    write_deltalake(path, rows, mode="append", partition_by=[S.PROFILE, S.USER_BUCKET])


def got(store, asked=ASKED, policy=ALWAYS):
    return store.get_many("p", asked, policy)


def test_delta_feeds_disk_and_disk_feeds_memory(store, settings):
    in_delta(settings, entry().with_kv(kept()))
    for tier in ("delta", "memory"):
        ((had, one),) = got(store).values()
        assert (had, one.kv.kept.payload.tolist()) == (tier, [7] * 64)
    restarted = TieredPrefixes(settings, LakeTables(settings.lake))
    assert got(restarted)[b"u1"][0] == "disk"
    assert got(restarted)[b"u1"][0] == "memory"
    assert store.counts["delta", "hit"] == 1
    assert (store.counts["memory", "miss"], store.counts["memory", "hit"]) == (1, 1)
    assert store.counts["delta", "bytes"] == 3 * 4 * 4 + 3 * 4 + 64
    assert restarted.counts["disk", "kv_load"] == 1


def test_what_no_tier_has_is_absent_and_what_is_put_is_held(store):
    assert got(store) == {}
    store.put(entry(), ALWAYS)
    assert got(store)[b"u1"][0] == "memory"
    assert store.counts["disk", "miss"] == store.counts["delta", "miss"] == 1


def test_forget_drops_memory_and_disk(store):
    store.put(entry(b"u1"), ALWAYS)
    store.put(entry(b"u2"), ALWAYS)
    assert store.forget([b"u1"]) == 2
    assert got(store, [(b"u1", "p1"), (b"u2", "p1")]).keys() == {b"u2"}


def test_held_bytes_never_pass_the_bounds(tmp_path):
    bounds = {"prefix_memory_bytes": 5_000, "prefix_folder_bytes": 20_000}
    settings = Settings(lake=str(tmp_path / "lake"), prefix_folder=str(tmp_path / "disk"), **bounds)
    store = TieredPrefixes(settings, LakeTables(settings.lake))
    most = [0, 0]
    for number in range(60):
        store.put(entry(b"u%d" % number).with_kv(kept(num_bytes=900)), ALWAYS)
        most = [max(most[0], store.memory.held_bytes), max(most[1], store.disk.held_bytes)]
    assert 4_000 < most[0] <= 5_000
    assert 15_000 < most[1] <= 20_000


# --- the cache-identity bugs of the field -----------------------------------------------------


def test_one_users_keys_are_not_served_to_another(store, settings):
    # vLLM 42119: two requests of soft tokens alone shared a key. Here even equal tokens do not.
    mine, theirs = (entry(user).with_kv(kept(fill=fill)) for user, fill in ((b"u1", 1), (b"u2", 2)))
    in_delta(settings, dataclasses.replace(mine, kv=theirs.kv))
    _, one = got(store)[b"u1"]
    assert one.kv is None
    assert store.counts["delta", "kv_foreign"] == store.counts["delta", "kv_recompute"] == 1


def test_keys_of_another_layout_are_not_served(store, settings, monkeypatch):
    in_delta(settings, entry().with_kv(kept()))  # vLLM 55904
    monkeypatch.setattr("qanchor_plugin.prefix_store.kv_entry.KV_LAYOUT", kv_module.KV_LAYOUT + "+1")
    assert got(store)[b"u1"][1].kv is None
    assert store.counts["delta", "kv_foreign"] == 1


def test_keys_of_another_adapter_or_weights_are_not_served(store, settings):
    in_delta(settings, entry().with_kv(kept(kv_digest="a" * 32)))  # vLLM 44250
    assert got(store)[b"u1"][1].kv is None
    assert store.counts["delta", "kv_foreign"] == 1


def test_keys_of_other_soft_tokens_are_not_served(store, settings):
    # vLLM 56655: what was a token and what an embedding was not in the key; ours digests the very rows.
    other = entry(fill=2.0).with_kv(kept())
    in_delta(settings, dataclasses.replace(entry(fill=1.0), kv=other.kv))
    assert got(store)[b"u1"][1].kv is None
    assert store.counts["delta", "kv_foreign"] == 1


def test_keys_of_another_scheme_or_length_are_not_served(store):
    for changed in ({"scheme": "bf16"}, {"num_tokens": 4}):
        sound = entry().with_kv(kept())
        relabelled = dataclasses.replace(sound.kv.kept, **changed)
        kv = dataclasses.replace(sound.kv, kept=relabelled)
        assert dataclasses.replace(sound, kv=kv).kv_fault(kv_digest=ENGINE) == "foreign"


def test_identities_are_of_128_bits(store):
    kv = entry().with_kv(kept()).kv  # LMCache 4086 cut them to 16
    assert [len(bytes.fromhex(one)) for one in (kv.identity, kv.digest)] == [16, 16]
    store.put(entry(), ALWAYS)
    name = next(store.disk.folder.glob("??/*.prefix")).stem
    assert [len(bytes.fromhex(part)) for part in name.split("-")] == [16, 16]


def test_a_digest_of_another_length_is_no_prefix_of_it():
    zeros = [kept(num_bytes=size, fill=0) for size in (65_536, 65_537, 131_072)]
    digests = {entry().with_kv(one).kv.digest for one in zeros}
    assert len(digests) == 3


@pytest.mark.parametrize("tier", ["memory", "disk", "delta"])
def test_damaged_keys_are_a_counted_miss_and_soft_tokens_are_served(store, settings, tier):
    sound = entry().with_kv(kept())
    bad = dataclasses.replace(sound.kv, kept=kept(fill=8))
    damaged = dataclasses.replace(sound, kv=bad)
    if tier == "delta":
        in_delta(settings, damaged)
    else:
        (store.memory if tier == "memory" else store.disk).put(damaged)
    had, one = got(store)[b"u1"]
    assert (had, one.kv) == (tier, None)
    np.testing.assert_array_equal(one.tokens, entry().tokens)
    assert store.counts[tier, "kv_corrupt"] == 1
    assert got(store)[b"u1"][0] == "memory"
    assert store.counts[tier, "kv_corrupt"] == 1, "it was dropped"


@pytest.mark.parametrize("blob", [b"", b"short", b"qanchKV9" + bytes(120)])
def test_keys_that_cannot_be_read_are_a_counted_miss(store, settings, blob):
    row = entry_to_row(entry()) | {S.KV_SCHEME: "int8", S.KV: blob}
    common = {S.PROFILE: "p", S.USER_KEY: "{}", S.USER_BUCKET: 0, S.BATCH: "r1", S.CUTOFF: 0}
    table = pa.Table.from_pylist([{**common, **row}], schema=S.USER_PREFIXES)
    write_deltalake(f"{settings.lake}/user_prefixes", table, partition_by=[S.PROFILE, S.USER_BUCKET])
    assert got(store)[b"u1"][1].kv is None
    assert store.counts["delta", "kv_foreign"] == 1


# --- the policy -------------------------------------------------------------------------------


def constants(**changed) -> Calibration:
    """Prefill of 1 ms a token; keys of 10,000 B a token in bf16, 5,000 in int8; decoding is free."""
    values = {
        "machine": "here",
        "measured_at": "2026-11-21T00:00:00Z",
        "versions": {"torch": "2"},
        "engine": "tiny",
        "kv_digest": ENGINE,
        "device": "cpu",
        "dtype": "float32",
        "prefill": ((100.0, 0.1), (200.0, 0.2)),
        "suffix": ((1.0, 0.01), (11.0, 0.06)),
        "suffix_tokens": 100,
        "query_tokens": 20,
        "build_seconds": 1e-5,
        "token_bytes": 100,
        "kv_bytes": {"bf16": ((100.0, 1e6), (200.0, 2e6)), "int8": ((100.0, 5e5), (200.0, 1e6))},
        "decode": {"bf16": ((100.0, 0.0), (200.0, 0.0)), "int8": ((100.0, 0.0), (200.0, 0.0))},
        "tiers": {
            "memory": TierSpeed(latency_seconds=0.0, bytes_per_second=1e9),
            "disk": TierSpeed(latency_seconds=0.0, bytes_per_second=8e6),
            "delta": TierSpeed(latency_seconds=0.05, bytes_per_second=6e6),
        },
    }
    return Calibration(**{**values, **changed})


class Engine:
    """An engine by its identity alone."""

    def __init__(self, kv_digest: str = ENGINE) -> None:
        self.kv_digest = kv_digest


def test_the_policy_compares_load_with_prefill_by_hand():
    policy = KVPolicy(mode="auto", schemes=("bf16", "int8"), kv_digest=ENGINE, calibration=constants())
    # 100 tokens: prefill 100 ms. memory bf16 1 ms; disk bf16 125 ms, int8 62.5 ms; delta int8 50 + 83.3 ms.
    assert policy.scheme_for("memory", 100) == "bf16"
    assert policy.scheme_for("disk", 100) == "int8"
    assert policy.scheme_for("delta", 100) is None
    # 400 tokens: prefill 400 ms; delta int8 50 + 333 ms.
    assert policy.scheme_for("delta", 400) == "int8"
    assert not policy.loads("delta", "bf16", 400)
    assert policy.reads("delta")
    assert constants().load_seconds("delta", "int8", 400) == pytest.approx(0.05 + 2e6 / 6e6)


def test_constants_round_trip_and_those_of_another_engine_are_not_used(settings, caplog):
    auto = dataclasses.replace(settings, kv="auto")
    assert "run qanchor calibrate" in kv_policy(auto, Engine()).reason
    path = calibration_path(settings.lake)
    constants().write(path)
    assert Calibration.read(path) == constants()
    policy = kv_policy(auto, Engine())
    assert (policy.reason, policy.scheme_for("memory", 100)) == ("", "bf16")
    assert kv_policy(dataclasses.replace(auto, kv_scheme="int8"), Engine()).scheme_for("memory", 9) == "int8"
    other = kv_policy(auto, Engine("f" * 32))
    assert "measured with another engine (tiny)" in other.reason
    assert other.scheme_for("memory", 100) is None
    path.write_text('{"format": 0}')
    assert "Write it again: qanchor calibrate" in kv_policy(auto, Engine()).reason


def test_never_and_always(settings, store):
    never = kv_policy(dataclasses.replace(settings, kv="never"), Engine())
    assert not never.reads("delta")
    store.put(entry().with_kv(kept()), ALWAYS)
    assert got(store, policy=never)[b"u1"][1].kv is None
    assert store.counts["memory", "kv_recompute"] == 1
    assert kv_policy(settings, Engine()).scheme_for("delta", 1) == "bf16"


def test_lines_through_the_points():
    one = constants(prefill=((100.0, 0.1), (200.0, 0.4)))
    assert one.prefill_seconds(150) == pytest.approx(0.25)
    assert one.prefill_seconds(50) == pytest.approx(0.05)
    assert one.prefill_seconds(400) == pytest.approx(0.8)
    assert one.suffix_seconds(21) == pytest.approx(0.11)
