"""A caller that speaks the wire and nothing more: what the worker's tests ask with."""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pyarrow.flight as flight

from qanchor_plugin.backend import wire
from qanchor_plugin.backend.protocol import Answer, Ask
from qanchor_plugin.errors import QAnchorError
from qanchor_plugin.prefix_store import PrefixEntry
from tests.shop import PROFILE, at, user

NOW = at("2018-01-01")
QUERY = "Does this household buy dairy?"


def ask(query: str = QUERY, **changed: Any) -> Ask:
    return Ask(**{"profile": PROFILE, "query": query, "engine": "demo", **changed})


def header(asks: Sequence[Ask] = (), **changed: Any) -> wire.Header:
    given = {"kind": "users", "cutoff": NOW, "deadline_ms": 60_000, "request_id": "test", **changed}
    return wire.Header(asks=tuple(asks) or (ask(),), **given)


class Caller:
    """One connection to a worker."""

    def __init__(self, address: str, *, token: str | None = None, **tls: Any) -> None:
        self.address = address
        self.client = flight.FlightClient(address, **tls)
        pairs = [(wire.AUTHORIZATION.encode(), f"Bearer {token}".encode())] if token else []
        self.options = flight.FlightCallOptions(headers=pairs, timeout=120)

    def embed(
        self, households: Sequence[int], asks: Sequence[Ask] = (), **changed: Any
    ) -> tuple[list[list[Answer | None]], wire.End]:
        """The answers to kind ``users``, checked; raises the error that the worker named."""
        sent = header(asks, **changed)
        batch = wire.users_batch([user(one) for one in households])
        return self.exchange(sent.to_bytes(), batch, sent.asks, [sent.cutoff or 0] * len(households))

    def embed_prefixes(
        self, entries: Sequence[PrefixEntry], cutoffs: Sequence[int], asks: Sequence[Ask] = (), **changed: Any
    ) -> tuple[list[list[Answer | None]], wire.End]:
        sent = header(asks, kind="prefixes", cutoff=None, **changed)
        return self.exchange(sent.to_bytes(), wire.prefix_batch(entries, cutoffs), sent.asks, cutoffs)

    def exchange(
        self, command: bytes, batch: Any, asks: Sequence[Ask], cutoffs: Sequence[int]
    ) -> tuple[list[list[Answer | None]], wire.End]:
        try:
            descriptor = flight.FlightDescriptor.for_command(command)
            writer, reader = self.client.do_exchange(descriptor, self.options)
            with writer:
                writer.begin(batch.schema)
                writer.write_batch(batch)
                writer.done_writing()
                return wire.read_answers(wire.messages(reader), asked=asks, cutoffs=cutoffs)
        except (flight.FlightError, OSError) as error:
            raise wire.error_of(error, address=self.address) from error

    def act(self, name: str, body: bytes = b"") -> Any:
        """The JSON of an action's one result."""
        import json

        try:
            (result,) = self.client.do_action(flight.Action(name, body), self.options)
        except (flight.FlightError, OSError) as error:
            raise wire.error_of(error, address=self.address) from error
        return json.loads(result.body.to_pybytes())

    def close(self) -> None:
        self.client.close()


def hold(worker: Any, seconds: float) -> threading.Event:
    """The worker's engine is slow from now on; the event is set when its first batch began."""
    began, compute = threading.Event(), worker.state.batcher._compute

    def slow(batch: Any) -> None:
        began.set()
        time.sleep(seconds)
        compute(batch)

    worker.state.batcher._compute = slow
    return began


def in_background(run: Callable[[], Any]) -> tuple[threading.Thread, list[Any]]:
    """The call's answer, or the error it raised, once the thread has ended."""
    found: list[Any] = []

    def catch() -> None:
        try:
            found.append(run())
        except QAnchorError as error:
            found.append(error)

    thread = threading.Thread(target=catch)
    thread.start()
    return thread, found


def until(true: Callable[[], bool], seconds: float = 10.0) -> None:
    """It is true now; an AssertionError when it does not become so in time."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "it did not become true in time"
        time.sleep(0.01)
