"""A lazy frame's work is told to whoever watches."""

import time
from collections.abc import Iterator

import pyarrow as pa
import pytest
from pyspark.sql import SparkSession

from spark_jobs.progress import Silent, tasks_watched

pytestmark = pytest.mark.spark


class Told(Silent):
    def __init__(self) -> None:
        self.said: list[tuple[str, int | None]] = []

    def start(self, stage: str, total: int | None) -> None:
        self.said.append(("start", total))

    def update(self, stage: str, done: int) -> None:
        self.said.append(("update", done))

    def finish(self, stage: str, done: int) -> None:
        self.said.append(("finish", done))


def test_finished_tasks_are_told_while_the_work_goes_on(spark: SparkSession) -> None:
    def slow(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        for batch in batches:
            time.sleep(0.8)
            yield batch

    told = Told()
    with tasks_watched(spark, told, "rows"):
        spark.range(8, numPartitions=8).mapInArrow(slow, "id long").toArrow()
    assert told.said[0] == ("start", None)
    done = [number for word, number in told.said if word == "update"]
    assert done == sorted(done)
    assert 0 < max(done) <= 8
    assert told.said[-1] == ("finish", max(done))


def test_the_end_is_told_when_the_work_fails_too(spark: SparkSession) -> None:
    told = Told()
    with pytest.raises(ZeroDivisionError), tasks_watched(spark, told, "rows"):
        raise ZeroDivisionError
    assert told.said[-1] == ("finish", 0)
