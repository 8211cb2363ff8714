"""Computed answers are written back in the background: soon to the online store, later to the lake.

What is guaranteed: an answer is written at most once to each. It reaches the online store within about
``ONLINE_SECONDS`` and the table ``scenario_embeddings`` within about ``HISTORY_SECONDS``, both at the
latest when the process ends in an orderly way. A process that is killed, or a buffer that is full, loses
what was not yet written: the next read of such a user computes again, and ``as_served`` history lacks
that one answer. Every loss but a kill is counted.
"""

import atexit
import json
import logging
import threading
import time
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
from feast import FeatureView
from feast.protos.feast.types.EntityKey_pb2 import EntityKey

from qanchor_plugin import schemas as S
from qanchor_plugin.backend import Answer, LakeReader
from qanchor_plugin.errors import LakeError, OnlineStoreError
from qanchor_plugin.feast_ext import online_rows as R
from qanchor_plugin.feast_ext.counters import WRITE_BACK
from qanchor_plugin.feast_ext.online_rows import Anchor, AnchorRead
from qanchor_plugin.feast_ext.online_write import OnlineWriter

logger = logging.getLogger(__name__)

ONLINE_SECONDS = 0.5
HISTORY_SECONDS = 30.0
MAX_BUFFERED = 20_000
MAX_SHARED = 4_096
"""Answers that are remembered as given, for the requests that shared their computation."""
ONLINE_BATCH = "online"
"""The batch name of history rows that no refresh made."""


@dataclass(frozen=True, kw_only=True)
class Kept:
    """One computed answer on its way to the stores."""

    view: FeatureView
    anchor: Anchor
    key: EntityKey
    user: bytes
    answer: Answer
    computed_at: datetime
    served_at: datetime


class WriteBack:
    """A bounded buffer of computed answers and the thread that empties it.

    Args:
        writer: makes the online writer, once, in the background thread's own connection.
        reader: the lake, for the users' partitions and the history table.
        now: the settings' clock, for ``served_at``.
    """

    def __init__(
        self,
        writer: Callable[[], OnlineWriter],
        reader: LakeReader,
        now: Callable[[], datetime],
        *,
        online_seconds: float = ONLINE_SECONDS,
        history_seconds: float = HISTORY_SECONDS,
    ) -> None:
        self._make_writer, self._reader, self._now = writer, reader, now
        self._online_seconds, self._history_seconds = online_seconds, history_seconds
        self._writer: OnlineWriter | None = None
        self._lock = threading.Lock()
        self._flushing = threading.Lock()
        self._online: list[Kept] = []
        self._history: list[Kept] = []
        self._given: OrderedDict[tuple[int, str], Answer] = OrderedDict()
        self._history_at = time.monotonic()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def keep(self, read: AnchorRead, answers: Sequence[tuple[int, Answer]]) -> None:
        """The answers are buffered, or dropped and counted when the buffer is full."""
        wall, served_at = datetime.now(UTC), self._now()
        kept = [
            Kept(
                view=read.view,
                anchor=read.anchor,
                key=read.keys[row],
                user=read.users[row],
                answer=answer,
                computed_at=wall,
                served_at=served_at,
            )
            for row, answer in answers
        ]
        with self._lock:
            kept = [one for one in kept if self._is_new(one)]
            for name, buffer in (("online", self._online), ("history", self._history)):
                room = max(0, MAX_BUFFERED - len(buffer))
                buffer.extend(kept[:room])
                WRITE_BACK.labels(name, "dropped").inc(len(kept[room:]))
            if self._thread is None and not self._stop.is_set():
                self._start()

    def _is_new(self, one: Kept) -> bool:
        """Whether this very answer was not given here before: requests that waited for one call share it."""
        key = (id(one.answer), one.anchor.scenario.name)
        is_new = key not in self._given
        self._given[key] = one.answer  # held, so that no other answer has its id
        while len(self._given) > MAX_SHARED:
            self._given.popitem(last=False)
        return is_new

    def flush(self) -> None:
        """Everything buffered so far has been written or counted as failed."""
        with self._flushing:
            self._flush_online()
            self._flush_history()

    def close(self) -> None:
        """The buffer is empty and the thread has ended; nothing is taken from then on."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=10)
        self.flush()
        atexit.unregister(self.close)

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._run, name="qanchor-write-back", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def _run(self) -> None:
        while not self._stop.wait(self._online_seconds):
            with self._flushing:
                self._flush_online()
                if time.monotonic() - self._history_at >= self._history_seconds:
                    self._flush_history()

    def _flush_online(self) -> None:
        with self._lock:
            taken, self._online = self._online, []
        by_view: dict[int, list[Kept]] = defaultdict(list)
        for one in taken:
            by_view[id(one.view)].append(one)
        for group in by_view.values():
            try:
                if self._writer is None:
                    self._writer = self._make_writer()
                written = self._writer.write(group[0].view, [_online_row(one) for one in group])
            except OnlineStoreError as error:
                WRITE_BACK.labels("online", "failed").inc(len(group))
                logger.warning("%d computed answers are not written back: %s", len(group), error)
            else:
                WRITE_BACK.labels("online", "written").inc(written)

    def _flush_history(self) -> None:
        with self._lock:
            taken, self._history = self._history, []
        self._history_at = time.monotonic()
        if not taken:
            return
        try:
            buckets = self._reader.buckets(list({one.user for one in taken}))
            rows = [_history_row(one, buckets.get(one.user, 0)) for one in taken]
            table = pa.Table.from_pylist(rows, schema=S.SCENARIO_EMBEDDINGS)
            self._reader.tables.append("scenario_embeddings", table)
        except LakeError as error:
            WRITE_BACK.labels("history", "failed").inc(len(taken))
            logger.warning("%d computed answers are missing in the history: %s", len(taken), error)
        else:
            WRITE_BACK.labels("history", "written").inc(len(taken))


def _online_row(one: Kept) -> R.WriteRow:
    return one.key, R.answer_features(one.answer, R.STORED), one.computed_at, None


def _history_row(one: Kept, bucket: int) -> dict[str, Any]:
    answer = one.answer
    return {
        S.SCENARIO: one.anchor.scenario.name,
        S.SCENARIO_ID: one.anchor.scenario_id,
        S.USER: one.user,
        S.USER_KEY: readable_key(one),
        S.USER_BUCKET: bucket,
        S.BATCH: ONLINE_BATCH,
        S.CUTOFF: answer.cutoff,
        S.EMBEDDING_ID: answer.embedding_id,
        S.EMBEDDING: answer.embedding.tolist(),
        S.AS_OF: answer.as_of,
        S.NUM_EVENTS: answer.num_events,
        S.SERVED_AT: one.served_at,
    }


def readable_key(one: Kept) -> str:
    """The entity key as the jobs write it: ``{"household_id": 7}``, in the profile's order."""
    values = dict(zip(one.key.join_keys, one.key.entity_values, strict=True))
    named = {}
    for name in one.anchor.profile.join_keys:
        value = getattr(values[name], values[name].WhichOneof("val"))
        named[name] = value.hex() if isinstance(value, bytes) else value
    return json.dumps(named, ensure_ascii=False)
