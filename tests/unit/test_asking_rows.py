"""Asking rows and behaviour of one batch: who sees what, grouped so that each prefix is needed once."""

import pyarrow as pa
import pytest

from qanchor_plugin import schemas as S
from qanchor_plugin.sequence import slice_at
from spark_jobs.asking_rows import (
    ANCHOR_QUERY,
    AT,
    MOST_ROWS_TOGETHER,
    ROW_ID,
    asking_users,
    blind_rows,
    chunks,
    rows_by_sight,
    same_answer,
    sights,
)
from spark_jobs.plan_point_in_time import _counter
from tests.shop import EVENTS, PROFILE, at, home_row, sequence_row, user

SCHEMA = pa.schema(
    [S.BEHAVIOUR_SEQUENCES.field(name) for name in (S.MODALITY_DIGEST, S.USER, S.USER_KEY, S.USER_BUCKET)]
    + [S.BEHAVIOUR_SEQUENCES.field(name) for name in (S.EVENT_AT, S.KNOWN_AT, S.TEXT_ID, S.GROUPS, S.AMOUNTS)]
    + [pa.field(ROW_ID, pa.int64()), pa.field(AT, pa.int64()), pa.field(ANCHOR_QUERY, pa.string())]
)
ASKED = [
    (0, 1, "2017-12-15"),
    (1, 1, "2017-12-16"),  # sees what row 0 sees, a day later
    (2, 1, "2018-01-01"),
    (3, 1, "2017-12-15"),  # row 0 again
    (4, 2, "2017-12-31"),
    (5, 4, "2017-12-31"),  # nobody
    (6, 1, None),
    (7, None, "2017-12-31"),
    (8, 3, "2017-12-31"),  # known, nothing in the window
]


def batch() -> pa.Table:
    """What a task is given: the behaviour of households 1 to 3, and the rows that ask."""
    rows = [sequence_row(household, events) for household, events in EVENTS.items()]
    home = home_row(1, "small")
    single = {name: [home[name]] for name in (S.EVENT_AT, S.KNOWN_AT, S.TEXT_ID)}
    rows.append(home | single | {S.GROUPS: [b""], S.AMOUNTS: [[]]})
    for row_id, household, instant in ASKED:
        who = None if household is None else user(household)
        rows.append({S.USER: who, ROW_ID: row_id, AT: None if instant is None else at(instant)})
    return pa.Table.from_pylist(
        [{name: row.get(name) for name in SCHEMA.names} for row in rows], schema=SCHEMA
    )


def test_every_row_sees_what_slicing_at_its_instant_gives_and_equals_stand_together() -> None:
    users = asking_users(batch(), PROFILE)
    assert sorted(row.row_id for row in blind_rows(users)) == [5, 6, 7]
    found = list(sights(users, PROFILE))
    assert sorted(row.row_id for row, _ in found) == [0, 1, 2, 3, 4, 8]
    histories = {one.history.user: one.history for one in users if one.history is not None}
    for row, seen in found:
        alone = slice_at(histories[seen.user], PROFILE, row.at)
        assert (alone.visible_digest, alone.num_events) == (seen.visible_digest, seen.num_events)
    of_one = [row.row_id for row, seen in found if seen.user == user(1)]
    assert of_one == [0, 1, 3, 2]
    answers = {row.row_id: same_answer(row, seen) for row, seen in found}
    assert answers[0] == answers[3] != answers[1]
    assert answers[0][:2] == answers[1][:2] != answers[2][:2]


def test_the_plan_counts_prefills_and_not_rows() -> None:
    counted = next(_counter(PROFILE, 64)(iter(batch().to_batches()))).to_pylist()
    assert counted == [{"users": 5, "rows": 9, "blind": 3, "prefills": 4}]
    one = next(user for user in asking_users(batch(), PROFILE) if len(user.rows) == 5)
    assert [[row.row_id for row in rows] for _, rows in rows_by_sight(one, PROFILE)] == [[0, 1, 3], [2]]


def test_a_sight_holds_places_and_no_copy_of_the_events() -> None:
    one = next(user for user in asking_users(batch(), PROFILE) if len(user.rows) == 5)
    for sight, _ in rows_by_sight(one, PROFILE):
        held = {name: value for name, value in vars(sight).items() if value is not one.history}
        assert set(held) == {"profile", "cutoff", "places", "digest"}
        assert {places.dtype.itemsize for places in sight.places} == {4}


@pytest.mark.parametrize(("size", "expected"), [(1, [3, 1, 1, 1]), (2, [4, 2]), (9, [6])])
def test_no_chunk_needs_more_prefixes_than_allowed(size: int, expected: list[int]) -> None:
    found = chunks(sights(asking_users(batch(), PROFILE), PROFILE), size)
    assert [len(chunk) for chunk in found] == expected


def test_no_chunk_holds_more_rows_than_an_executor_should() -> None:
    one = next(sights(asking_users(batch(), PROFILE), PROFILE))
    sizes = [len(chunk) for chunk in chunks(iter([one] * (MOST_ROWS_TOGETHER + 1)), 64)]
    assert sizes == [MOST_ROWS_TOGETHER, 1]
