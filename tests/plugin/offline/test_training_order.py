"""The last step of a training set: chunks of rows in any order become one table in the rows' order."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qanchor_plugin.errors import LakeError
from qanchor_plugin.feast_ext import training_order
from qanchor_plugin.feast_ext.training_order import write_in_order
from qanchor_plugin.feast_ext.training_set import _write_output

NUM_ROWS = 64


def chunks(folder: Path) -> list[str]:
    """Four files of rows as they come, the last without any, each row with numbers that tell who it is."""
    shuffled = np.random.default_rng(0).permutation(NUM_ROWS)
    files = []
    for place, rows in enumerate([shuffled[:30], shuffled[30:31], shuffled[31:], shuffled[:0]]):
        table = pa.table(
            {
                "label": pa.array([None if one % 5 == 0 else f"row {one}" for one in rows], pa.string()),
                "hidden": pa.array(rows, pa.int32()),
                "embedding": pa.array(
                    [None if one % 7 == 0 else [float(one)] * 3 for one in rows], pa.list_(pa.float32())
                ),
                "__qanchor_number": pa.array(rows.astype(np.int64) << 33, pa.int64()),
                "at": pa.array(rows, pa.timestamp("us", tz="UTC")),
            }
        )
        files.append(str(folder / f"chunk-{place}.parquet"))
        pq.write_table(table, files[-1])
    return files


def test_every_row_stands_once_in_order_with_its_own_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(training_order, "ROWS_PER_FILE", 10)
    monkeypatch.setattr(training_order, "_ROWS_READ_TOGETHER", 8)
    told: list[int] = []
    place = tmp_path / "table"
    write_in_order(
        chunks(tmp_path),
        place,
        columns=["label", "embedding", "at"],
        number="__qanchor_number",
        tell=told.append,
    )
    files = sorted(place.iterdir())
    assert [pq.read_metadata(one).num_rows for one in files] == told == [10] * 6 + [4]
    made = pa.concat_tables([pq.read_table(one) for one in files])
    assert made.column_names == ["label", "embedding", "at"]
    assert made["label"].to_pylist() == [None if n % 5 == 0 else f"row {n}" for n in range(NUM_ROWS)]
    assert made["embedding"].to_pylist() == [None if n % 7 == 0 else [n] * 3 for n in range(NUM_ROWS)]
    assert made["at"].cast(pa.int64()).to_pylist() == list(range(NUM_ROWS))


def test_no_row_is_an_empty_table(tmp_path: Path) -> None:
    place = tmp_path / "table"
    write_in_order(chunks(tmp_path)[3:], place, columns=["label"], number="__qanchor_number")
    assert list(place.iterdir()) == []


def test_where_nothing_can_be_written_the_message_says_what_stands(tmp_path: Path) -> None:
    chunks(tmp_path)
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(LakeError, match="Every chunk stands in the checkpoint"):
        _write_output(tmp_path / "file" / "out", [str(tmp_path)], ["label"], lambda _: None)
