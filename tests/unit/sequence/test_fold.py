"""Stored rows, folded by user."""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from qanchor_plugin import schemas as S
from qanchor_plugin.declare import Profile
from qanchor_plugin.errors import InputDataError
from qanchor_plugin.identity import text_id
from qanchor_plugin.sequence import fold_users


def test_batches_of_a_user_fold_into_one_sorted_history(
    profile: Profile, sequence_rows: Callable, table_of: Callable
) -> None:
    rows = [
        sequence_rows(b"b", "purchases", [(30, 31, "milk", ("dairy", None), (2.5,))], "2"),
        sequence_rows(b"a", "visits", [(5, 5, "home", (), ())]),
        sequence_rows(
            b"b",
            "purchases",
            [(20, 21, "bread", ("bakery", "food"), (1.0,)), (10, 11, "eggs", ("dairy", "food"), (None,))],
            "1",
        ),
    ]
    first, second = fold_users(table_of(rows), None, profile)
    assert (first.user, second.user) == (b"a", b"b")
    events = second.events["purchases"]
    assert events.event_at.tolist() == [10, 20, 30]
    assert events.known_at.tolist() == [11, 21, 31]
    assert [bytes(one) for one in events.text_id] == [text_id(t) for t in ("eggs", "bread", "milk")]
    assert bytes(events.groups[1, 1]) == text_id("food")
    assert not events.groups[2, 1].any()
    np.testing.assert_array_equal(events.amounts[:, 0], [np.nan, 1.0, 2.5])
    assert first.events["visits"].groups.shape == (1, 0, 16)


def test_the_order_of_rows_changes_nothing(
    profile: Profile, sequence_rows: Callable, table_of: Callable
) -> None:
    events = [(10, 10, t, (g, None), (a,)) for t, g, a in [("x", "g", 1.0), ("x", "g", 2.0), ("w", "h", 3.0)]]
    rows = [sequence_rows(b"u", "purchases", [event], str(i)) for i, event in enumerate(events)]
    (forward,) = fold_users(table_of(rows), None, profile)
    (backward,) = fold_users(table_of(rows[::-1]), None, profile)
    for name in ("event_at", "known_at", "text_id", "groups", "amounts"):
        one, other = (getattr(h.events["purchases"], name) for h in (forward, backward))
        assert one.tobytes() == other.tobytes()


def test_rows_of_another_declaration_are_passed_over(
    profile: Profile, sequence_rows: Callable, table_of: Callable
) -> None:
    row = sequence_rows(b"u", "visits", [(1, 1, "home", (), ())])
    assert list(fold_users(table_of([{**row, S.MODALITY_DIGEST: "older"}]), None, profile)) == []


def test_a_user_known_only_by_a_profile_row_is_known(profile: Profile, table_of: Callable) -> None:
    row = {
        S.MODALITY: "household",
        S.MODALITY_DIGEST: profile.modalities[2].sequence_digest,
        S.USER: b"u",
        S.USER_KEY: "u",
        S.USER_BUCKET: 0,
        S.BATCH: "b",
        S.EVENT_AT: 5,
        S.KNOWN_AT: 6,
        S.TEXT_ID: text_id("two adults"),
    }
    rows = table_of([row, {**row, S.EVENT_AT: 3}], S.PROFILE_ROWS)
    (history,) = fold_users(table_of([]), rows, profile)
    assert history.events["household"].event_at.tolist() == [3, 5]


def test_ids_of_another_width_are_refused(
    profile: Profile, sequence_rows: Callable, table_of: Callable
) -> None:
    row = sequence_rows(b"u", "visits", [(1, 1, "home", (), ())])
    with pytest.raises(InputDataError, match="not all 16 bytes wide"):
        list(fold_users(table_of([{**row, S.TEXT_ID: [b"short"]}]), None, profile))


def test_chunked_and_sliced_tables_read_the_same(
    profile: Profile, sequence_rows: Callable, table_of: Callable
) -> None:
    rows = [
        sequence_rows(bytes([65 + i]), "visits", [(t, t, f"p{i}{t}", (), ()) for t in range(i + 1)])
        for i in range(5)
    ]
    whole = table_of(rows)
    chunked = pa.concat_tables([whole.slice(0, 2), whole.slice(2, 1), whole.slice(3)])
    sizes = [len(h.events["visits"]) for h in fold_users(chunked, None, profile)]
    assert sizes == [1, 2, 3, 4, 5]
    (third,) = fold_users(whole.slice(2, 1), None, profile)
    assert [bytes(one) for one in third.events["visits"].text_id] == [text_id(f"p2{t}") for t in range(3)]
