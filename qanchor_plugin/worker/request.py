"""A request on its way through the worker: rows in, answers gathered piece by piece."""

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from qanchor_plugin.backend.protocol import Answer, Ask
from qanchor_plugin.backend.wire import AnswerRow, Header, PrefixRow

if TYPE_CHECKING:
    from qanchor_plugin.worker.serving import Serving

QUERY_TOKENS = 32
"""What one query is taken to cost a row, for the token budget."""

AskKey = tuple[str, str, str, str | None, str | None, str | None]
Row = tuple[bytes, int] | PrefixRow
"""(user, cutoff), or a prefix that carries both."""


@dataclass(kw_only=True, eq=False)
class Request:
    """One accepted request.

    Attributes:
        header: as it came.
        rows: what the queries are put to.
        asks: the header's, with engines as this worker names them.
        serving: the engines that answer it, whatever is reloaded meanwhile.
        deadline: monotonic instant after which nobody waits.
        answers / error: one of the two, once ``done``.
        started: when its first piece was computed; 0 before.
        compute_seconds: of the batches it was in.
    """

    header: Header
    rows: Sequence[Row]
    asks: tuple[Ask, ...]
    serving: "Serving"
    arrived: float
    deadline: float
    answers: list[AnswerRow] = field(default_factory=list)
    error: Exception | None = None
    started: float = 0.0
    compute_seconds: float = 0.0
    done: threading.Event = field(default_factory=threading.Event)
    cancelled: bool = False

    def __post_init__(self) -> None:
        self.ask_keys: tuple[AskKey, ...] = tuple(key_of(ask) for ask in self.asks)
        self.group = (
            id(self.serving),
            self.header.kind,
            frozenset((ask.engine, ask.profile.digest) for ask in self.asks),
        )
        self.num_bytes = sum(row.entry.size_bytes for row in self.rows if isinstance(row, PrefixRow))
        self._rows_left = len(self.rows)

    @property
    def num_cells(self) -> int:
        """Embeddings that it asks for."""
        return len(self.rows) * len(self.asks)

    def dead(self, now: float) -> str | None:
        """Why it need not be computed any more: ``done``, ``cancelled``, ``expired``; None while it must."""
        if self.done.is_set():
            return "done"
        if self.cancelled:
            return "cancelled"
        return "expired" if now >= self.deadline else None

    def take(self, start: int, answers: Sequence[Sequence[Answer | None]]) -> None:
        """Rows from ``start`` on are answered; the request is done with the last of them."""
        for row, found in enumerate(answers, start):
            self.answers.extend((row, ask, answer) for ask, answer in enumerate(found))
        self._rows_left -= len(answers)
        if self._rows_left == 0:
            self.done.set()

    def fail(self, error: Exception) -> None:
        """The request is done, with an error."""
        if not self.done.is_set():
            self.error = error
            self.done.set()


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """Rows of one request that go through the engine together.

    Attributes:
        start / stop: rows of the request.
        tokens: what it costs, about.
    """

    request: Request
    start: int
    stop: int
    tokens: int

    @property
    def rows(self) -> Sequence[Row]:
        """Its rows."""
        return self.request.rows[self.start : self.stop]

    @property
    def num_cells(self) -> int:
        """Embeddings that it asks for."""
        return (self.stop - self.start) * len(self.request.asks)


def key_of(ask: Ask) -> AskKey:
    """What makes two queries the same."""
    return (
        ask.profile.digest,
        ask.query,
        ask.engine,
        ask.engine_digest,
        ask.soft_prompt,
        ask.scenario_id,
    )


class TokenEstimate:
    """Soft tokens that a user of a profile has, about: learnt from the answers, bounded by the profile."""

    def __init__(self) -> None:
        self._events: dict[str, float] = {}

    def of(self, row: Row, asks: Sequence[Ask]) -> int:
        """Soft and query tokens of one row."""
        queries = QUERY_TOKENS * len(asks)
        if isinstance(row, PrefixRow):
            return len(row.entry.tokens) + queries
        profile = asks[0].profile
        events = self._events.get(profile.digest, float(profile.max_tokens))
        return min(profile.max_tokens, int(events) + 4 * len(profile.modalities) + 1) + queries

    def learn(self, ask: Ask, answers: Sequence[Answer | None]) -> None:
        """A batch's answers to one query have been seen."""
        seen = [min(one.num_events, ask.profile.max_tokens) for one in answers if one is not None]
        if seen:
            mean = sum(seen) / len(seen)
            known = self._events.get(ask.profile.digest, mean)
            self._events[ask.profile.digest] = 0.8 * known + 0.2 * mean


def pieces_of(request: Request, estimate: TokenEstimate, *, budget: int) -> list[Piece]:
    """The request's rows in order, cut so that no piece goes far beyond the budget."""
    made: list[Piece] = []
    start = tokens = 0
    for place, row in enumerate(request.rows):
        cost = estimate.of(row, request.asks)
        if tokens and tokens + cost > budget:
            made.append(Piece(request=request, start=start, stop=place, tokens=tokens))
            start, tokens = place, 0
        tokens += cost
    made.append(Piece(request=request, start=start, stop=len(request.rows), tokens=tokens))
    return made


def now() -> float:
    """The monotonic clock that deadlines are of."""
    return time.monotonic()
