"""The in-process backend: real engine, real Delta lake, answers equal to the engine asked directly."""

import threading
from pathlib import Path

import numpy as np
import pytest

from qanchor_plugin import schemas as S
from qanchor_plugin.backend import Ask, LocalBackend
from qanchor_plugin.declare import Settings
from qanchor_plugin.errors import BackendError, EngineError, LakeError
from qanchor_plugin.identity import embedding_id, is_of_scenario, prefix_identity, scenario_identity
from qanchor_plugin.prefix_store import LakeTables, entry_to_row
from qanchor_plugin.sequence import slice_at
from tests.shop import CLOCK, PROFILE, ShopLake, at, demo_engine, shop_lake, user

NOW = at("2018-01-01")
QUERY = "Does this household buy dairy?"


@pytest.fixture
def lake(tmp_path: Path) -> ShopLake:
    return shop_lake(tmp_path / "lake", demo_engine())


@pytest.fixture
def backend(lake: ShopLake) -> LocalBackend:
    settings = Settings(lake=str(lake.folder), clock=CLOCK, engine="demo", device="cpu", users_per_batch=2)
    return LocalBackend(settings, tables=LakeTables(str(lake.folder), max_age_seconds=0))


def ask(query: str = QUERY, **changed) -> Ask:
    return Ask(profile=PROFILE, query=query, engine="demo", **changed)


def directly(backend: LocalBackend, household_id: int, query: str, cutoff: int = NOW) -> np.ndarray:
    engine = demo_engine()
    history = backend.reader.histories(PROFILE, [user(household_id)])[user(household_id)]
    one = slice_at(history, PROFILE, cutoff)
    vectors = backend._engine(ask()).vectors
    prefixes = engine.build_prefixes([one], vectors)
    return engine.embed(prefixes, [engine.prepare_query(query)], [cutoff])[0, 0]


def test_answers_equal_the_engine_asked_directly_and_keep_their_order(backend):
    users = [user(2), user(4), user(1), user(3)]
    answers = backend.embed(users, NOW, [ask(), ask("Is wine bought?")])
    assert [[one is None for one in row] for row in answers] == [
        [False, False],
        [True, True],
        [False, False],
        [False, False],
    ]
    assert [row[0].num_events for row in answers if row[0]] == [1, 3, 0]
    assert [row[0].as_of for row in answers if row[0]] == [at("2017-12-15"), at("2017-12-31"), None]
    for row, household_id in ((0, 2), (2, 1), (3, 3)):
        for column, query in enumerate([QUERY, "Is wine bought?"]):
            expected = directly(backend, household_id, query)
            np.testing.assert_allclose(answers[row][column].embedding, expected, atol=1e-5)
    assert backend.counts["unknown_user"] == 1


def test_identity_of_an_answer_is_that_of_its_inputs(backend):
    engine = demo_engine()
    (answer,) = backend.embed([user(1)], NOW, [ask()])[0]
    scenario = scenario_identity(
        profile_digest=PROFILE.digest, engine_digest=engine.digest, query=QUERY, soft_prompt_digest=None
    )
    history = backend.reader.histories(PROFILE, [user(1)])[user(1)]
    prefix = prefix_identity(
        profile_digest=PROFILE.digest,
        prefix_digest=engine.prefix_digest,
        visible_digest=slice_at(history, PROFILE, NOW).visible_digest,
    )
    day = 17532 if engine.suffix_knows_time else None  # 2018-01-01
    assert answer.embedding_id == embedding_id(scenario=scenario, prefix=prefix, suffix_day=day)
    assert is_of_scenario(answer.embedding_id, scenario)


def test_a_prefix_is_built_once_then_held_in_memory(backend):
    first = backend.embed([user(1)], NOW, [ask()])
    second = backend.embed([user(1)], NOW, [ask()])
    np.testing.assert_array_equal(first[0][0].embedding, second[0][0].embedding)
    assert (backend.counts["prefix_built"], backend.counts["prefix_memory"]) == (1, 1)


def test_a_stored_prefix_is_read_and_a_corrupt_one_is_built_anew(backend, lake):
    backend.embed([user(1), user(2)], NOW, [ask()])
    held = {entry.user: entry for entry in backend.memory._entries.values()}
    common = {S.PROFILE: "journey", S.USER_KEY: "{}", S.USER_BUCKET: 0, S.BATCH: "r1", S.CUTOFF: NOW}
    sound, corrupt = entry_to_row(held[user(1)]), entry_to_row(held[user(2)])
    corrupt[S.TOKENS] = bytes(len(corrupt[S.TOKENS]))
    lake.append("user_prefixes", [{**common, **sound}, {**common, **corrupt}])
    fresh = LocalBackend(backend.settings, tables=LakeTables(str(lake.folder), max_age_seconds=0))
    again = fresh.embed([user(1), user(2)], NOW, [ask()])
    assert (fresh.counts["prefix_delta"], fresh.counts["prefix_built"]) == (1, 1)
    assert fresh.delta.num_corrupt == 1
    for row, household_id in enumerate([1, 2]):
        np.testing.assert_allclose(again[row][0].embedding, directly(backend, household_id, QUERY), atol=1e-5)


def test_an_event_after_the_refresh_is_encoded_on_the_fly(backend, lake):
    before = backend.embed([user(2)], NOW, [ask()])[0][0]
    lake.add_events(2, [("2017-12-30", "newborn diapers", "baby", 20.0)])
    after = backend.embed([user(2)], NOW, [ask()])[0][0]
    assert after.num_events == 2
    assert after.embedding_id != before.embedding_id
    assert np.abs(after.embedding - before.embedding).max() > 1e-4
    assert backend._engine(ask()).vectors.num_encoded == 2  # the event's text and its group's name
    lake.write_vectors(demo_engine())  # the next refresh has seen it: the same vectors, so the same answer
    refreshed = LocalBackend(backend.settings).embed([user(2)], NOW, [ask()])[0][0]
    np.testing.assert_allclose(refreshed.embedding, after.embedding, atol=1e-5)
    assert refreshed.embedding_id == after.embedding_id


def test_nothing_after_the_cutoff_is_seen(backend):
    early = backend.embed([user(1)], at("2017-12-19"), [ask()])[0][0]
    assert (early.num_events, early.as_of) == (1, at("2017-12-10"))


def test_threads_get_the_answers_that_one_gets(backend):
    expected = backend.embed([user(1)], NOW, [ask()])[0][0].embedding
    found: list[np.ndarray] = []

    def run():
        found.append(backend.embed([user(1), user(2)], NOW, [ask()])[0][0].embedding)

    threads = [threading.Thread(target=run) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    for one in found:
        np.testing.assert_allclose(one, expected, atol=1e-5)


def test_another_engine_than_the_registered_one_is_refused(backend):
    with pytest.raises(BackendError, match="was registered with 0000"):
        backend.embed([user(1)], NOW, [ask(engine_digest="0" * 32)])


def test_a_missing_engine_folder_is_named(backend):
    other = Ask(profile=PROFILE, query=QUERY, engine="nowhere/engine")
    with pytest.raises(EngineError, match="nowhere/engine"):
        backend.prepare([other])


def test_a_missing_lake_names_the_next_step(tmp_path):
    backend = LocalBackend(Settings(lake=str(tmp_path / "none"), clock=CLOCK, engine="demo", device="cpu"))
    with pytest.raises(LakeError, match=r"has no table 'behaviour_sequences' yet. Run feast materialize"):
        backend.embed([user(1)], NOW, [ask()])


def test_watermarks_are_those_of_succeeded_runs_of_the_identity(backend, lake):
    assert backend.reader.complete_to("coupons", "abc") is None
    reader = type(backend.reader)(backend.tables, watermark_seconds=0)
    lake.complete("coupons", "abc", "2017-12-01")
    lake.complete("coupons", "abc", "2017-11-01")
    lake.complete("coupons", "abc", "2017-12-24", state="failed")
    lake.complete("coupons", "old", "2017-12-30")
    assert reader.complete_to("coupons", "abc") == at("2017-12-01")
    assert reader.complete_to("churn", "abc") is None
