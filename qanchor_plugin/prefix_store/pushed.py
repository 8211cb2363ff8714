"""``pushed_events`` as a process last saw them: who has pushed rows, and which; delta-rs, no JVM."""

import threading
import time
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from qanchor_plugin import schemas as S
from qanchor_plugin.errors import LakeError
from qanchor_plugin.extras import require
from qanchor_plugin.identity import text_id
from qanchor_plugin.prefix_store import pushed_table
from qanchor_plugin.sequence.pushed import PushedEvent

_lock = threading.Lock()
_shared: dict[str, "PushedEvents"] = {}


@dataclass(frozen=True)
class PushedMark:
    """What has been pushed of one user and can be seen by now: equal marks mean the same events.

    Attributes:
        num_rows: how many rows.
        newest: the greatest row name; names sort by time.
        first_seen, last_seen: from when on a reader sees the first and the last of them, microseconds.
    """

    num_rows: int
    newest: str
    first_seen: int
    last_seen: int


class PushedEvents:
    """The pushed events of a lake, as this process last saw them.

    Args:
        lake: folder of the lake.

    Attributes:
        num_removals: how often rows were seen to have gone; whoever holds sequences reads them anew then.
    """

    def __init__(self, lake: str) -> None:
        self._path = f"{lake}/{pushed_table.TABLE}"
        self._lock = threading.Lock()
        self._table: Any = None
        self._version = -1
        self._looked_at = -np.inf
        self._files: dict[str, list[PushedEvent]] = {}
        self._file_texts: dict[str, list[str]] = {}
        self._users: dict[bytes, list[PushedEvent]] = {}
        self._texts: dict[bytes, str] = {}
        self._rows: set[str] = set()
        self.num_removals = 0

    def of(
        self, users: Iterable[bytes], digests: Collection[str], *, max_age_seconds: float = 0.0
    ) -> dict[bytes, list[PushedEvent]]:
        """Of these users, the pushed rows of sequences ``digests``; users without one are absent.

        Args:
            max_age_seconds: how old the look at the table may be; 0 looks at its newest version.

        Raises:
            LakeError: the table is there and cannot be read.
        """
        held = self._look(max_age_seconds)
        if not held:
            return {}  # the usual case: not one key is serialised for it
        own = {user: [one for one in held.get(user, ()) if one.modality_digest in digests] for user in users}
        return {user: events for user, events in own.items() if events}

    def marks(
        self, users: Iterable[bytes], digests: Collection[str], *, now: int, max_age_seconds: float
    ) -> dict[bytes, PushedMark]:
        """The marks of those of the users that have rows to be seen at ``now`` (microseconds)."""
        found = {}
        for user, events in self.of(users, digests, max_age_seconds=max_age_seconds).items():
            seen = {one.row: max(one.event_at, one.known_at) for one in events}
            seen = {row: instant for row, instant in seen.items() if instant <= now}
            if seen:
                found[user] = PushedMark(len(seen), max(seen), min(seen.values()), max(seen.values()))
        return found

    def texts(self, ids: Iterable[bytes]) -> dict[bytes, str]:
        """The texts that pushed rows brought, of those of ``ids`` that are among them."""
        self._look(0.0)
        with self._lock:
            return {one: self._texts[one] for one in ids if one in self._texts}

    def append(self, rows: Sequence[Mapping[str, Any]]) -> str:
        """As :func:`~qanchor_plugin.prefix_store.pushed_table.append`; seen here at once."""
        push = pushed_table.append(self._path, rows)
        self._look(0.0)
        return push

    def _look(self, max_age_seconds: float) -> dict[bytes, list[PushedEvent]]:
        with self._lock:
            if time.monotonic() - self._looked_at >= max_age_seconds:
                self._read_newest()
                self._looked_at = time.monotonic()
            return self._users

    def _read_newest(self) -> None:
        deltalake = require("deltalake", purpose="Reading pushed events")
        try:
            if not deltalake.DeltaTable.is_deltatable(self._path):
                self._table, self._version = None, -1
                self._take([])
                return
            if self._table is None:
                self._table = deltalake.DeltaTable(self._path)
            else:
                self._table.update_incremental()
            if self._table.version() != self._version:
                self._take(self._table.file_uris())
                self._version = self._table.version()
        except (OSError, pa.ArrowException, deltalake.exceptions.DeltaError) as error:
            self._table, self._version = None, -1
            raise LakeError(
                f"pushed events {self._path} cannot be read ({type(error).__name__}: {error}). Try again; "
                "if it stays, see: qanchor status."
            ) from error

    def _take(self, paths: list[str]) -> None:
        """The rows of exactly these files are held; only new ones are read."""
        new = set(paths) - self._files.keys()
        gone = self._files.keys() - set(paths)
        for path in new:
            rows = pq.read_table(path, partitioning=None)
            self._files[path], self._file_texts[path] = list(_events(rows)), list(_texts(rows))
        if gone:
            self.num_removals += bool(self._rows_of(gone) - self._rows_of(new))
            for path in gone:
                del self._files[path], self._file_texts[path]
            self._users, self._texts, self._rows, new = {}, {}, set(), set(paths)
        for path in new:
            self._texts.update((text_id(text), text) for text in self._file_texts[path])
            for one in self._files[path]:
                if one.row not in self._rows:
                    self._users.setdefault(one.user, []).append(one)
                    self._rows.add(one.row)

    def _rows_of(self, paths: Iterable[str]) -> set[str]:
        return {one.row for path in paths for one in self._files[path]}


def shared_pushed(lake: str) -> PushedEvents:
    """The pushed events of that lake, one object a process: a push is seen at once wherever it is read."""
    with _lock:
        return _shared.setdefault(lake.rstrip("/"), PushedEvents(lake.rstrip("/")))


def _events(rows: pa.Table) -> Iterator[PushedEvent]:
    instants = [rows[name].cast(pa.int64()).to_pylist() for name in (S.PUSHED_AT, S.EVENT_AT, S.KNOWN_AT)]
    names = (S.MODALITY_DIGEST, S.USER, S.USER_KEY, S.BATCH, S.PUSHED_ROW, S.TEXT_ID, S.GROUPS, S.AMOUNTS)
    columns = [rows[name].to_pylist() for name in names]
    for digest, user, key, push, row, text, groups, amounts, pushed, event, known in zip(
        *columns, *instants, strict=True
    ):
        yield PushedEvent(
            modality_digest=digest,
            user=user,
            user_key=key,
            push=push,
            row=row,
            pushed_at=pushed,
            event_at=event,
            known_at=known,
            text_id=text,
            groups=groups,
            amounts=tuple(amounts),
        )


def _texts(rows: pa.Table) -> Iterator[str]:
    yield from rows[S.TEXT].to_pylist()
    for names in rows[S.GROUP_TEXTS].to_pylist():
        yield from (name for name in names if name is not None)
