"""Misses of a request, answered together by one call of the backend within its budget."""

import logging
import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures import TimeoutError as OverBudget

from qanchor_plugin.backend import Answer, Ask, Backend
from qanchor_plugin.errors import BackendError, DeadlineError, OverloadedError, QAnchorError
from qanchor_plugin.feast_ext.counters import BACKEND_FAILURES, COALESCED, COMPUTE_SECONDS, UNKNOWN_USERS
from qanchor_plugin.feast_ext.in_flight import Claim, Found, InFlight, Miss, identity_of
from qanchor_plugin.feast_ext.unknown_users import UnknownUsers

logger = logging.getLogger(__name__)

Answers = list[list[Answer | None]]


class MissAnswerer:
    """Calls the backend in threads of its own, so that a slow or dead one costs a bounded wait.

    A miss that another request of this process is having computed waits for that answer; a user whom the
    lake did not know a moment ago is not asked again until it has moved.

    Args:
        backend: who answers.
        max_compute_ms: most milliseconds one request waits.
        lake_state: changes with every commit of behaviour; None when nothing is known of that, and then
            nobody is remembered as unknown.
    """

    def __init__(
        self,
        backend: Backend,
        *,
        max_compute_ms: int,
        lake_state: Callable[[], Hashable] | None = None,
    ) -> None:
        self._backend = backend
        self._seconds = max_compute_ms / 1000
        self._lake_state = lake_state
        self._slots = threading.Semaphore(backend.num_slots)
        self._threads = ThreadPoolExecutor(backend.num_slots, thread_name_prefix="qanchor-compute")
        self._warm: set[str] = set()
        self._in_flight = InFlight()
        self._unknown = UnknownUsers()

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
        try:
            return self._answered(users, cutoff, asked, started + self._limit(asked), late)
        finally:
            COMPUTE_SECONDS.observe(time.monotonic() - started)

    def close(self) -> None:
        """Calls in progress have ended; no further one is taken."""
        self._threads.shutdown(wait=True, cancel_futures=True)
        self._backend.close()

    def _limit(self, asked: Sequence[Ask]) -> float:
        is_warm = all(ask.engine in self._warm for ask in asked)
        return self._seconds if is_warm else max(self._seconds, self._backend.warm_up_seconds)

    def _answered(
        self,
        users: Sequence[bytes],
        cutoff: int,
        asked: Sequence[Ask],
        deadline: float,
        late: Callable[[Answers], object] | None,
    ) -> Answers:
        state = None if self._lake_state is None else self._lake_state()
        misses = self._misses(users, asked, state)
        wanted = [miss for row in misses for miss in row if miss is not None]
        claim = self._in_flight.claim(wanted, cutoff=cutoff, state=state)
        COALESCED.inc(sum(map(len, claim.joined.values())))
        if claim.own:
            self._begin(claim, users, cutoff, asked, deadline)
        calls = [*claim.joined, *([claim.computation] if claim.own else [])]
        found: Found = {}
        for call in calls:
            found |= self._outcome(call.outcome, deadline, lambda late_found: _tell(late, late_found, misses))
        return [[None if miss is None else found[miss] for miss in row] for row in misses]

    def _misses(
        self, users: Sequence[bytes], asked: Sequence[Ask], state: Hashable
    ) -> list[list[Miss | None]]:
        """The misses, users x asked; None of users that are known to be unknown."""
        identities = [identity_of(ask) for ask in asked]
        unknown: dict[str, set[bytes]] = {ask.profile.digest: set() for ask in asked}
        if state is not None:
            unknown = {one: self._unknown.among(one, users, state=state) for one in unknown}
        return [
            [
                None if user in unknown[ask.profile.digest] else (user, identity)
                for ask, identity in zip(asked, identities, strict=True)
            ]
            for user in users
        ]

    def _begin(
        self, claim: Claim, users: Sequence[bytes], cutoff: int, asked: Sequence[Ask], deadline: float
    ) -> None:
        """The claim's computation will have an outcome: one call, of its users x its queries."""
        outcome = claim.computation.outcome
        own_users, own_asks = {user for user, _ in claim.own}, {identity for _, identity in claim.own}
        wanted = [user for user in users if user in own_users]
        queries = [ask for ask in asked if identity_of(ask) in own_asks]

        def call() -> None:
            try:
                found = self._call(wanted, cutoff, queries, deadline, claim.computation.state)
            except BaseException as error:  # noqa: BLE001  # whoever waits for the outcome raises it
                self._in_flight.end(claim)
                outcome.set_exception(error)
            else:
                self._in_flight.end(claim)
                outcome.set_result(found)
            finally:
                self._slots.release()

        if not self._slots.acquire(blocking=False):
            self._in_flight.end(claim)
            outcome.set_exception(OverloadedError(f"{self._backend.num_slots} other requests are computing"))
        else:
            self._threads.submit(call)

    def _call(
        self,
        users: Sequence[bytes],
        cutoff: int,
        asked: Sequence[Ask],
        deadline: float,
        state: Hashable,
    ) -> Found:
        self._backend.prepare(asked)
        self._warm.update(ask.engine for ask in asked)
        rows = self._backend.embed(users, cutoff, asked, seconds=max(0.001, deadline - time.monotonic()))
        identities = [identity_of(ask) for ask in asked]
        for column, ask in enumerate(asked):
            unseen = [user for user, row in zip(users, rows, strict=True) if row[column] is None]
            UNKNOWN_USERS.labels("found").inc(len(unseen))
            if state is not None:
                self._unknown.remember(ask.profile.digest, unseen, state=state)
        return {
            (user, identity): answer
            for user, row in zip(users, rows, strict=True)
            for identity, answer in zip(identities, row, strict=True)
        }

    def _outcome(self, outcome: "Future[Found]", deadline: float, late: Callable[[Found], object]) -> Found:
        try:
            return outcome.result(timeout=max(0.0, deadline - time.monotonic()))
        except (OverBudget, DeadlineError) as error:
            outcome.add_done_callback(lambda done: _pass_on(done, late))
            raise self._failed("budget", f"no answer in time: {error}") from error
        except OverloadedError as error:
            raise self._failed("busy", str(error)) from error
        except (QAnchorError, OSError, MemoryError, RuntimeError, ValueError) as error:
            raise self._failed("error", f"{type(error).__name__}: {error}") from error

    def _failed(self, reason: str, detail: str) -> BackendError:
        BACKEND_FAILURES.labels(reason).inc()
        logger.warning("misses are not computed (%s): %s", reason, detail)
        return BackendError(
            f"the backend did not answer ({detail}). Stored answers are still read; for the misses see: "
            "qanchor doctor, or raise 'qanchor: max_compute_ms:'."
        )


def _tell(
    late: Callable[[Answers], object] | None, found: Found, misses: Sequence[Sequence[Miss | None]]
) -> None:
    if late is not None:
        late([[None if miss is None else found.get(miss) for miss in row] for row in misses])


def _pass_on(done: "Future[Found]", late: Callable[[Found], object]) -> None:
    if not done.cancelled() and done.exception() is None:
        late(done.result())
