"""The conformance cases against our store; the table beside stock is ``python -m benchmarks.conformance``."""

from pathlib import Path

import pytest
from pyspark.sql import SparkSession

import benchmarks.conformance.cases
import benchmarks.conformance.types  # noqa: F401  (registers its cases)
from benchmarks.conformance.world import CASES, World
from benchmarks.results import FOLDER, load

pytestmark = pytest.mark.spark

SLICE = {
    ("types", "Bytes, and null"),
    ("types", "Array(UnixTimestamp), and null"),
    ("keys", "a renamed join key"),
    ("keys", "no entity at all"),
    ("sources", "parquet with nanoseconds, as pandas writes it"),
    ("sources", "a Delta folder called parquet: no rows that were replaced"),
}
"""What no other quick test covers."""


@pytest.mark.parametrize(
    ("group", "name"),
    [
        pytest.param(*key, id=f"{key[0]}: {key[1]}", marks=() if key in SLICE else pytest.mark.slow)
        for key in CASES
    ],
)
def test_ours_is_right(spark: SparkSession, tmp_path: Path, group: str, name: str) -> None:
    CASES[group, name](World(spark, tmp_path, "ours"))


def test_the_slice_names_cases_and_the_kept_table_has_every_one_of_them_right_for_ours() -> None:
    assert set(CASES) >= SLICE
    kept = [row for row in load(FOLDER / "conformance.json") if row.column == "QAnchorOfflineStore"]
    assert {row.row for row in kept} == {f"{group}: {name}" for group, name in CASES}
    assert {row.note for row in kept} == {"right"}
