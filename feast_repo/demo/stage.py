"""What the demo shows: steps with their time; everything else that prints goes to a log file."""

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table


class StepBars:
    """A refresh's stages as bars below the step that runs it (see ``spark_jobs.progress``)."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[str, TaskID] = {}

    def start(self, stage: str, total: int | None) -> None:
        """The stage's bar is shown."""
        self._tasks[stage] = self._progress.add_task(f"    {stage}", total=total)

    def update(self, stage: str, done: int) -> None:
        """The bar stands at ``done``."""
        self._progress.update(self._tasks[stage], completed=done)

    def finish(self, stage: str, done: int) -> None:
        """The bar is full."""
        self._progress.update(self._tasks.pop(stage), completed=done, total=done)


class Stage:
    """Within the block, file descriptors 1 and 2 are the log (Feast, Spark and the JVM print there);
    ``console`` is the terminal.

    Args:
        log: where the rest goes; its folder is made.
        num_steps: shown as ``2/8``.
    """

    def __init__(self, log: Path, *, num_steps: int) -> None:
        self.log = log
        self.seconds: dict[str, float] = {}
        self._num_steps = num_steps
        self._kept = (os.dup(1), os.dup(2))
        terminal = os.fdopen(os.dup(1), "w")
        self.console = Console(file=terminal, highlight=False, width=None if terminal.isatty() else 100)

    def __enter__(self) -> "Stage":
        self.log.parent.mkdir(parents=True, exist_ok=True)
        target = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(target, 1)
        os.dup2(target, 2)
        os.close(target)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        sys.stdout.flush()
        sys.stderr.flush()
        for kept, place in zip(self._kept, (1, 2), strict=True):
            os.dup2(kept, place)
            os.close(kept)

    @contextmanager
    def step(self, title: str) -> Iterator[Progress]:
        """A step that shows a bar and its time while it runs, and one line when it is done."""
        began, number = time.monotonic(), len(self.seconds) + 1
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(bar_width=24))
        counts = (MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, *counts, console=self.console, transient=True) as progress:
            progress.add_task(f"{number}/{self._num_steps} {title}", total=None)
            yield progress
        self.seconds[title] = time.monotonic() - began
        self.console.print(f"[bold]{number}/{self._num_steps} {title}[/bold]  {self.seconds[title]:.1f} s")

    def say(self, text: str) -> None:
        """One line below the step."""
        self.console.print(f"    {text}")

    def show(self, columns: list[str], rows: list[list[str]]) -> None:
        """A small table; every column but the first is aligned right."""
        table = Table(box=SIMPLE_HEAD, pad_edge=False)
        for place, column in enumerate(columns):
            table.add_column(column, justify="right" if place else "left", no_wrap=True)
        for row in rows:
            table.add_row(*row)
        self.console.print(table)
