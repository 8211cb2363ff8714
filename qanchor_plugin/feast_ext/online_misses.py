"""Misses of a request, answered together by one call of the backend within its budget."""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as OverBudget

from qanchor_plugin.backend import Answer, Ask, Backend
from qanchor_plugin.errors import BackendError, QAnchorError
from qanchor_plugin.feast_ext.counters import BACKEND_FAILURES, COMPUTE_SECONDS

logger = logging.getLogger(__name__)

NUM_SLOTS = 4
"""Requests that compute at once; one more is answered as busy instead of queueing without end."""

WARM_UP_SECONDS = 300.0
"""Bound on loading an engine, once a process; it does not count towards a request's budget."""

Answers = list[list[Answer | None]]


class MissAnswerer:
    """Calls the backend in threads of its own, so that a slow or dead one costs a bounded wait.

    Args:
        backend: who answers.
        max_compute_ms: most milliseconds one request waits.
    """

    def __init__(self, backend: Backend, *, max_compute_ms: int) -> None:
        self._backend = backend
        self._seconds = max_compute_ms / 1000
        self._slots = threading.Semaphore(NUM_SLOTS)
        self._threads = ThreadPoolExecutor(NUM_SLOTS, thread_name_prefix="qanchor-compute")
        self._warm: set[str] = set()

    def answer(
        self,
        users: Sequence[bytes],
        cutoff: int,
        asked: Sequence[Ask],
        *,
        late: Callable[[Answers], object] | None = None,
    ) -> Answers:
        """Every user's answer to every query (users x asked); None for a user never seen.

        Args:
            late: called with the answers of a call that ended after this one had given up on it.

        Raises:
            BackendError: no answer came within the budget, all slots are busy, or the backend failed; the
                reason is counted.
        """
        started = time.monotonic()
        if not self._slots.acquire(blocking=False):
            raise self._failed("busy", f"{NUM_SLOTS} other requests are computing")
        future = self._threads.submit(self._call, users, cutoff, asked)
        future.add_done_callback(lambda _: self._slots.release())
        try:
            limit = self._seconds if all(ask.engine in self._warm for ask in asked) else WARM_UP_SECONDS
            return future.result(timeout=limit)
        except OverBudget as error:
            if late is not None:
                future.add_done_callback(lambda done: _pass_on(done, late))
            raise self._failed("budget", f"no answer within {limit:g} s") from error
        except (QAnchorError, OSError, MemoryError, RuntimeError, ValueError) as error:
            raise self._failed("error", f"{type(error).__name__}: {error}") from error
        finally:
            COMPUTE_SECONDS.observe(time.monotonic() - started)

    def close(self) -> None:
        """Calls in progress have ended; no further one is taken."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _call(self, users: Sequence[bytes], cutoff: int, asked: Sequence[Ask]) -> Answers:
        self._backend.prepare(asked)
        self._warm.update(ask.engine for ask in asked)
        return self._backend.embed(users, cutoff, asked)

    def _failed(self, reason: str, detail: str) -> BackendError:
        BACKEND_FAILURES.labels(reason).inc()
        logger.warning("misses are not computed (%s): %s", reason, detail)
        return BackendError(
            f"the backend did not answer ({detail}). Stored answers are still read; for the misses see: "
            "qanchor doctor, or raise 'qanchor: max_compute_ms:'."
        )


def _pass_on(done: "Future[Answers]", late: Callable[[Answers], object]) -> None:
    if not done.cancelled() and done.exception() is None:
        late(done.result())
