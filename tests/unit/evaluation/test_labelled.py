"""A person's labels: what is taken, and what is refused in one message."""

from pathlib import Path

import pandas as pd
import pytest

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.evaluation.labelled import check_behaviour, checked_labels, read_labels

KEYS = [("household_id", "INT64")]
FRAME = pd.DataFrame(
    {
        "household_id": list(range(24, 0, -1)),
        "event_timestamp": ["2017-06-01T00:00:00Z"] * 24,
        "bought": [1] * 12 + [0] * 12,
    }
)


def _checked(frame: pd.DataFrame, **changes):
    given = {"keys": KEYS, "label": "bought", "at": "event_timestamp", "num_folds": 5, **changes}
    return checked_labels(frame, **given)


def test_rows_come_in_the_order_of_their_keys() -> None:
    labelled = _checked(FRAME)
    assert labelled.rows["household_id"].tolist() == list(range(1, 25))
    assert labelled.labels.tolist() == [False] * 12 + [True] * 12  # households 24 to 13 bought
    assert labelled.rows["event_timestamp"][0] == pd.Timestamp("2017-06-01", tz="UTC")
    assert labelled.rows.columns.tolist() == ["household_id", "event_timestamp"]


def test_files_of_both_kinds_say_the_same(tmp_path: Path) -> None:
    FRAME.to_csv(tmp_path / "labels.csv", index=False)
    FRAME.assign(bought=FRAME.bought.astype(bool)).to_parquet(tmp_path / "labels.parquet")
    first, second = (_checked(read_labels(tmp_path / f"labels.{kind}")) for kind in ("csv", "parquet"))
    pd.testing.assert_frame_equal(first.rows, second.rows)
    assert first.labels.tolist() == second.labels.tolist()


def test_keys_are_of_their_declared_type() -> None:
    assert _checked(FRAME, keys=[("household_id", "STRING")]).rows["household_id"][0] == "1"
    with pytest.raises(InputDataError, match="not of type INT64"):
        _checked(FRAME.assign(household_id=["h1"] * 24))
    with pytest.raises(InputDataError, match="there are fractions"):
        _checked(FRAME.assign(household_id=[n + 0.5 for n in range(24)]))


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"bought": [1] * 24}, "all 24 labels are 1: there is one class only"),
        ({"bought": [0] * 24}, "all 24 labels are 0: there is one class only"),
        (
            {"bought": [1] * 3 + [0] * 21},
            r"3 of 24 labels are positive, of 3 users; .* of 21. Each class needs 10",
        ),
        ({"bought": [2] * 12 + [0] * 12}, r"holds \['2', '0'\] and 0 nulls; a label is 0 or 1"),
        ({"bought": [None] + [1] * 11 + [0] * 12}, "and 1 nulls"),
        (
            {"household_id": [1, *range(23, 0, -1)]},
            "2 rows name a user that stands more than once at one instant",
        ),
        ({"household_id": [None, *range(23)]}, "has 1 nulls, the first in row 0"),
        ({"event_timestamp": ["soon"] * 24}, "holds what is no instant"),
        ({"event_timestamp": [None] * 24}, "has 24 nulls; a label without its instant leaks"),
        ({"event_timestamp": [20170601] * 24}, "is of type int64; give instants"),
    ],
)
def test_what_cannot_be_used_is_refused(changes: dict, told: str) -> None:
    with pytest.raises(InputDataError, match=told):
        _checked(FRAME.assign(**changes))


def test_a_user_with_both_labels_at_one_instant_is_told_of() -> None:
    twice = pd.concat([FRAME, FRAME.iloc[:1].assign(bought=0)], ignore_index=True)
    with pytest.raises(InputDataError, match=r"'household_id': '24', .* stands 2 times, with both labels"):
        _checked(twice)


def test_several_instants_of_a_user_are_rows_of_one_number() -> None:
    later = FRAME.iloc[:2].assign(event_timestamp="2017-07-01T00:00:00Z", bought=0)
    labelled = _checked(pd.concat([later, FRAME], ignore_index=True))
    assert labelled.rows["household_id"].tolist() == [*range(1, 23), 23, 23, 24, 24]
    assert labelled.rows["event_timestamp"].dt.month.tolist()[-4:] == [6, 7, 6, 7]
    assert labelled.labels.tolist()[-4:] == [True, False, True, False]
    assert labelled.users is not None
    assert labelled.users.tolist() == [*range(22), 22, 22, 23, 23]
    assert _checked(FRAME).users is None


def test_many_instants_of_few_users_are_not_many_users() -> None:
    months = [FRAME.iloc[8:16].assign(event_timestamp=f"2017-0{month}-01") for month in range(1, 9)]
    with pytest.raises(InputDataError, match="32 of 64 labels are positive, of 4 users; the others are of 4"):
        _checked(pd.concat(months, ignore_index=True))


def test_more_folds_need_more_of_each_class() -> None:
    with pytest.raises(InputDataError, match="Each class needs 15 users"):
        _checked(FRAME, num_folds=15)


def test_an_absent_column_names_those_that_are_there() -> None:
    with pytest.raises(InputDataError, match=r"no column \['churned'\]; their columns are \['household_id'"):
        _checked(FRAME, label="churned")


def test_labels_before_any_behaviour_are_counted() -> None:
    rows = _checked(FRAME).rows
    check_behaviour(rows, pd.Series([1.0] * 24), "pet")
    events = pd.Series([1.0] * 24)
    events[2], events[5] = 0.0, None
    with pytest.raises(
        InputDataError, match=r"2 of 24 labels stand .* before any behaviour .*'household_id': '3'"
    ):
        check_behaviour(rows, events, "pet")


@pytest.mark.parametrize(
    ("name", "body", "told"),
    [("labels.txt", "a", "accepted are files ending in"), ("labels.csv", "", "cannot be read"),
     ("labels.parquet", "no parquet", "cannot be read"), ("empty.csv", "a,b\n", "has no row")],
)  # fmt: skip
def test_files_that_cannot_be_read(tmp_path: Path, name: str, body: str, told: str) -> None:
    (tmp_path / name).write_text(body)
    with pytest.raises(InputDataError, match=told):
        read_labels(tmp_path / name)
    with pytest.raises(InputDataError, match="cannot be read"):
        read_labels(tmp_path / "absent.csv")
