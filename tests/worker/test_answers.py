"""What a worker answers equals what the backend in this process answers, alone and in batches."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import pytest

from qanchor_plugin.backend.protocol import Answer
from qanchor_plugin.errors import InputDataError, WrongEngineError
from qanchor_plugin.identity import scenario_identity
from qanchor_plugin.sequence import slice_at
from tests.shop import PROFILE, at, demo_engine, user
from tests.worker.asking import NOW, QUERY, ask

WINE = "Is wine bought?"
Rows = Sequence[Sequence[Answer | None]]


def assert_same(found: Rows, expected: Rows) -> None:
    assert [len(row) for row in found] == [len(row) for row in expected]
    for ours, theirs in zip(chain(*found), chain(*expected), strict=True):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(ours.embedding, theirs.embedding, atol=1e-6)
            assert replace(ours, embedding=0) == replace(theirs, embedding=0)


def test_answers_equal_the_local_backends(start, call, local):
    asks = [ask(), ask(WINE)]
    found, end = call(start()).embed([2, 4, 1, 3], asks, request_id="r-7")
    assert_same(found, local.embed([user(2), user(4), user(1), user(3)], NOW, asks))
    assert found[1] == [None, None]
    assert (end.rows, end.engines, end.request_id) == (8, {"demo": demo_engine().digest}, "r-7")


def entries_of(local, households, cutoff=NOW):
    loaded = local._engine(ask())
    histories = local.reader.histories(PROFILE, [user(one) for one in households])
    slices = [slice_at(histories[user(one)], PROFILE, cutoff) for one in households]
    return loaded.build(PROFILE, slices)


def test_prefixes_sent_are_answered_without_the_lake(start, call, local):
    local.prepare([ask()])
    entries = entries_of(local, [1, 2])
    found, _ = call(start()).embed_prefixes(entries, [NOW, at("2017-12-25")], [ask(), ask(WINE)])
    expected = [
        local.embed([user(1)], NOW, [ask(), ask(WINE)])[0],
        local.embed_prefixes(entries[1:], [at("2017-12-25")], [ask(), ask(WINE)])[0],
    ]
    assert_same(found, expected)


def test_a_prefix_of_another_engine_or_profile_is_refused(start, call, local):
    local.prepare([ask()])
    entries = entries_of(local, [1])
    other = replace(ask(), profile=type(PROFILE)("other", PROFILE.entities, PROFILE.modalities))
    with pytest.raises(WrongEngineError, match="this engine and profile"):
        call(start()).embed_prefixes(entries, [NOW], [other])


def test_concurrent_requests_go_through_the_engine_together(start, call, local):
    worker = start(max_wait_ms=300.0)
    asked = [([1], NOW), ([2], NOW + 1), ([3], NOW + 2), ([1], NOW)]
    found: dict[int, list] = {}

    def run(place: int) -> None:
        households, cutoff = asked[place]
        found[place] = call(worker).embed(households, cutoff=cutoff)[0]

    threads = [threading.Thread(target=run, args=(place,)) for place in range(len(asked))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for place, (households, cutoff) in enumerate(asked):
        assert_same(found[place], local.embed([user(one) for one in households], cutoff, [ask()]))
    assert worker.value("batch_requests_sum") == 4
    assert worker.value("batch_requests_count") < 4  # some went together
    assert worker.value("batch_rows_sum") <= 4


def test_a_large_request_goes_in_pieces_and_comes_back_whole(start, call, local):
    worker = start(batch_tokens=300)
    asks = [ask(), ask(WINE)]
    found, _ = call(worker).embed([1, 2, 3, 4], asks, priority="batch")
    assert_same(found, local.embed([user(one) for one in (1, 2, 3, 4)], NOW, asks))
    assert worker.value("compute_seconds_count", kind="users") > 1


def test_an_engine_is_found_by_its_digest_whatever_its_name_elsewhere(start, call, local):
    renamed = replace(ask(), engine="/elsewhere/engine", engine_digest=demo_engine().digest)
    found, end = call(start()).embed([1], [renamed])
    assert_same(found, local.embed([user(1)], NOW, [ask()]))
    assert end.engines == {"/elsewhere/engine": demo_engine().digest}


@pytest.mark.parametrize(
    "changed", [{"engine": "other"}, {"engine_digest": "0" * 32}, {"engine": "x", "engine_digest": "0" * 32}]
)
def test_another_engine_is_refused(start, call, changed):
    with pytest.raises(WrongEngineError, match="is not here"):
        call(start()).embed([1], [replace(ask(), **changed)])


def test_a_registered_scenario_is_answered_only_as_it_was_registered(start, call):
    identity = scenario_identity(
        profile_digest=PROFILE.digest,
        engine_digest=demo_engine().digest,
        query=QUERY,
        soft_prompt_digest=None,
    )
    caller = call(start())
    found, _ = caller.embed([1], [ask(scenario_id=identity)])
    assert found[0][0].embedding_id.startswith(identity[:16])
    with pytest.raises(WrongEngineError, match="its soft prompt, profile or engine differ"):
        caller.embed([1], [ask(WINE, scenario_id=identity)])


def test_one_bad_request_of_a_batch_fails_alone(start, call, local):
    worker = start(max_wait_ms=300.0)
    found: dict[str, object] = {}

    def run(name: str, **changed: object) -> None:
        try:
            found[name] = call(worker).embed([1], [ask(**changed)])[0]
        except WrongEngineError as error:
            found[name] = error

    threads = [
        threading.Thread(target=run, args=("good",)),
        threading.Thread(target=run, args=("bad",), kwargs={"scenario_id": "0" * 32}),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert_same(found["good"], local.embed([user(1)], NOW, [ask()]))
    assert isinstance(found["bad"], WrongEngineError)


def test_a_request_without_rows_or_with_a_user_twice_is_refused(start, call):
    caller = call(start())
    with pytest.raises(InputDataError, match="names a user twice"):
        caller.embed([1, 1])
    with pytest.raises(InputDataError, match="no rows"):
        caller.embed([])
