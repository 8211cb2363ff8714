"""Misses that are being computed: who asks the same meanwhile waits for the same answer."""

import threading
from collections.abc import Hashable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass

from qanchor_plugin.backend import Answer, Ask

JOINED_MICROS = 1_000_000
"""An answer of a cutoff at most this much older than asked is taken; it says its cutoff itself."""

Miss = tuple[bytes, Hashable]
"""A user and the identity of what is asked of them."""

Found = dict[Miss, Answer | None]


def identity_of(ask: Ask) -> Hashable:
    """Equal for two queries that have the same answers."""
    return (
        ask.profile.digest, ask.query, ask.engine, ask.engine_digest, ask.soft_prompt, ask.scenario_id
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class Computation:
    """One call of the backend and what it is about."""

    cutoff: int
    state: Hashable
    outcome: "Future[Found]"


@dataclass(frozen=True, kw_only=True)
class Claim:
    """A request's misses, divided.

    Attributes:
        own: those that this request computes.
        computation: the call that brings them.
        joined: those that other requests' calls bring, by call.
    """

    own: Sequence[Miss]
    computation: Computation
    joined: dict[Computation, list[Miss]]


class InFlight:
    """The computations of this process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running: dict[Miss, Computation] = {}

    def claim(self, misses: Iterable[Miss], *, cutoff: int, state: Hashable) -> Claim:
        """Misses of which no computation runs are this request's; it must end its computation.

        Args:
            cutoff: microseconds since 1970 UTC.
            state: the lake's now; a computation that began on another is not joined, so that whoever has
                just written an event sees it.
        """
        computation = Computation(cutoff, state, Future())
        own: list[Miss] = []
        joined: dict[Computation, list[Miss]] = {}
        with self._lock:
            for miss in misses:
                running = self._running.get(miss)
                if running is not None and _fits(running, computation):
                    joined.setdefault(running, []).append(miss)
                else:
                    own.append(miss)
                    self._running[miss] = computation
        return Claim(own=own, computation=computation, joined=joined)

    def end(self, claim: Claim) -> None:
        """From now on nobody joins the claim's computation."""
        with self._lock:
            for miss in claim.own:
                if self._running.get(miss) is claim.computation:
                    del self._running[miss]


def _fits(running: Computation, asked: Computation) -> bool:
    return running.state == asked.state and 0 <= asked.cutoff - running.cutoff <= JOINED_MICROS
