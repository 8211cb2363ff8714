"""A request in shares, each asked of one worker and, when that is slow or fails, of the next.

The calling thread directs; the calls themselves run in threads, so that nobody waits past the deadline
whatever a worker does.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from qanchor_plugin.backend.patience import NobodyAskedError
from qanchor_plugin.backend.pool import WorkerPool
from qanchor_plugin.backend.pool_counters import HEDGES
from qanchor_plugin.errors import DeadlineError, InputDataError, OverloadedError, QAnchorError

T = TypeVar("T")


class Cancellation:
    """Stops a call from another thread, before it has begun or while it runs."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._stop: Callable[[], object] | None = None
        self.is_cancelled = False

    def stops_by(self, stop: Callable[[], object]) -> None:
        """From now on :meth:`cancel` calls ``stop``; at once when it was called already."""
        with self._lock:
            self._stop = stop
            cancelled = self.is_cancelled
        if cancelled:
            stop()

    def cancel(self) -> None:
        """The call ends as soon as it can."""
        with self._lock:
            self.is_cancelled = True
            stop = self._stop
        if stop is not None:
            stop()


Call = Callable[[str, float, Cancellation], T]
"""(address, deadline, cancellation) to the answer; raises QAnchorError."""


@dataclass(eq=False)
class _Attempt:
    """One call of one worker."""

    address: str
    cancellation: Cancellation
    started_at: float = field(default_factory=time.monotonic)
    is_overtaken: bool = False


@dataclass(eq=False)
class Share(Generic[T]):
    """Rows that go to one worker together.

    Attributes:
        rows: their places in the request.
        order: workers in turn.
        call: asks one worker for these rows.
        answer: what came; None until then.
        failure: why this round brought nothing.
    """

    rows: Sequence[int]
    order: Sequence[str]
    call: Call[T]
    answer: T | None = None
    failure: QAnchorError | None = None
    running: dict["Future[T]", _Attempt] = field(default_factory=dict)
    hedge_at: float = float("inf")
    _next: Iterator[str] = field(default_factory=lambda: iter(()))

    @property
    def is_settled(self) -> bool:
        """Whether this round is over for it."""
        return self.answer is not None or self.failure is not None


@dataclass(frozen=True, kw_only=True)
class Round:
    """One pass over the workers for every share.

    Attributes:
        pool: whom to ask.
        threads: where calls run.
        deadline: by ``time.monotonic()``.
        hedge_seconds: when a slow worker's share is given to the next as well; infinite for never.
    """

    pool: WorkerPool
    threads: Executor
    deadline: float
    hedge_seconds: float

    def ask(self, shares: Sequence[Share[T]]) -> None:
        """Every share has its answer.

        Raises:
            BackendError: the workers in a share's order were asked and none answered; others have theirs.
            DeadlineError: the deadline came first; running calls are cancelled.
            InputDataError: a worker says that the request itself cannot be answered.
        """
        for share in shares:
            share.failure = None
            share._next = iter(share.order[: self.pool.settings.attempts])
            self._launch(share)
        try:
            while unsettled := [share for share in shares if not share.is_settled]:
                self._step(unsettled)
        finally:
            for share in shares:
                self._give_up_others(share, slow=False)
        failures = [share.failure for share in shares if share.failure is not None]
        if failures:
            raise min(failures, key=lambda error: not isinstance(error, OverloadedError))

    def _step(self, shares: Sequence[Share[T]]) -> None:
        """Waits for the next thing to happen and lets it have its consequences."""
        now = time.monotonic()
        if now >= self.deadline:
            self._out_of_time(shares)
        for share in shares:
            if now >= share.hedge_at:
                self._hedge(share)
        until = min([self.deadline, *(share.hedge_at for share in shares)])
        running = [future for share in shares for future in share.running]
        done, _ = wait(running, timeout=max(0.0, until - now), return_when=FIRST_COMPLETED)
        for share in shares:
            for future in done & share.running.keys():
                if not share.is_settled:
                    self._collect(share, future)

    def _collect(self, share: Share[T], future: "Future[T]") -> None:
        attempt = share.running.pop(future)
        try:
            answer = future.result()
        except InputDataError:
            raise
        except QAnchorError as error:
            self.pool.failed(attempt.address, error, since=attempt.started_at)
            self._next_after(share, error)
            return
        self.pool.answered(attempt.address)
        share.answer = answer
        self._give_up_others(share, slow=True)

    def _next_after(self, share: Share[T], error: QAnchorError) -> None:
        if self._launch(share):
            HEDGES.labels("failed").inc()
        elif not share.running:
            share.failure = error

    def _hedge(self, share: Share[T]) -> None:
        overtaken = list(share.running.values())
        share.hedge_at = float("inf")
        if self.pool.hedges.takes_one() and self._launch(share):
            HEDGES.labels("slow").inc()
            for attempt in overtaken:
                attempt.is_overtaken = True

    def _launch(self, share: Share[T]) -> bool:
        """The next worker that may be asked is being asked; False when there is none."""
        for address in share._next:
            if self.pool.admits(address):
                attempt = _Attempt(address, Cancellation())
                future = self.threads.submit(share.call, address, self.deadline, attempt.cancellation)
                share.running[future] = attempt
                share.hedge_at = time.monotonic() + self.hedge_seconds
                self.pool.hedges.called()
                return True
        if not share.running:
            share.failure = NobodyAskedError(
                f"none of the workers {list(share.order)} is asked now: each failed several times in a row. "
                f"They are tried again by themselves. The last failure was: {self.pool.last_failure}"
            )
        return False

    def _give_up_others(self, share: Share[T], *, slow: bool) -> None:
        for attempt in share.running.values():
            attempt.cancellation.cancel()
            since = attempt.started_at if slow and attempt.is_overtaken else None
            self.pool.given_up(attempt.address, late_since=since)
        share.running.clear()

    def _out_of_time(self, shares: Sequence[Share[T]]) -> None:
        """Workers that held a share to the end count as failed.

        Raises:
            DeadlineError: always.
        """
        error = DeadlineError("no worker answered in time. Raise the budget, or add workers.")
        for share in shares:
            for attempt in share.running.values():
                attempt.cancellation.cancel()
                self.pool.failed(attempt.address, error, since=attempt.started_at)
            share.running.clear()
        raise error
