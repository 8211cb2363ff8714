"""The workers of a configuration: who they are, whose users are whose, and who is left alone."""

import threading
from collections.abc import Callable

from qanchor_plugin.backend.breaker import WorkerBreaker
from qanchor_plugin.backend.channels import Channels
from qanchor_plugin.backend.discovery import discovery_of
from qanchor_plugin.backend.hedge_budget import HedgeBudget
from qanchor_plugin.backend.pool_counters import CALLS, OPEN_BREAKERS, WORKERS
from qanchor_plugin.backend.ring import WorkerRing
from qanchor_plugin.declare.worker_settings import WorkerSettings
from qanchor_plugin.errors import (
    BrokenAnswerError,
    DeadlineError,
    OverloadedError,
    QAnchorError,
    UnauthenticatedError,
    WrongEngineError,
)

_OUTCOMES: dict[type[QAnchorError], str] = {
    OverloadedError: "overloaded",
    UnauthenticatedError: "unauthenticated",
    WrongEngineError: "wrong_engine",
    BrokenAnswerError: "broken",
    DeadlineError: "deadline",
}
ALIVE = (OverloadedError, UnauthenticatedError)
"""Errors of a worker that works: its breaker stays closed."""


class WorkerPool:
    """Shared by the threads of a process; follows discovery.

    Args:
        settings: the section ``worker`` of the configuration.

    Attributes:
        hedges: how many slow calls may go to a second worker.
        last_failure: what a worker last failed with, for messages.
    """

    def __init__(self, settings: WorkerSettings) -> None:
        self.settings = settings
        self.channels = Channels(settings)
        self._discovery = discovery_of(settings)
        self._lock = threading.Lock()
        self._ring: WorkerRing | None = None
        self._breakers: dict[str, WorkerBreaker] = {}
        self.last_failure = ""
        self.hedges = HedgeBudget()

    def ring(self, *, seconds: float) -> WorkerRing:
        """The workers as they are known now.

        Raises:
            BackendError: none is known within ``seconds``.
        """
        addresses = self._discovery.addresses(seconds=seconds)
        with self._lock:
            if self._ring is None or self._ring.addresses != addresses:
                self._ring = WorkerRing(addresses)
                self._breakers = {one: self._breakers.get(one) or self._new_breaker() for one in addresses}
                self.channels.keep_only(addresses)
                WORKERS.set(len(addresses))
            return self._ring

    def admits(self, address: str) -> bool:
        """Whether that worker is to be asked now."""
        breaker = self._breakers.get(address)
        return breaker is not None and breaker.admits()

    def answered(self, address: str) -> None:
        """The worker gave a whole and right answer."""
        CALLS.labels("ok").inc()
        self._tell(address, WorkerBreaker.succeeded)

    def failed(self, address: str, error: QAnchorError, *, since: float) -> None:
        """The worker gave this error, or none to a call that began at ``since`` (``time.monotonic()``)."""
        found = [name for kind, name in _OUTCOMES.items() if isinstance(error, kind)]
        CALLS.labels(found[0] if found else "failed").inc()
        self.last_failure = str(error)
        if isinstance(error, ALIVE):
            self._tell(address, WorkerBreaker.released)
        elif isinstance(error, DeadlineError):
            self._tell(address, lambda breaker: breaker.late(since))
        else:
            self._tell(address, WorkerBreaker.failed)

    def given_up(self, address: str, *, late_since: float | None) -> None:
        """Another worker answered first; ``late_since``: this one had its time since then."""
        CALLS.labels("cancelled").inc()
        if late_since is None:
            self._tell(address, WorkerBreaker.released)
        else:
            self._tell(address, lambda breaker: breaker.late(late_since))

    def close(self) -> None:
        """Connections are closed."""
        self.channels.close()

    def _tell(self, address: str, outcome: Callable[[WorkerBreaker], None]) -> None:
        breaker = self._breakers.get(address)
        if breaker is not None:
            outcome(breaker)
            OPEN_BREAKERS.set(sum(one.is_open for one in list(self._breakers.values())))

    def _new_breaker(self) -> WorkerBreaker:
        return WorkerBreaker(failures=self.settings.breaker_failures, seconds=self.settings.breaker_seconds)
