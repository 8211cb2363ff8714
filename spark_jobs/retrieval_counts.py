"""What a historical read has done so far, added up by its tasks, for callers that reach it through Feast."""

import contextlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from pyspark.accumulators import Accumulator
from pyspark.sql import SparkSession


@dataclass(frozen=True, kw_only=True)
class RetrievalCounts:
    """Sums over the tasks of a read; a task that was tried twice counts twice.

    Attributes:
        rows: rows answered, once a profile and engine.
        prefills: distinct (user, visible events) that an engine read.
        engine_micros: microseconds of building those prefixes and answering, over all tasks.
        task_micros: microseconds between a task's first batch and its last.
    """

    rows: Accumulator[int]
    prefills: Accumulator[int]
    engine_micros: Accumulator[int]
    task_micros: Accumulator[int]


_COUNTS: ContextVar[RetrievalCounts | None] = ContextVar("retrieval_counts", default=None)


@contextlib.contextmanager
def counted(spark: SparkSession, *, rows: Accumulator[int] | None = None) -> Iterator[RetrievalCounts]:
    """Historical reads that are asked for within the block add to these counts when they run.

    Args:
        rows: what rows are added to, such as a watched stage's own count.
    """
    context = spark.sparkContext
    counts = RetrievalCounts(
        rows=context.accumulator(0) if rows is None else rows,
        prefills=context.accumulator(0),
        engine_micros=context.accumulator(0),
        task_micros=context.accumulator(0),
    )
    token = _COUNTS.set(counts)
    try:
        yield counts
    finally:
        _COUNTS.reset(token)


def current_counts() -> RetrievalCounts | None:
    """The counts of this context; None when nobody counts."""
    return _COUNTS.get()
