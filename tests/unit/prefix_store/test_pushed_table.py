"""The table of pushed events under many writers: nothing is lost, nothing is there twice."""

import threading
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from qanchor_plugin import schemas as S
from qanchor_plugin.errors import LakeError
from qanchor_plugin.identity import text_id
from qanchor_plugin.prefix_store.forgotten import ForgottenUsers
from qanchor_plugin.prefix_store.pushed import PushedEvents, PushedMark
from qanchor_plugin.prefix_store.pushed_table import MAX_FILES, TABLE, alone, append, remove

DIGEST = "d" * 32


def event(user: int, text: str = "milk", event_at: int = 5, known_at: int = 7) -> dict[str, Any]:
    return {
        S.MODALITY: "purchases",
        S.MODALITY_DIGEST: DIGEST,
        S.USER: b"user%d" % user,
        S.USER_KEY: f'{{"id": {user}}}',
        S.EVENT_AT: event_at,
        S.KNOWN_AT: known_at,
        S.TEXT_ID: text_id(text),
        S.GROUPS: b"",
        S.AMOUNTS: [1.0],
        S.TEXT: text,
        S.GROUP_TEXTS: ["dairy", None],
    }


def counted(held: PushedEvents, *users: int) -> dict[int, int]:
    found = held.of([b"user%d" % one for one in users], [DIGEST])
    return {one: len(found.get(b"user%d" % one, ())) for one in users}


def test_what_one_object_appends_another_sees_with_its_texts(tmp_path: Path):
    one, two = PushedEvents(str(tmp_path)), PushedEvents(str(tmp_path))
    assert counted(two, 1) == {1: 0}
    one.append([event(1), event(2, "rye bread")])
    assert counted(two, 1, 2, 3) == {1: 1, 2: 1, 3: 0}
    assert two.texts([text_id("rye bread"), text_id("dairy"), text_id("wine")]) == {
        text_id("rye bread"): "rye bread",
        text_id("dairy"): "dairy",
    }
    assert two.of([b"user1"], ["another"]) == {}


def test_a_mark_tells_what_can_be_seen_by_now(tmp_path: Path):
    held = PushedEvents(str(tmp_path))
    first = held.append([event(1, known_at=7), event(1, event_at=20)])

    def mark(now: int) -> PushedMark | None:
        return held.marks([b"user1"], [DIGEST], now=now, max_age_seconds=0).get(b"user1")

    assert mark(6) is None
    assert mark(7) == PushedMark(1, f"{first}-000000", 7, 7)
    assert mark(20) == PushedMark(2, f"{first}-000001", 7, 20)


def test_a_look_may_be_as_old_as_is_said_and_no_older(tmp_path: Path):
    one, two = PushedEvents(str(tmp_path)), PushedEvents(str(tmp_path))
    assert counted(two, 1) == {1: 0}
    one.append([event(1)])
    assert two.of([b"user1"], [DIGEST], max_age_seconds=3600) == {}
    assert counted(two, 1) == {1: 1}


def test_pushes_beside_removals_and_packing_lose_nothing_and_double_nothing(tmp_path: Path):
    path = f"{tmp_path}/{TABLE}"
    pushes = [append(path, [event(1), event(2)]) for _ in range(10)]
    watched = PushedEvents(str(tmp_path))
    assert counted(watched, 1, 2) == {1: 10, 2: 10}
    failures: list[BaseException] = []

    def push(user: int) -> None:
        try:
            for _ in range(40):
                append(path, [event(user)])
        except LakeError as error:
            failures.append(error)

    threads = [threading.Thread(target=push, args=(user,)) for user in (3, 4)]
    for one in threads:
        one.start()
    left = [remove(path, [f"{push}-000000"]) for push in pushes]
    for one in threads:
        one.join()
    assert (left, failures) == ([0] * 10, [])
    assert counted(PushedEvents(str(tmp_path)), 1, 2, 3, 4) == {1: 0, 2: 10, 3: 40, 4: 40}
    assert counted(watched, 1, 2, 3, 4) == {1: 0, 2: 10, 3: 40, 4: 40}
    assert watched.num_removals >= 1
    assert len(DeltaTable(path).file_uris()) <= MAX_FILES


def test_packing_is_no_removal(tmp_path: Path):
    path, held = f"{tmp_path}/{TABLE}", PushedEvents(str(tmp_path))
    for user in range(MAX_FILES + 1):
        held.append([event(user)])
    assert len(DeltaTable(path).file_uris()) == 1
    assert counted(held, 0, MAX_FILES) == {0: 1, MAX_FILES: 1}
    assert held.num_removals == 0


def test_a_table_that_is_purged_holds_nothing(tmp_path: Path):
    import shutil

    held = PushedEvents(str(tmp_path))
    held.append([event(1)])
    shutil.rmtree(tmp_path / TABLE)
    assert counted(held, 1) == {1: 0}
    held.append([event(2)])
    assert counted(held, 1, 2) == {1: 0, 2: 1}


def test_a_lake_that_cannot_be_written_keeps_nothing_and_says_so(tmp_path: Path):
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(LakeError, match=r"1 pushed events could not be written to .*Nothing was kept"):
        append(f"{tmp_path}/file/{TABLE}", [event(1)])


def test_while_a_job_rewrites_the_table_a_push_waits_and_the_forgotten_stay_out(tmp_path: Path):
    path = f"{tmp_path}/{TABLE}"
    append(path, [event(1)])
    with alone(path):
        late = threading.Thread(target=append, args=(path, [event(1), event(2)]))
        late.start()
        late.join(timeout=0.3)
        assert late.is_alive()
        ForgottenUsers(tmp_path).add([b"user1"])
    late.join()
    assert counted(PushedEvents(str(tmp_path)), 1, 2) == {1: 1, 2: 1}
