"""Who watches a training run: a live line on a terminal, plain lines elsewhere, or nobody."""

import sys
import time
from collections.abc import Mapping
from typing import IO, Any, Protocol

PLAIN_SECONDS = 10.0


class Watcher(Protocol):
    """Whoever watches; calls come from the training thread of the first device."""

    def started(self, steps: int, done: int) -> None:
        """Training begins after ``done`` of ``steps``."""

    def step(self, done: int, figures: Mapping[str, float]) -> None:
        """``done`` steps are taken; ``figures`` are the last one's."""

    def note(self, text: str) -> None:
        """Something a person should know."""

    def ended(self) -> None:
        """Training ended, well or not."""


class Nobody:
    """Nobody watches."""

    def started(self, steps: int, done: int) -> None:
        """Nothing is shown."""

    def step(self, done: int, figures: Mapping[str, float]) -> None:
        """Nothing is shown."""

    def note(self, text: str) -> None:
        """Nothing is shown."""

    def ended(self) -> None:
        """Nothing is shown."""


class PlainLines:
    """A line every few seconds, for logs."""

    def __init__(self, stream: IO[str] | None = None, *, seconds: float = PLAIN_SECONDS) -> None:
        self._stream, self._seconds = stream or sys.stderr, seconds
        self._steps, self._first, self._began_at, self._told_at = 0, 0, 0.0, 0.0

    def started(self, steps: int, done: int) -> None:
        """The clock runs."""
        self._steps, self._first, self._began_at = steps, done, time.monotonic()
        self._told_at = self._began_at

    def step(self, done: int, figures: Mapping[str, float]) -> None:
        """A line, if the last one is old enough or this step is the last."""
        now = time.monotonic()
        if now - self._told_at < self._seconds and done < self._steps:
            return
        self._told_at = now
        left = (now - self._began_at) / max(1, done - self._first) * (self._steps - done)
        self.note(f"step {done}/{self._steps}  {figures_line(figures)}  {left:.0f} s left")

    def note(self, text: str) -> None:
        """The text on a line of its own."""
        print(text, file=self._stream, flush=True)

    def ended(self) -> None:
        """Nothing more is shown."""


class LiveLine:
    """One line on the terminal (stderr) that changes as training goes on."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            TextColumn("training"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            TimeRemainingColumn(),
        )
        self._rich: Any = Progress(*columns, console=Console(stderr=True))
        self._task: Any = None

    def started(self, steps: int, done: int) -> None:
        """The line is shown."""
        self._task = self._rich.add_task("training", total=steps, completed=done, told="")
        self._rich.start()

    def step(self, done: int, figures: Mapping[str, float]) -> None:
        """The line stands at ``done``."""
        self._rich.update(self._task, completed=done, told=figures_line(figures))

    def note(self, text: str) -> None:
        """The text above the line."""
        self._rich.console.print(text, highlight=False, markup=False)

    def ended(self) -> None:
        """The line stays as it is."""
        self._rich.stop()


def default_watcher() -> Watcher:
    """A live line on a terminal, else plain lines."""
    return LiveLine() if sys.stderr.isatty() else PlainLines()


def figures_line(figures: Mapping[str, float]) -> str:
    """``loss 1.234  accuracy 31 %  12,345 tokens/s``: what there is of it."""
    told = [f"loss {figures['loss']:.4f}"]
    if "accuracy" in figures:
        told.append(f"accuracy {figures['accuracy']:.0%}".replace("%", " %"))
    if "tokens_per_second" in figures:
        told.append(f"{figures['tokens_per_second']:,.0f} tokens/s")
    return "  ".join(told)
