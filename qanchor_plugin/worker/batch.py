"""Pieces of several requests as one engine call: rows and queries once each, answers back to each piece."""

from collections.abc import Sequence

from qanchor_plugin.backend.protocol import Answer, Ask
from qanchor_plugin.backend.wire import PrefixRow
from qanchor_plugin.worker.request import AskKey, Piece, Row

MOST_WASTE = 1.25
"""A merged call computes every row for every query: at most this many times what was asked for."""

RowKey = tuple[bytes, int, str]


class Batch:
    """What goes through the engine in one call.

    Two pieces fit together when the same engines answer them about the same profiles, when no user is
    asked at two instants (a call reads one slice a user), and when the union of rows times the union of
    queries is not much more than what was asked.
    """

    def __init__(self, first: Piece) -> None:
        self.pieces: list[Piece] = []
        self.tokens = 0
        self.rows: dict[RowKey, Row] = {}
        self.asks: dict[AskKey, Ask] = {}
        self._cells = 0
        self._place: dict[bytes, RowKey] = {}
        self._group = first.request.group
        self._add(first)

    @property
    def num_requests(self) -> int:
        """Requests that it serves."""
        return len({id(piece.request) for piece in self.pieces})

    def take(self, piece: Piece, *, budget: int) -> bool:
        """Whether the piece fits; then it is in the batch."""
        if piece.request.group != self._group or self.tokens + piece.tokens > budget:
            return False
        keys = [_row_key(row) for row in piece.rows]
        if any(self._place.get(key[0], key) != key for key in keys):
            return False
        num_rows = len(self.rows) + sum(key not in self.rows for key in keys)
        num_asks = len(self.asks) + sum(key not in self.asks for key in piece.request.ask_keys)
        if num_rows * num_asks > MOST_WASTE * (self._cells + piece.num_cells):
            return False
        self._add(piece)
        return True

    def _add(self, piece: Piece) -> None:
        self.pieces.append(piece)
        self.tokens += piece.tokens
        self._cells += piece.num_cells
        for row in piece.rows:
            key = _row_key(row)
            self.rows[key] = row
            self._place[key[0]] = key
        self.asks.update(zip(piece.request.ask_keys, piece.request.asks, strict=True))

    def alone(self) -> list["Batch"]:
        """One batch a piece, for when together they failed."""
        return [Batch(piece) for piece in self.pieces]

    def spread(self, answers: Sequence[Sequence[Answer | None]]) -> None:
        """Each piece's request has its answers; those of ``rows`` x ``asks`` were given in their order."""
        row_of = {key: place for place, key in enumerate(self.rows)}
        ask_of = {key: place for place, key in enumerate(self.asks)}
        for piece in self.pieces:
            columns = [ask_of[key] for key in piece.request.ask_keys]
            found = [answers[row_of[_row_key(row)]] for row in piece.rows]
            piece.request.take(piece.start, [[row[column] for column in columns] for row in found])


def _row_key(row: Row) -> RowKey:
    if isinstance(row, PrefixRow):
        return row.entry.user, row.cutoff, row.entry.content_digest
    return row[0], row[1], ""
