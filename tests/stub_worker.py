"""A worker that speaks the real wire and computes nothing: known vectors, and every way to fail.

Run as ``python -m tests.stub_worker --mode MODE``; prints its port. A user's vector is :func:`known_vector`,
so a test can tell a wrong answer from a right one.
"""

import argparse
import hashlib
import os
import threading
import time
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.flight as fl

from qanchor_plugin.backend import Answer, Ask, wire
from qanchor_plugin.errors import OverloadedError
from qanchor_plugin.identity import embedding_id, scenario_identity

ENGINE_DIGEST = "e" * 32
UNKNOWN = b"nobody"
Messages = list[tuple[pa.RecordBatch | None, bytes | None]]


def known_vector(user: bytes, query: str) -> np.ndarray:
    """The (128,) float32 unit vector that belongs to this user and query."""
    seed = int.from_bytes(hashlib.blake2b(user + b"|" + query.encode(), digest_size=8).digest(), "little")
    drawn = np.random.default_rng(seed).normal(size=128)
    return (drawn / np.linalg.norm(drawn)).astype(np.float32)


def known_answer(user: bytes, ask: Ask, cutoff: int) -> Answer | None:
    """The right answer; None for the unknown user."""
    if user == UNKNOWN:
        return None
    scenario = ask.scenario_id or scenario_identity(
        profile_digest=ask.profile.digest,
        engine_digest=ENGINE_DIGEST,
        query=ask.query,
        soft_prompt_digest=None,
    )
    return Answer(
        embedding=known_vector(user, ask.query),
        embedding_id=embedding_id(scenario=scenario, prefix="p" * 32, suffix_day=None),
        cutoff=cutoff,
        as_of=None,
        num_events=1,
    )


class StubWorker(fl.FlightServerBase):
    """Answers every request in one mode, or in the one that its query names."""

    def __init__(self, location: str, *, mode: str, seconds: float, slots: int, **tls: object) -> None:
        super().__init__(location, **tls)
        self._mode, self._seconds = mode, seconds
        self._slots = threading.Semaphore(slots)

    def do_exchange(
        self, context: object, descriptor: fl.FlightDescriptor, reader: object, writer: object
    ) -> None:
        """One request."""
        header = wire.Header.from_bytes(descriptor.command)
        mode = header.asks[0].query if self._mode == "obeys" else self._mode
        users, cutoffs = self._rows(header, reader)
        if mode == "die":
            os._exit(9)
        if mode == "overloaded" or not self._slots.acquire(blocking=False):
            raise wire.flight_error(OverloadedError("the queue is full.", retry_after_ms=50))
        try:
            time.sleep(self._seconds)
            messages = self._spoilt(mode, header, users, cutoffs)
        finally:
            self._slots.release()
        if not messages:
            return
        writer.begin(wire.ANSWERS)
        for batch, metadata in messages:
            if batch is not None and metadata is None:
                writer.write_batch(batch)
            else:
                writer.write_metadata(metadata)

    def _rows(self, header: wire.Header, reader: object) -> tuple[list[bytes], list[int]]:
        users, cutoffs = [], []
        for chunk in reader:
            if header.kind == "users":
                found = wire.read_users(chunk.data)
                users += found
                cutoffs += [header.cutoff] * len(found)
            else:
                rows = wire.read_prefixes(chunk.data)
                users += [row.entry.user for row in rows]
                cutoffs += [row.cutoff for row in rows]
        return users, cutoffs

    def _spoilt(self, mode: str, header: wire.Header, users: list[bytes], cutoffs: list[int]) -> Messages:
        """The right answer, spoilt as the mode says."""
        rows = [
            (row, column, known_answer(user, ask, cutoffs[row]))
            for row, user in enumerate(users)
            for column, ask in enumerate(header.asks)
        ]
        engines = {ask.engine: ENGINE_DIGEST for ask in header.asks}
        spoil: Callable[[list, dict], tuple[list, dict, int]] = SPOILT.get(mode, _nothing)
        rows, engines, count = spoil(rows, engines)
        end = wire.End(rows=count, engines=engines, request_id=header.request_id)
        messages: Messages = [(batch, None) for batch in wire.answer_batches(rows)]
        return messages if mode == "torn" else [*messages, (None, end.to_bytes())]


def _nothing(rows: list, engines: dict) -> tuple[list, dict, int]:
    return rows, engines, len(rows)


def _changed(**changes: object) -> Callable[[list, dict], tuple[list, dict, int]]:
    def spoil(rows: list, engines: dict) -> tuple[list, dict, int]:
        made = []
        for row, column, answer in rows:
            fields = {name: getattr(answer, name) for name in answer.__dataclass_fields__} | changes
            made.append((row, column, Answer(**fields)))
        return made, engines, len(made)

    return spoil


SPOILT: dict[str, Callable[[list, dict], tuple[list, dict, int]]] = {
    "wrong_engine": lambda rows, engines: (rows, dict.fromkeys(engines, "f" * 32), len(rows)),
    "wrong_scenario": _changed(embedding_id="0" * 16 + "-" + "1" * 16),
    "wrong_cutoff": _changed(cutoff=1),
    "nan": _changed(embedding=np.full(128, np.nan, np.float32)),
    "not_normed": _changed(embedding=np.ones(128, np.float32)),
    "one_row_less": lambda rows, engines: (rows[:-1], engines, len(rows) - 1),
    "wrong_count": lambda rows, engines: (rows, engines, len(rows) + 1),
    "doubled": lambda rows, engines: ([*rows, rows[0]], engines, len(rows) + 1),
}
"""Answers that must never reach a caller."""


def main() -> None:
    """Serves until it is killed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mode", default="ok", help="how it answers; 'obeys': as the query says")
    parser.add_argument("--seconds", type=float, default=0.0, help="how long each answer takes")
    parser.add_argument("--slots", type=int, default=1000, help="requests at once; more are refused")
    parser.add_argument("--port", type=int, default=0)
    given = parser.parse_args()
    server = StubWorker(
        f"grpc+tcp://127.0.0.1:{given.port}", mode=given.mode, seconds=given.seconds, slots=given.slots
    )
    print(server.port, flush=True)
    server.serve()


if __name__ == "__main__":
    main()
