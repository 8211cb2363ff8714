"""How many slow calls may go to a second worker: few, or an overloaded pool would get twice the load."""

import threading

SHARE = 0.1
"""Second calls for each call, in the long run."""

BURST = 10.0
"""Second calls that may come together, as when a worker has just hung."""


class HedgeBudget:
    """Shared by the threads of a process; every call adds a little, every second call takes one."""

    def __init__(self, *, share: float = SHARE, burst: float = BURST) -> None:
        self._share, self._burst, self._left = share, burst, burst
        self._lock = threading.Lock()

    def called(self) -> None:
        """One ordinary call was made."""
        with self._lock:
            self._left = min(self._burst, self._left + self._share)

    def takes_one(self) -> bool:
        """Whether a slow call may be asked of a second worker; it then counts as done."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True
