"""The backend over Arrow Flight: a pool of workers computes, this process needs no engine."""

import time
import uuid
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from typing import Any

import pyarrow as pa
import pyarrow.flight as fl

from qanchor_plugin.backend import wire
from qanchor_plugin.backend.patience import Patience
from qanchor_plugin.backend.pool import WorkerPool
from qanchor_plugin.backend.protocol import Answer, Ask
from qanchor_plugin.backend.ring import WorkerRing
from qanchor_plugin.backend.shares import Call, Cancellation, Round, Share
from qanchor_plugin.declare.worker_settings import WorkerSettings
from qanchor_plugin.errors import BrokenAnswerError, DeadlineError
from qanchor_plugin.identity import is_of_scenario, scenario_identity
from qanchor_plugin.prefix_store import PrefixEntry

NUM_THREADS = 64
MAX_SHARE_USERS = 1024
MAX_SHARE_BYTES = 32 * 1024 * 1024
"""Soft tokens of one call: far below Flight's 2 GB and any server's limit."""

BATCH_HEDGE_SHARE = 0.25
"""A batch call is given to a second worker after this share of its time: work is long there, not stuck."""

Answers = list[list[Answer | None]]


class FlightBackend:
    """Asks a pool of workers; shared by the threads of a process.

    No wrong vector: every answer is checked for its rows, shape, length, engine, scenario and cutoff, and a
    stream that breaks off is an error. No call outlasts its time, whatever a worker does.

    Args:
        settings: the section ``worker`` of the feature repo's.

    Attributes:
        warm_up_seconds: no engine is loaded here.
        num_slots: requests that may wait for workers at once.
    """

    warm_up_seconds = 0.0
    num_slots = 32

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.pool = WorkerPool(settings)
        self._threads = ThreadPoolExecutor(NUM_THREADS, thread_name_prefix="qanchor-flight")

    def prepare(self, asked: Sequence[Ask]) -> None:
        """Nothing to do: workers load their engines before they say that they are ready."""

    def embed(
        self, users: Sequence[bytes], cutoff: int, asked: Sequence[Ask], *, seconds: float | None = None
    ) -> Answers:
        """Every user's answer to every query (users x asked); None for a user never seen.

        Each user goes to their own worker; all workers are asked at once.

        Args:
            seconds: most that is waited; None is ``timeout_ms``.

        Raises:
            BackendError: no worker gave a right answer in time; DeadlineError, OverloadedError and others
                say which.
            InputDataError: the request cannot be answered by any worker.
        """
        request = _Request(self.pool, asked, priority="online", cutoff=cutoff)
        limit = self.settings.timeout_ms / 1000 if seconds is None else seconds
        patience = Patience.online(seconds=limit, hedge_seconds=self._hedge_seconds())
        ring = self.pool.ring(seconds=limit)
        shares = []
        for rows in _by_home(users, ring):
            call = request.of_users([users[row] for row in rows])
            shares.append(Share(rows=rows, order=ring.order(users[rows[0]]), call=call))
        return self._answers(len(users), shares, patience)

    def embed_prefixes(
        self, entries: Sequence[PrefixEntry], cutoffs: Sequence[int], asked: Sequence[Ask]
    ) -> list[list[Answer]]:
        """Every prefix's answer to every query at its cutoff (prefixes x asked), at batch priority.

        The soft tokens travel, so the workers read no lake.

        Raises:
            BackendError, InputDataError: as :meth:`embed`.
        """
        request = _Request(self.pool, asked, priority="batch", cutoff=None)
        seconds = self.settings.timeout_ms / 1000
        patience = Patience.batch(seconds=seconds, hedge_seconds=seconds * BATCH_HEDGE_SHARE)
        ring = self.pool.ring(seconds=seconds)
        shares = []
        for rows in _by_bytes(entries):
            call = request.of_prefixes([entries[row] for row in rows], [cutoffs[row] for row in rows])
            shares.append(Share(rows=rows, order=ring.order(entries[rows[0]].user), call=call))
        found = self._answers(len(entries), shares, patience)
        return [[_known(answer) for answer in row] for row in found]

    def close(self) -> None:
        """Connections are closed; no further call is taken."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.pool.close()

    def _answers(self, num_rows: int, shares: list[Share[Answers]], patience: Patience) -> Answers:
        one_round = Round(
            pool=self.pool,
            threads=self._threads,
            deadline=patience.deadline,
            hedge_seconds=patience.hedge_seconds,
        )
        patience.repeat(lambda: one_round.ask([share for share in shares if share.answer is None]))
        answers: Answers = [[] for _ in range(num_rows)]
        for share in shares:
            for row, found in zip(share.rows, share.answer or (), strict=True):
                answers[row] = found
        return answers

    def _hedge_seconds(self) -> float:
        return self.settings.hedge_ms / 1000 if self.settings.hedge_ms else float("inf")


class _Request:
    """What all calls of one request share: the queries, the priority, an id."""

    def __init__(self, pool: WorkerPool, asked: Sequence[Ask], *, priority: str, cutoff: int | None) -> None:
        self._pool, self._asked, self._priority, self._cutoff = pool, tuple(asked), priority, cutoff
        self._id = uuid.uuid4().hex

    def of_users(self, users: Sequence[bytes]) -> Call[Answers]:
        """Asks one worker about these users."""
        assert self._cutoff is not None
        cutoffs = [self._cutoff] * len(users)
        return self._call("users", lambda: wire.users_batch(users), cutoffs)

    def of_prefixes(self, entries: Sequence[PrefixEntry], cutoffs: Sequence[int]) -> Call[Answers]:
        """Asks one worker about these prefixes."""
        return self._call("prefixes", lambda: wire.prefix_batch(entries, cutoffs), cutoffs)

    def _call(self, kind: str, rows: Callable[[], pa.RecordBatch], cutoffs: Sequence[int]) -> Call[Answers]:
        def call(address: str, deadline: float, cancellation: Cancellation) -> Answers:
            seconds = deadline - time.monotonic()
            if seconds <= 0 or cancellation.is_cancelled:
                raise DeadlineError(f"worker {address} was not asked in time.")
            header = wire.Header(
                kind=kind,
                asks=self._asked,
                cutoff=self._cutoff,
                priority=self._priority,
                deadline_ms=max(1, round(seconds * 1000)),
                request_id=self._id,
            )
            try:
                command = header.to_bytes()
                with closing(self._exchange(address, command, rows(), seconds, cancellation)) as messages:
                    answers, end = wire.read_answers(messages, asked=self._asked, cutoffs=cutoffs)
            except BrokenAnswerError as error:
                raise BrokenAnswerError(f"worker {address}: {error}") from error
            except (fl.FlightError, pa.ArrowException, OSError) as error:
                raise wire.error_of(error, address=address) from error
            _check_unregistered(answers, self._asked, end.engines, address)
            return answers

        return call

    def _exchange(
        self, address: str, command: bytes, rows: pa.RecordBatch, seconds: float, cancellation: Cancellation
    ) -> Generator[tuple[pa.RecordBatch | None, bytes | None]]:
        """The worker's messages; the call is over when they are, or cancelled when they are not taken."""
        client = self._pool.channels.client(address)
        options = fl.FlightCallOptions(timeout=seconds, headers=self._pool.channels.headers())
        writer, reader = client.do_exchange(fl.FlightDescriptor.for_command(command), options)
        cancellation.stops_by(reader.cancel)
        is_whole = False
        try:
            writer.begin(rows.schema)
            writer.write_batch(rows)
            writer.done_writing()
            yield from wire.messages(reader)
            is_whole = True
        finally:
            if not is_whole:
                reader.cancel()
            with suppress(fl.FlightError, pa.ArrowException, OSError):  # what failed has been said already
                writer.close()


def _check_unregistered(answers: Answers, asked: Sequence[Ask], engines: Any, address: str) -> None:
    """Nothing when answers to queries without a registered identity are of the engine that is said.

    Raises:
        BrokenAnswerError: one is not.
    """
    for column, ask in enumerate(asked):
        if ask.scenario_id is not None or ask.soft_prompt is not None:
            continue
        expected = scenario_identity(
            profile_digest=ask.profile.digest,
            engine_digest=engines[ask.engine],
            query=ask.query,
            soft_prompt_digest=None,
        )
        for row in answers:
            found = row[column]
            if found is not None and not is_of_scenario(found.embedding_id, expected):
                raise BrokenAnswerError(f"worker {address}: an answer is not of the query {ask.query!r}.")


def _by_home(users: Sequence[bytes], ring: WorkerRing) -> Iterator[list[int]]:
    """Rows of users of one worker, at most ``MAX_SHARE_USERS`` together."""
    homes: dict[str, list[int]] = {}
    for row, user in enumerate(users):
        homes.setdefault(ring.home(user), []).append(row)
    for rows in homes.values():
        for start in range(0, len(rows), MAX_SHARE_USERS):
            yield rows[start : start + MAX_SHARE_USERS]


def _by_bytes(entries: Sequence[PrefixEntry]) -> Iterator[list[int]]:
    """Rows in order, at most ``MAX_SHARE_BYTES`` of soft tokens together."""
    rows: list[int] = []
    size = 0
    for row, entry in enumerate(entries):
        if rows and size + entry.size_bytes > MAX_SHARE_BYTES:
            yield rows
            rows, size = [], 0
        rows.append(row)
        size += entry.size_bytes
    if rows:
        yield rows


def _known(answer: Answer | None) -> Answer:
    if answer is None:
        raise BrokenAnswerError("a worker answered a prefix as an unknown user.")
    return answer
