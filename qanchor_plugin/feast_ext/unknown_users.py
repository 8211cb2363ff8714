"""Users that the lake does not know, remembered for a few seconds."""

import threading
import time
from collections import OrderedDict
from collections.abc import Hashable, Iterable

from qanchor_plugin.feast_ext.counters import UNKNOWN_USERS

REMEMBERED_SECONDS = 10.0
MAX_REMEMBERED = 100_000
"""About 20 MB; the oldest go first."""


class UnknownUsers:
    """Who was unknown, by profile; forgotten as soon as the lake has moved.

    Args:
        seconds: how long one is remembered.
        max_users: how many are.
    """

    def __init__(self, *, seconds: float = REMEMBERED_SECONDS, max_users: int = MAX_REMEMBERED) -> None:
        self._seconds, self._max = seconds, max_users
        self._lock = threading.Lock()
        self._until: OrderedDict[tuple[str, bytes], float] = OrderedDict()
        self._state: Hashable = None

    def among(self, profile: str, users: Iterable[bytes], *, state: Hashable) -> set[bytes]:
        """Those of the users that are known to be unknown to a lake in this state; counted.

        Args:
            profile: digest of the profile they are asked of.
            state: :func:`qanchor_plugin.prefix_store.lake_state.lake_state` now.
        """
        now = time.monotonic()
        with self._lock:
            if state != self._state:
                self._until.clear()
                self._state = state
            found = {user for user in users if self._until.get((profile, user), now) > now}
        UNKNOWN_USERS.labels("remembered").inc(len(found))
        return found

    def remember(self, profile: str, users: Iterable[bytes], *, state: Hashable) -> None:
        """A lake in this state, or a later one, did not know these users."""
        until = time.monotonic() + self._seconds
        with self._lock:
            if state != self._state:
                return
            for user in users:
                self._until[profile, user] = until
                self._until.move_to_end((profile, user))
            while len(self._until) > self._max:
                self._until.popitem(last=False)
