"""The memory tier: prefixes of the users asked for lately, bounded in bytes."""

import threading
from collections import OrderedDict
from collections.abc import Iterable

from qanchor_plugin.prefix_store.entry import PrefixEntry


class MemoryTier:
    """Least recently used entries leave first; every hit is checked against its content digest.

    Args:
        max_bytes: bound on the arrays held (keys and overhead come on top). An entry larger than
            this is not kept.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.held_bytes = 0
        self.num_corrupt = 0
        self._lock = threading.Lock()
        self._entries: OrderedDict[tuple[bytes, str], PrefixEntry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, user: bytes, prefix_id: str) -> PrefixEntry | None:
        """The user's prefix of that identity, or None; a corrupt one is counted and dropped."""
        key = (user, prefix_id)
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                return None
            self._entries.move_to_end(key)
        if entry.is_sound(user=user, prefix_id=prefix_id):
            return entry
        with self._lock:
            self.num_corrupt += 1
            self._drop(key)
        return None

    def put(self, entry: PrefixEntry) -> None:
        """The entry is held, and the oldest ones have left as far as the bound demands."""
        if entry.size_bytes > self.max_bytes:
            return
        key = (entry.user, entry.prefix_id)
        with self._lock:
            self._drop(key)
            self._entries[key] = entry
            self.held_bytes += entry.size_bytes
            while self.held_bytes > self.max_bytes:
                self._drop(next(iter(self._entries)))

    def forget(self, users: Iterable[bytes]) -> int:
        """No entry of these users is held; how many were."""
        gone = set(users)
        with self._lock:
            keys = [key for key in self._entries if key[0] in gone]
            for key in keys:
                self._drop(key)
        return len(keys)

    def _drop(self, key: tuple[bytes, str]) -> None:
        gone = self._entries.pop(key, None)
        if gone is not None:
            self.held_bytes -= gone.size_bytes
