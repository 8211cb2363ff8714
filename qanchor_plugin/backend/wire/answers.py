"""What a worker answers: rows of (row, ask, vector and where it came from), and a last message."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from qanchor_plugin import schemas as S
from qanchor_plugin.backend.protocol import Answer, Ask
from qanchor_plugin.errors import BrokenAnswerError
from qanchor_plugin.identity import is_of_scenario

ROW, ASK, KNOWN = "row", "ask", "known"
MAX_ANSWER_ROWS = 4096
"""Rows of one message (2.5 MB)."""

NORM_TOLERANCE = 1e-3
"""A vector's length may differ from 1 by this much (bf16 engines normalise in fp32)."""

ANSWERS = pa.schema(
    [
        pa.field(ROW, pa.int32(), nullable=False),
        pa.field(ASK, pa.int32(), nullable=False),
        pa.field(KNOWN, pa.bool_(), nullable=False),
        (S.EMBEDDING, pa.list_(pa.float32(), S.EMBEDDING_DIM)),
        (S.EMBEDDING_ID, pa.string()),
        (S.CUTOFF, pa.int64()),
        (S.AS_OF, pa.int64()),
        (S.NUM_EVENTS, pa.int64()),
    ]
)
"""One row a (row of the request, ask). ``known`` is false, and the rest null, for a user never seen."""

AnswerRow = tuple[int, int, Answer | None]
"""(row of the request, place of the ask, answer)."""


@dataclass(frozen=True, kw_only=True)
class End:
    """The last message of a whole answer.

    Attributes:
        rows: how many answer rows were sent.
        engines: digest of the engine that answered, by the name it was asked under.
        request_id: of the request.
        queue_ms / compute_ms: how long it waited and how long it was worked on.
    """

    rows: int
    engines: Mapping[str, str]
    request_id: str
    queue_ms: float = 0.0
    compute_ms: float = 0.0

    def to_bytes(self) -> bytes:
        """JSON."""
        return json.dumps({name: getattr(self, name) for name in self.__dataclass_fields__}).encode()

    @classmethod
    def from_bytes(cls, given: bytes) -> "End":
        """The record that ``to_bytes`` wrote.

        Raises:
            BrokenAnswerError: it is not one.
        """
        try:
            made = cls(**json.loads(given))
        except (ValueError, TypeError) as error:
            raise BrokenAnswerError("the answer's last message cannot be read.") from error
        if not isinstance(made.rows, int) or not isinstance(made.engines, dict):
            raise BrokenAnswerError("the answer's last message cannot be read.")
        return made


def answer_batches(rows: Sequence[AnswerRow]) -> Iterator[pa.RecordBatch]:
    """The rows as messages of at most ``MAX_ANSWER_ROWS``."""
    for start in range(0, len(rows), MAX_ANSWER_ROWS):
        yield _batch(rows[start : start + MAX_ANSWER_ROWS])


def _batch(rows: Sequence[AnswerRow]) -> pa.RecordBatch:
    answers = [answer for _, _, answer in rows]
    known = np.array([answer is not None for answer in answers])
    vectors = np.zeros((len(rows), S.EMBEDDING_DIM), np.float32)
    for place, answer in enumerate(answers):
        if answer is not None:
            vectors[place] = answer.embedding
    embeddings = pa.FixedSizeListArray.from_arrays(
        pa.array(vectors.reshape(-1)), S.EMBEDDING_DIM, mask=pa.array(~known)
    )
    columns = [
        pa.array([row for row, _, _ in rows], pa.int32()),
        pa.array([ask for _, ask, _ in rows], pa.int32()),
        pa.array(known),
        embeddings,
        pa.array([None if one is None else one.embedding_id for one in answers], pa.string()),
        *(
            pa.array([None if one is None else getattr(one, name) for one in answers], pa.int64())
            for name in (S.CUTOFF, S.AS_OF, S.NUM_EVENTS)
        ),
    ]
    return pa.record_batch(columns, schema=ANSWERS)


def messages(reader: Iterable[Any]) -> Iterator[tuple[pa.RecordBatch | None, bytes | None]]:
    """What a Flight stream brings, as :func:`read_answers` takes it: (batch, metadata) pairs."""
    for chunk in reader:
        yield chunk.data, None if chunk.app_metadata is None else chunk.app_metadata.to_pybytes()


def read_answers(
    messages: Iterable[tuple[pa.RecordBatch | None, bytes | None]],
    *,
    asked: Sequence[Ask],
    cutoffs: Sequence[int],
) -> tuple[list[list[Answer | None]], End]:
    """Every row's answer to every ask (rows x asks, None for a user never seen), all of it checked.

    Args:
        messages: (batch, metadata) pairs in order; one of the two may be absent.
        asked: the queries as they were sent.
        cutoffs: the instant of every row that was sent.

    Raises:
        BrokenAnswerError: a torn stream, a missing or doubled row, a vector of another shape, not finite
            or not of length 1, or an answer of another engine, scenario or cutoff than asked.
    """
    found: dict[tuple[int, int], Answer | None] = {}
    end: End | None = None
    num_rows = 0
    for batch, metadata in messages:
        if end is not None:
            raise BrokenAnswerError("the answer goes on after its last message.")
        if batch is not None:
            num_rows += batch.num_rows
            _take(batch, found, asked, cutoffs)
        if metadata is not None:
            end = End.from_bytes(metadata)
    if end is None:
        raise BrokenAnswerError("the answer broke off before its last message. Ask again.")
    if not num_rows == end.rows == len(found) == len(asked) * len(cutoffs):
        raise BrokenAnswerError(
            f"the answer has {num_rows} rows, its last message says {end.rows}, "
            f"and {len(asked) * len(cutoffs)} were asked."
        )
    _check_engines(end, asked)
    return [[found[row, ask] for ask in range(len(asked))] for row in range(len(cutoffs))], end


def _take(
    batch: pa.RecordBatch,
    found: dict[tuple[int, int], Answer | None],
    asked: Sequence[Ask],
    cutoffs: Sequence[int],
) -> None:
    """The batch's rows are in ``found``, checked."""
    vectors = _vectors(batch)
    others = [name for name in ANSWERS.names if name != S.EMBEDDING]
    for vector, row in zip(vectors, batch.select(others).to_pylist(), strict=True):
        place = (row[ROW], row[ASK])
        if place in found or not (0 <= place[0] < len(cutoffs) and 0 <= place[1] < len(asked)):
            raise BrokenAnswerError(f"the answer has row {place} twice, or it was not asked.")
        found[place] = _answer(row, vector, asked[place[1]], cutoffs[place[0]]) if row[KNOWN] else None


def _vectors(batch: pa.RecordBatch) -> npt.NDArray[np.float32]:
    """(N, 128) float32, checked: those of known users are finite and of length 1."""
    if not batch.schema.equals(ANSWERS):
        raise BrokenAnswerError(f"the answer has columns {batch.schema.names}, not {ANSWERS.names}.")
    try:
        batch.validate(full=True)
    except pa.ArrowInvalid as error:
        raise BrokenAnswerError(f"the answer is not sound Arrow data ({error}).") from error
    column = batch.column(ANSWERS.get_field_index(S.EMBEDDING))
    start, size = column.offset * S.EMBEDDING_DIM, len(column) * S.EMBEDDING_DIM
    flat = column.values.slice(start, size).to_numpy(zero_copy_only=False)
    vectors = np.array(flat, np.float32).reshape(-1, S.EMBEDDING_DIM)
    known = np.array(batch.column(ANSWERS.get_field_index(KNOWN)).to_pylist(), bool)
    if column.null_count != len(known) - known.sum():
        raise BrokenAnswerError("the answer has a known user without a vector, or the reverse.")
    lengths = np.linalg.norm(vectors[known].astype(np.float64), axis=1)
    if not np.all(np.abs(lengths - 1.0) <= NORM_TOLERANCE):  # a NaN fails this too
        raise BrokenAnswerError("the answer has a vector that is not finite or not of length 1.")
    return vectors


def _answer(row: Mapping[str, Any], vector: npt.NDArray[np.float32], ask: Ask, cutoff: int) -> Answer:
    if row[S.CUTOFF] != cutoff:
        raise BrokenAnswerError(f"the answer is of cutoff {row[S.CUTOFF]}, asked was {cutoff}.")
    if row[S.EMBEDDING_ID] is None or row[S.NUM_EVENTS] is None:
        raise BrokenAnswerError("the answer has a vector without identity or number of events.")
    if ask.scenario_id is not None and not is_of_scenario(row[S.EMBEDDING_ID], ask.scenario_id):
        raise BrokenAnswerError(
            f"the answer is {row[S.EMBEDDING_ID]}, which is not of scenario {ask.scenario_id}."
        )
    return Answer(
        embedding=vector,
        embedding_id=row[S.EMBEDDING_ID],
        cutoff=row[S.CUTOFF],
        as_of=row[S.AS_OF],
        num_events=row[S.NUM_EVENTS],
    )


def _check_engines(end: End, asked: Sequence[Ask]) -> None:
    for ask in asked:
        digest = end.engines.get(ask.engine)
        if digest is None or ask.engine_digest not in (None, digest):
            raise BrokenAnswerError(
                f"the answer comes from engine {digest}, asked was {ask.engine_digest} ({ask.engine!r})."
            )
