"""Stored answers of users with pushed events: whether a row has seen them, and what is done where not.

A row proves nothing by its instants: a refresh may have made it after the push without knowing of it.
So a process trusts, for such users, the answers that it has computed itself since the push, by their
identity; each process computes once a user and push at most, and never serves a row as fresh that lacks one.
"""

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from qanchor_plugin import schemas as S
from qanchor_plugin.backend import Answer
from qanchor_plugin.declare.scenario import RECOMPUTE_BEHIND
from qanchor_plugin.errors import LakeError
from qanchor_plugin.feast_ext import online_rows as R
from qanchor_plugin.feast_ext.counters import LAKE_FAILURES
from qanchor_plugin.feast_ext.online_rows import AnchorRead, Verdict
from qanchor_plugin.prefix_store.pushed import PushedEvents, PushedMark

logger = logging.getLogger(__name__)

LOOK_SECONDS = 1.0
"""A push through another process is seen by a read at the latest after this long."""

MAX_REMEMBERED = 20_000
"""Answers to users with pushed events that a process holds (20 MB)."""

Judged = Sequence[tuple[Verdict, int | None]]
Recompute = Callable[[AnchorRead, list[int]], object]


class PushPolicy:
    """Overrules the judgement of stored rows by what has been pushed since.

    Args:
        pushed: the lake's pushed events.
        look_seconds: how old this process's view of them may be when a row is judged.
    """

    def __init__(self, pushed: PushedEvents, *, look_seconds: float = LOOK_SECONDS) -> None:
        self._pushed, self._look_seconds = pushed, look_seconds
        self._lock = threading.Lock()
        self._answers: OrderedDict[tuple[str, bytes], tuple[PushedMark, Answer]] = OrderedDict()
        self._behind: set[tuple[str, bytes]] = set()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="qanchor-recompute")

    def overruled(self, read: AnchorRead, judged: Judged, now: int) -> Judged:
        """The judgement again; fresh rows that lack a pushed event are ``STALE`` or ``BEHIND``, as the view
        says. Where this process has the new answer already, it stands in the row's place.

        Args:
            now: microseconds since 1970 UTC.
        """
        read.marks = self._marks(read, now)
        if not read.marks:
            return judged
        return [
            self._one(read, row, verdict, as_of) if verdict is Verdict.FRESH else (verdict, as_of)
            for row, (verdict, as_of) in enumerate(judged)
        ]

    def remember(self, read: AnchorRead, row: int, answer: Answer) -> None:
        """The answer has seen everything that was pushed of its user when the read began."""
        mark = read.marks.get(read.users[row])
        if mark is None or answer.cutoff < mark.last_seen:  # it joined a call that began before the push
            return
        with self._lock:
            key = read.anchor.scenario_id, read.users[row]
            self._answers[key] = mark, answer
            self._answers.move_to_end(key)
            while len(self._answers) > MAX_REMEMBERED:
                self._answers.popitem(last=False)

    def behind(self, read: AnchorRead, rows: Iterable[int], recompute: Recompute) -> None:
        """``recompute`` is called with these rows in a thread of its own, once each while it runs."""
        with self._lock:
            new = [row for row in rows if self._key(read, row) not in self._behind]
            self._behind.update(self._key(read, row) for row in new)
        if new:
            apart = replace(read, rows=list(read.rows))  # the read goes on to be answered meanwhile
            self._threads.submit(self._recomputed, apart, new, recompute)

    def close(self) -> None:
        """No recomputation runs on."""
        self._threads.shutdown(wait=True, cancel_futures=True)

    def _recomputed(self, read: AnchorRead, rows: list[int], recompute: Recompute) -> None:
        try:
            recompute(read, rows)
        except Exception:  # nobody waits for this thread: the next read tries again
            logger.exception("%d answers are not recomputed behind a push", len(rows))
        finally:
            with self._lock:
                self._behind.difference_update(self._key(read, row) for row in rows)

    def _key(self, read: AnchorRead, row: int) -> tuple[str, bytes]:
        return read.anchor.scenario_id, read.users[row]

    def _marks(self, read: AnchorRead, now: int) -> dict[bytes, PushedMark]:
        digests = read.anchor.sequence_digests
        try:
            return self._pushed.marks(read.users, digests, now=now, max_age_seconds=self._look_seconds)
        except LakeError as error:
            LAKE_FAILURES.inc()
            logger.warning("pushed events cannot be looked at, stored rows stand as they are: %s", error)
            return {}

    def _one(
        self, read: AnchorRead, row: int, verdict: Verdict, as_of: int | None
    ) -> tuple[Verdict, int | None]:
        mark = read.marks.get(read.users[row])
        if mark is None:
            return verdict, as_of
        with self._lock:
            known = self._answers.get(self._key(read, row))
        if known is not None and known[0] == mark:
            answer = known[1]
            features = read.rows[row][1] or {}
            if features[S.EMBEDDING_ID].string_val != answer.embedding_id:
                read.rows[row] = R.instant_of(answer.cutoff), R.answer_features(answer, R.STORED)
                return verdict, answer.cutoff
            return verdict, as_of
        behind = read.anchor.scenario.on_push == RECOMPUTE_BEHIND
        seen_to = None if as_of is None else min(as_of, mark.first_seen - 1)
        return (Verdict.BEHIND if behind else Verdict.STALE), seen_to
