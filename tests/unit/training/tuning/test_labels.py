"""Labels as people bring them: literal files, and what each fault is answered with."""

from datetime import UTC, datetime

import pandas as pd
import pytest

from qanchor_plugin.errors import InputDataError
from qanchor_plugin.training.tuning.labels import read_labels

ROWS = "user_id,event_timestamp,bought\n007,2017-06-01,1\n8,2017-06-01T00:00:00+02:00,0\n007,2017-07-01,0\n"
JUNE = round(datetime(2017, 6, 1, tzinfo=UTC).timestamp()) * 1_000_000
HOUR = 3_600_000_000


def key_of(key):
    return str(key["user_id"]).encode()


def _read(path, **changes):
    asked = {"join_keys": ["user_id"], "key_of": key_of, "label_column": "bought"}
    return read_labels(path, **{**asked, **changes})


@pytest.fixture
def write(tmp_path):
    def made(text, name="labels.csv"):
        (tmp_path / name).write_text(text)
        return tmp_path / name

    return made


def test_a_csv_keeps_keys_as_written_and_instants_in_utc(write):
    rows = _read(write(ROWS))
    assert rows.users == (b"007", b"8", b"007")
    assert rows.cutoffs.tolist() == [JUNE, JUNE - 2 * HOUR, JUNE + 30 * 24 * HOUR]
    assert rows.classes.tolist() == [1, 0, 0]
    assert rows.names == ("0", "1")
    assert rows.counts() == {"0": 2, "1": 1}


def test_a_parquet_reads_the_same_and_the_digest_is_of_the_rows_not_their_order(write, tmp_path):
    frame = pd.DataFrame(
        {
            "user_id": ["8", "007", "007"],
            "at": pd.to_datetime(["2017-05-31T22:00", "2017-07-01T00:00", "2017-06-01T00:00"]),
            "bought": [0, 0, 1],
        }
    )
    frame.to_parquet(tmp_path / "labels.parquet")
    rows = _read(tmp_path / "labels.parquet", timestamp_column="at")
    assert rows.digest == _read(write(ROWS)).digest
    assert rows.digest != rows.take([0, 2]).digest


def test_words_and_truth_are_labels_too(write):
    text = "user_id,event_timestamp,bought\n1,2017-06-01,True\n2,2017-06-01,False\n"
    assert _read(write(text)).counts() == {"False": 1, "True": 1}
    assert _read(write(text.replace("True", "yes").replace("False", "no"))).names == ("no", "yes")


def test_a_sample_keeps_the_order_and_is_seeded(write):
    lines = "".join(f"{n},2017-06-01,{n % 2}\n" for n in range(30))
    rows = _read(write("user_id,event_timestamp,bought\n" + lines))
    drawn = rows.sample(10, seed=1)
    assert len(drawn) == 10
    assert [int(one) for one in drawn.users] == sorted(int(one) for one in drawn.users)
    assert drawn.users == rows.sample(10, seed=1).users != rows.sample(10, seed=2).users


FAULTS = {
    "a missing column": (ROWS.replace("user_id", "user"), r"has no column \['user_id'\]; it has \['user'"),
    "one class": (ROWS.replace(",0\n", ",1\n"), r"holds 1 different values \(1\).*of every class"),
    "a user twice": (ROWS.replace("2017-07", "2017-06"), r"1 rows name a user a second time.*'007'"),
    "no rows": ("user_id,event_timestamp,bought\n", "has no rows"),
    "an empty label": (ROWS.replace("01,1\n", "01,\n"), r"empty values, rows by column: \{'bought': 1\}"),
    "an empty key": (ROWS.replace("8,", ","), r"rows by column: \{'user_id': 1\}"),
    "no instant": (
        ROWS.replace("2017-07-01", "soon"),
        r"'event_timestamp' holds values that are no instants",
    ),
    "numbers as instants": (
        "user_id,event_timestamp,bought\n1,1496275200,0\n2,1496275200,1\n",
        "holds numbers such as 1496275200",
    ),
    "a measure as label": (
        "user_id,event_timestamp,bought\n" + "".join(f"{n},2017-06-01,{n}.5\n" for n in range(21)),
        r"holds 21 different values \(0\.5, 1\.5, 2\.5, \.\.\.\)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_unusable_rows_are_refused(write, fault):
    text, message = FAULTS[fault]
    with pytest.raises(InputDataError, match=message):
        _read(write(text))


def test_unusable_files_are_refused(write, tmp_path):
    with pytest.raises(InputDataError, match=r"must end in one of \['\.csv', '\.parquet'\]"):
        _read(write(ROWS, "labels.txt"))
    with pytest.raises(InputDataError, match="cannot be read"):
        _read(tmp_path / "absent.csv")
    with pytest.raises(InputDataError, match="cannot be read"):
        _read(write("not parquet", "labels.parquet"))
