"""How a training set is cut before it begins."""

import pytest

from qanchor_plugin.feast_ext.training_plan import SAMPLE_ROWS, chunks_of


@pytest.mark.parametrize(
    ("engine_seconds", "num_rows", "slots", "chunks"),
    [
        (32.0, 6_000, 2, 10),  # a second a row, 3,000 s in two tasks at once
        (32.0, 6_000, 20, 1),
        (0.0, 10**9, 2, 1),  # a pure lookup
        (3.2, 8, 1, 1),  # fewer rows than a sample has
        (32.0, 10**9, 1, 10_000),  # no folder holds more
    ],
)
def test_chunks_hold_five_minutes(engine_seconds: float, num_rows: int, slots: int, chunks: int) -> None:
    assert SAMPLE_ROWS == 32
    assert chunks_of(engine_seconds, num_rows, slots) == chunks
