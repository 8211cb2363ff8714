"""Whom the reader of anchor views asks: watermarks, misses, and who keeps what was computed."""

from collections.abc import Callable, Sequence
from typing import Protocol

from qanchor_plugin.backend import Answer, Ask
from qanchor_plugin.feast_ext.online_misses import Answers
from qanchor_plugin.feast_ext.online_rows import AnchorRead


class Watermarks(Protocol):
    """Who knows up to when a scenario is complete."""

    def complete_to(self, scenario: str, scenario_id: str) -> int | None:
        """Microseconds since 1970 UTC, or None."""


class Misses(Protocol):
    """Who answers misses within a budget."""

    def answer(
        self,
        users: Sequence[bytes],
        cutoff: int,
        asked: Sequence[Ask],
        *,
        late: Callable[[Answers], object] | None = None,
    ) -> Answers:
        """Users x asked; a BackendError says that there is no answer, ``late`` has it later."""


class Keeper(Protocol):
    """Who keeps computed answers for later reads."""

    def keep(self, read: AnchorRead, answers: Sequence[tuple[int, Answer]]) -> None:
        """These (row of the read, answer) pairs will be written; returns at once."""
