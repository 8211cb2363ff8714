"""How far a job is: counted in tasks, told to whoever watches."""

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from functools import partial
from typing import Any, Protocol

from pyspark.accumulators import Accumulator
from pyspark.sql import SparkSession

POLL_SECONDS = 0.3


class Progress(Protocol):
    """Whoever watches a run. Calls come from the thread that runs it and from one that polls."""

    def start(self, stage: str, total: int | None) -> None:
        """A stage began; ``total`` rows or users are to be done, None when that is not known."""

    def update(self, stage: str, done: int) -> None:
        """``done`` rows or users are done."""

    def finish(self, stage: str, done: int) -> None:
        """The stage ended."""


class Silent:
    """Nobody watches."""

    def start(self, stage: str, total: int | None) -> None:
        """Nothing is shown."""

    def update(self, stage: str, done: int) -> None:
        """Nothing is shown."""

    def finish(self, stage: str, done: int) -> None:
        """Nothing is shown."""


class Bars:
    """One bar a stage on the terminal (stderr)."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as RichProgress

        columns = (
            TextColumn("{task.description:<34}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        self._rich: Any = RichProgress(*columns, console=Console(stderr=True))
        self._tasks: dict[str, Any] = {}

    def start(self, stage: str, total: int | None) -> None:
        """The stage's bar is shown."""
        if not self._tasks:
            self._rich.start()
        self._tasks[stage] = self._rich.add_task(stage, total=total)

    def update(self, stage: str, done: int) -> None:
        """The bar stands at ``done``."""
        self._rich.update(self._tasks[stage], completed=done)

    def finish(self, stage: str, done: int) -> None:
        """The bar is full; the display ends with the last open stage."""
        task = self._tasks.pop(stage)
        self._rich.update(task, completed=done, total=done)
        if not self._tasks:
            self._rich.stop()
            self._rich.remove_task(task)  # else the next stage would print it again


_WATCHER: ContextVar[Progress | None] = ContextVar("watcher", default=None)


@contextlib.contextmanager
def watched_by(progress: Progress) -> Iterator[None]:
    """Within the block, runs that are given no ``progress`` of their own are shown by this one.

    For callers that reach the jobs through Feast, whose calls have no argument for it.
    """
    token = _WATCHER.set(progress)
    try:
        yield
    finally:
        _WATCHER.reset(token)


def default_progress() -> Progress:
    """Whoever watches this context; else bars on a terminal; else nobody."""
    watcher = _WATCHER.get()
    if watcher is not None:
        return watcher
    return Bars() if sys.stderr.isatty() else Silent()


@contextlib.contextmanager
def stage(
    spark: SparkSession, progress: Progress, name: str, total: int | None
) -> Iterator[Accumulator[int]]:
    """A stage that is watched within the block, by the accumulator that its tasks add to."""
    done = spark.sparkContext.accumulator(0)
    ended = threading.Event()
    progress.start(name, total)
    tell = partial(_tell, progress, name, done)
    watcher = threading.Thread(target=_poll, args=(tell, ended), daemon=True, name=f"watch-{name}")
    watcher.start()
    try:
        yield done
    finally:
        ended.set()
        watcher.join()
        progress.finish(name, done.value)


@contextlib.contextmanager
def tasks_watched(spark: SparkSession, progress: Progress, name: str) -> Iterator[None]:
    """The tasks that Spark finishes within the block are told to ``progress``: for lazy frames, whose rows
    are counted nowhere."""
    tracker = spark.sparkContext.statusTracker()
    finished: dict[int, int] = {}

    def tell() -> None:
        for number in tracker.getActiveStageIds():
            info = tracker.getStageInfo(number)
            if info is not None:
                finished[number] = info.numCompletedTasks
        progress.update(name, sum(finished.values()))

    ended = threading.Event()
    progress.start(name, None)
    watcher = threading.Thread(target=_poll, args=(tell, ended), daemon=True, name=f"watch-{name}")
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()
        progress.finish(name, sum(finished.values()))


def _tell(progress: Progress, name: str, done: Accumulator[int]) -> None:
    progress.update(name, done.value)


def _poll(tell: Callable[[], None], ended: threading.Event) -> None:
    while not ended.wait(POLL_SECONDS):
        tell()
