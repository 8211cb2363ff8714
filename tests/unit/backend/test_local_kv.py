"""Keys and values through the tiers of a backend: the same answers, wherever they come from."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from qanchor_plugin import schemas as S
from qanchor_plugin.backend import Ask, LocalBackend
from qanchor_plugin.declare import Settings
from qanchor_plugin.prefix_store import LakeTables, calibration_path, entry_to_row
from tests.shop import CLOCK, PROFILE, ShopLake, at, demo_engine, shop_lake, user
from tests.unit.prefix_store.test_tiered import constants

NOW = at("2018-01-01")
ASKED = [Ask(profile=PROFILE, query=query, engine="demo") for query in ("Is dairy bought?", "Wine?")]
USERS = [user(1), user(2), user(3)]


@pytest.fixture
def lake(tmp_path: Path) -> ShopLake:
    return shop_lake(tmp_path / "lake", demo_engine())


@pytest.fixture
def settings(lake: ShopLake, tmp_path: Path) -> Settings:
    disk = str(tmp_path / "disk")
    return Settings(lake=str(lake.folder), clock=CLOCK, device="cpu", kv="never", prefix_folder=disk)


def vectors(backend: LocalBackend) -> np.ndarray:
    rows = backend.embed(USERS, NOW, ASKED)
    return np.array([[answer.embedding for answer in row] for row in rows])


def started(settings: Settings) -> LocalBackend:
    return LocalBackend(settings, tables=LakeTables(settings.lake, max_age_seconds=0))


@pytest.mark.parametrize("scheme", ["bf16", "int8"])
def test_hits_of_every_tier_answer_as_the_first_request_did(lake, settings, scheme):
    # vllm-ascend 5725 returned cache hits at cosine 0.58
    truth = vectors(started(replace(settings, prefix_folder=None)))
    kept = replace(settings, kv="always", kv_scheme=scheme)
    backend = started(kept)
    first = vectors(backend)
    assert (first * truth).sum(-1).min() >= 0.9995
    np.testing.assert_array_equal(vectors(backend), first)
    assert (backend.counts["kv_prefilled"], backend.counts["kv_loaded"]) == (3, 3)
    restarted = started(kept)
    np.testing.assert_array_equal(vectors(restarted), first)
    assert restarted.counts["prefix_disk"] == restarted.counts["kv_loaded"] == 3
    assert restarted.store.counts["disk", "kv_load"] == 3
    common = {S.PROFILE: "journey", S.USER_KEY: "{}", S.USER_BUCKET: 0, S.BATCH: "r1", S.CUTOFF: NOW}
    stored = [common | entry_to_row(one) for one in backend.memory._entries.values()]
    lake.append("user_prefixes", stored)
    elsewhere = started(replace(kept, prefix_folder=None))
    np.testing.assert_array_equal(vectors(elsewhere), first)
    assert elsewhere.counts["prefix_delta"] == elsewhere.counts["kv_loaded"] == 3


def test_without_constants_soft_tokens_alone_are_kept_and_it_says_so(settings):
    backend = started(replace(settings, kv="auto"))
    vectors(backend)
    assert "run qanchor calibrate" in backend._engine(ASKED[0]).policy.reason
    assert {entry.kv for entry in backend.memory._entries.values()} == {None}


def test_with_constants_keys_are_kept_where_they_pay(settings):
    costs = constants(kv_digest=demo_engine().kv_digest)
    costs.write(calibration_path(settings.lake))
    backend = started(replace(settings, kv="auto"))
    vectors(backend)
    held = list(backend.memory._entries.values())
    assert {entry.kv.kept.scheme for entry in held} == {"bf16"}, "memory pays by the constants"
    restarted = started(replace(settings, kv="auto"))
    vectors(restarted)
    assert restarted.counts["prefix_disk"] == 3
    assert restarted.counts["kv_prefilled"] == 3, "bf16 from the disk does not pay by the constants"


def test_the_memory_tier_stays_within_its_bytes(settings):
    backend = started(replace(settings, kv="always", prefix_memory_bytes=60_000, prefix_folder=None))
    for _ in range(3):
        vectors(backend)
        assert 0 < backend.memory.held_bytes <= 60_000


def test_a_forgotten_user_is_in_no_tier_here(settings):
    backend = started(replace(settings, kv="always"))
    vectors(backend)
    assert backend.forget([user(1)]) == 2
    backend.embed([user(1)], NOW, ASKED)
    assert backend.counts["prefix_built"] == 4
