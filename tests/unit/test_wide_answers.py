"""Answers as executors hand them on: each row has the vector of what it sees, or nulls."""

import numpy as np

from qanchor_plugin import schemas as S
from qanchor_plugin.sequence.slice import UserSlice
from spark_jobs.asking_rows import Row
from spark_jobs.wide_answers import answer_column, answers, no_answers, schema_of


def seen(num_events: int, as_of: int | None) -> UserSlice:
    return UserSlice(
        user=b"u",
        user_key="{}",
        cutoff=0,
        modalities=(),
        groups=(),
        num_groups_visible=0,
        num_events=num_events,
        as_of=as_of,
        visible_digest=str(num_events),
    )


def test_each_row_has_its_own_instant_and_the_answers_of_what_it_sees() -> None:
    vectors = np.arange(2 * 2 * 3, dtype=np.float32).reshape(2, 2, 3)
    empty, full = seen(0, None), seen(4, 1_000_000)
    rows = [(Row(7, 2_000_000, None), full), (Row(8, 1, None), empty), (Row(9, 3_000_000, None), full)]
    batch = answers(rows, ["churn", "wine"], [["c0", "c1"], ["w0", "w1"]], vectors, [1, 0, 1])
    assert batch["row_id"].to_pylist() == [7, 8, 9]
    for number, (name, ids) in enumerate([("churn", ["c1", "c0", "c1"]), ("wine", ["w1", "w0", "w1"])]):
        found = batch[answer_column(name)].to_pylist()
        assert [one[S.EMBEDDING] for one in found] == vectors[[1, 0, 1], number].tolist()
        assert [one[S.EMBEDDING_ID] for one in found] == ids
        assert [one[S.NUM_EVENTS] for one in found] == [4, 0, 4]
        assert [one[S.CUTOFF].timestamp() for one in found] == [2, 1e-6, 3]
        assert [one[S.AS_OF] and one[S.AS_OF].timestamp() for one in found] == [1, None, 1]


def test_rows_without_an_answer_have_the_same_columns() -> None:
    batch = no_answers([Row(1, None, None), Row(2, None, None)], ["churn", "wine"])
    full = answers([], ["churn", "wine"], [[], []], np.zeros((0, 2, 128), np.float32), [])
    assert batch.schema == full.schema == schema_of(["churn", "wine"])
    assert [one.null_count for one in batch.columns] == [0, 2, 2]
