"""Misses at a bounded rate: after a promotion every stored row is foreign, and the backend must not drown."""

import logging
import threading
import time
from collections.abc import Callable, Sequence

from qanchor_plugin.backend import Ask
from qanchor_plugin.errors import BackendError
from qanchor_plugin.feast_ext.counters import BACKEND_FAILURES
from qanchor_plugin.feast_ext.online_misses import Answers, MissAnswerer

logger = logging.getLogger(__name__)


class RateLimitedMisses:
    """A :class:`MissAnswerer` that is asked for so many users a second, and no more.

    A request is passed on while the allowance is not used up, whatever its size (a request larger than a
    second's allowance makes the following ones wait longer); else its misses are not computed: stale
    vectors are served as stale, others as missing.

    Args:
        misses: who answers.
        per_second: users a second; 0 is without limit.
        clock: seconds, rising.
    """

    def __init__(
        self, misses: MissAnswerer, *, per_second: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._misses, self._per_second, self._clock = misses, per_second, clock
        self._left, self._at = per_second, clock()
        self._lock = threading.Lock()

    def answer(
        self,
        users: Sequence[bytes],
        cutoff: int,
        asked: Sequence[Ask],
        *,
        late: Callable[[Answers], object] | None = None,
    ) -> Answers:
        """As :meth:`MissAnswerer.answer`.

        Raises:
            BackendError: the allowance is used up (counted as ``rate``), or as there.
        """
        if self._per_second and not self._taken(len(users)):
            BACKEND_FAILURES.labels("rate").inc()
            logger.info("misses of %d users are not computed: over %g a second", len(users), self._per_second)
            raise BackendError(
                f"more than {self._per_second:g} users a second missed (qanchor: max_misses_per_second). "
                "Stored answers are still read; run feast materialize, or raise the setting."
            )
        return self._misses.answer(users, cutoff, asked, late=late)

    def _taken(self, num: int) -> bool:
        with self._lock:
            now = self._clock()
            self._left = min(self._per_second, self._left + (now - self._at) * self._per_second)
            self._at = now
            if self._left <= 0:
                return False
            self._left -= num
            return True
