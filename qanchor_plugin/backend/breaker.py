"""Which workers are asked: one that failed several times in a row is left alone for a while."""

import threading
import time

from qanchor_plugin.extras import require

LATE_SECONDS = 0.1
"""A call that was given less time than this says nothing about the worker when it had no answer."""

PROBE_SECONDS = 30.0
"""A trial call that never told its outcome does not block the next one for longer."""


class WorkerBreaker:
    """The circuit breaker of one worker.

    Calls run outside of it (pybreaker would let one call in at a time) and tell it how they ended.

    Args:
        failures: failures in a row that open it.
        seconds: how long it stays open; then one call at a time tries the worker.
    """

    def __init__(self, *, failures: int, seconds: float) -> None:
        pybreaker = require("pybreaker", purpose="Asking a pool of workers")
        self._broken = pybreaker.CircuitBreakerError
        self._circuit = pybreaker.CircuitBreaker(fail_max=failures, reset_timeout=seconds)
        self._seconds = seconds
        self._lock = threading.Lock()
        self._opened_at = self._probe_at = self._succeeded_at = -float("inf")

    @property
    def is_open(self) -> bool:
        """Whether the worker is out, whether or not a trial is due."""
        return bool(self._circuit.current_state != "closed")

    def admits(self) -> bool:
        """Whether the worker may be asked now; of an open breaker, yes to one trial when it is due."""
        now = time.monotonic()
        with self._lock:
            if not self.is_open:
                return True
            if now - self._opened_at < self._seconds or now - self._probe_at < PROBE_SECONDS:
                return False
            self._probe_at = now
            return True

    def succeeded(self) -> None:
        """The worker answered: the breaker is closed."""
        with self._lock:
            self._circuit.close()
            self._probe_at = -float("inf")
            self._succeeded_at = time.monotonic()

    def failed(self) -> None:
        """The worker did not answer, or wrongly."""
        with self._lock:
            self._probe_at = -float("inf")
            if self.is_open:
                self._circuit.open()
            else:
                self._count()
            if self.is_open:
                self._opened_at = time.monotonic()

    def late(self, since: float) -> None:
        """A call that began at ``since`` had no answer in time: a failure, unless others had theirs
        meanwhile, for then the worker is busy and not stuck."""
        if self._succeeded_at > since or time.monotonic() - since < LATE_SECONDS:
            self.released()
        else:
            self.failed()

    def released(self) -> None:
        """A call was given up without an outcome: a due trial is another call's."""
        with self._lock:
            self._probe_at = -float("inf")

    def _count(self) -> None:
        try:
            self._circuit.call(_fail)
        except (_CallFailedError, self._broken):
            return


class _CallFailedError(Exception):
    """What the circuit is shown of a failure that has happened already."""


def _fail() -> None:
    raise _CallFailedError
