"""Answers as the executors hand them on: one row of Arrow a row of the caller, a column a scenario.

A row's answers stay together because a long table of them would be sorted and put together again, and 128
numbers an answer make that dearer than everything else that Spark does for a training set.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from qanchor_plugin import schemas as S
from spark_jobs.asking_rows import ROW_ID, Row, RowSlice

ANSWER = pa.struct(
    [
        (S.EMBEDDING, pa.list_(pa.float32())),
        (S.EMBEDDING_ID, pa.string()),
        (S.CUTOFF, S.INSTANT),
        (S.AS_OF, S.INSTANT),
        (S.NUM_EVENTS, pa.int32()),
    ]
)
ANSWER_NAMES = tuple(field.name for field in ANSWER)


def answer_column(scenario: str) -> str:
    """The column of a scenario's answers; it clashes with no column of the caller's."""
    return f"__qanchor_{scenario}"


def schema_of(scenarios: Sequence[str]) -> pa.Schema:
    """The schema of :func:`answers` and :func:`no_answers`."""
    return pa.schema([(ROW_ID, pa.int64()), *((answer_column(one), ANSWER) for one in scenarios)])


def answers(
    rows: Sequence[RowSlice],
    scenarios: Sequence[str],
    ids: Sequence[Sequence[str]],
    vectors: npt.NDArray[np.float32],
    places: Sequence[int],
) -> pa.RecordBatch:
    """The rows with an answer to every scenario.

    Args:
        ids: for each scenario those of its embeddings.
        vectors: (P, Q, 128) float32: every scenario's, Q of them, of what rows can see.
        places: for each row which of P it sees.
    """
    at = np.asarray(places, np.intp)
    told = [
        pa.array([row.at for row, _ in rows], S.INSTANT),
        pa.array([one.as_of for _, one in rows], S.INSTANT),
        pa.array([one.num_events for _, one in rows], pa.int32()),
    ]
    columns = [
        pa.StructArray.from_arrays(
            [_lists(vectors[at, number]), pa.array(ids[number], pa.string()).take(pa.array(at)), *told],
            fields=list(ANSWER),
        )
        for number in range(len(scenarios))
    ]
    return _batch([row for row, _ in rows], scenarios, columns)


def no_answers(rows: Sequence[Row], scenarios: Sequence[str]) -> pa.RecordBatch:
    """The rows with nulls for answers."""
    return _batch(rows, scenarios, [pa.nulls(len(rows), ANSWER)] * len(scenarios))


def _batch(rows: Sequence[Row], scenarios: Sequence[str], columns: list[pa.Array]) -> pa.RecordBatch:
    numbers = pa.array([row.row_id for row in rows], pa.int64())
    return pa.RecordBatch.from_arrays([numbers, *columns], schema=schema_of(scenarios))


def _lists(vectors: npt.NDArray[np.float32]) -> pa.ListArray:
    ends = np.arange(len(vectors) + 1, dtype=np.int32) * vectors.shape[1]
    return pa.ListArray.from_arrays(ends, np.ascontiguousarray(vectors).ravel())
